"""docs/targets.md: what every real target has, and what three presets would take on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from quads_mcu.device import boards
from quads_mcu.device.boards import Board
from quads_mcu.export.blank import blank
from quads_mcu.model.dimensions import dimensions
from quads_mcu.report import analysis, costs
from quads_mcu.report.analysis import Analysis

N_CLASSES = 31
BITS = 4


class Size(NamedTuple):
    """A student of the table."""

    preset: str
    window_s: float
    n_mels: int

    def __str__(self) -> str:
        return f"{self.preset}, {self.window_s:g} s, {self.n_mels} mels"


SIZES = (Size("d96x2", 2.0, 40), Size("d192x4", 2.0, 80), Size("d384x4", 3.0, 80))

HEAD = """\
# Targets

Real chips that `quads-mcu export --target NAME` writes a project for. Every fact is in
`quads_mcu/device/boards/NAME.toml` with the document it is from. `quads-mcu boards` lists them,
`quads-mcu boards --json` prints all of it. **Nothing here was measured on a chip**: bytes are
computed, time and energy are estimates, made as the last section says.

This page is written by `python -m quads_mcu.report.targets > docs/targets.md`; a test fails when it
no longer holds.
"""

ESTIMATES = f"""
## What a student takes

{BITS} bits, {N_CLASSES} intents. Flash: weights, and code and tables of this firmware; RAM: arena,
stack and static data of this firmware. What the vendor's framework takes is not in these figures;
it is left out of what the first table calls usable. Weights and arena are exact, code and static
data an estimate from the nearest core for which firmware was measured. For ESP32 and ESP32-S3,
plain C on one core was counted; the exported kernels use both cores and, on the ESP32-S3, the
vector unit: these latencies lie far above what they should take.
"""

METHOD = """
## How the estimates are made

Latency = instructions × cycles per instruction ÷ clock. Instructions are predicted from the shapes
of all kernel calls with a model that is fitted to counts on an emulated core
([analysis.md](analysis.md)); one core computes. Cycles per instruction are **assumed**: no
pipeline, no cache and no flash is modelled, and an arena in PSRAM costs more than the estimate
says. Energy = latency × active power of the chip alone, where its vendor publishes one; else there
is none.
"""


def render() -> str:
    """Return the page."""
    chips = [board for board in boards.all_boards() if board.kind == "chip"]
    parts = [HEAD, _facts(chips), ESTIMATES]
    for size in SIZES:
        parts += [f"\n### {size}\n\n", _table(*_estimates(chips, size))]
    parts += [METHOD, "\n", _table(*_methods(chips)), "\n## Sources\n\n", _table(*_sources(chips))]
    return "".join(parts)


def _facts(chips: Sequence[Board]) -> str:
    columns = ("target", "what", "core", "MHz", "flash", "PSRAM", "usable flash, bytes",
               "usable RAM + PSRAM, bytes", "kernels, frontend", "formats", "flasher")  # fmt: skip
    return "\n" + _table(columns, [_fact(board) for board in chips])


def _fact(board: Board) -> tuple[str, ...]:
    usable = {
        kind: sum(region.size_bytes for region in board.memory if content in region.holds)
        for kind, content in (("flash", "weights"), ("ram", "arena"))
    }
    psram = sum(region.size_bytes for region in board.memory if region.name == "psram")
    return (
        f"`{board.name}`",
        board.description.split(":")[0],
        board.project["core"],
        f"{board.clock_hz / 1e6:g}",
        _size(board.flash_bytes),
        _size(board.psram_bytes),
        f"{usable['flash']:,}",
        f"{usable['ram'] - psram:,}" + (f" + {psram:,}" if psram else ""),
        f"{board.kernels}, {board.frontend}",
        ", ".join(board.formats),
        board.flasher.tool if board.flasher else "-",
    )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1024:,.0f} KB" if n_bytes else "-"


def _estimates(chips: Sequence[Board], size: Size) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    columns = ("target", "flash", "RAM", "fits", "instructions", "latency", "energy")
    dims = dimensions(size.preset, n_mels=size.n_mels, window_s=size.window_s, n_classes=N_CLASSES)
    model = blank(dims, BITS)
    return columns, [_estimate(analysis.analyze(size.preset, model, board)) for board in chips]


def _estimate(found: Analysis) -> tuple[str, ...]:
    cost = found.memory.cost
    over = [one for one in found.memory.regions if one.used_bytes > one.size_bytes]
    fits = "yes" if found.memory.problem is None else "no: " + ", ".join(
        f"{one.region} {one.used_bytes - one.size_bytes:,} too many" for one in over
    )  # fmt: skip
    arena = next((one.region for one in found.memory.regions if "arena" in one.contents), "")
    return (
        f"`{found.board}`",
        f"{cost.flash_bytes:,}",
        f"{cost.ram_bytes:,}",
        fits + (", arena in PSRAM" if arena == "psram" else ""),
        "-" if found.instructions is None else f"{found.instructions / 1e6:,.0f} M",
        "-" if found.latency_ms is None else f"{_rounded(found.latency_ms):,} ms",
        "-" if found.energy_mj is None else f"{_rounded(found.energy_mj):,} mJ",
    )


def _rounded(value: float) -> int | float:
    """Return an estimate with two significant digits."""
    found = float(f"{value:.2g}")
    return int(found) if found >= 10 else found


def _methods(chips: Sequence[Board]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    columns = ("target", "instructions counted on", "cycles per instruction", "active power")
    return columns, [_method(board) for board in chips]


def _method(board: Board) -> tuple[str, ...]:
    found, figures = costs.load(board), board.energy
    assert found is not None and figures is not None, board.name
    own = "" if found.core == costs.core(board) else f"; the chip is {board.project['core']}"
    power = f"{figures.active_power_mw:g} mW: {figures.source}"
    return (
        f"`{board.name}`",
        f"emulated {found.core}, {found.variant} kernels{own}",
        f"{figures.cycles_per_instruction:g}: {figures.cycles_source}",
        power if figures.active_power_mw else board.sources["power"],
    )


def _sources(chips: Sequence[Board]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    names = ("clock", "memory", "toolchain", "flasher")
    rows = [(f"`{board.name}`", *(board.sources[name] for name in names)) for board in chips]
    return ("target", *names), rows


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def lines() -> Iterator[Sequence[str]]:
        yield columns
        yield ["---"] * len(columns)
        yield from rows

    return "".join(f"| {' | '.join(line)} |\n" for line in lines())


if __name__ == "__main__":
    print(render(), end="")
