"""Instruction counts of kernels, frontend and whole models: measured, kept, and held to limits.

A row is a plain dict; NAMES says which of its fields say what was measured, the others are figures.
`make bench` prints the tables and keeps the rows in benchmarks/results/.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quads_mcu.console import Progress
from quads_mcu.device import boards, build
from quads_mcu.device.boards import Board
from quads_mcu.errors import ConfigError
from quads_mcu.export import frontend_source, planner
from quads_mcu.export.blank import blank
from quads_mcu.export.work import Call
from quads_mcu.model.dimensions import PRESETS, Dimensions, dimensions
from quads_mcu.model_format import STAGES
from quads_mcu.paths import data_dir
from quads_mcu.report import costs, kernel_counts, profile
from quads_mcu.report.emulated_kernel import CORES, EmulatedKernels

Row = dict[str, Any]

# (n, k, t) of design and limits: one GEMM of 150, 50 and 4 tokens, one GEMV.
SHAPES = (
    (384, 384, 150), (384, 384, 50), (1536, 384, 150), (384, 1536, 150), (96, 96, 150),
    (384, 384, 4), (384, 384, 1),
)  # fmt: skip
OTHER_BITS = (2, 3, 8)
ADD_TOKENS = 50  # the residual takes whole windows; nothing adds a few rows to it
OTHER_BITS_SHAPES = ((384, 384, 150), (384, 384, 1))
# Plain kernels run on every core; these stand for those without kernels of their own, and one with.
PLAIN_CORES = ("m0", "m4", "rv32imafc")
FRONTEND_STAGES = ("power", "mel", "log")
WINDOW_S, N_MELS, N_CLASSES, MODEL_BITS = 3.0, 80, 31, 4
# Fields that name a row, by file.
NAMES = {
    "kernels": ("core", "variant", "kernel", "bits", "n", "k", "t"),
    "kernels_plain": ("core", "variant", "kernel", "bits", "n", "k", "t"),
    "frontend": ("core", "arithmetic", "n_mels", "stage"),
    "models": ("board", "preset"),
}
# Counts are exact; what grows more than this over the kept figure is a regression.
TOLERANCE = 0.02


@dataclass(frozen=True)
class Limit:
    """No row of `file` with these `names` may have a greater `figure`."""

    file: str
    names: dict[str, Any]
    figure: str
    most: float

    def applies(self, file: str, row: Row) -> bool:
        """Whether `row` of `file` is meant."""
        return file == self.file and all(
            row[name] in value if isinstance(value, tuple) else row[name] == value
            for name, value in self.names.items()
        )


def _gemm(cores: tuple[str, ...], n: int, k: int, t: int, most: float) -> Limit:
    names = {"core": cores, "bits": 4, "n": n, "k": k, "t": t}
    return Limit("kernels", names, "insn_per_mac", most)


_DSP = ("m4", "m7", "m33")
LIMITS = (
    _gemm(_DSP, 384, 384, 150, 0.80),
    _gemm(_DSP, 1536, 384, 150, 0.80),
    _gemm(_DSP, 384, 1536, 150, 0.82),
    _gemm(_DSP, 96, 96, 150, 0.88),
    _gemm(_DSP, 384, 384, 50, 0.82),
    _gemm(_DSP, 384, 384, 4, 1.15),
    _gemm(_DSP, 384, 384, 1, 1.62),
    _gemm(("m55",), 384, 384, 150, 0.145),
    _gemm(("m55",), 384, 384, 1, 0.25),
    Limit("kernels_plain", {"core": "m4", "bits": 4, "n": 384, "k": 384, "t": 150},
          "insn_per_mac", 2.5),
    Limit("frontend", {"core": _DSP, "n_mels": 80, "stage": "frame"}, "instructions", 24_000),
    Limit("models", {"core": ("m4", "m7"), "preset": "d384x4"}, "instructions", 1_050e6),
    Limit("models", {"core": "m55", "preset": "d384x4"}, "instructions", 205e6),
    Limit("models", {"core": "m4", "preset": "d96x2"}, "instructions", 58e6),
    Limit("models", {"core": (*_DSP, "m55"), "preset": "d384x4"}, "arena_bytes", 270_000),
    Limit("models", {"core": "m4", "preset": "d96x2"}, "arena_bytes", 82_000),
)  # fmt: skip


def limits(file: str, row: Row) -> list[Limit]:
    """Return the limits that `row` is held to."""
    return [limit for limit in LIMITS if limit.applies(file, row)]


def missed(file: str, rows: Iterable[Row]) -> list[str]:
    """Return a line for every row over one of its limits."""
    return [
        f"{title(file, row)}: {limit.figure} {row[limit.figure]:,}, limit {limit.most:,}"
        for row in rows
        for limit in limits(file, row)
        if row[limit.figure] > limit.most
    ]


def regressions(file: str, kept: Iterable[Row], rows: Iterable[Row]) -> list[str]:
    """Return a line for every figure of `rows` more than TOLERANCE above the kept one.

    Rows that were not kept, and kept rows that were not measured, do not count.
    """
    known = {title(file, row): row for row in kept}
    lines = []
    for row in rows:
        before = known.get(title(file, row), {})
        for figure in ("instructions", "arena_bytes"):
            if figure in row and figure in before:
                change = row[figure] / before[figure] - 1
                if change > TOLERANCE:
                    lines.append(
                        f"{title(file, row)}: {figure} {before[figure]:,} -> {row[figure]:,}, "
                        f"{100 * change:+.1f} %, allowed +{100 * TOLERANCE:g} %"
                    )
    return lines


def title(file: str, row: Row) -> str:
    """Return the fields that name a row, as text."""
    return " ".join(f"{name}={row[name]}" for name in NAMES[file])


def read(path: Path) -> list[Row]:
    """Return the kept rows of a results file.

    Raises:
        ConfigError: no such file, or not a list of rows.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ConfigError(f"{path}: {problem}; `make bench KEEP=1` writes it") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConfigError(f"{path}: not a list of rows; `make bench KEEP=1` writes it")
    return rows


