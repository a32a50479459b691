"""Conversion and validation of a trained run: times, sizes, every runtime.

Usage: python benchmarks/tflite.py [RUN] [UTTERANCES]     (default runs/demo, all of them)

Limits: 90 s for d=96x2, 6 min for d=384x4 on two cores; lookup tables at most 0.60 of the int8
weights; at least 99 % the answers of the float student and 1.0 point of accuracy on the test split.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import resource
import sys
from pathlib import Path

from quads_mcu import console
from quads_mcu.run_dir import RunDir
from quads_mcu.tflite import convert, validate


def main() -> None:
    run = RunDir(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
    limit = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with console.progress() as progress:
        done = convert.convert(run, progress)
        found = validate.validate(run, "test", progress, limit=limit)
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    weights = done.weight_bytes
    rows = [
        ("conversion, s", f"{done.seconds:.0f}"),
        ("largest process, MB", f"{max(u.ru_maxrss for u in usage) / 1024:.0f}"),
        *((name, f"{size:,} bytes") for name, size in done.files.items()),
        ("lookup tables / int8 weights", _share(weights)),
        ("values per weight tensor", done.values_per_weight),
    ]
    console.table(f"{run.path}: conversion", ("", ""), rows)
    title = f"{found.utterances} utterances of split test"
    console.table(title, validate.COLUMNS, [row.cells() for row in found.rows])
    console.result(validate.LEGEND)


def _share(weights: dict[str, int]) -> str:
    if convert.LUT not in weights:
        return "-"
    return f"{weights[convert.LUT] / weights[convert.INT8]:.3f}"


if __name__ == "__main__":
    main()
