"""What the planner and the C exporter must know of each kernel variant (firmware/src/kernels/)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.errors import ExportError
from quads_mcu.export import helium
from quads_mcu.model_format import PackedModel, pack_indices, row_bytes, tensors, weight_bytes

Index = NDArray[Any]
PLAIN_TILE_ROWS = 4  # QUADS_TILE_ROWS of plain/quads_plain.h
DSP_QUERY_SHARE = 16  # QUERY_SHARE of dsp/quads_attention_head.c


def _row_major_bytes(n_out: int, n_in: int, bits: int) -> int:
    return n_out * row_bytes(n_in, bits)


@dataclass(frozen=True)
class Kernels:
    """One variant of the kernels.

    linear_bytes: workspace of quads_linear_s8 and quads_linear_add_s16 from (rows, n_in).
    head_bytes: workspace of quads_head from n_in.
    attention_bytes: workspace of quads_attention_head from (n_tokens, d_head, d_model).
    row_step: rows are computed in groups of so many; blocks are multiples of it.
    least_rows: rows from (n_tokens, d_model), below which decoding the weights anew for every block
        costs more than the memory is worth.
    pack: indices uint8 (n_out, n_in) and bits to the bytes that `quads_linear_t.indices` points to
        (docs/arithmetic.md, section 9); index_bytes: how many from (n_out, n_in, bits).
    """

    linear_bytes: Callable[[int, int], int]
    head_bytes: Callable[[int], int]
    attention_bytes: Callable[[int, int, int], int]
    row_step: int
    least_rows: Callable[[int, int], int]
    pack: Callable[[Index, int], Index] = pack_indices
    index_bytes: Callable[[int, int, int], int] = _row_major_bytes


def _plain_linear_bytes(rows: int, n_in: int) -> int:
    del rows
    return PLAIN_TILE_ROWS * n_in


def _plain_attention_bytes(n_tokens: int, d_head: int, d_model: int) -> int:
    """Scores, padded to 8 bytes, and exponentials of one query."""
    del d_head, d_model
    return (n_tokens + 1) // 2 * 8 + 2 * n_tokens


def attention_pool_bytes(n_tokens: int) -> int:
    """Return the workspace of quads_attention_pool, the same for every variant."""
    return _plain_attention_bytes(n_tokens, 0, 0)


def _dsp_attention_bytes(n_tokens: int, d_head: int, d_model: int) -> int:
    """Multipliers, and scores with queries and keys or powers with values and sums of one block."""
    pairs = min(max(1, d_model // (2 * DSP_QUERY_SHARE)), (n_tokens + 1) // 2)
    tokens = (n_tokens + 7) // 8 * 8
    scoring = 8 * pairs * tokens + 4 * pairs * d_head + 8 * d_head
    weighting = 4 * pairs * tokens + 8 * tokens + 32 * pairs
    return 8 * pairs + max(scoring, weighting)


# At 32 rows decoding is 6 % of plain C's instructions.
PLAIN = Kernels(
    linear_bytes=_plain_linear_bytes,
    head_bytes=lambda n_in: PLAIN_TILE_ROWS * n_in,
    attention_bytes=_plain_attention_bytes,
    row_step=1,
    least_rows=lambda n_tokens, d_model: 32,
)


def _dsp_linear_bytes(rows: int, n_in: int) -> int:
    """Pair table, a tile of two channels and the widened rows (dsp/quads_dsp_linear.h)."""
    groups = (rows + 3) // 4
    return 4 * 256 + 4 * n_in + groups * 4 * 2 * n_in


DSP = replace(
    PLAIN,
    linear_bytes=_dsp_linear_bytes,
    attention_bytes=_dsp_attention_bytes,
    row_step=4,
    least_rows=lambda n_tokens, d_model: max(4, n_tokens // 12, d_model // 40 * 4),
)


def _esp_linear_bytes(rows: int, n_in: int) -> int:
    """Two tiles, QUADS_ESP_TILE_BYTES of esp/quads_esp.h: one for each core."""
    del rows
    return 2 * (PLAIN_TILE_ROWS * ((n_in + 15) // 16 * 16) + 8)


def _esp_attention_bytes(n_tokens: int, d_head: int, d_model: int) -> int:
    """Scores and exponentials of one query for each core, padded to 8 bytes."""
    del d_head, d_model
    return 2 * ((n_tokens + 1) // 2 * 8 + (n_tokens + 3) // 4 * 8)


# Plain's packing and blocks; QUADS_PIE and QUADS_CORES of the build do not matter to a model.
ESP = replace(PLAIN, linear_bytes=_esp_linear_bytes, attention_bytes=_esp_attention_bytes)

# At 48 rows decoding is 4 % of the instructions.
HELIUM = Kernels(
    linear_bytes=helium.linear_bytes,
    head_bytes=lambda n_in: helium.linear_bytes(1, n_in),
    attention_bytes=helium.attention_bytes,
    row_step=4,
    least_rows=lambda n_tokens, d_model: 48,
    pack=helium.pack,
    index_bytes=helium.index_bytes,
)

KERNELS = {"plain": PLAIN, "dsp": DSP, "helium": HELIUM, "esp": ESP}


def kernels(name: str) -> Kernels:
    """Return the variant that a board file calls `name`.

    Raises:
        ExportError: there is none.
    """
    if name not in KERNELS:
        raise ExportError(f"kernels {name!r} are unknown; there are {', '.join(KERNELS)}")
    return KERNELS[name]


def flash_by_kind(model: PackedModel, name: str) -> dict[str, int]:
    """Return the bytes of `model` in flash, by kind, in the packing of the variant `name`.

    Raises:
        ExportError: unknown variant.
    """
    return weight_bytes(model, _unpacked(name))


def tensor_bytes(model: PackedModel, name: str) -> list[int]:
    """Return the bytes of every tensor in the packing of the variant `name`; packs nothing.

    Raises:
        ExportError: unknown variant.
    """
    return [tensor.nbytes for tensor in tensors(model, _unpacked(name)).values()]


def _unpacked(name: str) -> Callable[[Index, int], Index]:
    """Return what stands for `pack`: an array of the packed size without contents."""
    chosen = kernels(name)

    def pack(indices: Index, bits: int) -> Index:
        n_out, n_in = indices.shape
        return np.broadcast_to(np.uint8(0), chosen.index_bytes(n_out, n_in, bits))

    return pack
