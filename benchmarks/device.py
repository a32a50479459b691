"""Executed instructions of kernels, frontend and whole models on the emulated cores.

Usage: python benchmarks/device.py [--keep] [--only kernels|kernels_plain|frontend|models]

Prints every figure beside its limit and its kept value (benchmarks/results/). --keep writes the
figures there instead. Ends with 1 when a limit is missed, or a figure grew by more than 2 %.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from quads_mcu import console
from quads_mcu.report import benchmarks
from quads_mcu.report.benchmarks import Row
from quads_mcu.report.emulated_kernel import CORES
from quads_mcu.run_dir import write_json

RESULTS = Path(__file__).parent / "results"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", action="store_true", help="write the figures to results/")
    parser.add_argument("--only", choices=tuple(MEASURES), help="one of the tables")
    options = parser.parse_args()
    n_missed, grown = 0, []
    for file in [options.only] if options.only else MEASURES:
        path = RESULTS / f"{file}.json"
        with console.progress() as progress:
            rows = MEASURES[file](progress)
        kept = benchmarks.read(path) if path.exists() else []
        PRINTS[file](rows)
        n_missed += len(benchmarks.missed(file, rows))
        if options.keep:
            write_json(path, rows)
        else:
            grown += benchmarks.regressions(file, kept, rows)
            _note_compiler(kept, rows)
    for line in grown:
        console.warn(line)
    if n_missed:
        console.warn(f"{n_missed} figures miss their limit: FAIL in the tables")
    sys.exit(1 if grown or n_missed else 0)


def _kernels(progress: console.Progress) -> list[Row]:
    return _measured_kernels(benchmarks.fast_cores(), progress)


def _kernels_plain(progress: console.Progress) -> list[Row]:
    return _measured_kernels(dict.fromkeys(benchmarks.PLAIN_CORES, "plain"), progress)


def _measured_kernels(variants: dict[str, str], progress: console.Progress) -> list[Row]:
    rows = []
    for index, (core, variant) in enumerate(variants.items()):
        progress("kernels", index, len(variants))
        rows += benchmarks.kernels(core, variant, benchmarks.SHAPES)
    return rows


def _frontend(progress: console.Progress) -> list[Row]:
    rows = []
    for index, core in enumerate(CORES):
        progress("frontend", index, len(CORES))
        for n_mels in (40, 80):
            rows += benchmarks.frontend(core, n_mels)
    return rows


def _models(progress: console.Progress) -> list[Row]:
    return list(benchmarks.models(benchmarks.model_boards(), progress))


def _print_kernels(rows: list[Row]) -> None:
    file = "kernels_plain" if rows[0]["variant"] == "plain" else "kernels"
    lines = [
        (f"{row['core']} {row['variant']} {row['kernel']}", row["bits"], f"{row['n']}x{row['k']}",
         row["t"], f"{row['insn_per_mac']:.3f}", *_verdict(file, row, "insn_per_mac"))
        for row in rows
    ]  # fmt: skip
    columns = ("kernel", "bits", "NxK", "T", "instr/MAC", "limit", "")
    console.table("Matrix kernels, executed instructions per multiply-accumulate", columns, lines)


def _print_frontend(rows: list[Row]) -> None:
    lines = [
        (f"{row['core']} {row['arithmetic']}", row["n_mels"], row["stage"],
         f"{row['instructions']:,}", *_verdict("frontend", row, "instructions"))
        for row in rows
    ]  # fmt: skip
    columns = ("core", "mels", "stage", "instructions", "limit", "")
    console.table("Frontend, executed instructions per 10 ms frame", columns, lines)


def _print_models(rows: list[Row]) -> None:
    size = f"{benchmarks.WINDOW_S:g} s, {benchmarks.N_MELS} mels, {benchmarks.MODEL_BITS} bit"
    lines = [
        (f"{row['board']} {row['preset']}", f"{row['macs'] / 1e6:.0f}",
         f"{row['instructions'] / 1e6:,.1f}", *_verdict("models", row, "instructions", 1e6),
         _error(row))
        for row in rows
    ]  # fmt: skip
    columns = ("board, student", "MMAC", "M instructions", "limit", "", "prediction")
    console.table(f"Whole models, {size}, one utterance from PCM to logits", columns, lines)
    lines = [
        (f"{row['board']} {row['preset']}", f"{row['arena_bytes']:,}",
         *_verdict("models", row, "arena_bytes"), f"{row['flash_bytes']:,}",
         f"{row['ram_bytes']:,}")
        for row in rows
    ]  # fmt: skip
    console.table("Memory, bytes", ("board, student", "arena", "limit", "", "flash", "RAM"), lines)
    stages = list(rows[0]["stages"])
    lines = [
        (f"{row['board']} {row['preset']}", *(f"{row['stages'][s] / 1e6:,.2f}" for s in stages))
        for row in rows
    ]
    console.table("The same by stage, M instructions", ("board, student", *stages), lines)


def _error(row: Row) -> str:
    if row["predicted_instructions"] is None:
        return "-"
    return f"{100 * (row['predicted_instructions'] / row['instructions'] - 1):+.2f} %"


def _verdict(file: str, row: Row, figure: str, unit: float = 1) -> tuple[str, str]:
    found = [limit for limit in benchmarks.limits(file, row) if limit.figure == figure]
    if not found:
        return "", ""
    most = min(limit.most for limit in found)
    return f"{most / unit:,g}", "pass" if row[figure] <= most else "FAIL"


def _note_compiler(kept: list[Row], rows: list[Row]) -> None:
    before, now = ({row["compiler"] for row in found} for found in (kept, rows))
    if before and before != now:
        console.note(f"kept figures are of {', '.join(before)}, these of {', '.join(now)}")


MEASURES: dict[str, Callable[[console.Progress], list[Row]]] = {
    "kernels": _kernels,
    "kernels_plain": _kernels_plain,
    "frontend": _frontend,
    "models": _models,
}
PRINTS: dict[str, Callable[[list[Row]], None]] = {
    "kernels": _print_kernels,
    "kernels_plain": _print_kernels,
    "frontend": _print_frontend,
    "models": _print_models,
}


if __name__ == "__main__":
    main()
