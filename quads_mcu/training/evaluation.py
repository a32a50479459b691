"""Logits of trained students, for evaluation and reports."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.func import functional_call

from quads_mcu.errors import TrainingError
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Student, identity
from quads_mcu.training import activations, checkpoint
from quads_mcu.training.codebooks import Codebooks, parameter_name
from quads_mcu.training.problem import Mel
from quads_mcu.training.trainer import (
    FLOAT_STUDENT,
    QUANTIZED_STUDENT,
    logits_of,
    read_grids,
    read_student,
)


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
