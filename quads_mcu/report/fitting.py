"""Whether a model fits a board, and what would make it fit: every way out is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from quads_mcu.device import boards
from quads_mcu.device import memory as placing
from quads_mcu.device.boards import Board
from quads_mcu.device.memory import Usage
from quads_mcu.errors import ExportError
from quads_mcu.export import project
from quads_mcu.export.blank import blank
from quads_mcu.model.dimensions import FRAMES_PER_S, PRESETS, Dimensions
from quads_mcu.model_format import BITS, PackedModel

# Windows are shortened in steps of so many frames, down to the shortest that [audio] allows.
STEP_FRAMES = 10
SHORTEST_FRAMES = 50


@dataclass(frozen=True)
class Memory:
    """Bytes by region; empty for boards without regions. problem: why it does not fit, or None."""

    cost: project.Cost
    regions: tuple[Usage, ...]
    problem: str | None

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "regions": [asdict(region) for region in self.regions],
            **asdict(self.cost),
        }


@dataclass(frozen=True)
class Way:
    """One change with which the model fits, and what it then takes; None: no such change does."""

    change: str
    flash_bytes: int | None
    ram_bytes: int | None


def memory(model: PackedModel, board: Board) -> Memory:
    """Return what `model` takes in each region of `board`."""
    cost = project.predict(model, board)
    try:
        return Memory(cost, tuple(placing.place(board, cost.needs)), None)
    except ExportError as error:
        nearest = min(
            (placing.usage(board, choice, cost.needs) for choice in placing.choices(board)),
            key=placing.overflow_bytes,
        )
        return Memory(cost, tuple(nearest), str(error))


def ways(model: PackedModel, board: Board) -> tuple[Way, ...]:
    """Return what would make `model` fit: smaller preset, fewer bits, shorter window, other board.

    Of each kind the smallest change that suffices; all three together where none does alone.
    """
    dims, bits = model.dims, max(linear.bits for _, linear in model.linears())

    def fitting_way(change: str, dims: Dimensions, bits: int) -> Way | None:
        found = memory(blank(dims, bits), board)
        if found.problem:
            return None
        return Way(change, found.cost.flash_bytes, found.cost.ram_bytes)

    kinds = {
        "a smaller preset": _presets(dims, bits, fitting_way),
        "fewer bits": _fewer_bits(dims, bits, fitting_way),
        "a shorter window": _windows(dims, bits, fitting_way),
    }
    found = {kind: next(candidates, None) for kind, candidates in kinds.items()}
    result = [way or Way(f"{kind} alone: not enough", None, None) for kind, way in found.items()]
    if not any(found.values()):
        result += _together(dims, bits, fitting_way)
    return (*result, *_other_boards(model, board))


Candidate = Callable[[str, Dimensions, int], Way | None]


def _smaller(dims: Dimensions) -> Iterator[tuple[str, Dimensions]]:
    """Yield presets of fewer weights, largest first."""
    for name, preset in sorted(PRESETS.items(), key=lambda item: -_weights(item[1])):
        if _weights(preset) < dims.d_model**2 * dims.n_layers:
            yield (
                name,
                dataclasses.replace(
                    dims, d_model=preset.d_model, n_heads=preset.n_heads, n_layers=preset.n_layers
                ),
            )


def _weights(preset: Any) -> int:
    return int(preset.d_model**2 * preset.n_layers)


def _presets(dims: Dimensions, bits: int, way: Candidate) -> Iterator[Way]:
    for name, smaller in _smaller(dims):
        if found := way(f"[student] preset = {name}", smaller, bits):
            yield found


def _fewer_bits(dims: Dimensions, bits: int, way: Candidate) -> Iterator[Way]:
    for fewer in sorted((b for b in BITS if b < bits), reverse=True):
        if found := way(f"[quantization] bits = {fewer}", dims, fewer):
            yield found


def _windows(dims: Dimensions, bits: int, way: Candidate) -> Iterator[Way]:
    """Yield the longest window that fits; memory grows with the window, so halving finds it."""

    def at(steps: int) -> Way | None:
        frames = steps * STEP_FRAMES
        change = f"[audio] window_s = {frames / FRAMES_PER_S:g}"
        return way(change, dataclasses.replace(dims, n_frames=frames), bits)

    low, high = SHORTEST_FRAMES // STEP_FRAMES, -(-dims.n_frames // STEP_FRAMES)
    best = at(low) if low < high else None
    while best and high - low > 1:
        middle = (low + high) // 2
        if found := at(middle):
            best, low = found, middle
        else:
            high = middle
    if best:
        yield best


def _together(dims: Dimensions, bits: int, way: Candidate) -> Iterator[Way]:
    """Yield the largest preset that fits with fewer bits or, then, a shorter window as well."""
    for name, smaller in [("", dims), *_smaller(dims)]:
        for fewer in sorted((b for b in BITS if b <= bits), reverse=True):
            for found in _windows(smaller, fewer, way):
                parts = [f"[student] preset = {name}"] if name else []
                parts += [f"[quantization] bits = {fewer}"] if fewer < bits else []
                whole = way("", smaller, fewer)
                parts += [] if whole else [found.change]
                yield dataclasses.replace(whole or found, change=", ".join(parts))
                return


def _other_boards(model: PackedModel, board: Board) -> Iterator[Way]:
    """Yield the known boards on which the model fits as it is."""
    for other in boards.all_boards():
        if other.memory and other.name != board.name:
            found = memory(model, other)
            if not found.problem:
                yield Way(f"--target {other.name}", found.cost.flash_bytes, found.cost.ram_bytes)
