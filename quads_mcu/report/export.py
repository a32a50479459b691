"""What `quads-mcu export` says of a project for a chip: memory, estimates, files, next command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from quads_mcu.device import firmware_sizes, memory
from quads_mcu.device.boards import Board
from quads_mcu.device.memory import Usage
from quads_mcu.export.projects import Export
from quads_mcu.report import analysis
from quads_mcu.report.analysis import Analysis

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]


@dataclass(frozen=True)
class Described:
    """An export, where its parts will lie, and what an utterance is estimated to take."""

    done: Export
    board: Board
    regions: tuple[Usage, ...]
    estimate: Analysis

    @property
    def next_command(self) -> str:
        """What builds the project."""
        return f"quads-mcu build --project-dir {self.done.folder}"

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        return {
            "board": self.board.name,
            "format": self.done.format,
            "weights": self.done.weights,
            "folder": str(self.done.folder),
            "files": dict(self.done.files),
            "memory": {"regions": [asdict(one) for one in self.regions], **asdict(self.done.cost)},
            "estimate": {
                "instructions": self.estimate.instructions,
                "latency_ms": self.estimate.latency_ms,
                "energy_mj": self.estimate.energy_mj,
                "method": list(self.method()),
            },
            "next": self.next_command,
        }

    def method(self) -> Iterator[str]:
        """Yield how the figures came about, a line each."""
        yield (
            "bytes: weights and arena as they will be; code, constants and data estimated from "
            f"firmware for {self.board.nearest} ({firmware_sizes.compiler(self.board)})"
        )
        yield from self.estimate.method
        if any(one.region == "psram" and "arena" in one.contents for one in self.regions):
            yield "the arena lies in PSRAM, whose waiting is not modelled: expect longer"

    def tables(self) -> Iterator[Table]:
        """Yield the tables: memory by region, estimates, files."""
        columns = ("region", "holds", "bytes", "of", "left")
        yield f"Memory of {self.board.name}, predicted", columns, [
            (one.region, ", ".join(one.contents), f"{one.used_bytes:,}", f"{one.size_bytes:,}",
             f"{one.size_bytes - one.used_bytes:,}")
            for one in self.regions
        ]  # fmt: skip
        yield "One utterance, estimated", ("", ""), list(self._estimates())
        yield self._files()

    def _estimates(self) -> Iterator[tuple[str, ...]]:
        found = self.estimate
        if found.instructions is not None:
            yield "instructions", f"{found.instructions / 1e6:,.1f} M"
        if found.latency_ms is not None:
            yield "latency", f"{found.latency_ms:,.0f} ms"
        yield "energy", "-" if found.energy_mj is None else f"{found.energy_mj:,.1f} mJ"

    def _files(self) -> Table:
        places: dict[str, list[int]] = {}
        for name, size in self.done.files.items():
            top, slash, _ = name.partition("/")
            places.setdefault(top + slash, []).append(size)
        rows: list[tuple[str, ...]] = [
            (place, f"{len(sizes):,}", f"{sum(sizes):,}") for place, sizes in sorted(places.items())
        ]
        title = f"Project {self.done.format}, weights as {self.done.weights}"
        return title, ("", "files", "bytes"), rows


def described(done: Export, board: Board) -> Described:
    """Return what there is to say of an export.

    Raises:
        ExportError: the board's kernels are unknown.
    """
    regions = tuple(memory.place(board, done.cost.needs))
    return Described(done, board, regions, analysis.analyze(board.name, done.model, board))
