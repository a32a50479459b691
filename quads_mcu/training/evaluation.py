"""The students a run keeps: reading them, their logits, their accuracy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from quads_mcu import slots
from quads_mcu.errors import TrainingError
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Student, identity
from quads_mcu.slots import Slot
from quads_mcu.training import activations, checkpoint, losses
from quads_mcu.training.activations import Grid
from quads_mcu.training.codebooks import Codebooks, parameter_name
from quads_mcu.training.problem import Mel, Split, real_mel

FLOAT_STUDENT = "student_float.safetensors"
QUANTIZED_STUDENT = "student_quantized.safetensors"

_BATCH = 32


def float_logits(run_dir: Path, mel: Mel) -> NDArray[np.float32]:
    """Return float32 (N, n_classes) of a run's float student.

    Args:
        mel: int8 device features (N, n_frames, n_mels).
    Raises:
        TrainingError: the run has no readable float student.
    """
    student, _ = read_student(run_dir / FLOAT_STUDENT)
    return logits_of(lambda real: student(real)[1], mel)


def quantized_logits(run_dir: Path, mel: Mel) -> NDArray[np.float32]:
    """Return float32 (N, n_classes) of a run's quantized student, simulated in float.

    Arguments and errors as for `float_logits`.
    """
    path = run_dir / QUANTIZED_STUDENT
    tensors, scalars = checkpoint.read(path)
    try:
        student = Student(Dimensions(**scalars["dims"])).eval()
        codebooks = Codebooks.from_state(checkpoint.part(tensors, "codebook."), scalars["bits"])
        matrices = {parameter_name(name) for name in codebooks.centroids}
        found = student.load_state_dict(checkpoint.part(tensors, "student."), strict=False)
        grids = read_grids(scalars["grids"])
        if set(found.missing_keys) != matrices or found.unexpected_keys:
            raise KeyError(", ".join(found.missing_keys + found.unexpected_keys))
    except (KeyError, TypeError, AttributeError, RuntimeError) as problem:
        raise TrainingError(f"{path}: damaged: {problem}; train with --restart") from None
    site = activations.fake_quantize(grids) if grids else identity
    with torch.no_grad():
        weights = codebooks.weights(student, int8=bool(grids))
    return logits_of(lambda real: functional_call(student, weights, (real, site))[1], mel)


def read_student(path: Path) -> tuple[Student, tuple[Slot, ...]]:
    """Read a float student and its slots.

    Raises:
        TrainingError: missing or damaged.
    """
    tensors, scalars = checkpoint.read(path)
    try:
        student = Student(Dimensions(**scalars["dims"]))
        student.load_state_dict(tensors)
        return student.eval(), slots.of_student(scalars)
    except (KeyError, TypeError, ValueError, RuntimeError) as problem:
        raise TrainingError(f"{path}: damaged: {problem}; train with --restart") from None


def read_grids(plain: dict[str, Any]) -> dict[str, Grid]:
    """Return grids from their JSON form."""
    return {name: Grid(**values) for name, values in plain.items()}


def logits_of(model: Any, mel: Mel) -> NDArray[np.float32]:
    """Return float32 (N, n_classes) of a callable on real log-mel, batch by batch."""
    parts = []
    with torch.inference_mode():
        for at in range(0, len(mel), _BATCH):
            parts.append(model(real_mel(mel[at : at + _BATCH])).numpy())
    return np.concatenate(parts)


def measure(model: Any, split: Split, sizes: list[int]) -> float:
    """Return the accuracy of whole commands, 0 .. 1."""
    logits = torch.from_numpy(logits_of(model, split.mel))
    answers = torch.from_numpy(split.answers)
    return losses.exact_match(logits, answers, sizes)
