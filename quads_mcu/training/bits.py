"""Bits per matrix: the same for all, or chosen by sensitivity under a byte budget.

A matrix' sensitivity at b bits is what its quantization alone does to the float student: the
squared change of the pooled features (of the logits, for the head) against their variance over the
clips. The sum of sensitivities is minimized under the budget.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from quads_mcu.config import QuantizationSection
from quads_mcu.console import Progress
from quads_mcu.errors import TrainingError
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Student
from quads_mcu.model_format import BITS, linear_shapes, tensor_specs
from quads_mcu.training.codebooks import Codebooks

_BATCH = 16
_STEPS = 1 << 16

# sensitivity[matrix][bits]
Sensitivity = Mapping[str, Mapping[int, float]]


def packed_bytes(dims: Dimensions, bits: Mapping[str, int], *, channel_scales: bool = False) -> int:
    """Return the bytes of all tensors of a packed model.

    Args:
        channel_scales: every matrix but the head has a multiplier per output channel, else one.
    """
    rows = {f"{name}.multiplier": shape[0] for name, shape in linear_shapes(dims).items()}
    total = 0
    for spec in tensor_specs(dims, dict(bits)):
        open_size = rows[spec.name] if channel_scales and spec.name in rows else 1
        size = math.prod(open_size if n == -1 else n for n in spec.shape)
        total += size * np.dtype(spec.dtype).itemsize
    return total


def uniform(dims: Dimensions, bits: int) -> dict[str, int]:
    """Return the same number of bits for every matrix."""
    return dict.fromkeys(linear_shapes(dims), bits)


def choose(
    student: Student, mel: Tensor, settings: QuantizationSection, progress: Progress
) -> dict[str, int]:
    """Return bits by matrix: `settings.bits` everywhere, or the best under `budget_bytes`.

    Args:
        student: float, trained.
        mel: float32 (N, n_frames, n_mels), training clips.
    Raises:
        TrainingError: the budget is below 2 bits everywhere.
    """
    if not settings.budget_bytes:
        return uniform(student.dims, settings.bits)
    scales = settings.channel_scales
    found = sensitivity(student, mel, progress, channel_scales=scales)
    return allocate(student.dims, found, settings.budget_bytes, channel_scales=scales)


@torch.no_grad()
def sensitivity(
    student: Student, mel: Tensor, progress: Progress, *, channel_scales: bool = False
) -> dict[str, dict[int, float]]:
    """Measure every matrix at every number of bits the packed format has."""
    student.eval()
    names = list(linear_shapes(student.dims))
    z, logits = _outputs(student, mel, {})
    found: dict[str, dict[int, float]] = {}
    for at, name in enumerate(names):
        found[name] = {}
        for bits in BITS:
            fitted = Codebooks.fit(student, {name: bits}, channel_scales=channel_scales)
            weights = fitted.weights(student, int8=True)
            changed, answers = _outputs(student, mel, weights)
            before, after = (logits, answers) if name == "head" else (z, changed)
            spread = before.var(dim=0).sum().clamp_min(1e-12)
            found[name][bits] = float((after - before).square().sum(1).mean() / spread)
        progress("sensitivity of the matrices", at + 1, len(names))
    return found


def _outputs(student: Student, mel: Tensor, weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    parts = [functional_call(student, weights, (part,)) for part in torch.split(mel, _BATCH)]
    tokens, logits = zip(*parts, strict=True)
    return torch.cat([part.mean(dim=1) for part in tokens]), torch.cat(logits)


def allocate(
    dims: Dimensions,
    sensitivity: Sensitivity,
    budget_bytes: int,
    *,
    channel_scales: bool = False,
) -> dict[str, int]:
    """Return bits by matrix of least total sensitivity whose packed model fits the budget.

    Dynamic programme over the bytes that are left above 2 bits everywhere, in steps of 1/65536 of
    them, rounded up.

    Raises:
        TrainingError: 2 bits everywhere are too many.
    """
    size = functools.partial(packed_bytes, dims, channel_scales=channel_scales)
    narrowest = dict.fromkeys(sensitivity, min(BITS))
    least = size(narrowest)
    room = budget_bytes - least
    if room < 0:
        raise TrainingError(
            f"[quantization] budget_bytes = {budget_bytes}: at {min(BITS)} bits everywhere the "
            f"weights take {least} bytes; raise it, or choose a smaller [student] preset"
        )
    room = min(room, size(dict.fromkeys(sensitivity, max(BITS))) - least)
    unit = max(1, room // _STEPS)
    total = np.zeros(room // unit + 1)  # least sensitivity within so many units
    choices = []
    for name, options in sensitivity.items():
        rows = np.full((len(BITS), len(total)), np.inf)
        sizes = [size(narrowest | {name: bits}) - least for bits in BITS]
        units = [-(-size // unit) for size in sizes]
        for row, bits, used in zip(rows, BITS, units, strict=True):
            if used < len(total):
                row[used:] = total[: len(total) - used] + options[bits]
        choices.append((name, units, rows.argmin(axis=0)))
        total = rows.min(axis=0)
    chosen, left = {}, len(total) - 1
    for name, units, best in reversed(choices):
        chosen[name] = BITS[best[left]]
        left -= units[best[left]]
    return {name: chosen[name] for name in sensitivity}
