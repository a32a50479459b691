"""From a trained run to a PackedModel: integers for every real number (docs/arithmetic.md).

Works on numpy arrays alone. What training simulated in float (`quads_mcu.training.activations`)
becomes codebook indices, int8 centroids, folded biases, multipliers and tables.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import quads_mcu
from quads_mcu import slots as slot_table
from quads_mcu.errors import ExportError, ModelFormatError
from quads_mcu.model import codebook
from quads_mcu.model.dimensions import CONV_KERNEL, Dimensions
from quads_mcu.model_format import (
    BITS,
    LAYER_LINEARS,
    MEL_SCALE,
    MEL_ZERO_POINT,
    NEVER_REJECT,
    NORM_FRACTION_BITS,
    PackedLayer,
    PackedLinear,
    PackedModel,
    PackedNorm,
    check,
    linear_shapes,
)
from quads_mcu.slots import Slot

QUANTIZED_STUDENT = "student_quantized.safetensors"
MAX_FILE_BYTES = 1 << 30
NORM_EPSILON = 1e-5

_ONE = 1 << 32
_VALUE_ONE = 1 << 12
_RETRAIN = "train again with --restart"

Real = NDArray[np.float64]


@dataclass(frozen=True)
class Grid:
    """An integer scale: real = scale * (integer - zero_point)."""

    scale: float
    zero_point: int = 0


MEL = Grid(MEL_SCALE, MEL_ZERO_POINT)


@dataclass(frozen=True)
class PackedSource:
    """A trained student before packing.

    bits; centroids: float (2**bits,); indices: uint8 (N, K), K tap-major for convolutions; scales:
    float (N,), where output channels have them: by name of `linear_shapes`. tensors: biases, norms
    and positions by name of `Student.state_dict`; grids: by site name of
    `quads_mcu.training.activations`.
    """

    dims: Dimensions
    slots: tuple[Slot, ...]
    bits: Mapping[str, int]
    centroids: Mapping[str, Real]
    indices: Mapping[str, NDArray[np.uint8]]
    scales: Mapping[str, Real]
    tensors: Mapping[str, Real]
    grids: Mapping[str, Grid]
    provenance: Mapping[str, str]

    def tensor(self, name: str, shape: tuple[int, ...]) -> Real:
        """Return a tensor of the encoder or head, checked.

        Raises:
            ExportError: missing, of another shape, or not finite.
        """
        found = self.tensors.get(name)
        if found is None:
            raise ExportError(f"tensor {name!r} is missing; {_RETRAIN}")
        if found.shape != shape:
            raise ExportError(f"{name} has shape {found.shape}, expected {shape}; {_RETRAIN}")
        _finite(name, found)
        return found

    def grid(self, name: str) -> Grid:
        """Return the scale of an activation.

        Raises:
            ExportError: missing or impossible.
        """
        found = self.grids.get(name)
        if found is None:
            raise ExportError(f"the scale of activation {name!r} is missing; {_RETRAIN}")
        if not 0 < found.scale < math.inf or not -128 <= found.zero_point <= 127:
            raise ExportError(f"the scale of activation {name!r} is {found}; {_RETRAIN}")
        return found


def pack(run_dir: Path) -> PackedModel:
    """Pack the quantized student of a finished run.

    Raises:
        ExportError: no finished run, or numbers the packed format cannot hold; names the layer,
            the value and the limit.
    """
    return pack_source(load_packed_source(run_dir))


def load_packed_source(run_dir: Path) -> PackedSource:
    """Read a run's quantized student.

    Raises:
        ExportError: missing, damaged or inconsistent.
    """
    path = run_dir / QUANTIZED_STUDENT
    tensors, scalars = _read(path)
    try:
        dims = Dimensions(**scalars["dims"])
        grids = {
            name: Grid(float(grid["scale"]), int(grid["zero_point"]))
            for name, grid in scalars["grids"].items()
        }
        bits = {str(name): int(width) for name, width in scalars["bits"].items()}
        slots = slot_table.of_student(scalars)
        provenance = {str(k): str(v) for k, v in scalars.get("provenance", {}).items()}
    except (KeyError, TypeError, ValueError, AttributeError) as problem:
        raise ExportError(
            f"{path}: damaged, or made by an older version ({problem!r}); {_RETRAIN}"
        ) from None
    if problem_text := dims.problem():
        raise ExportError(f"{path}: {problem_text}; choose another preset or window and {_RETRAIN}")
    _check_bits(dims, bits)
    centroids, indices, scales = {}, {}, {}
    for name in linear_shapes(dims):
        if (rows := tensors.get(f"codebook.{name}.scales")) is not None:
            scales[name] = rows.astype(np.float64)
        try:
            centroids[name] = tensors[f"codebook.{name}.centroids"].astype(np.float64)
            indices[name] = _rows(tensors[f"codebook.{name}.indices"])
        except KeyError as missing:
            raise ExportError(f"{path}: tensor {missing} is missing; {_RETRAIN}") from None
    prefix = "student."
    others = {
        name.removeprefix(prefix).removeprefix("encoder."): tensor.astype(np.float64)
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
    provenance["quads_mcu"] = quads_mcu.__version__
    return PackedSource(dims, slots, bits, centroids, indices, scales, others, grids, provenance)


def pack_source(source: PackedSource) -> PackedModel:
    """Turn a trained student into integers.

    Raises:
        ExportError: as for `pack`.
    """
    dims, grid = source.dims, source.grid
    _check_bits(dims, source.bits)
    d = dims.d_model
    residual = grid("residual").scale
    position_multiplier = max(1, round(grid("positions").scale / residual))
    positions = source.tensor("positions", (dims.n_tokens, d)) / (position_multiplier * residual)
    pooled = grid("pooled").scale
    head = _linear(source, "head", Grid(pooled), None)
    unknown = slot_table.unknown_class(source.slots)
    model = PackedModel(
        dims=dims,
        slots=source.slots,
        conv1=_linear(source, "conv1", MEL, grid("conv1").scale),
        conv1_gelu=_gelu_int8(grid("conv1").scale, grid("conv1_gelu")),
        conv1_gelu_zero_point=grid("conv1_gelu").zero_point,
        conv2=_linear(source, "conv2", grid("conv1_gelu"), grid("conv2").scale),
        conv2_gelu=_clip(_gelu(grid("conv2").scale) / residual, np.int16),
        positions=_clip(positions, np.int8),
        position_multiplier=position_multiplier,
        residual_scale=residual,
        layers=tuple(_layer(source, f"layers.{index}.") for index in range(dims.n_layers)),
        norm=_norm(source, "norm"),
        head=head,
        logit_scale=head.output_scale,
        unknown_class=unknown,
        reject_threshold=0 if unknown >= 0 else NEVER_REJECT,
        provenance=dict(source.provenance),
        **(_attention_pools(source) if dims.pools else _mean_pool(source)),
    )
    try:
        check(model)
    except ModelFormatError as problem:
        raise ExportError(f"the trained student cannot be packed: {problem}; {_RETRAIN}") from None
    return model


def _mean_pool(source: PackedSource) -> dict[str, Any]:
    norm, pooled = source.grid("norm").scale, source.grid("pooled").scale
    factor = norm / (source.dims.n_tokens * pooled) / 256
    return {"pool_multiplier": _multiplier("the mean pool", factor)}


def _attention_pools(source: PackedSource) -> dict[str, Any]:
    dims, query = source.dims, source.grid("head.query").scale
    norm, pooled = source.grid("norm").scale, source.grid("pooled").scale
    queries = source.tensor("head.query", (len(dims.pools), dims.d_model))
    return {
        "pool_query": _clip(queries / query, np.int8),
        "pool_score_multiplier": _score_multiplier(
            "scores of the attention pools", query, norm, dims.d_model
        ),
        "pool_multiplier": round(norm / pooled * _VALUE_ONE),
    }


def _check_bits(dims: Dimensions, bits: Mapping[str, int]) -> None:
    for name in linear_shapes(dims):
        if bits.get(name) not in BITS:
            raise ExportError(
                f"{name} was trained at {bits.get(name)} bits, to compare with; the packed format "
                f"has {', '.join(map(str, BITS))}: set [quantization] bits and {_RETRAIN}"
            )


def _layer(source: PackedSource, prefix: str) -> PackedLayer:
    grid = {site: source.grid(prefix + site) for site in _LAYER_SITES}
    residual = source.grid("residual").scale
    inputs = {
        "query": (grid["attention_norm"], grid["query"].scale),
        "key": (grid["attention_norm"], grid["key"].scale),
        "value": (grid["attention_norm"], grid["value"].scale),
        "output": (grid["attention"], residual),
        "feed_forward_1": (grid["feed_forward_norm"], grid["feed_forward_1"].scale),
        "feed_forward_2": (grid["gelu"], residual),
    }
    linears = {name: _linear(source, prefix + name, *inputs[name]) for name in LAYER_LINEARS}
    return PackedLayer(
        attention_norm=_norm(source, prefix + "attention_norm"),
        score_multiplier=_score_multiplier(
            prefix + "attention scores",
            grid["query"].scale,
            grid["key"].scale,
            source.dims.d_head,
        ),
        value_multiplier=round(grid["value"].scale / grid["attention"].scale * _VALUE_ONE),
        feed_forward_norm=_norm(source, prefix + "feed_forward_norm"),
        gelu=_gelu_int8(grid["feed_forward_1"].scale, grid["gelu"]),
        gelu_zero_point=grid["gelu"].zero_point,
        **linears,
    )


_LAYER_SITES = (
    "attention_norm",
    "query",
    "key",
    "value",
    "attention",
    "feed_forward_norm",
    "feed_forward_1",
    "gelu",
)


def _linear(source: PackedSource, name: str, x: Grid, output_scale: float | None) -> PackedLinear:
    """Pack one matrix; without an output scale (the head) sums stay as they are."""
    n, _ = shape = linear_shapes(source.dims)[name]
    bits, centroids, indices = source.bits[name], source.centroids[name], source.indices[name]
    if indices.shape != shape or indices.dtype != np.uint8:
        raise ExportError(
            f"{name}: indices are {indices.dtype} {indices.shape}, expected uint8 {shape}"
        )
    if centroids.shape != (1 << bits,) or int(indices.max()) >> bits:
        used = max(len(centroids), int(indices.max()) + 1)
        raise ExportError(
            f"{name} uses {used} different weights, {bits} bits hold {1 << bits}; "
            f"set [quantization] bits and {_RETRAIN}"
        )
    _finite(f"{name}.centroids", centroids)
    packed, weight_scale = codebook.to_int8(centroids)
    rows = _row_scales(source, name, n)
    product_scale = x.scale * weight_scale * rows
    has_bias = not name.endswith(".key")
    bias = source.tensor(f"{name}.bias", (n,)) if has_bias else np.zeros(n)
    folded = np.rint(bias / product_scale)
    folded -= x.zero_point * packed[indices].astype(np.float64).sum(axis=1)
    if np.abs(folded).max() >= 1 << 31:
        raise ExportError(
            f"{name}: bias {float(np.abs(bias).max()):.3g} is too large for its scale "
            f"{float(product_scale.min()):.3g}; {_RETRAIN} and lower learning rates"
        )
    factors = np.zeros(0) if output_scale is None else product_scale / output_scale
    return PackedLinear(
        bits=bits,
        indices=indices,
        centroids=packed,
        bias=folded.astype(np.int32),
        multiplier=np.array([_multiplier(name, float(factor)) for factor in factors], np.int32),
        weight_scale=weight_scale * float(rows.max()),
        input_scale=x.scale,
        output_scale=float(product_scale[0]) if output_scale is None else output_scale,
    )


def _row_scales(source: PackedSource, name: str, n: int) -> Real:
    """Return the scales of the output channels, (N,), or (1,) where all have the codebook's."""
    rows = source.scales.get(name)
    if rows is None:
        return np.ones(1)
    _finite(f"{name}.scales", rows)
    if rows.shape != (n,) or rows.min() <= 0 or name == "head":
        raise ExportError(
            f"{name}.scales: expected {n} positive scales, none for the head; {_RETRAIN}"
        )
    return rows


