"""What an attention pool per slot is worth: heads on the frozen teacher, behind the mean and pools.

Usage: python -m benchmarks.pooling [PROJECT]     (default: examples/s2i/quads.toml)

Trains no encoder: prints the share of validation commands that are right in every slot with a head
trained on what the teacher's encoder gives as it is.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

from quads_mcu import config, console
from quads_mcu.training import train

DEFAULT = Path(__file__).parent.parent / "examples" / "s2i" / "quads.toml"


def main() -> None:
    settings = config.load(Path(sys.argv[1]) if sys.argv[1:] else DEFAULT)
    settings = dataclasses.replace(
        settings, teacher=dataclasses.replace(settings.teacher, fine_tune_epochs=0)
    )
    rows = []
    for pooling in ("mean", "attention"):
        student = dataclasses.replace(settings.student, pooling=pooling, init="random")
        with console.progress() as progress:
            problem = train.load_problem(dataclasses.replace(settings, student=student), progress)
        if problem.teacher is None:
            sys.exit(f"{settings.project.name}: set [teacher] weights")
        right = 100 * problem.teacher.valid_accuracy
        rows.append((pooling, f"{right:.1f} %", str(len(problem.valid.mel))))
    console.table(
        f"{settings.project.name}: heads on the frozen teacher",
        ("pooling", "validation commands right", "commands"),
        rows,
    )


if __name__ == "__main__":
    main()