# --- measuring -----------------------------------------------------------------------------


def fast_cores() -> dict[str, str]:
    """Return the kernel variant of every core that has kernels of its own."""
    return {core: facts.kernels[-1] for core, facts in CORES.items() if len(facts.kernels) > 1}


def kernels(core: str, variant: str, shapes: Sequence[tuple[int, int, int]]) -> list[Row]:
    """Return instructions per MAC of the matrix kernels: decoding and requantization included.

    t tokens go through in the blocks that firmware of that width takes (`blocks`).
    """
    wanted = [("linear_s8", 4, *shape) for shape in shapes]
    wanted += [("linear_add_s16", 4, n, k, t) for n, k, t in shapes if n <= k and t >= ADD_TOKENS]
    wanted += [
        ("linear_s8", bits, *shape)
        for bits in OTHER_BITS
        for shape in shapes
        if shape in OTHER_BITS_SHAPES
    ]
    calls: list[Call] = []
    owners: list[int] = []
    for index, (kernel, bits, n, k, t) in enumerate(wanted):
        for rows in blocks(variant, n, k, t):
            calls.append(Call(kernel, 0, "", rows, n, k, bits))
            owners.append(index)
    with EmulatedKernels(core, variant) as built:
        counts = kernel_counts.measure(built, variant, calls)
    totals = np.bincount(owners, weights=counts)
    compiler = compiler_version(core)
    return [
        {
            "core": core, "variant": variant, "kernel": kernel, "bits": bits,
            "n": n, "k": k, "t": t,
            "insn_per_mac": round(float(total) / (n * k * t), 4),
            "instructions": int(total), "compiler": compiler,
        }
        for (kernel, bits, n, k, t), total in zip(wanted, totals, strict=True)
    ]  # fmt: skip


def blocks(variant: str, n: int, k: int, t: int) -> list[int]:
    """Return the rows of the calls that t tokens are divided into.

    As in the 3 s window of a preset of that width: the arena limits the blocks.
    """
    width = min(n, k)
    preset = next(name for name, size in PRESETS.items() if size.d_model == width)
    planned = planner.plan(preset_dimensions(preset), variant).blocks
    most = planned["output_block" if n == k else "feed_forward_block"]
    return [min(most, t - at) for at in range(0, t, most)]


