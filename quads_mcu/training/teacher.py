"""The teacher: a Whisper encoder with an intent head, and its outputs, computed once.

The encoder runs on windows of the utterance's length instead of 30 s. It stays frozen, or is
trained on the task first. Its outputs for the unaugmented clips are cached on disk under a hash of
everything they depend on.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from quads_mcu.config import Config
from quads_mcu.console import Progress
from quads_mcu.errors import TrainingError
from quads_mcu.model import dimensions, whisper, whisper_files
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Head, Student
from quads_mcu.paths import cache_dir
from quads_mcu.slots import NO_ANSWER, sizes
from quads_mcu.training import accelerator, checkpoint, losses
from quads_mcu.training.data import AugmentedBatches, Corpus, clean_features, digest
from quads_mcu.training.problem import Mel, TeacherOutputs, real_mel

# Part of the cache's key: raised when what is kept changes.
_VERSION = 3
_HEAD_RATE = 3e-3
_HEAD_BATCH = 64
# Of fine-tuning: the head's rate against the encoder's.
_HEAD_FACTOR = 10.0
# Most values, of half precision, that are held to train a head with attention pools.
_HEAD_VALUES = 1 << 29
_WEIGHT_DECAY = 0.01
_BATCH = 16


def outputs(
    config: Config, corpus: Corpus, student: Dimensions, fingerprint: str, progress: Progress
) -> TeacherOutputs:
    """Return what the teacher says about the training clips, from the cache where possible.

    Args:
        student: its sizes; the teacher has its window and its pools.
        fingerprint: of the corpus.
    Raises:
        TrainingError: the weights cannot be used, or what they give is not finite.
    """
    where = config.teacher.weights
    found = whisper.read_encoder(whisper_files.locate(where, config.resolve(where)))
    dims = replace(
        found.dimensions(student.n_frames, sum(sizes(corpus.slots))), pools=student.pools
    )
    weights = digest(*(part for item in sorted(found.tensors.items()) for part in item))
    settings = asdict(config.teacher) | {"weights": weights}
    if config.teacher.fine_tune_epochs:
        settings |= asdict(config.augment) | {"batch_size": config.train.batch_size}
        settings |= {"synth_ratio": config.train.synth_ratio, "share": config.data.unknown_share}
    if config.teacher.projection == "pooling":
        settings |= {"width": dimensions.preset(config.student.preset).d_model}
    key = digest(_VERSION, fingerprint, dims, sorted(settings.items()), config.project.seed)
    cached = cache_dir() / "teacher" / f"{key[:32]}.safetensors"
    unfinished = cached.with_name(f"{key[:32]}-unfinished.safetensors")
    if cached.exists():
        return _read(cached)
    teacher = _whisper_student(found, dims, config.project.seed)
    teacher.to(accelerator.choose(config.train.device))
    computed = _compute(teacher, config, corpus, unfinished, progress)
    # What is cached is not computed again.
    if not (np.isfinite(computed.features).all() and np.isfinite(computed.logits).all()):
        raise TrainingError(
            f"the teacher's outputs are not finite ([teacher] weights = {where}); choose other "
            "weights and train with --restart"
        )
    _write(cached, computed)
    unfinished.unlink(missing_ok=True)
    return computed


def encoder(config: Config, taught: TeacherOutputs) -> whisper.WhisperEncoder:
    """Return the teacher's encoder as it is after fine-tuning, or as its file has it."""
    where = config.teacher.weights
    found = whisper.read_encoder(whisper_files.locate(where, config.resolve(where)))
    return found if taught.tuned is None else replace(found, tensors=taught.tuned)


def tokens(
    encoder: whisper.WhisperEncoder, n_frames: int, device: str
) -> Callable[[Tensor], Tensor]:
    """Return the frozen encoder as a function of features, (N, n_frames, n_mels).

    Args:
        device: [train] device.
    """
    found = _whisper_student(encoder, encoder.dimensions(n_frames, n_classes=2), seed=0).encoder
    found.requires_grad_(False).eval().to(accelerator.choose(device))

    def run(mel: Tensor) -> Tensor:
        with torch.no_grad(), accelerator.mixed_precision(mel.device):
            states: Tensor = found(mel)
            return states.float()

    return run


