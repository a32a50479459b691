"""The arena: where each tensor of the encoder lies, so that short-lived ones share memory.

The encoder (firmware/src/encoder.c) runs through STEPS; the three attention steps repeat for every
head, and all steps from the projections to the feed-forward for every layer. A tensor is needed in
some steps; two tensors may share memory when they have no step in common.
"""

from __future__ import annotations

from dataclasses import dataclass

from quads_mcu.model.dimensions import CONV_KERNEL, Dimensions

ALIGNMENT = 8
TILE_ROWS = 4
# Weights are decoded once per block; at 50 rows that is 4 % of the block's instructions.
MAX_TOKEN_BLOCK = 50

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
    conv_block: int
    token_block: int

    @property
    def offsets(self) -> dict[str, int]:
        """Offset of each tensor in bytes, by name."""
        return {tensor.name: tensor.offset for tensor in self.tensors}

    def step_bytes(self) -> dict[str, int]:
        """Return the bytes needed in each step; the largest is a lower bound of the arena."""
        return {
            step: sum(tensor.bytes for tensor in self.tensors if step in tensor.steps)
            for step in STEPS
        }


def plan(dims: Dimensions) -> Plan:
    """Lay out the arena of an encoder.

    The blocks of tokens are the largest for which the feed-forward layer needs no more memory than
    attention does, the blocks of the convolutions the largest that need no more than the rest.
    """
    token_block = _token_block(dims)
    smallest = _place(_tensors(dims, 1, token_block))
    limit = max(tensor.end for tensor in smallest)
    conv_block, placed = 1, smallest
    for n_blocks in range(1, dims.n_tokens):
        conv_block = _divide(dims.n_tokens, n_blocks)
        placed = _place(_tensors(dims, conv_block, token_block))
        if max(tensor.end for tensor in placed) <= limit:
            break
    else:
        conv_block, placed = 1, smallest
    return Plan(placed, max(tensor.end for tensor in placed), conv_block, token_block)


def _divide(a: int, b: int) -> int:
    return (a + b - 1) // b


def _token_block(dims: Dimensions) -> int:
    """Fewest equal blocks whose hidden rows fit where attention has outputs, keys and values."""
    budget = dims.n_tokens * (dims.d_model + 2 * dims.d_head)
    most = max(1, min(MAX_TOKEN_BLOCK, budget // dims.d_ff))
    return _divide(dims.n_tokens, _divide(dims.n_tokens, most))


def _tensors(dims: Dimensions, conv_block: int, token_block: int) -> list[Tensor]:
    d, t = dims.d_model, dims.n_tokens
    tile_inputs = max(dims.d_ff, CONV_KERNEL * dims.n_mels)
    sizes: dict[str, tuple[int, tuple[str, ...]]] = {
        "mel": ((dims.n_frames + 2) * dims.n_mels, STEPS),
        "residual": (2 * t * d, STEPS),
        "conv": ((2 * conv_block + 1) * d, ("convolutions",)),
        "normalized": (token_block * d, ("projections", "feed_forward", "pool")),
        "attention": (t * d, ("projections", "products", "output")),
        "key": (t * dims.d_head, ("projections", "products")),
        "value": (t * dims.d_head, ("projections", "products")),
        "scores": (4 * t, ("products",)),
        "exps": (2 * t, ("products",)),
        "hidden": (token_block * dims.d_ff, ("feed_forward",)),
        "sums": (4 * d, ("pool", "head")),
        "pooled": (2 * d, ("head",)),
        "tile": (
            TILE_ROWS * tile_inputs,
            ("convolutions", "projections", "output", "feed_forward", "head"),
        ),
    }
    return [
        Tensor(name, frozenset(steps), _divide(size, ALIGNMENT) * ALIGNMENT)
        for name, (size, steps) in sizes.items()
    ]


def _place(tensors: list[Tensor]) -> tuple[Tensor, ...]:
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
