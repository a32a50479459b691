"""Seconds that `export` takes for a paper-size student, and the project's bytes to the model's.

Usage: python -m benchmarks.exporting [RUN] [--target NAME]    (default runs/paper-size, esp32s3)

A run that is not there is made first (benchmarks/paper_size.py). Limits: 5 s, and 1.2 times the
model's bytes in binary form; ends with 1 when one is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.paper_size import fitted
from quads_mcu import console
from quads_mcu.device import boards
from quads_mcu.export import projects
from quads_mcu.export.pack import QUANTIZED_STUDENT
from quads_mcu.run_dir import RunDir

LIMIT_S = 5.0
LIMIT_RATIO = 1.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, default=Path("runs/paper-size"))
    parser.add_argument("--target", default="esp32s3")
    options = parser.parse_args()
    run, board = RunDir(options.run), boards.load(options.target)
    if not (run.path / QUANTIZED_STUDENT).is_file():
        with console.progress() as progress:
            run = fitted(options.run, progress)
    rows = []
    missed = False
    for weights in projects.supported_weights(board.formats[0]):
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            done = projects.export(run, board, weights=weights, out=Path(folder) / "project")
            seconds = time.perf_counter() - start
        total, model = sum(done.files.values()), done.cost.weight_bytes
        rows.append((weights, f"{seconds:.2f}", f"{total:,}", f"{total / model:.2f}"))
        missed |= seconds > LIMIT_S or (weights == "bin" and total > LIMIT_RATIO * model)
    title = f"Export of {run.path} ({model:,} bytes of weights) for {board.name}"
    console.table(title, ("weights", "seconds", "bytes", "times the model's"), rows)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