def _whisper_student(encoder: whisper.WhisperEncoder, dims: Dimensions, seed: int) -> Student:
    torch.manual_seed(seed)
    teacher = Student(dims)
    state = {name: torch.from_numpy(value) for name, value in encoder.state(dims.n_tokens).items()}
    teacher.encoder.load_state_dict(state)
    return teacher


def _compute(
    teacher: Student, config: Config, corpus: Corpus, unfinished: Path, progress: Progress
) -> TeacherOutputs:
    dims, train, valid = teacher.dims, corpus.train, corpus.valid
    mel = clean_features(train.pcm, dims.n_mels, dims.n_frames, progress)
    valid_mel = clean_features(valid.pcm, dims.n_mels, dims.n_frames, progress)
    settings = config.teacher
    slots = sizes(corpus.slots)
    if not unfinished.exists():
        fit_head(
            teacher, mel, train.answers, slots, settings.head_epochs, config.project.seed, progress
        )
    if settings.fine_tune_epochs:
        batches = AugmentedBatches(
            train, config, corpus.noises, dims.n_mels, dims.n_frames, config.project.seed
        )
        _fine_tune(teacher, batches, train.answers, slots, config, unfinished, progress)
    _, valid_logits = _outputs(teacher, valid_mel, progress)
    accuracy = losses.exact_match(valid_logits, torch.from_numpy(valid.answers), slots)
    width = dimensions.preset(config.student.preset).d_model
    narrowed = (lambda x: dilated_pooling(x, width)) if settings.projection == "pooling" else None
    features, logits = _outputs(teacher, mel, progress, narrowed)
    state = {name: tensor.cpu().numpy() for name, tensor in teacher.state_dict().items()}
    tuned = checkpoint.part(state, "encoder.") if settings.fine_tune_epochs else None
    head = {name: value for name, value in state.items() if name.startswith("head.")}
    return TeacherOutputs(features.numpy(), logits.numpy(), accuracy, head, tuned)


def dilated_pooling(tokens: Tensor, width: int) -> Tensor:
    """Narrow features as the paper's authors do: a dilated max-pool over the feature axis.

    Kernel 3, stride 2, and the dilation that gives `width` (1280 to 512: their 128).

    Args:
        tokens: float32 (..., d_model).
    Returns:
        float32 (..., width).
    Raises:
        TrainingError: `width` is half the features or more, and not all.
    """
    d_model = tokens.shape[-1]
    if d_model == width:
        return tokens
    dilation = (d_model + 1 - 2 * width) // 2
    if dilation < 1:
        raise TrainingError(
            f'[teacher] projection = "pooling" more than halves: {d_model} features do not become '
            f'{width}; use "linear"'
        )
    pooled = F.max_pool1d(tokens.flatten(0, -2), kernel_size=3, stride=2, dilation=dilation)
    return pooled.view(*tokens.shape[:-1], width)


def fit_head(
    student: Student,
    mel: Mel,
    answers: NDArray[np.int64],
    slots: list[int],
    epochs: int,
    seed: int,
    progress: Progress,
) -> None:
    """Train the head on what the encoder, as it is, gives for unvaried clips.

    Args:
        mel: int8 (N, n_frames, n_mels). answers: int64 (N, n_slots); unlabelled clips are left out.
            For attention pools as many clips are taken as _HEAD_VALUES allows.
    """
    dims = student.dims
    rows = np.flatnonzero(answers[:, 0] != NO_ANSWER)
    if dims.pools:
        most = _HEAD_VALUES // (dims.n_tokens * dims.d_model)
        rows = np.sort(np.random.default_rng(seed).permutation(rows)[:most])
        seen = _tokens(student, mel[rows], progress)
    else:
        seen = _outputs(student, mel[rows], progress)[0].clone()[:, None]
    train_head(student.head, seen, answers[rows], slots, epochs, seed, progress)


