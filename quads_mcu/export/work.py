"""The kernel calls of one utterance: what firmware/src/encoder.c does, as a list of shapes.

Costs are looked up per call; docs/analysis.md says how. Places are those of the protocol's
`layers` message: 0 before the encoder layers, 1 .. n_layers inside them, then what follows.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from quads_mcu.export.planner import Plan
from quads_mcu.model.dimensions import CONV_KERNEL, Dimensions


@dataclass(frozen=True)
class Call:
    """One kernel call.

    kernel: name of the C function without `quads_`, or "frontend" for everything from PCM to the
    closed window. rows x n_in -> rows x n_out; attention_head: rows tokens, a head n_in wide in
    rows of n_out; attention_pool: rows tokens, n_out wide; kernels without a matrix: n_out is the
    width of a row, or all elements with one row. bits: of the weights, 0 where there are none.
    stage: a name of model_format.STAGES.
    """

    kernel: str
    place: int
    stage: str
    rows: int
    n_out: int
    n_in: int = 0
    bits: int = 0

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        if self.kernel == "attention_head":
            return 2 * self.rows * self.rows * self.n_in
        if self.kernel == "attention_pool":
            return 2 * self.rows * self.n_out
        return self.rows * self.n_out * self.n_in


def calls(dims: Dimensions, plan: Plan, bits: Mapping[str, int]) -> Iterator[Call]:
    """Yield every call of one utterance.

    Args:
        plan: the arena plan that the firmware is built with; its blocks divide the tokens.
        bits: of each matrix, by name as in `model_format.linear_shapes`.
    """
    yield Call("frontend", 0, "frontend", dims.n_frames, dims.n_mels)
    yield from _convolutions(dims, plan, bits)
    for layer in range(dims.n_layers):
        yield from _self_attention(dims, plan, bits, layer)
        yield from _feed_forward(dims, plan, bits, layer)
    yield from _classification(dims, plan, bits)


def _blocks(dims: Dimensions, block: int) -> Iterator[int]:
    for t in range(0, dims.n_tokens, block):
        yield min(block, dims.n_tokens - t)


def _convolutions(dims: Dimensions, plan: Plan, bits: Mapping[str, int]) -> Iterator[Call]:
    d, place, stage = dims.d_model, 0, "convolutions"
    for n in _blocks(dims, plan.blocks["conv_block"]):
        yield Call(
            "linear_s8", place, stage, 2 * n, d, CONV_KERNEL * dims.n_mels, bits["conv1"]
        )  # fmt: skip
        yield Call("gelu_s8", place, stage, 1, 2 * n * d)
        yield Call("linear_s8", place, stage, n, d, CONV_KERNEL * d, bits["conv2"])
        yield Call("gelu_positions_s16", place, stage, 1, n * d)


def _self_attention(
    dims: Dimensions, plan: Plan, bits: Mapping[str, int], layer: int
) -> Iterator[Call]:
    d, place, prefix = dims.d_model, 1 + layer, f"layers.{layer}."
    for _ in range(dims.n_heads):
        for rows in _blocks(dims, plan.blocks["projection_block"]):
            yield Call("layer_norm", place, "norms", rows, d)
            for name in ("query", "key", "value"):
                yield Call(
                    "linear_s8", place, "projections", rows, dims.d_head, d, bits[prefix + name]
                )
        yield Call("attention_head", place, "attention", dims.n_tokens, d, dims.d_head)
    for rows in _blocks(dims, plan.blocks["output_block"]):
        yield Call("linear_add_s16", place, "projections", rows, d, d, bits[prefix + "output"])


def _feed_forward(
    dims: Dimensions, plan: Plan, bits: Mapping[str, int], layer: int
) -> Iterator[Call]:
    d, ff, place, prefix = dims.d_model, dims.d_ff, 1 + layer, f"layers.{layer}.feed_forward_"
    for rows in _blocks(dims, plan.blocks["feed_forward_block"]):
        yield Call("layer_norm", place, "norms", rows, d)
        yield Call("linear_s8", place, "feed_forward", rows, ff, d, bits[prefix + "1"])
        yield Call("gelu_s8", place, "feed_forward", 1, rows * ff)
        yield Call("linear_add_s16", place, "feed_forward", rows, d, ff, bits[prefix + "2"])


def _classification(dims: Dimensions, plan: Plan, bits: Mapping[str, int]) -> Iterator[Call]:
    d, place = dims.d_model, 1 + dims.n_layers
    for rows in _blocks(dims, plan.blocks["pool_block"]):
        yield Call("layer_norm", place, "norms", rows, d)
        if not dims.pools:
            yield Call("sum_rows", place, "head", rows, d)
    if not dims.pools:
        yield Call("mean_pool", place, "head", 1, d)
    for _ in dims.pools:
        yield Call("attention_pool", place, "head", dims.n_tokens, d)
    for n_classes in dims.pools or (dims.n_classes,):
        yield Call("head", place, "head", 1, n_classes, d, bits["head"])