def frontend(core: str, n_mels: int) -> list[Row]:
    """Return instructions per 10 ms frame: the whole frame and each of its stages."""
    arithmetic = frontend_arithmetic(core)
    width = np.float32 if arithmetic == "float" else np.uint32
    sources = sorted((data_dir("firmware") / "src" / "frontend").glob("*.c"))
    functions = [f"quads_frontend_{stage}" for stage in (*FRONTEND_STAGES, "process")]
    ring = np.random.default_rng(0).normal(0, 3000, 400).astype(np.int16)
    state = np.concatenate([ring, np.array([160, 160], np.int16)])  # quads_frontend_t: 160 missing
    mel, consumed = np.zeros(n_mels, np.int8), np.zeros(1, np.uint32)
    with tempfile.TemporaryDirectory() as folder:
        tables = Path(folder) / "frontend_tables.h"
        tables.write_text(frontend_source.render(n_mels, arithmetic), encoding="utf-8")
        with EmulatedKernels(core, "plain", functions, sources, [tables.parent]) as built:
            power = built.call(functions[0], ring, 160, np.zeros(201, width))
            energies = np.zeros(n_mels, np.float32 if arithmetic == "float" else np.uint64)
            energy = built.call(functions[1], power.arrays[1], energies)
            level = built.call(functions[2], energy.arrays[1], mel)
            frame = built.call(functions[3], state, ring[:160], 160, consumed, mel)
    return [
        {"core": core, "arithmetic": arithmetic, "n_mels": n_mels, "stage": stage,
         "instructions": outcome.instructions, "compiler": compiler_version(core)}
        for stage, outcome in zip(
            (*FRONTEND_STAGES, "frame"), (power, energy, level, frame), strict=True)
    ]  # fmt: skip


def frontend_arithmetic(core: str) -> str:
    """Return the arithmetic that boards with this core choose: fixed without an FPU."""
    return "fixed" if core in ("m0", "rv32imc") else "float"


def model_boards() -> list[Board]:
    """Return the boards that whole models are measured on: the emulated ones."""
    return [board for board in boards.all_boards() if board.emulated]


def preset_dimensions(preset: str) -> Dimensions:
    """Return the sizes that whole models are measured at."""
    return dimensions(preset, n_mels=N_MELS, window_s=WINDOW_S, n_classes=N_CLASSES)


def model(board: Board, preset: str, progress: Progress) -> Row:
    """Return what a whole model takes on a board: one utterance, from PCM to logits."""
    found = profile.profile(preset, blank(preset_dimensions(preset), MODEL_BITS), board, progress)
    stages = found.measured.instructions.sum(axis=0)
    build_found, stats = found.measured.build, found.measured.stats
    return {
        "board": board.name,
        "core": costs.core(board),
        "variant": board.kernels,
        "preset": preset,
        "bits": MODEL_BITS,
        "window_s": WINDOW_S,
        "n_mels": N_MELS,
        "macs": sum(part.macs for part in found.predicted.parts),
        "instructions": found.total,
        "stages": {stage: int(count) for stage, count in zip(STAGES, stages, strict=True)},
        "predicted_instructions": found.predicted.instructions,
        "arena_bytes": found.predicted.memory.cost.arena_bytes,
        "arena_used_bytes": stats.arena_used_bytes,
        "stack_used_bytes": stats.stack_used_bytes,
        "flash_bytes": build_found.flash_bytes,
        "ram_bytes": build_found.ram_bytes,
        "compiler": build_found.compiler,
    }


def models(chosen: Sequence[Board], progress: Progress) -> Iterator[Row]:
    """Yield `model` of every preset on every board."""
    pairs = [(board, preset) for board in chosen for preset in PRESETS]
    for index, (board, preset) in enumerate(pairs):
        progress("whole models", index, len(pairs))
        yield model(board, preset, _silent)
    progress("whole models", len(pairs), len(pairs))


def compiler_version(core: str) -> str:
    """Return the version line of the compiler that the figures of a core are made with.

    Raises:
        BuildError: it is not installed.
    """
    return build.find_compiler(boards.load("qemu-an386"), CORES[core].compiler)[1]


def _silent(description: str, completed: float, total: float) -> None:
    del description, completed, total