def _batches(teacher: Student, mel: Mel, progress: Progress) -> Iterator[Tensor]:
    """Yield the encoder's tokens, float32 (batch, n_tokens, d_model)."""
    device = teacher.encoder.positions.device
    for at in range(0, len(mel), _BATCH):
        with accelerator.mixed_precision(device):
            tokens = teacher.encoder(real_mel(mel[at : at + _BATCH]).to(device))
        yield tokens.float()
        progress("teacher features", min(at + _BATCH, len(mel)), len(mel))


@torch.no_grad()
def _tokens(teacher: Student, mel: Mel, progress: Progress) -> Tensor:
    """Return all tokens, float16 (N, n_tokens, d_model)."""
    dims = teacher.dims
    found = torch.empty(len(mel), dims.n_tokens, dims.d_model, dtype=torch.float16)
    for at, tokens in enumerate(_batches(teacher, mel, progress)):
        found[at * _BATCH : (at + 1) * _BATCH] = tokens.cpu()
    return found


@torch.inference_mode()
def _outputs(
    teacher: Student,
    mel: Mel,
    progress: Progress,
    narrowed: Callable[[Tensor], Tensor] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return features, narrowed and averaged over time, (N, width), and logits, (N, n_classes)."""
    features, logits = [], []
    for tokens in _batches(teacher, mel, progress):
        logits.append(teacher.head(tokens).cpu())
        features.append((narrowed(tokens) if narrowed else tokens).mean(dim=1).cpu())
    return torch.cat(features), torch.cat(logits)


def train_head(
    head: Head,
    tokens: Tensor,
    answers: NDArray[np.int64],
    slots: list[int],
    epochs: int,
    seed: int,
    progress: Progress,
) -> None:
    """Train a head on fixed tokens, (N, n_tokens, d_model), with answers int64 (N, n_slots).

    The tokens are normalized in place; the head that stays takes them as they were.
    """
    targets = torch.from_numpy(answers)
    mean, deviation = _spread(tokens)
    for part in torch.split(tokens, _HEAD_BATCH):
        part.sub_(mean).div_(deviation)
    for parameter in head.parameters():
        torch.nn.init.zeros_(parameter)
    normal = copy.deepcopy(head).cpu()
    optimizer = torch.optim.AdamW(normal.parameters(), lr=_HEAD_RATE, weight_decay=_WEIGHT_DECAY)
    rng = np.random.default_rng(seed)
    for epoch in range(epochs):
        for rows in np.array_split(rng.permutation(len(answers)), -(-len(answers) // _HEAD_BATCH)):
            loss = losses.cross_entropy(normal(tokens[rows].float()), targets[rows], slots)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        progress("training the teacher's head", epoch + 1, epochs)
    with torch.no_grad():
        weight = normal.weight / deviation
        head.weight.copy_(weight)
        head.bias.copy_(normal.bias - weight @ mean)
        if head.pools:
            head.query.copy_(normal.query / deviation)


def _spread(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of every feature, (d_model,)."""
    count = tokens.shape[0] * tokens.shape[1]
    total = torch.zeros(tokens.shape[2], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for part in torch.split(tokens, _HEAD_BATCH):
        values = part.flatten(0, 1).double()
        total, squares = total + values.sum(0), squares + values.square().sum(0)
    mean = total / count
    variance = (squares / count - mean.square()).clamp_min(0) * count / max(1, count - 1)
    return mean.float(), variance.sqrt().float().clamp_min(1e-4)


def _fine_tune(
    teacher: Student,
    batches: AugmentedBatches,
    answers: NDArray[np.int64],
    slots: list[int],
    config: Config,
    unfinished: Path,
    progress: Progress,
) -> None:
    """Train encoder and head; every epoch is kept in `unfinished`, from where it goes on."""
    rate, epochs = config.teacher.fine_tune_lr, config.teacher.fine_tune_epochs
    device = teacher.encoder.positions.device
    groups = [
        {"params": list(teacher.encoder.parameters()), "peak": rate},
        {"params": list(teacher.head.parameters()), "peak": _HEAD_FACTOR * rate},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=_WEIGHT_DECAY)
    total = epochs * len(batches)
    begun = 0
    if unfinished.exists():
        tensors, scalars = checkpoint.read(unfinished)
        try:
            teacher.load_state_dict(checkpoint.part(tensors, "teacher."))
            checkpoint.restore_optimizer(optimizer, checkpoint.part(tensors, "optimizer."))
            begun = int(scalars["epochs"])
        except (KeyError, TypeError, ValueError, RuntimeError):
            raise TrainingError(f"{unfinished}: damaged; delete it and train again") from None
    step = begun * len(batches)
    for epoch in range(begun, epochs):
        # Negative numbers would not seed a generator: count on from far above the student's.
        for batch in batches((1 << 20) + epoch, False, whole=True):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * _triangle(step / total)
            with accelerator.mixed_precision(device):
                logits = teacher(real_mel(batch.mel).to(device))[1]
            truth = torch.from_numpy(answers[batch.rows])
            loss = losses.cross_entropy(logits.cpu(), truth, slots)
            if not torch.isfinite(loss):
                raise _diverged(f"loss is {float(loss)} in epoch {epoch + 1}", rate, unfinished)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            norm = float(torch.nn.utils.clip_grad_norm_(teacher.parameters(), 1.0))
            if not math.isfinite(norm):
                raise _diverged(f"gradient is {norm} in epoch {epoch + 1}", rate, unfinished)
            optimizer.step()
            step += 1
            progress("fine-tuning the teacher", step, total)
        tensors = checkpoint.prefixed("teacher.", teacher.state_dict())
        tensors |= checkpoint.prefixed("optimizer.", checkpoint.optimizer_tensors(optimizer))
        checkpoint.write(unfinished, tensors, {"epochs": epoch + 1})


def _diverged(what: str, rate: float, unfinished: Path) -> TrainingError:
    """Return the error; what was kept would only lead there again, and goes."""
    unfinished.unlink(missing_ok=True)
    return TrainingError(
        f"the teacher's {what} of fine-tuning; lower [teacher] fine_tune_lr = {rate:g} and train "
        "with --restart"
    )


def _triangle(done: float) -> float:
    """Rise over the first tenth, then fall to zero."""
    return min(done * 10 + 0.01, (1 - done) / 0.9)


def _write(path: Path, computed: TeacherOutputs) -> None:
    tensors = {
        "features": torch.from_numpy(computed.features),
        "logits": torch.from_numpy(computed.logits),
    }
    kept = computed.head | {f"encoder.{name}": v for name, v in (computed.tuned or {}).items()}
    tensors |= {f"student.{name}": torch.from_numpy(value) for name, value in kept.items()}
    checkpoint.write(path, tensors, {"valid_accuracy": computed.valid_accuracy})


def _read(path: Path) -> TeacherOutputs:
    tensors, scalars = checkpoint.read(path)
    try:
        features, logits = tensors["features"].numpy(), tensors["logits"].numpy()
        state = {name: t.numpy() for name, t in checkpoint.part(tensors, "student.").items()}
        head = {name: state.pop(name) for name in list(state) if name.startswith("head.")}
        if not {"head.weight", "head.bias"} <= set(head):
            raise KeyError("head")
        tuned = checkpoint.part(state, "encoder.") or None
        return TeacherOutputs(features, logits, float(scalars["valid_accuracy"]), head, tuned)
    except (KeyError, TypeError, ValueError):
        raise TrainingError(f"{path}: damaged; delete it and train again") from None
