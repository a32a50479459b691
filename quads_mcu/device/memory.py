"""Where the parts of a firmware lie: every region's contents and bytes, before and after linking.

Code, constants and static data have one region each. Weights and the arena go to the first region
that may hold them and has room, in the order of the board file: fast memory is listed first.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from quads_mcu.device import boards
from quads_mcu.device.boards import CONTENTS, Board, Region
from quads_mcu.device.elf import Elf
from quads_mcu.errors import TargetError

# Region by content.
Placement = dict[str, Region]

# The arena comes first: everything reads and writes it, weights are read once per block.
MOVABLE = ("arena", "weights")
SMALLER = "a smaller student ([student] preset), or "
WAYS_OUT = {
    "weights": f"fewer bits per weight ([quantization] bits), {SMALLER}",
    "arena": f"a shorter window ([audio] window_s), {SMALLER}",
}


@dataclass(frozen=True)
class Usage:
    """One region of a board: what lies there and how many of its bytes are taken."""

    region: str
    contents: tuple[str, ...]
    used_bytes: int
    size_bytes: int

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Usage:
        """Return what `dataclasses.asdict` and JSON made of a Usage.

        Raises:
            KeyError, TypeError: not such values.
        """
        return cls(**(values | {"contents": tuple(values["contents"])}))


def choices(board: Board) -> list[Placement]:
    """Return every allowed placement, best first; the arena's region decides before the weights'.

    Boards without regions have one placement, the empty one.
    """
    if not board.memory:
        return [{}]
    fixed = {content: board.region(content) for content in CONTENTS if content not in MOVABLE}
    return [
        fixed | {"arena": arena, "weights": weights}
        for arena in board.regions("arena")
        for weights in board.regions("weights")
    ]


def place(board: Board, needs: dict[str, int]) -> list[Usage]:
    """Return the first placement with room for `needs`, bytes by content.

    Boards without regions (the host) take everything and return [].

    Raises:
        TargetError: nothing has room; names region, bytes needed and available, three ways out.
    """
    if not board.memory:
        return []
    candidates = [usage(board, choice, needs) for choice in choices(board)]
    for usages in candidates:
        if overflow_bytes(usages) == 0:
            return usages
    nearest = min(candidates, key=overflow_bytes)
    raise TargetError(overflow_text(board, nearest) + _variants(board, needs))


def _variants(board: Board, needs: dict[str, int]) -> str:
    """Return the boards with the same chip, but more memory, that have room."""
    fitting = [
        f"--target {other.name}"
        for other in boards.all_boards()
        if board.chip
        and (other.chip, other.kernels) == (board.chip, board.kernels)
        and any(overflow_bytes(usage(other, choice, needs)) == 0 for choice in choices(other))
    ]
    return f"; there is room on {' and on '.join(fitting)}" if fitting else ""


def contents_of(placement: Placement, region: Region) -> tuple[str, ...]:
    """Return what lies in `region`, in the order of CONTENTS."""
    return tuple(content for content in CONTENTS if placement[content] == region)


def measured(board: Board, placement: Placement, image: Elf) -> tuple[Usage, ...]:
    """Return how far every region of `board` is filled in a linked firmware."""
    found = []
    for region in board.memory:
        used = image.end_of(region.start, region.size_bytes) - region.start
        if used:
            contents = contents_of(placement, region)
            found.append(Usage(region.name, contents, used, region.size_bytes))
    return tuple(found)


def usage(board: Board, placement: Placement, needs: dict[str, int]) -> list[Usage]:
    """Return what `needs` take in every region that holds something."""
    found = []
    for region in board.memory:
        contents = tuple(c for c in contents_of(placement, region) if needs.get(c, 0))
        if contents:
            used = sum(needs[content] for content in contents)
            found.append(Usage(region.name, contents, used, region.size_bytes))
    return found


def overflow_text(board: Board, usages: Iterable[Usage]) -> str:
    """Return the message for the region that would be fullest beyond its size."""
    one = max(usages, key=lambda usage: usage.used_bytes - usage.size_bytes)
    blamed = next((content for content in MOVABLE if content in one.contents), one.contents[0])
    return (
        f"{one.region} of {board.name} ({', '.join(one.contents)}): {one.used_bytes:,} bytes "
        f"needed, {one.size_bytes:,} available, {one.used_bytes - one.size_bytes:,} too many; "
        f"use {WAYS_OUT.get(blamed, '')}a board with more {one.region} (`quads-mcu boards`)"
    )


def overflow_bytes(usages: Iterable[Usage]) -> int:
    """Return by how many bytes all regions together are too full."""
    return sum(max(0, one.used_bytes - one.size_bytes) for one in usages)
