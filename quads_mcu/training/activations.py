"""Integer activations in the training loop: where the device has integers, and on which scale.

A `Grid` is one integer scale; `calibrate` chooses one per site from data and `fake_quantize` rounds
to them in the forward pass with straight-through gradients. The sites, in order of computation:

    conv1, conv1_gelu, conv2            before GELU, after it, before the second GELU; int8
    positions, residual                 int8, int16; `residual` is visited after every addition
    layers.N.attention_norm             int8
    layers.N.query, .key, .value        int8
    layers.N.attention                  softmax(query key) value, int8
    layers.N.feed_forward_norm          int8
    layers.N.feed_forward_1, .gelu      before and after GELU; int8
    norm, head.query, pooled            int8, int8 (of attention pools only), 14 bits
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from quads_mcu.model.encoder import Site, gelu
from quads_mcu.model_format import MEL_SCALE, POOLED_MAX

# value_multiplier of docs/arithmetic.md, section 6, has 12 fraction bits.
VALUE_ONE = 1 << 12
# The residual stream and the pooled features get this much room above what calibration saw.
_HEADROOM = 1.5
_SAMPLES = 1 << 15
# Weights may grow this much after calibration before requantization overflows.
_FACTOR_ROOM = 1.5
# Where a matrix takes its input from and what it adds to, by the last part of its name.
_INPUTS = {
    "conv1": "mel",
    "conv2": "conv1_gelu",
    "query": "attention_norm",
    "key": "attention_norm",
    "value": "attention_norm",
    "output": "attention",
    "feed_forward_1": "feed_forward_norm",
    "feed_forward_2": "gelu",
}
_OUTPUTS = {"output": "residual", "feed_forward_2": "residual"}
_CLIP_RATIOS = 0.5 ** (torch.arange(0, 25) / 8)


@dataclass(frozen=True)
class Grid:
    """An integer scale: real = scale * (integer - zero_point), integer in low .. high."""

    scale: float
    zero_point: int = 0
    low: int = -128
    high: int = 127

    def fake_quantize(self, values: Tensor) -> Tensor:
        """Round real values to the grid; the gradient passes where nothing saturates."""
        low, high = self.low - self.zero_point, self.high - self.zero_point
        rounded: Tensor = _Round.apply(values, self.scale, low, high)  # type: ignore[no-untyped-call]
        return rounded


class _Round(torch.autograd.Function):
    """What torch.fake_quantize_per_tensor_affine computes, by operations that run vectorized."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: float, low: int, high: int) -> Tensor:
        steps = (values * (1 / scale)).round_()
        ctx.save_for_backward(steps)
        ctx.bounds = low - 1, high + 1
        return steps.clamp(low, high).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (steps,) = ctx.saved_tensors
        # One pass; comparing and masking take ten times as long.
        passed: Tensor = torch.ops.aten.hardtanh_backward(gradients[0], steps, *ctx.bounds)
        return passed, None, None, None


Grids = Mapping[str, Grid]


def fake_quantize(grids: Grids) -> Site:
    """Return the site that rounds every activation to its grid."""
    return lambda name, values: grids[name].fake_quantize(values)


def calibrate(
    run: Callable[[Site], object], weight_scales: Mapping[str, float] | None = None
) -> dict[str, Grid]:
    """Choose a grid per site.

    Int8 scales minimize the squared error of the rounded values (before a GELU: of its output);
    the residual stream and the pooled features keep their largest value and half as much again.

    Args:
        run: computes the model on calibration data with the site it is given.
        weight_scales: of int8 centroids by name of `model_format.linear_shapes`. A result's scale
            is kept above input scale * weight scale * 2, what requantization can express.
    Returns:
        Grids by site name; positions and attention tied to the residual's and value's scales as
        the device's integer multipliers demand.
    """
    samples: dict[str, list[Tensor]] = {}

    def record(name: str, values: Tensor) -> Tensor:
        flat = values.detach().flatten()
        step = max(1, len(flat) // _SAMPLES)
        extremes = torch.stack([flat.min(), flat.max()])
        samples.setdefault(name, []).append(torch.cat([extremes, flat[::step]]))
        return values

    with torch.no_grad():
        run(record)
    merged = {name: torch.cat(parts) for name, parts in samples.items()}
    grids = {name: _grid(name, values) for name, values in merged.items()}
    for linear, weight_scale in (weight_scales or {}).items():
        _keep_above(grids, linear, weight_scale)
    return _tied(grids, float(merged["positions"].abs().max()))


def _grid(name: str, values: Tensor) -> Grid:
    largest = max(float(values.abs().max()), 1e-6)
    if name == "residual":
        return Grid(_HEADROOM * largest / 32767, 0, -32768, 32767)
    if name == "pooled":
        return Grid(_HEADROOM * largest / POOLED_MAX, 0, -POOLED_MAX, POOLED_MAX)
    if name.endswith("gelu"):
        return _least_error(values, [_affine(values, float(r)) for r in _CLIP_RATIOS])
    symmetric = [Grid(float(r) * largest / 127) for r in _CLIP_RATIOS]
    before_gelu = name in ("conv1", "conv2") or name.endswith("feed_forward_1")
    return _least_error(values, symmetric, gelu if before_gelu else _same)


def _affine(values: Tensor, ratio: float) -> Grid:
    low = min(float(values.min()), 0.0)
    high = max(ratio * float(values.max()), low + 1e-6)
    scale = (high - low) / 255
    return Grid(scale, max(-128, min(127, round(-128 - low / scale))))


def _least_error(
    values: Tensor, candidates: list[Grid], seen: Callable[[Tensor], Tensor] | None = None
) -> Grid:
    seen = seen or _same
    exact = seen(values)
    errors = [
        float((seen(grid.fake_quantize(values)) - exact).square().mean()) for grid in candidates
    ]
    return candidates[errors.index(min(errors))]


def _same(values: Tensor) -> Tensor:
    return values


def _keep_above(grids: dict[str, Grid], linear: str, weight_scale: float) -> None:
    prefix, _, part = linear.rpartition(".")
    source = _INPUTS.get(part)
    if source is None:
        return
    x, y = (
        f"{prefix}.{name}" if prefix and name != "residual" else name
        for name in (source, _OUTPUTS.get(part, part))
    )
    scale = MEL_SCALE if x == "mel" else grids[x].scale
    floor = _FACTOR_ROOM * 2 * scale * weight_scale
    grids[y] = replace(grids[y], scale=max(grids[y].scale, floor))


def _tied(grids: dict[str, Grid], largest_position: float) -> dict[str, Grid]:
    residual = grids["residual"].scale
    multiplier = max(1, round(largest_position / 127 / residual))
    grids["positions"] = Grid(multiplier * residual)
    for name in [name for name in grids if name.endswith(".attention")]:
        value = grids[name.removesuffix("attention") + "value"].scale
        value_multiplier = max(1, round(value / grids[name].scale * VALUE_ONE))
        grids[name] = Grid(value * VALUE_ONE / value_multiplier)
    return grids
