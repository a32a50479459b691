"""Accuracy of the recipes in examples/: trains each with several seeds, measures the packed model.

Usage: python -m benchmarks.accuracy [--seeds N] [--runs FOLDER] [--keep] [ROW ...]

Trains, exports and evaluates every row's recipe (all rows by default), clean and in noise, on the
test split, with the integer reference (which equals the board bit by bit). Finished trainings and
measurements are taken from FOLDER (default runs/accuracy) and not repeated; an interrupted one goes
on. --keep writes what was measured to benchmarks/results/accuracy.json and to the table in
docs/results.md; rows that were not asked for keep their figures.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quads_mcu import config, console, model_format
from quads_mcu.console import Progress
from quads_mcu.device import boards
from quads_mcu.export import project as exporter
from quads_mcu.report import evaluation, noise, rejection
from quads_mcu.report.statistics import wilson_interval
from quads_mcu.run_dir import RunDir, write_json, write_text
from quads_mcu.training import train

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "accuracy.json"
PAGE = ROOT / "docs" / "results.md"
BEGIN, END = "<!-- accuracy: begin -->\n", "<!-- accuracy: end -->\n"
TIMES = "times.json"


@dataclass(frozen=True)
class Row:
    """One line of the table: a recipe, and the least percentages it shall reach."""

    what: str
    recipe: str
    asked: str
    noise: bool = False


_COFFEE = "coffee orders, six slots"
ROWS = {
    "s2i": Row(_COFFEE, "s2i/quads.toml", "98; 92 in noise", noise=True),
    "s2i-d192x4": Row(_COFFEE, "s2i/d192x4.toml", "92; 82 in noise", noise=True),
    "s2i-3bit": Row(_COFFEE, "s2i/3bit.toml", "93"),
    "s2i-2bit": Row(_COFFEE, "s2i/2bit.toml", "80"),
    "wakewords-large": Row(
        "six wake words", "wakewords-large/quads.toml", "99.4; 98.5 in noise", noise=True
    ),
    "wakewords": Row("six wake words", "wakewords/long.toml", "98.5; 96 in noise", noise=True),
    "wakewords-synthesized": Row(
        "six wake words, synthesized voices only", "wakewords-synthesized/quads.toml", "85"
    ),
    "wakewords-unknown": Row(
        "six wake words against everything else",
        "wakewords-unknown/quads.toml",
        "≤ 5 % false rejects at ≤ 1 false accept per hour",
    ),
    "digits": Row("ten digits, unseen speaker", "digits/quads.toml", "90"),
    "digits-d96x2": Row("ten digits, unseen speaker", "digits/d96x2.toml", "84"),
}


def measure(row: Row, seed: int, run: RunDir, progress: Progress) -> dict[str, Any]:
    """Train and evaluate one seed of a row, or read what was found before."""
    settings = config.load(ROOT / "examples" / row.recipe).with_train_seed(seed)
    started_s = time.monotonic()
    before = _json(run.path / TIMES).get("training_s", 0.0)
    train.train(settings, run, progress)
    if not run.model_path.exists():
        exporter.export(run, boards.load("host"), bits=None, out=None, progress=progress)
        write_json(run.path / TIMES, {"training_s": before + time.monotonic() - started_s})
    model = model_format.read(run.model_path)
    clean = _json(run.evaluation_path)
    if clean.get("model_hash") != model.model_hash:
        evaluation.evaluate(run, "test", progress)
        clean = _json(run.evaluation_path)
    found = {
        "seed": seed,
        "bits": settings.quantization.bits,
        "student": settings.student.preset,
        "n_mels": settings.audio.n_mels,
        "window_s": settings.audio.window_s,
        "weight_bytes": exporter.predict(model, boards.load("host")).weight_bytes,
        "utterances": clean["reference"]["total"],
        "float": clean["float"]["percent"],
        "packed": clean["reference"]["percent"],
        "macro_f1": clean["reference"]["macro_f1"],
        "training_s": round(_json(run.path / TIMES).get("training_s", 0.0)),
    }
    if row.noise:
        noisy = _json(run.path / "noise.json")
        if noisy.get("model_hash") != model.model_hash:
            noisy = noise.evaluate(run, "test", progress).to_json()
        found["in_noise"] = noisy["reference"]["mean_percent"]
    if settings.data.unknown:
        rejected = rejection.evaluate(run, "test", progress) or {}
        found["rejection"] = {name: rejected[name] for name in ("unknown_hours", "point")}
    return found


def _json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Return the Markdown table of all results, rows in the order of ROWS."""
    lines = [
        "| data | student | weights, bytes | seeds | float | packed | 95 % interval | macro F1 "
        "| in noise | asked for |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in ROWS.items():
        if name in results:
            lines.append("| " + " | ".join(_cells(row, results[name])) + " |")
    lines.append("")
    for name, seeds in results.items():
        heard = [seed for seed in seeds if "rejection" in seed]
        lines += [_rejection(name, seed["seed"], seed["rejection"]) for seed in heard]
        if len(heard) > 1:
            lines.append(_together([seed["rejection"] for seed in heard]))
    return "\n".join(lines).rstrip() + "\n"


def _rejection(name: str, seed: int, found: dict[str, Any]) -> str:
    point = found["point"]
    low, high = point["false_accepts_per_hour_interval_95"]
    return (
        f"- {name}, seed {seed}: {point['false_rejects']} commands rejected "
        f"({point['false_reject_percent']:.1f} %), {point['false_accepts']} false accepts in "
        f"{found['unknown_hours']:.2f} h of unknown speech and noise: "
        f"{point['false_accepts_per_hour']:.2f} per hour ({low:.2f}-{high:.2f})"
    )


def _together(found: list[dict[str, Any]]) -> str:
    """Add up seeds, which heard the same recordings: another split would differ by more."""
    rejected = np.mean([seed["point"]["false_reject_percent"] for seed in found])
    accepts = sum(seed["point"]["false_accepts"] for seed in found)
    hours = sum(seed["unknown_hours"] for seed in found)
    low, high = (bound / hours for bound in rejection.poisson_interval(accepts))
    return (
        f"- all {len(found)} seeds: {rejected:.1f} % rejected in the mean, {accepts} false accepts "
        f"in {hours:.2f} h: {accepts / hours:.2f} per hour ({low:.2f}-{high:.2f})"
    )


def _cells(row: Row, seeds: list[dict[str, Any]]) -> list[str]:
    first = seeds[0]
    packed = [seed["packed"] for seed in seeds]
    share = float(np.mean(packed)) / 100
    low, high = wilson_interval(share * first["utterances"], first["utterances"])
    noisy = [seed["in_noise"] for seed in seeds if "in_noise" in seed]
    return [
        row.what,
        f"{first['student'].replace('x', '×')}, {first['bits']} bit, {first['n_mels']} mels, "
        f"{first['window_s']:g} s",
        f"{max(seed['weight_bytes'] for seed in seeds):,}",
        str(len(seeds)),
        f"{np.mean([seed['float'] for seed in seeds]):.1f} %",
        f"{np.mean(packed):.1f} %{_each(packed)}",
        f"{100 * low:.1f}-{100 * high:.1f}",
        f"{np.mean([seed['macro_f1'] for seed in seeds]):.3f}",
        f"{np.mean(noisy):.1f} %{_each(noisy)}" if noisy else "",
        row.asked,
    ]


def _each(values: list[float]) -> str:
    return f" ({', '.join(f'{value:.1f}' for value in values)})" if len(values) > 1 else ""


def page(text: str, results: dict[str, list[dict[str, Any]]]) -> str:
    """Return docs/results.md with the table of these results."""
    before, _, rest = text.partition(BEGIN)
    return before + BEGIN + table(results) + END + rest.partition(END)[2]


def main() -> None:
    """Measure the rows asked for and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("rows", nargs="*", metavar="ROW", help=", ".join(ROWS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs/accuracy"))
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    if unknown := set(options.rows) - set(ROWS):
        parser.error(f"no row {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    results: dict[str, list[dict[str, Any]]] = _json(RESULTS)
    for name in options.rows or ROWS:
        with console.progress() as progress:
            results[name] = [
                measure(ROWS[name], seed, RunDir(options.runs / f"{name}-{seed}"), progress)
                for seed in range(options.seeds)
            ]
        if options.keep:
            write_json(RESULTS, results)
            write_text(PAGE, page(PAGE.read_text(encoding="utf-8"), results))
    console.result(table(results))


if __name__ == "__main__":
    main()
