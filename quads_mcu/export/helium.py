"""Packed indices and workspaces of the Cortex-M55 kernels (firmware/src/kernels/helium/)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

GROUP_ROWS = 8  # QUADS_GROUP_ROWS of quads_helium.h
TILE_CHANNELS = 4  # QUADS_TILE_CHANNELS
BLOCK = 16  # QUADS_BLOCK
PAIR_TABLE_BYTES = 2 * 256
SUMS_BYTES = 4 * 256


def pack(indices: NDArray[Any], bits: int) -> NDArray[Any]:
    """Return indices in the order of docs/arithmetic.md, section 9, "Helium".

    Args:
        indices: uint8 (n_out, n_in), each below 2**bits.
        bits: 2, 3, 4 or 8.
    Returns:
        uint8 (groups, blocks, 16 * bits): per group of 8 output channels and block of 16 inputs.
    """
    n_out, n_in = indices.shape
    whole = np.pad(indices, ((0, -n_out % GROUP_ROWS), (0, -n_in % BLOCK)))
    groups, blocks = whole.shape[0] // GROUP_ROWS, whole.shape[1] // BLOCK
    halves = whole.reshape(groups, 2, TILE_CHANNELS, blocks, BLOCK).transpose(0, 3, 1, 2, 4)
    if bits == 8:
        packed = halves
    else:
        pairs = halves[..., 0::2] | halves[..., 1::2] << bits
        packed = _merge(pairs, bits)
    return np.ascontiguousarray(packed).reshape(groups, blocks, 16 * bits)


def _merge(pairs: NDArray[Any], bits: int) -> NDArray[Any]:
    """Put the pairs of four channels, (..., 4, 8), into bytes, (..., bits, 8)."""
    if bits == 4:
        return pairs
    if bits == 2:
        merged: NDArray[Any] = pairs[..., 0::2, :] | pairs[..., 1::2, :] << 4
        return merged
    parts = [pairs[..., c, :] | (pairs[..., 3, :] >> 2 * c & 3) << 6 for c in range(3)]
    return np.stack(parts, axis=-2)


def index_bytes(n_out: int, n_in: int, bits: int) -> int:
    """Return the size of what `pack` returns, filled-up groups and blocks included."""
    return _up(n_out, GROUP_ROWS) * _up(n_in, BLOCK) * bits // 8


def linear_bytes(rows: int, n_in: int) -> int:
    """Return the workspace of a linear layer: table of pairs, sums, tile."""
    del rows
    return PAIR_TABLE_BYTES + SUMS_BYTES + TILE_CHANNELS * _up(n_in, BLOCK)


def attention_bytes(n_tokens: int, d_head: int, d_model: int = 0) -> int:
    """Return the workspace of attention: sums and exponentials of two queries, values, queries."""
    del d_model
    tokens = _up(n_tokens, 8)
    return 8 * max(tokens, d_head) + 4 * tokens + d_head * tokens + 2 * _up(d_head, BLOCK)


def _up(size: int, step: int) -> int:
    return -(-size // step) * step
