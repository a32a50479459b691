"""`quads-mcu train`: everything from quads.toml to a trained run folder."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from quads_mcu import atomic, slots
from quads_mcu.audio import utterances
from quads_mcu.config import Config
from quads_mcu.console import Progress
from quads_mcu.errors import ConfigError
from quads_mcu.model import dimensions, whisper_files
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Student
from quads_mcu.model.whisper import Weights, read_encoder
from quads_mcu.run_dir import RunDir
from quads_mcu.slots import Slot
from quads_mcu.training import (
    accelerator,
    checkpoint,
    data,
    evaluation,
    narrow,
    teacher,
    trainer,
)
from quads_mcu.training.problem import Problem, Split, TeacherOutputs


@dataclass(frozen=True)
class TrainResult:
    """Validation accuracies (0 .. 1) of a finished run, and its history.

    teacher: None without one. float_student: after the last distillation phase. quantized_student:
    the codebook student with integer activations that is packed. remarks: what is wrong with the
    data, lines of text.
    """

    run_dir: Path
    slots: tuple[Slot, ...]
    bits: int
    teacher: float | None
    float_student: float
    quantized_student: float
    history: list[dict[str, Any]]
    remarks: str = ""

    def rows(self) -> list[tuple[str, str]]:
        """Return one (model, accuracy) per model, as text."""
        found = [("float student", self.float_student)]
        found.append((f"{self.bits}-bit student, int8 activations", self.quantized_student))
        if self.teacher is not None:
            found.insert(0, ("teacher", self.teacher))
        return [(name, f"{100 * value:.1f} %") for name, value in found]


def train(config: Config, run: RunDir, progress: Progress, resume: bool = True) -> TrainResult:
    """Train a student with QUADS, or go on where an interrupted run stopped.

    Args:
        config: the project.
        run: receives checkpoint, students, history and settings.
        resume: False starts anew in the same folder.
    Raises:
        ConfigError: the run folder belongs to other settings or other data.
        StorageError: the run folder cannot be written to.
        TrainingError, AudioError, InstallationError: training cannot start or go on.
    """
    for path in _files(run):
        atomic.remove_leftovers(path)
    if not resume:
        _clear(run)
    run.write_config(config)
    torch.set_num_threads(config.train.threads or os.cpu_count() or 1)
    problem = load_problem(config, progress)
    loop = trainer.Trainer(
        problem, config.train, config.quantization, _student_seed(config), run.path
    )
    loop.run(progress)
    return TrainResult(
        run_dir=run.path,
        slots=problem.slots,
        bits=config.quantization.bits,
        teacher=problem.teacher.valid_accuracy if problem.teacher else None,
        float_student=loop.selections["float"].kept,
        quantized_student=loop.selections["quantized"].kept,
        history=loop.history,
        remarks="\n".join(text for text in (*problem.unvalidated(), problem.remarks) if text),
    )


def load_problem(config: Config, progress: Progress) -> Problem:
    """Load the data, run the teacher if there is one, and set up the student's start."""
    corpus = data.load(config, progress)
    sizes = slots.sizes(corpus.slots)
    dims = dimensions.dimensions(
        config.student.preset,
        n_mels=config.audio.n_mels,
        window_s=config.audio.window_s,
        n_classes=max(2, sum(sizes)),
    )
    if config.student.pooling == "attention" and sum(sizes) == dims.n_classes:
        dims = replace(dims, pools=tuple(sizes))
    batches = _batches(config, corpus, dims)

    def split(part: data.Utterances) -> Split:
        mel = data.clean_features(part.pcm, dims.n_mels, dims.n_frames, progress)
        return Split(mel, part.answers)

    # Checked before any work on the teacher.
    problem = Problem(
        dims,
        corpus.slots,
        split(corpus.train),
        split(corpus.valid),
        batches,
        len(batches),
        remarks=utterances.report(corpus.problems),
    )
    problem.check()
    return _with_whisper(config, problem, corpus, progress)


