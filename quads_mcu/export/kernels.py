"""What the planner and the C exporter must know of each kernel variant (firmware/src/kernels/)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from quads_mcu.errors import ExportError
from quads_mcu.model_format import pack_indices

Index = NDArray[Any]
PLAIN_TILE_ROWS = 4  # QUADS_TILE_ROWS of plain/quads_plain.h


@dataclass(frozen=True)
class Kernels:
    """One variant of the kernels.

    linear_bytes: workspace of quads_linear_s8 and quads_linear_add_s16 from (rows, n_in).
    head_bytes: workspace of quads_head from n_in.
    attention_bytes: workspace of quads_attention_head from (n_tokens, d_head).
    row_step: rows are computed in groups of so many; blocks are multiples of it.
    least_rows: rows from d_model, below which decoding the weights anew for every block costs more
        than the memory is worth; most_rows: above which it gains nothing.
    pack: indices uint8 (n_out, n_in) and bits to the bytes that `quads_linear_t.indices` points to
        (docs/arithmetic.md, section 9).
    """

    linear_bytes: Callable[[int, int], int]
    head_bytes: Callable[[int], int]
    attention_bytes: Callable[[int, int], int]
    row_step: int
    least_rows: Callable[[int], int]
    most_rows: int
    pack: Callable[[Index, int], Index] = pack_indices


def _plain_linear_bytes(rows: int, n_in: int) -> int:
    del rows
    return PLAIN_TILE_ROWS * n_in


def _plain_attention_bytes(n_tokens: int, d_head: int) -> int:
    """Scores, padded to 8 bytes, and exponentials of one query."""
    del d_head
    return (n_tokens + 1) // 2 * 8 + 2 * n_tokens


# At 32 rows decoding is 6 % of plain C's instructions.
PLAIN = Kernels(
    linear_bytes=_plain_linear_bytes,
    head_bytes=lambda n_in: PLAIN_TILE_ROWS * n_in,
    attention_bytes=_plain_attention_bytes,
    row_step=1,
    least_rows=lambda d_model: 32,
    most_rows=1 << 15,
)

KERNELS = {"plain": PLAIN, "dsp": PLAIN, "helium": PLAIN}


def kernels(name: str) -> Kernels:
    """Return the variant that a board file calls `name`.

    Raises:
        ExportError: there is none.
    """
    if name not in KERNELS:
        raise ExportError(f"kernels {name!r} are unknown; there are {', '.join(KERNELS)}")
    return KERNELS[name]