def _score_multiplier(name: str, query_scale: float, key_scale: float, width: int) -> int:
    """score_multiplier / 2**32 * 16 = s_q s_k log2(e) 64 / sqrt(width)"""
    score = query_scale * key_scale * math.log2(math.e) * 64
    return _multiplier(name, score / (math.sqrt(width) * 16))


def _multiplier(name: str, factor: float) -> int:
    """Return the int32 that stands for a real factor below 0.5."""
    if not 0 < factor < 0.5:
        raise ExportError(
            f"{name}: requantization factor {factor:.3g}, limit 0.5: the weights have outgrown "
            f"the scale of the result; {_RETRAIN} and a lower [train] lr_quant"
        )
    return min(round(factor * _ONE), (1 << 31) - 1)


def _norm(source: PackedSource, name: str) -> PackedNorm:
    """y = (h * gamma + beta) >> shift with h of 10 fraction bits; the largest shift that fits."""
    d = source.dims.d_model
    scale = source.grid(name).scale
    gamma = source.tensor(f"{name}.weight", (d,)) / scale / (1 << NORM_FRACTION_BITS)
    beta = source.tensor(f"{name}.bias", (d,)) / scale
    h_max = (math.ceil(math.sqrt(d)) + 1) << NORM_FRACTION_BITS
    for shift in range(30, 0, -1):
        g, b = np.rint(gamma * (1 << shift)), np.rint(beta * (1 << shift))
        worst = float((np.abs(g) * h_max + np.abs(b)).max()) + (1 << shift)
        if np.abs(g).max() <= 32767 and worst < (1 << 31):
            break
    else:
        largest = float(np.abs(gamma).max() * (1 << NORM_FRACTION_BITS))
        raise ExportError(f"{name}: gamma reaches {largest:.3g} steps, too many; {_RETRAIN}")
    epsilon = round(NORM_EPSILON * d / source.grid("residual").scale ** 2)
    if epsilon >= _ONE:
        raise ExportError(
            f"{name}: the residual stream is too small for its epsilon ({epsilon} >= 2**32); "
            f"{_RETRAIN}"
        )
    return PackedNorm(g.astype(np.int16), b.astype(np.int32), shift, max(1, epsilon), scale)