def _with_whisper(
    config: Config, problem: Problem, corpus: data.Corpus, progress: Progress
) -> Problem:
    fingerprint = corpus.fingerprint()
    taught: TeacherOutputs | None = None
    if config.teacher.weights:
        taught = teacher.outputs(config, corpus, problem.dims, fingerprint, progress)
        fingerprint = data.digest(fingerprint, taught.features, taught.logits)
    problem = replace(problem, teacher=taught)
    if config.train.token_share:
        problem = _with_tokens(config, problem, corpus)
    initial = _initial(config, problem, progress)
    if initial is not None:
        fingerprint = data.digest(fingerprint, *initial.values())
    return replace(problem, initial=initial, fingerprint=fingerprint)


def _batches(
    config: Config, corpus: data.Corpus, dims: Dimensions, heard_mels: int = 0
) -> data.AugmentedBatches:
    shape, seed = (dims.n_mels, dims.n_frames), _student_seed(config)
    return data.AugmentedBatches(corpus.train, config, corpus.noises, *shape, seed, heard_mels)


def _with_tokens(config: Config, problem: Problem, corpus: data.Corpus) -> Problem:
    """Let the teacher listen along, each token of it."""
    if problem.teacher is None or config.teacher.projection != "linear":
        raise ConfigError(
            '[train] token_share needs a teacher ([teacher] weights) with projection = "linear"'
        )
    encoder = teacher.encoder(config, problem.teacher)
    return replace(
        problem,
        batches=_batches(config, corpus, problem.dims, encoder.n_mels),
        teacher_tokens=teacher.tokens(encoder, problem.dims.n_frames, config.train.device),
    )


def _initial(config: Config, problem: Problem, progress: Progress) -> Weights | None:
    """Return the weights the student starts from, under the names of `Student`."""
    where, seed = config.student.init, config.project.seed
    if where == "random":
        return None
    if where != "teacher":
        encoder = read_encoder(whisper_files.locate(where, config.resolve(where)))
        return _start(
            config, problem, narrow.initial_state(encoder, where, problem, seed, progress), progress
        )
    if problem.teacher is None:
        raise ConfigError('[student] init = "teacher" needs a teacher: set [teacher] weights')
    encoder = teacher.encoder(config, problem.teacher)
    found = narrow.initial_state(encoder, where, problem, seed, progress)
    if encoder.preset.d_model == problem.dims.d_model:
        return _of_student(found) | problem.teacher.head
    return _start(config, problem, found, progress)


def _start(config: Config, problem: Problem, encoder: Weights, progress: Progress) -> Weights:
    """Return the weights of a student: the encoder's, and a head's.

    The head is trained on what the encoder gives for the training clips, and cached. A student that
    learns the teacher's every token needs none: the teacher's answers (`projection.fold`).
    """
    if config.train.token_share:
        return _of_student(encoder)
    epochs, seed = config.teacher.head_epochs, config.project.seed
    train = problem.train
    tensors = (part for item in sorted(encoder.items()) for part in item)
    key = data.digest(problem.dims, epochs, seed, train.mel, train.answers, *tensors)

    def trained() -> Weights:
        torch.manual_seed(seed)
        student = Student(problem.dims)
        student.encoder.load_state_dict(
            {name: torch.from_numpy(value) for name, value in encoder.items()}
        )
        student.to(accelerator.choose(config.train.device))
        teacher.fit_head(student, train.mel, train.answers, problem.sizes, epochs, seed, progress)
        head = student.head.state_dict()
        return {f"head.{name}": tensor.cpu().numpy() for name, tensor in head.items()}

    return _of_student(encoder) | checkpoint.cached("heads", key, trained)


def _of_student(encoder: Weights) -> Weights:
    return {f"encoder.{name}": value for name, value in encoder.items()}


def _student_seed(config: Config) -> int:
    return config.project.seed + config.train.seed


def _files(run: RunDir) -> list[Path]:
    """Return what training and its evaluation write into the run's folder."""
    names = (
        trainer.CHECKPOINT,
        evaluation.FLOAT_STUDENT,
        evaluation.QUANTIZED_STUDENT,
        trainer.HISTORY,
    )
    found = [run.path / name for name in names]
    found += [run.config_path, run.model_path, run.evaluation_path, run.training_report_path]
    return found


def _clear(run: RunDir) -> None:
    for path in _files(run):
        path.unlink(missing_ok=True)
    if (logs := run.path / trainer.TENSORBOARD).exists():
        shutil.rmtree(logs)
