"""The training loop: epochs of `schedule`, a checkpoint after each, two students kept."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from quads_mcu import slots
from quads_mcu.config import QuantizationSection, TrainSection
from quads_mcu.console import Progress
from quads_mcu.errors import ConfigError, TrainingError
from quads_mcu.model.encoder import Head, Student, identity
from quads_mcu.model_format import BITS
from quads_mcu.run_dir import write_json
from quads_mcu.training import (
    accelerator,
    activations,
    bits,
    checkpoint,
    losses,
    projection,
    reconstruction,
    tensorboard,
)
from quads_mcu.training.activations import Grids
from quads_mcu.training.ahead import ahead
from quads_mcu.training.average import Average
from quads_mcu.training.codebooks import Codebooks
from quads_mcu.training.evaluation import (
    FLOAT_STUDENT,
    QUANTIZED_STUDENT,
    measure,
    read_grids,
    read_student,
)
from quads_mcu.training.problem import Batch, Mel, Problem, real_mel
from quads_mcu.training.schedule import Epoch, rate_factor, schedule
from quads_mcu.training.selection import Selection

CHECKPOINT = "checkpoint.safetensors"
HISTORY = "history.json"
TENSORBOARD = "tensorboard"

# Raised when a checkpoint holds something else, or training goes on from it otherwise.
_VERSION = 1

_WEIGHT_DECAY = 0.01
_GRADIENT_NORM = 1.0
_MOMENTUM = 0.9
_CALIBRATION_CLIPS = 128
_HEARD_AHEAD = 2
# Of the teacher's and the float student's answers.
_TEMPERATURE = 2.0
# Final phase: share of the float student's answers against the labels, and what the error of the
# student's tokens against the float student's, relative to their power, counts besides.
_SELF_SHARE = 0.8
_TOKEN_WEIGHT = 10.0


class Trainer:
    """Trains one student in one folder; call `run` once.

    Args:
        problem: data, sizes, teacher.
        settings: [train].
        quantization: [quantization].
        seed: of the initial weights.
        folder: of checkpoint, students and history; training goes on from a checkpoint there.
    Raises:
        ConfigError: the checkpoint belongs to other data.
        TrainingError: the checkpoint is damaged, or the data cannot be learned from.
        StorageError: the folder cannot be written to.
    """

    def __init__(
        self,
        problem: Problem,
        settings: TrainSection,
        quantization: QuantizationSection,
        seed: int,
        folder: Path,
    ) -> None:
        problem.check()
        self.problem = problem
        self.settings = settings
        self.quantization = quantization
        self.bits = bits.uniform(problem.dims, quantization.bits)
        self.folder = folder
        self.epochs = schedule(settings)
        self.history: list[dict[str, Any]] = []
        n_valid = len(problem.valid.mel)
        self.selections = {name: Selection(n_valid) for name in ("float", "quantized")}
        self.device = accelerator.choose(settings.device)
        torch.manual_seed(seed)
        self.student = Student(problem.dims)
        if problem.initial is not None:
            state = {name: torch.from_numpy(value) for name, value in problem.initial.items()}
            self.student.load_state_dict(self.student.state_dict() | state)
        self.student.to(self.device)
        teacher_width = problem.teacher.features.shape[1] if problem.teacher else None
        self.projection = projection.projection(problem.dims.d_model, teacher_width)
        self.projection.to(self.device)
        self.teacher_head = self._teacher_head()
        self.codebooks: Codebooks | None = None
        self.grids: Grids | None = None
        self.float_student: Student | None = None
        self.average = Average(self.student, settings.average)
        self.optimizer = self._distillation_optimizer()
        self.quantization_optimizer: torch.optim.Optimizer | None = None
        if (folder / CHECKPOINT).exists():
            self._restore()
            return
        self._fit_projection()
        if not any(epoch.distills for epoch in self.epochs):
            self.selections["float"].keeps(self._measure(self.student))
            self._write_float()

    def run(self, progress: Progress) -> None:
        """Train the epochs that are missing.

        Raises:
            TrainingError: loss, gradient or weights are not finite; the last checkpoint stays.
            StorageError: the folder cannot be written to; the last checkpoint stays.
        """
        progress("training", len(self.history), len(self.epochs))
        log = tensorboard.Log(self.folder / TENSORBOARD)
        log.write(self.history)
        for epoch in self.epochs[len(self.history) :]:
            self._run_epoch(epoch, log, progress)
        if not self.settings.final_epochs and self.grids is None:
            self._begin_final(progress)
            self._keep_quantized()

    def _run_epoch(self, epoch: Epoch, log: tensorboard.Log, progress: Progress) -> None:
        started_s = time.monotonic()
        begun = self._enter(epoch, progress)
        loss = self._train(epoch, progress)
        entry: dict[str, Any] = {"epoch": epoch.number, "phase": epoch.phase, "cycle": epoch.cycle}
        entry |= {"loss": loss} | begun | self._validate(epoch)
        entry["duration_s"] = round(time.monotonic() - started_s, 2)
        self.history.append(entry)
        self._leave(epoch)
        self._save()
        log.write(self.history)
        progress("training", epoch.number + 1, len(self.epochs))

    def _teacher_head(self) -> Head | None:
        """Return what answers, behind P, for a student that learns the teacher's every token."""
        teacher = self.problem.teacher
        if teacher is None or self.problem.teacher_tokens is None:
            return None
        head = projection.teacher_head(teacher.head, teacher.features.shape[1], self.problem.dims)
        return head.to(self.device)

    def _fit_projection(self) -> None:
        """Fit P to a student that knows something, and fold the teacher's head."""
        wanted = self.teacher_head or any(epoch.distills for epoch in self.epochs)
        if wanted and self.problem.initial and isinstance(self.projection, nn.Linear):
            projection.fit(self.projection, self._feature_pairs())
        self._fold()

    @torch.no_grad()
    def _feature_pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the student's and the teacher's tokens, or pooled features, of one more epoch."""
        teacher = self.problem.teacher
        assert teacher is not None
        for batch in self.problem.batches(len(self.epochs), True):
            tokens = self.student.encoder(self._mel(batch.mel))
            if self.teacher_head is not None:
                yield tokens, self._heard(batch)
            else:
                yield tokens.mean(dim=1), self._tensor(teacher.features[batch.rows])

    def _heard(self, batch: Batch) -> Tensor:
        """Return the teacher's tokens."""
        assert self.problem.teacher_tokens is not None and batch.heard is not None
        return self.problem.teacher_tokens(self._mel(batch.heard))

    def _listened(self, batch: Batch) -> Batch:
        return batch._replace(tokens=self._heard(batch))

    def _fold(self) -> None:
        if self.teacher_head is not None:
            projection.fold(self.teacher_head, self.projection, self.student.head)

    def _distillation_optimizer(self) -> torch.optim.Optimizer:
        head = [] if self.teacher_head else [*self.student.head.parameters()]
        head += self.projection.parameters()
        groups = [
            {"params": list(self.student.encoder.parameters()), "peak": self.settings.lr_encoder},
            {"params": head, "peak": self.settings.lr_head},
        ]
        return torch.optim.AdamW(groups, weight_decay=_WEIGHT_DECAY)

    def _quantization_optimizer(self, codebooks: Codebooks) -> torch.optim.Optimizer:
        parameters = [*self.student.parameters(), *codebooks.centroids.values()]
        groups = [{"params": parameters, "peak": self.settings.lr_quant}]
        if self.quantization.train_scales:
            scales = [scale.requires_grad_() for scale in codebooks.scales.values()]
            groups.append({"params": scales, "peak": self.settings.lr_quant})
        if self.settings.quant_optimizer == "sgd":
            return torch.optim.SGD(groups, momentum=_MOMENTUM)
        return torch.optim.AdamW(groups, weight_decay=0.0)

    def _fit(self, widths: Mapping[str, int]) -> Codebooks:
        scales = self.quantization.channel_scales
        return Codebooks.fit(self.student, widths, channel_scales=scales)

    def _enter(self, epoch: Epoch, progress: Progress) -> dict[str, Any]:
        """Prepare an epoch; return what the history shall tell of that."""
        if epoch.distills:
            if epoch.first:
                self.average.restart(self.student)
        elif epoch.phase == "quantization" and epoch.first:
            self._begin_quantization()
        elif epoch.phase == "final":
            self._read_float_student()
            if epoch.first:
                return self._begin_final(progress)
        return {}

    def _read_float_student(self) -> Student:
        if self.float_student is None:
            found = read_student(self.folder / FLOAT_STUDENT)[0].requires_grad_(False)
            self.float_student = found.to(self.device)
        return self.float_student

    def _begin_quantization(self) -> None:
        self.codebooks = self._fit(self.bits)
        self.quantization_optimizer = self._quantization_optimizer(self.codebooks)

    def _begin_final(self, progress: Progress) -> dict[str, Any]:
        """Start from the float student: choose bits, fit codebooks, calibrate activations."""
        self.student.load_state_dict(self._read_float_student().state_dict())
        mel = self._mel(np.concatenate(list(self._varied_mel(0, _CALIBRATION_CLIPS))))
        self.bits = bits.choose(self.student, mel, self.quantization, progress)
        self._begin_quantization()
        found = self._reconstruct(progress)
        if self.codebooks and all(width in BITS for width in self.bits.values()):
            self.grids = self._calibrate(self.codebooks, mel)
        return {"reconstruction": found} if found else {}

    def _reconstruct(self, progress: Progress) -> dict[str, list[float]]:
        """Let the codebooks of every block learn alone first, where a final phase follows."""
        passes, codebooks = self.quantization.reconstruction_passes, self.codebooks
        wanted = passes and self.settings.final_epochs
        if not wanted or codebooks is None or not codebooks.centroids:
            return {}
        most = reconstruction.most_windows(self.problem.dims)
        windows = [self._mel(mel) for mel in self._varied_mel(1, most)]
        target = self._read_float_student()
        return reconstruction.run(self.student, codebooks, target, windows, passes, progress)

    def _leave(self, epoch: Epoch) -> None:
        if epoch.last and epoch.phase == "quantization" and self.codebooks is not None:
            self.codebooks.snap(self.student)
            self.codebooks = self.quantization_optimizer = None

    def _calibrate(self, codebooks: Codebooks, mel: Tensor) -> Grids:
        weights = codebooks.weights(self.student, int8=True)
        return activations.calibrate(
            lambda site: functional_call(self.student, weights, (mel, site)),
            codebooks.int8_scales(),
        )

    def _varied_mel(self, beyond: int, most: int) -> Iterator[Mel]:
        """Yield augmented windows of up to `most` utterances, of an epoch beyond the last."""
        left = most
        for batch in self.problem.batches(len(self.epochs) + beyond, False, whole=True):
            yield batch.mel[:left]
            left -= len(batch.mel)
            if left <= 0:
                return

    def _train(self, epoch: Epoch, progress: Progress) -> float:
        optimizer = self.optimizer if epoch.distills else self.quantization_optimizer
        assert optimizer is not None
        steps, every = self.problem.n_batches, self.settings.reassign_steps
        total = 0.0
        self.student.train()
        for step, batch in enumerate(self._batches(epoch)):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate_factor(epoch, step, steps)
            loss = self._loss(epoch, batch)
            value = float(loss.detach())
            where = f"batch {step + 1} of {steps}"
            if not math.isfinite(value):
                raise self._diverged(f"the loss is {value}", epoch, where)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            for group in optimizer.param_groups:
                norm = float(nn.utils.clip_grad_norm_(group["params"], _GRADIENT_NORM))
                if not math.isfinite(norm):
                    raise self._diverged(f"the gradient is {norm}", epoch, where)
            optimizer.step()
            if epoch.distills:
                self._fold()
                self.average.update(self.student)
            if self.codebooks is not None:
                self.codebooks.bound_scales(self.student)
                if every and (step + 1) % every == 0:
                    self.codebooks.reassign(self.student)
            total += value
            progress("training", epoch.number + (step + 1) / (steps + 1), len(self.epochs))
        if every and self.codebooks is not None:
            self.codebooks.reassign(self.student)
        # Before anything of this epoch is measured or kept.
        if not accelerator.finite(self._state().values()):
            raise self._diverged("a weight is not finite", epoch, "after its last batch")
        return total / steps

    def _batches(self, epoch: Epoch) -> Iterator[Batch]:
        """Yield the epoch's batches, with the teacher's tokens where it listens along.

        It listens ahead of the student, each with half of the threads, which takes an eighth less
        time than one after the other with all of them (benchmarks/distillation_step.py).
        """
        batches = self.problem.batches(epoch.number, epoch.distills)
        if not epoch.distills or self.teacher_head is None:
            yield from batches
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(max(1, threads // 2))
        try:
            yield from ahead(self._listened, batches, _HEARD_AHEAD)
        finally:
            torch.set_num_threads(threads)

    def _diverged(self, what: str, epoch: Epoch, where: str) -> TrainingError:
        names = ("lr_encoder", "lr_head") if epoch.distills else ("lr_quant",)
        rates = " and ".join(f"{name} = {getattr(self.settings, name):g}" for name in names)
        way_out = f"lower {rates} under [train] and train"
        if self.history:
            way_out = (
                f"the checkpoint of epoch {len(self.history)} is kept, but with these settings it "
                f"leads here again: {way_out} into another --run, or with --restart, which "
                "deletes that checkpoint"
            )
        else:
            way_out += " with --restart; there is no checkpoint yet"
        return TrainingError(
            f"{what} in epoch {epoch.number + 1} ({epoch.phase}), {where}; {way_out}"
        )

    def _loss(self, epoch: Epoch, batch: Batch) -> Tensor:
        rows, mel = batch.rows, self._mel(batch.mel)
        answers = self._tensor(self.problem.train.answers[rows])
        sizes = self.problem.sizes
        if epoch.distills:
            with accelerator.mixed_precision(self.device):
                tokens = self.student.encoder(mel)
            tokens = tokens.float()
            if self.teacher_head is None:
                features = self.projection(tokens.mean(dim=1))
                logits = self.student.head(tokens)
            else:
                features = self.projection(tokens)
                logits = self.teacher_head(features)
        else:
            with accelerator.mixed_precision(self.device):
                tokens, logits = self._quantized(mel)
        truth = losses.cross_entropy(logits, answers, sizes)
        if self.float_student is not None:
            with accelerator.mixed_precision(self.device):
                wanted, target = self.float_student(mel)
            own = losses.divergence(logits, target, sizes, _TEMPERATURE)
            error = losses.relative_error(tokens, wanted)
            return _TOKEN_WEIGHT * error + _SELF_SHARE * own + (1 - _SELF_SHARE) * truth
        teacher = self.problem.teacher
        if teacher is None or not epoch.distills:
            return truth
        if share := self.settings.logit_share:
            target = self._tensor(teacher.logits[rows])
            told = losses.divergence(logits, target, sizes, _TEMPERATURE)
            truth = share * told + (1 - share) * truth
        # Eq. 1 as the mean over features, so that alpha means the same at every width.
        pooled = self._tensor(teacher.features[rows])
        if self.teacher_head is not None:
            assert batch.tokens is not None
            share = self.settings.token_share
            distance = share * F.l1_loss(features, batch.tokens)
            distance = distance + (1 - share) * F.l1_loss(features.mean(dim=1), pooled)
        else:
            distance = F.l1_loss(features, pooled)
        return self.settings.alpha * distance + (1 - self.settings.alpha) * truth

    def _quantized(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens and logits."""
        assert self.codebooks is not None
        site = identity if self.grids is None else activations.fake_quantize(self.grids)
        weights = self.codebooks.weights(self.student, int8=self.grids is not None)
        return functional_call(self.student, weights, (mel, site))  # type: ignore[no-any-return]

    @torch.no_grad()
    def _validate(self, epoch: Epoch) -> dict[str, Any]:
        """Measure the student in float and quantized; keep it where epoch and accuracy say so."""
        with self.average.shown(self.student if epoch.distills else None):
            self.student.eval()
            floating = self._measure(self.student)
            held = self.codebooks
            if held is None:
                self.codebooks = self._fit(self.bits)
            quantized = self._measure(self._quantized)
            found: dict[str, Any] = {"valid_float": floating, "valid_quantized": quantized}
            if epoch.distills and epoch.last:
                found["valid_by_bits"] = self._measure_by_bits()
            if epoch.chosen and epoch.distills and self.selections["float"].keeps(floating):
                self._write_float()
        if epoch.phase == "final" and self.selections["quantized"].keeps(quantized):
            self._write_quantized()
        self.codebooks = held
        return found

    def _measure_by_bits(self) -> dict[str, float]:
        """Return the accuracy with fitted codebooks, by bits (text, as JSON has it)."""
        found = {}
        for width in BITS:
            self.codebooks = self._fit(bits.uniform(self.problem.dims, width))
            found[str(width)] = self._measure(self._quantized)
        return found

    @torch.no_grad()
    def _keep_quantized(self) -> None:
        self.student.eval()
        self.selections["quantized"].keeps(self._measure(self._quantized))
        self._write_quantized()

    def _measure(self, model: Any) -> float:
        split, sizes = self.problem.valid, self.problem.sizes
        return measure(lambda mel: model(mel.to(self.device))[1].cpu(), split, sizes)

    def _mel(self, mel: Mel) -> Tensor:
        return real_mel(mel).to(self.device)

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        return torch.from_numpy(values).to(self.device)

    def _scalars(self) -> dict[str, Any]:
        return {"dims": asdict(self.problem.dims), "slots": slots.to_json(self.problem.slots)}

    def _write_float(self) -> None:
        checkpoint.write(self.folder / FLOAT_STUDENT, self.student.state_dict(), self._scalars())

    def _write_quantized(self) -> None:
        assert self.codebooks is not None
        matrices = {name + ".weight" for name in self.codebooks.centroids}
        weights = self.codebooks.weights(self.student, int8=False)
        state = self.student.state_dict() | {n: w.detach() for n, w in weights.items()}
        kept = {n: t for n, t in state.items() if n.removeprefix("encoder.") not in matrices}
        scalars = self._scalars() | {"bits": self.bits, "grids": _plain(self.grids or {})}
        scalars["provenance"] = {
            "data": self.problem.fingerprint,
            "epoch": str(len(self.history) + 1),
            "valid_accuracy": f"{self.selections['quantized'].kept:.4f}",
        }
        state = checkpoint.prefixed("student.", kept)
        state |= checkpoint.prefixed("codebook.", self.codebooks.state())
        checkpoint.write(self.folder / QUANTIZED_STUDENT, state, scalars)

    def _state(self) -> dict[str, Tensor]:
        """Return everything that training goes on from."""
        tensors = checkpoint.prefixed("student.", self.student.state_dict())
        tensors |= checkpoint.prefixed("projection.", self.projection.state_dict())
        tensors |= checkpoint.prefixed("average.", self.average.state)
        moments = checkpoint.optimizer_tensors(self.optimizer)
        tensors |= checkpoint.prefixed("distillation.", moments)
        if self.codebooks is not None and self.quantization_optimizer is not None:
            moments = checkpoint.optimizer_tensors(self.quantization_optimizer)
            tensors |= checkpoint.prefixed("quantization.", moments)
            tensors |= checkpoint.prefixed("codebook.", self.codebooks.state())
        return tensors

    def _save(self) -> None:
        scalars = self._scalars() | {
            "version": _VERSION,
            "fingerprint": self.problem.fingerprint,
            "settings": asdict(self.settings) | asdict(self.quantization),
            "bits": self.bits,
            "history": self.history,
            "selections": {name: asdict(found) for name, found in self.selections.items()},
            "grids": _plain(self.grids or {}),
        }
        checkpoint.write(self.folder / CHECKPOINT, self._state(), scalars)
        write_json(self.folder / HISTORY, self.history)

    def _restore(self) -> None:
        path = self.folder / CHECKPOINT
        tensors, scalars = checkpoint.read(path)
        self._check_same(path, scalars)
        self.history = scalars["history"]
        found = scalars["selections"]
        self.selections = {name: Selection(**values) for name, values in found.items()}
        self.bits = scalars["bits"]
        self.student.load_state_dict(checkpoint.part(tensors, "student."))
        self.projection.load_state_dict(checkpoint.part(tensors, "projection."))
        averages = checkpoint.part(tensors, "average.")
        self.average.state = {name: mean.to(self.device) for name, mean in averages.items()}
        moments = checkpoint.part(tensors, "distillation.")
        checkpoint.restore_optimizer(self.optimizer, moments)
        if any(name.startswith("quantization.") for name in tensors):
            state = checkpoint.part(tensors, "codebook.")
            self.codebooks = Codebooks.from_state(state, self.bits, self.device)
            self.quantization_optimizer = self._quantization_optimizer(self.codebooks)
            moments = checkpoint.part(tensors, "quantization.")
            checkpoint.restore_optimizer(self.quantization_optimizer, moments)
        if scalars["grids"]:
            self.grids = read_grids(scalars["grids"])
        # A process killed after its checkpoint left a history without the last epoch.
        write_json(self.folder / HISTORY, self.history)

    def _check_same(self, path: Path, found: dict[str, Any]) -> None:
        way_out = "choose another --run or train with --restart"
        if found.get("version") != _VERSION:
            raise ConfigError(f"{path} was made by another version of quads-mcu; {way_out}")
        settings = asdict(self.settings) | asdict(self.quantization)
        stored = found.get("settings", {})
        compared = settings.keys() - {"threads", "device"}
        # A setting that came after the checkpoint is as if never set.
        stored = asdict(TrainSection()) | asdict(QuantizationSection()) | stored
        differing = [name for name in sorted(compared) if stored.get(name) != settings[name]]
        if differing:
            names = ", ".join(differing)
            raise ConfigError(f"{path} was made with other settings ({names}); {way_out}")
        if found.get("fingerprint") != self.problem.fingerprint:
            raise ConfigError(f"{path} was made with other data or another teacher; {way_out}")


def _plain(grids: Grids) -> dict[str, Any]:
    return {name: asdict(grid) for name, grid in grids.items()}