def _gelu(scale: float) -> Real:
    """GELU, tanh form, of -128 ... 127 on `scale`: float64 (256,)."""
    x = np.arange(-128, 128) * scale
    return np.asarray(0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))))


def _gelu_int8(scale: float, output: Grid) -> NDArray[np.int8]:
    table: NDArray[np.int8] = _clip(_gelu(scale) / output.scale + output.zero_point, np.int8)
    return table


def _clip(values: Real, kind: Any) -> NDArray[Any]:
    limits = np.iinfo(kind)
    return np.clip(np.rint(values), limits.min, limits.max).astype(kind)


def _rows(indices: NDArray[Any]) -> NDArray[Any]:
    """(N, C, 3) of a convolution -> (N, 3 C), tap major; matrices as they are."""
    if indices.ndim == 3 and indices.shape[2] == CONV_KERNEL:
        return np.ascontiguousarray(indices.transpose(0, 2, 1)).reshape(len(indices), -1)
    return indices


def _finite(name: str, values: Real) -> None:
    if not np.isfinite(values).all():
        raise ExportError(f"{name} holds values that are not finite; {_RETRAIN}")


def _read(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ExportError(f"{path}: {path.stat().st_size} bytes, limit {MAX_FILE_BYTES}")
        with safe_open(path, framework="numpy") as file:
            scalars = json.loads((file.metadata() or {}).get("quads", "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ExportError(
            f"{path}: no such file; `quads-mcu train` writes it in its final phase"
        ) from None
    except (OSError, ValueError, RecursionError, TypeError, SafetensorError) as problem:
        raise ExportError(f"{path}: damaged: {problem}; {_RETRAIN}") from None
    if not isinstance(scalars, dict):
        raise ExportError(f"{path}: not a quantized student of quads-mcu; {_RETRAIN}")
    return tensors, scalars
