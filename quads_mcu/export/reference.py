"""The integer reference: what a packed model computes, in numpy, bit for bit (docs/arithmetic.md).

Integer matrix products run as BLAS calls in floating point, exact in any order of summation: every
partial sum is an integer below 2**31 (the bounds that `model_format.check` proves), which float64
holds, or, where a matrix' own weights keep it there, at most 2**24, which float32 holds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.model_format import (
    EXP_FRACTION_BITS,
    MEL_ZERO_POINT,
    POOLED_MAX,
    PackedLayer,
    PackedLinear,
    PackedModel,
    PackedNorm,
    check,
    exp_table,
    norm_sqrt_d,
)
from quads_mcu.slots import segments

Int = NDArray[np.int64]
Trace = Callable[[str, Int], None]
BATCH = 8


def requantize(accumulator: Int, multiplier: Int | int) -> Int:
    """RQ(a, m) = (a * m + 2**31) >> 32 in 64 bits."""
    return (accumulator * multiplier + (1 << 31)) >> 32


def saturate(values: Int, low: int, high: int) -> Int:
    """Clamp to low .. high."""
    return np.clip(values, low, high)


class Reference:
    """Computes logits of one packed model.

    Args:
        model: a checked PackedModel.
    Raises:
        ModelFormatError: the model breaks a bound of the arithmetic.
    """

    def __init__(self, model: PackedModel) -> None:
        check(model)
        self.model = model
        self._weights = {
            name: linear.weights.T.astype(_product_type(linear, name == "head"))
            for name, linear in model.linears()
        }
        self._exp = exp_table().astype(np.int64)
        self._sqrt_d = norm_sqrt_d(model.dims.d_model)

    def logits(self, mel: NDArray[np.int8], trace: Trace | None = None) -> NDArray[np.int32]:
        """Return int32 (B, n_classes) for closed windows of int8 log-mel (B, n_frames, n_mels).

        `trace` is called with the name and the integer values of every intermediate tensor, batch
        by batch.
        """
        parts = [self._run(mel[at : at + BATCH], trace) for at in range(0, len(mel), BATCH)]
        empty = np.zeros((0, self.model.dims.n_classes), np.int32)
        return np.concatenate([empty, *parts])

    def _run(self, mel: NDArray[np.int8], trace: Trace | None) -> NDArray[np.int32]:
        record = trace or (lambda name, values: None)
        model = self.model
        residual = self._front(mel.astype(np.int64), record)
        for index, layer in enumerate(model.layers):
            residual = self._layer(f"layers.{index}.", layer, residual, record)
        normalized = self._norm("norm", model.norm, residual, record)
        pooled = saturate(self._pool(normalized), -POOLED_MAX, POOLED_MAX)
        record("pooled", pooled)
        if model.dims.pools:
            each = self._accumulate("head", model.head, pooled)
            parts = enumerate(segments(model.slots))
            logits: Int = np.concatenate([each[:, slot, part] for slot, part in parts], axis=1)
        else:
            logits = self._accumulate("head", model.head, pooled)
        record("logits", logits)
        return logits.astype(np.int32)

    def _pool(self, tokens: Int) -> Int:
        """(B, n_tokens, d_model) -> their mean, (B, d_model), or pools, (B, n_slots, d_model)."""
        model = self.model
        if not model.dims.pools:
            return requantize(tokens.sum(axis=1) << 8, model.pool_multiplier)
        query, values = model.pool_query.astype(np.float64), tokens.astype(np.float64)
        return self._softmax(
            query, values, values, model.pool_score_multiplier, model.pool_multiplier
        )

    def _front(self, mel: Int, record: Trace) -> Int:
        model = self.model
        x = self._convolve("conv1", model.conv1, mel, 1, MEL_ZERO_POINT)
        x = model.conv1_gelu.astype(np.int64)[x + 128]
        record("conv1", x)
        x = self._convolve("conv2", model.conv2, x, 2, model.conv1_gelu_zero_point)
        x = model.conv2_gelu.astype(np.int64)[x + 128]
        record("conv2", x)
        positions = model.positions.astype(np.int64) * model.position_multiplier
        residual = saturate(x + positions, -32768, 32767)
        record("positions", residual)
        return residual

    def _layer(self, prefix: str, layer: PackedLayer, residual: Int, record: Trace) -> Int:
        x = self._norm(prefix + "attention_norm", layer.attention_norm, residual, record)
        attention = self._attention(prefix, layer, x, record)
        update = self._requantized(prefix + "output", layer.output, attention)
        residual = saturate(residual + update, -32768, 32767)
        record(prefix + "output", residual)
        x = self._norm(prefix + "feed_forward_norm", layer.feed_forward_norm, residual, record)
        x = self._linear(prefix + "feed_forward_1", layer.feed_forward_1, x)
        x = layer.gelu.astype(np.int64)[x + 128]
        record(prefix + "feed_forward_1", x)
        update = self._requantized(prefix + "feed_forward_2", layer.feed_forward_2, x)
        residual = saturate(residual + update, -32768, 32767)
        record(prefix + "feed_forward_2", residual)
        return residual

    def _accumulate(self, name: str, linear: PackedLinear, x: Int) -> Int:
        weights = self._weights[name]
        product = x.astype(weights.dtype) @ weights
        return product.astype(np.int64) + linear.bias

    def _requantized(self, name: str, linear: PackedLinear, x: Int) -> Int:
        return requantize(self._accumulate(name, linear, x), linear.multiplier.astype(np.int64))

    def _linear(self, name: str, linear: PackedLinear, x: Int) -> Int:
        return saturate(self._requantized(name, linear, x), -128, 127)

    def _convolve(self, name: str, linear: PackedLinear, x: Int, stride: int, zero: int) -> Int:
        padded = np.pad(x, ((0, 0), (1, 1), (0, 0)), constant_values=zero)
        rows = x.shape[1] // stride
        taps = [padded[:, tap : tap + stride * rows : stride] for tap in range(3)]
        return self._linear(name, linear, np.concatenate(taps, axis=2))

    def _norm(self, name: str, norm: PackedNorm, x: Int, record: Trace) -> Int:
        d = x.shape[-1]
        total = x.sum(axis=-1, keepdims=True)
        centred = x - (2 * total + d) // (2 * d)
        vs = (centred * centred).sum(axis=-1, keepdims=True) + norm.epsilon
        n = 32 - _bit_length(vs)
        n -= n & 1
        vn = np.where(n >= 0, vs << np.maximum(n, 0), vs >> np.maximum(-n, 0))
        root = np.floor(np.sqrt(vn.astype(np.float64))).astype(np.int64)
        inverse = (self._sqrt_d // root) << 2
        h = requantize(centred << (14 + n // 2), inverse)
        scaled = h * norm.gamma.astype(np.int64) + norm.beta + (1 << (norm.shift - 1))
        y = saturate(scaled >> norm.shift, -128, 127)
        record(name, y)
        return y

    def _attention(self, prefix: str, layer: PackedLayer, x: Int, record: Trace) -> Int:
        batch, tokens, d = x.shape
        heads = self.model.dims.n_heads

        def split(name: str, linear: PackedLinear) -> NDArray[np.float64]:
            y = self._linear(prefix + name, linear, x)
            record(prefix + name, y)
            shaped = y.reshape(batch, tokens, heads, d // heads)
            return shaped.transpose(0, 2, 1, 3).astype(np.float64)

        q = split("query", layer.query)
        k = split("key", layer.key)
        v = split("value", layer.value)
        out = self._softmax(q, k, v, layer.score_multiplier, layer.value_multiplier)
        out = saturate(out, -128, 127)
        out = out.transpose(0, 2, 1, 3).reshape(batch, tokens, d)
        record(prefix + "attention", out)
        return out

    def _softmax(
        self,
        q: NDArray[np.float64],
        k: NDArray[np.float64],
        v: NDArray[np.float64],
        score_multiplier: int,
        value_multiplier: int,
    ) -> Int:
        """softmax(q k') v (docs/arithmetic.md, section 6), not yet saturated."""
        scores = (q @ k.swapaxes(-1, -2)).astype(np.int64)
        distance = scores.max(axis=-1, keepdims=True) - scores
        e = self._exponentials(requantize(distance << 4, score_multiplier))
        weighted = (e.astype(np.float64) @ v).astype(np.int64)
        return requantize(weighted, _reciprocal(e.sum(axis=-1, keepdims=True), value_multiplier))

    def _exponentials(self, z: Int) -> Int:
        fraction = z & ((1 << EXP_FRACTION_BITS) - 1)
        octaves = np.minimum(z >> EXP_FRACTION_BITS, 14)
        e: Int = self._exp[fraction] >> octaves
        return e


def _product_type(linear: PackedLinear, wide: bool) -> type[np.floating[Any]]:
    """Return the float type that holds every partial sum of rows times int8 (`wide`: int16)."""
    largest = np.abs(linear.weights.astype(np.int64)).sum(axis=1).max()
    return np.float32 if largest * (1 << 15 if wide else 1 << 7) <= 1 << 24 else np.float64


def scores(
    model: PackedModel, logits: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each slot's answer and the utterance's score (docs/arithmetic.md, section 7).

    Args:
        logits: int32 (N, n_classes).
    Returns:
        int64 (N, n_slots), indices into the slots' labels, never the unknown one; int64 (N,), the
        first slot's greatest logit, less the unknown class' where there is one.
    """
    exact = logits.astype(np.int64)
    known = exact.copy()
    unknown: Int | int = 0
    if model.unknown_class >= 0:
        unknown = exact[:, model.unknown_class]
        known[:, model.unknown_class] = -(1 << 62)
    parts = [known[:, segment] for segment in segments(model.slots)]
    answers = np.stack([part.argmax(axis=1) for part in parts], axis=1)
    return answers, parts[0].max(axis=1) - unknown


def decide(
    model: PackedModel, logits: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return what a device says: answers, int64 (N, n_slots), and which are rejected, bool (N,)."""
    answers, score = scores(model, logits)
    return answers, score < model.reject_threshold


def _bit_length(values: Int) -> Int:
    """Bits of positive integers below 2**53."""
    exponents: NDArray[Any] = np.frexp(values.astype(np.float64))[1]
    return exponents.astype(np.int64)


def _reciprocal(total: Int, value_multiplier: int) -> Int:
    """The multiplier that stands for s_v / s_out / total (docs/arithmetic.md, section 6)."""
    n = 32 - _bit_length(total)
    reciprocal: Int = 0xFFFFFFFF // ((total << n) >> 16)
    return (value_multiplier * reciprocal) >> (28 - n)
