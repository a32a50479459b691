"""`quads-mcu analyze`: what a model will take on a board, before there is any hardware.

Memory is exact: it is the planner's and the exporter's own arithmetic. Instructions are predicted
from the shapes of all kernel calls (costs.py); milliseconds and millijoules are estimates from
them (device/energy.py). Nothing is compiled or run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from quads_mcu import model_format
from quads_mcu.device import energy
from quads_mcu.device.boards import Board
from quads_mcu.errors import ConfigError
from quads_mcu.export import planner, work
from quads_mcu.export.blank import blank
from quads_mcu.model.dimensions import FRAMES_PER_S, PRESETS, Dimensions, checked, preset
from quads_mcu.model_format import STAGES, PackedModel
from quads_mcu.report import costs, fitting
from quads_mcu.report.fitting import Memory, Way
from quads_mcu.run_dir import RunDir

Number = TypeVar("Number", int, float)


@dataclass(frozen=True)
class Part:
    """Work of one stage at one place (`place_name`); estimates are None without figures."""

    place: int
    stage: str
    macs: int
    instructions: int | None
    latency_ms: float | None
    energy_mj: float | None


@dataclass(frozen=True)
class Analysis:
    """Everything `analyze` shows.

    parts: in order of computation. method: how the estimates came about, one line each. ways:
    what to change, if it does not fit.
    """

    name: str
    dims: Dimensions
    bits: tuple[int, ...]
    board: str
    memory: Memory
    parts: tuple[Part, ...]
    method: tuple[str, ...]
    ways: tuple[Way, ...]

    @property
    def instructions(self) -> int | None:
        """Of one utterance."""
        return _total([part.instructions for part in self.parts])

    @property
    def latency_ms(self) -> float | None:
        """Estimated time of one utterance."""
        return _total([part.latency_ms for part in self.parts])

    @property
    def energy_mj(self) -> float | None:
        """Estimated energy of one utterance."""
        return _total([part.energy_mj for part in self.parts])

    @property
    def real_time_factor(self) -> float | None:
        """Estimated time of one utterance over the length of its window; below 1 keeps up."""
        latency_ms = self.latency_ms
        window_ms = self.dims.n_frames / FRAMES_PER_S * 1e3
        return None if latency_ms is None else latency_ms / window_ms

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "model": self.name,
            "dims": asdict(self.dims),
            "bits": list(self.bits),
            "board": self.board,
            "fits": self.memory.problem is None,
            "problem": self.memory.problem,
            "memory": self.memory.to_json(),
            "instructions": self.instructions,
            "latency_ms": self.latency_ms,
            "energy_mj": self.energy_mj,
            "real_time_factor": self.real_time_factor,
            "parts": [
                asdict(part) | {"place": place_name(part.place, self.dims)} for part in self.parts
            ],
            "method": list(self.method),
            "ways": [asdict(way) for way in self.ways],
        }


def place_name(place: int, dims: Dimensions) -> str:
    """Return what people call a place of `work.Call`."""
    if place == 0:
        return "front"
    return f"layer {place - 1}" if place <= dims.n_layers else "back"


def load(
    model: str, *, bits: int = 4, window_s: float = 3.0, n_mels: int = 80, n_classes: int = 31
) -> tuple[str, PackedModel]:
    """Return (name, model) of a run's folder, a model file, or a preset with these sizes.

    Raises:
        ConfigError: `model` is none of these, or a size is impossible.
        ModelFormatError: the file is damaged.
    """
    path = Path(model)
    if path.is_dir():
        path = RunDir(path).model_path
        if not path.is_file():
            raise ConfigError(
                f"{path}: no such file; `quads-mcu export --run {model}` writes it from a trained "
                f"student, or analyze a preset: {', '.join(PRESETS)}"
            )
    if path.is_file():
        return model, model_format.read(path)
    try:
        preset(model)
    except ConfigError:
        raise ConfigError(
            f"{model}: no such run, model file or preset; presets: {', '.join(PRESETS)}, "
            "dWIDTHxLAYERS"
        ) from None
    if bits not in model_format.BITS:
        raise ConfigError(f"bits = {bits}; allowed: {', '.join(map(str, model_format.BITS))}")
    dims = checked(model, n_mels=n_mels, window_s=window_s, n_classes=n_classes)
    if dims.n_tokens > model_format.MAX_TOKENS:
        raise ConfigError(f"{window_s:g} s are {dims.n_tokens} tokens, limit 2047")
    return model, blank(dims, bits)


def analyze(name: str, model: PackedModel, board: Board) -> Analysis:
    """Predict memory, instructions, time and energy of `model` on `board`.

    Raises:
        ExportError: the board's kernels are unknown.
    """
    model = replace(model, frontend=board.frontend)
    memory = fitting.memory(model, board)
    parts, method = _parts(model, board)
    return Analysis(
        name=name,
        dims=model.dims,
        bits=tuple(sorted({linear.bits for _, linear in model.linears()})),
        board=board.name,
        memory=memory,
        parts=parts,
        method=method,
        ways=fitting.ways(model, board) if memory.problem else (),
    )


def predict(model: PackedModel, board: Board) -> Mapping[tuple[int, str], float] | None:
    """Return predicted instructions by (place, stage); None where no cost was ever measured."""
    found = costs.load(board)
    if found is None:
        return None
    sums: dict[tuple[int, str], float] = {}
    known: dict[tuple[Any, ...], float] = {}
    for call in _calls(model, board):
        shape = (call.kernel, call.rows, call.n_out, call.n_in, call.bits)
        if shape not in known:
            known[shape] = found.instructions(call)
        at = call.place, call.stage
        sums[at] = sums.get(at, 0.0) + known[shape]
    return sums


def _calls(model: PackedModel, board: Board) -> list[work.Call]:
    bits = {name: linear.bits for name, linear in model.linears()}
    return list(work.calls(model.dims, planner.plan(model.dims, board.kernels), bits))


def _parts(model: PackedModel, board: Board) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    instructions = predict(model, board)
    macs: dict[tuple[int, str], int] = {}
    for call in _calls(model, board):
        at = call.place, call.stage
        macs[at] = macs.get(at, 0) + call.macs
    order = sorted(macs, key=lambda at: (at[0], STAGES.index(at[1])))
    parts = []
    for place, stage in order:
        count = None if instructions is None else instructions[place, stage]
        parts.append(_part(board, place, stage, macs[place, stage], count))
    return tuple(parts), _method(board)


def _part(board: Board, place: int, stage: str, macs: int, count: float | None) -> Part:
    if count is None:
        return Part(place, stage, macs, None, None, None)
    if board.energy is None:
        latency_ms = count / board.clock_hz * 1e3 if board.clock_hz else None
        return Part(place, stage, macs, round(count), latency_ms, None)
    found = energy.estimate(board, count)
    energy_mj = None if found.energy_uj is None else found.energy_uj / 1e3
    return Part(place, stage, macs, round(count), found.latency_ms, energy_mj)


def _method(board: Board) -> tuple[str, ...]:
    found = costs.load(board)
    if found is None:
        core = costs.core(board) or "this core"
        return (f"no instructions: none were ever counted on {core} with {board.kernels} kernels",)
    lines = [
        f"instructions: predicted from call shapes; fitted to counts on an emulated {found.core}, "
        f"{found.variant} kernels, {found.compiler}"
    ]
    if found.core != costs.core(board):
        lines.append(
            f"{board.name} has another core ({board.project.get('core', board.chip)}), on which no "
            "kernel was counted: its own instructions differ"
        )
    if board.energy is None:
        if board.clock_hz:
            clock = f"{board.clock_hz / 1e6:g} MHz"
            lines.append(f"ms: estimate, one cycle per instruction at the board's own {clock}")
        lines.append(f"no mJ: the file of board {board.name} has no [energy] figures")
    else:
        known = "ms and mJ" if board.energy.active_power_mw else "ms"
        lines.append(f"{known}: {energy.estimate(board, 0.0).method}")
        if not board.energy.active_power_mw:
            why = board.sources.get("power", "the board file names no power")
            lines.append(f"no mJ: {why.removeprefix('none: ')}")
    return tuple(lines)


def _total(values: Sequence[Number | None]) -> Number | None:
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if len(known) == len(values) else None
