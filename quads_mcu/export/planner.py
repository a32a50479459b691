"""The arena: where each tensor of the encoder lies, so that short-lived ones share memory.

The encoder (firmware/src/encoder.c) runs through STEPS; the two attention steps repeat for every
head, and all steps from the projections to the feed-forward for every layer. A tensor is needed in
some steps; two tensors may share memory when they have no step in common. Most steps take the
tokens in blocks: larger ones are faster, because weights are decoded once per block.
"""

from __future__ import annotations

from dataclasses import dataclass

from quads_mcu.export.kernels import Kernels, attention_pool_bytes, kernels
from quads_mcu.model.dimensions import CONV_KERNEL, Dimensions

ALIGNMENT = 8

STEPS = ("convolutions", "projections", "products", "output", "feed_forward", "pool", "head")


@dataclass(frozen=True)
class Tensor:
    """One tensor of the arena: the steps that need it, its place and size in bytes."""

    name: str
    steps: frozenset[str]
    bytes: int
    offset: int = 0

    @property
    def end(self) -> int:
        """Offset of the first byte behind the tensor."""
        return self.offset + self.bytes


@dataclass(frozen=True)
class Plan:
    """Layout of an arena; offsets and blocks are the fields of `quads_plan_t` (quads.h)."""

    tensors: tuple[Tensor, ...]
    arena_bytes: int
    blocks: dict[str, int]

    @property
    def offsets(self) -> dict[str, int]:
        """Offset of each tensor in bytes, by name."""
        return {tensor.name: tensor.offset for tensor in self.tensors}

    def step_bytes(self) -> dict[str, int]:
        """Return the bytes needed in each step; the largest is a lower bound of the arena."""
        return {step: _needed(self.tensors, step) for step in STEPS}


# The steps that take tokens in blocks, and the fields of quads_plan_t that say how many.
BLOCKS = {
    "convolutions": "conv_block",
    "projections": "projection_block",
    "output": "output_block",
    "feed_forward": "feed_forward_block",
    "pool": "pool_block",
}


def plan(dims: Dimensions, variant: str = "plain") -> Plan:
    """Lay out the arena of an encoder for a kernel variant (a key of kernels.KERNELS).

    The arena is what the fullest step needs with blocks of the least sensible size; then every
    step's blocks grow into it.

    Raises:
        ExportError: unknown variant.
    """
    chosen = kernels(variant)
    fewest = min(dims.n_tokens, chosen.row_step)
    least = chosen.least_rows(dims.n_tokens, dims.d_model)
    least = _whole_groups(dims.n_tokens, min(_divide(dims.n_tokens, 3), least), chosen.row_step)
    blocks = dict.fromkeys(BLOCKS, fewest) | {"projections": least}
    budget = max(_needed(_tensors(dims, chosen, blocks), step) for step in STEPS)
    for step in BLOCKS:
        blocks[step] = _largest_block(dims, chosen, step, budget)
    placed = _place(_tensors(dims, chosen, blocks))
    return Plan(
        placed,
        max(tensor.end for tensor in placed),
        {field: blocks[step] for step, field in BLOCKS.items()},
    )


def _needed(tensors: tuple[Tensor, ...], step: str) -> int:
    return sum(tensor.bytes for tensor in tensors if step in tensor.steps)


def _divide(a: int, b: int) -> int:
    return (a + b - 1) // b


def _whole_groups(n_tokens: int, rows: int, row_step: int) -> int:
    """Round rows up to whole groups, as far as there are tokens."""
    return min(n_tokens, _divide(rows, row_step) * row_step)


def _largest_block(dims: Dimensions, chosen: Kernels, step: str, budget: int) -> int:
    """Tokens of the fewest equal blocks with which `step` needs at most `budget` bytes."""
    t = dims.n_tokens
    for n_blocks in range(1, t + 1):
        block = _whole_groups(t, _divide(t, n_blocks), chosen.row_step)
        blocks = dict.fromkeys(BLOCKS, 1) | {step: block}
        if _needed(_tensors(dims, chosen, blocks), step) <= budget:
            break
    return block


def _tensors(dims: Dimensions, chosen: Kernels, blocks: dict[str, int]) -> tuple[Tensor, ...]:
    d, t = dims.d_model, dims.n_tokens
    conv, projection = blocks["convolutions"], blocks["projections"]
    hidden, pool = blocks["feed_forward"], blocks["pool"]
    linear = chosen.linear_bytes
    sizes: dict[str, tuple[int, tuple[str, ...]]] = {
        "mel": ((dims.n_frames + 2) * dims.n_mels, STEPS),
        "residual": (2 * t * d, STEPS),
        "conv": ((2 * conv + 1) * d, ("convolutions",)),
        "conv_workspace": (
            max(linear(2 * conv, CONV_KERNEL * dims.n_mels), linear(conv, CONV_KERNEL * d)),
            ("convolutions",),
        ),
        "normalized": (projection * d, ("projections",)),
        "projection_workspace": (linear(projection, d), ("projections",)),
        "attention": (t * d, ("projections", "products", "output")),
        "key": (t * dims.d_head, ("projections", "products")),
        "value": (t * dims.d_head, ("projections", "products")),
        "attention_workspace": (chosen.attention_bytes(t, dims.d_head, d), ("products",)),
        "output_workspace": (linear(blocks["output"], d), ("output",)),
        "feed_forward_normalized": (hidden * d, ("feed_forward",)),
        "hidden": (hidden * dims.d_ff, ("feed_forward",)),
        "feed_forward_workspace": (
            max(linear(hidden, d), linear(hidden, dims.d_ff)),
            ("feed_forward",),
        ),
        # Attention pools see all tokens twice, the mean a block once.
        "pool_normalized": ((t if dims.pools else pool) * d, ("pool",)),
        "pool_workspace": (attention_pool_bytes(t) if dims.pools else 4 * d, ("pool",)),
        "pooled": (2 * d * max(1, len(dims.pools)), ("pool", "head")),
        "head_workspace": (chosen.head_bytes(d), ("head",)),
    }
    return tuple(
        Tensor(name, frozenset(steps), _divide(size, ALIGNMENT) * ALIGNMENT)
        for name, (size, steps) in sizes.items()
    )


def _place(tensors: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Greedy: longest-lived first, then smallest, each at the lowest offset that is free."""
    placed: dict[str, Tensor] = {}
    for tensor in sorted(tensors, key=lambda one: (-len(one.steps), one.bytes)):
        neighbours = [other for other in placed.values() if other.steps & tensor.steps]
        offset = 0
        for other in sorted(neighbours, key=lambda one: one.offset):
            if offset + tensor.bytes <= other.offset:
                break
            offset = max(offset, other.end)
        placed[tensor.name] = Tensor(tensor.name, tensor.steps, tensor.bytes, offset)
    return tuple(placed[tensor.name] for tensor in tensors)
