"""A random but valid packed model whose activations use their ranges, for tests of the runtime."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from quads_mcu import model_format
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model_format import PackedLayer, PackedLinear, PackedModel, PackedNorm
from quads_mcu.slots import Slot

TARGET = 40.0  # standard deviation of int8 activations, in LSB


def random_model(
    dims: Dimensions,
    bits: int | Mapping[str, int] = 4,
    seed: int = 0,
    slots: Sequence[int] | None = None,
) -> PackedModel:
    """Return a model with random codebooks.

    Multipliers follow from the statistics of independent inputs: activations have a standard
    deviation of about TARGET, a few percent saturate. Every second matrix has a multiplier per
    channel, within a factor of two.

    Args:
        dims: sizes; dims.problem() must be None.
        bits: of all matrices, or by name as in model_format.linear_shapes.
        seed: of everything random.
        slots: labels of each slot, in sum n_classes; None: one slot, `intent`.
    """
    rng = np.random.default_rng(seed)
    shapes = model_format.linear_shapes(dims)
    chosen = {name: bits if isinstance(bits, int) else bits[name] for name in shapes}
    linears = {
        name: _linear(rng, shape, chosen[name], name, per_channel=index % 2 == 1)
        for index, (name, shape) in enumerate(shapes.items())
    }
    d, t = dims.d_model, dims.n_tokens
    model = PackedModel(
        dims=dims,
        slots=_slots(slots or dims.pools or [dims.n_classes]),
        conv1=linears["conv1"],
        conv1_gelu=_gelu(rng, np.int8),
        conv1_gelu_zero_point=int(rng.integers(-128, 0)),
        conv2=linears["conv2"],
        conv2_gelu=_gelu(rng, np.int16),
        positions=rng.normal(0, TARGET, (t, d)).clip(-128, 127).astype(np.int8),
        position_multiplier=int(rng.integers(20, 60)),
        residual_scale=1e-3,
        layers=tuple(_layer(rng, dims, linears, index) for index in range(dims.n_layers)),
        norm=_norm(rng, d),
        head=linears["head"],
        logit_scale=1e-4,
        **_pool(rng, dims),
        provenance={"made by": "tests/random_model.py"},
    )
    model_format.check(model)
    return model


def _pool(rng: np.random.Generator, dims: Dimensions) -> dict[str, object]:
    d = dims.d_model
    if not dims.pools:
        # Means of LayerNorm outputs lie around 10 LSB (beta and what tokens share).
        return {"pool_multiplier": min(2**31 - 1, round(4000 / (10 * dims.n_tokens * 256) * 2**32))}
    # One standard deviation of the scores is 1.5 powers of two, as in a layer.
    score = 1.5 * 64 / (16 * TARGET**2 * math.sqrt(d))
    return {
        "pool_query": rng.normal(0, TARGET, (len(dims.pools), d)).clip(-128, 127).astype(np.int8),
        "pool_score_multiplier": min(2**31 - 1, round(score * 2**32)),
        "pool_multiplier": round(2**12 * 4000 / TARGET * rng.uniform(0.5, 2)),
    }


def _slots(sizes: Sequence[int]) -> tuple[Slot, ...]:
    names = ["intent", *(f"slot {place}" for place in range(1, len(sizes)))]
    return tuple(
        Slot(name, tuple(f"{name.split()[0]} {index}" for index in range(size)))
        for name, size in zip(names, sizes, strict=True)
    )


def _linear(
    rng: np.random.Generator, shape: tuple[int, int], bits: int, name: str, *, per_channel: bool
) -> PackedLinear:
    n, k = shape
    centroids = np.sort(rng.normal(0, 45, 1 << bits).clip(-128, 127)).astype(np.int8)
    centroids[0], centroids[-1] = -int(rng.integers(60, 129)), int(rng.integers(60, 128))
    indices = rng.integers(0, 1 << bits, (n, k), dtype=np.uint8)
    weights = centroids[indices].astype(np.float64)
    sums = TARGET * np.sqrt((weights**2).sum(axis=1).mean())
    target = 1500.0 if name.endswith(("output", "feed_forward_2")) else TARGET
    multiplier = np.full(n if per_channel else 1, target / sums * 2**32)
    if per_channel:
        multiplier *= rng.uniform(0.7, 1.4, n)
    if name == "head":
        multiplier = np.empty(0)
    return PackedLinear(
        bits=bits,
        indices=indices,
        centroids=centroids,
        bias=rng.normal(0, sums / 2, n).astype(np.int32),
        multiplier=multiplier.clip(0, 2**31 - 1).astype(np.int32),
        weight_scale=1e-3,
        input_scale=1e-2,
        output_scale=1e-2,
    )


def _norm(rng: np.random.Generator, d: int) -> PackedNorm:
    shift = int(rng.integers(8, 13))
    one = TARGET / (1 << model_format.NORM_FRACTION_BITS) * 2**shift
    return PackedNorm(
        gamma=(one * rng.normal(1, 0.3, d)).round().astype(np.int16),
        beta=(one * 1024 * rng.normal(0, 0.3, d)).round().astype(np.int32),
        shift=shift,
        epsilon=int(rng.integers(1, 5000)),
        output_scale=1e-2,
    )


def _gelu(rng: np.random.Generator, dtype: type) -> np.ndarray:
    """A GELU over int8 at a random input scale, int8 with a zero point or int16."""
    x = np.arange(-128, 128) * rng.uniform(0.02, 0.05)
    y = 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    if dtype is np.int16:
        return np.round(y * 8000 / y.max()).astype(np.int16)
    return np.round(y * 240 / y.max() - 115).clip(-128, 127).astype(np.int8)


def _layer(
    rng: np.random.Generator, dims: Dimensions, linears: dict[str, PackedLinear], index: int
) -> PackedLayer:
    # One standard deviation of the scores is 1.5 powers of two.
    scores = TARGET**2 * math.sqrt(dims.d_head)
    return PackedLayer(
        attention_norm=_norm(rng, dims.d_model),
        score_multiplier=min(2**31 - 1, round(1.5 * 64 / (16 * scores) * 2**32)),
        value_multiplier=round(2**12 * rng.uniform(1.5, 3)),
        feed_forward_norm=_norm(rng, dims.d_model),
        gelu=_gelu(rng, np.int8),
        gelu_zero_point=int(rng.integers(-128, 0)),
        **{name: linears[f"layers.{index}.{name}"] for name in model_format.LAYER_LINEARS},
    )
