"""Time of one step of distillation whose teacher listens along: in turn, and ahead of the student.

Usage: python -m benchmarks.distillation_step [PROJECT] [UTTERANCES]
    (default examples/s2i/d192x4.toml, 512 utterances, two threads)

In turn, teacher and student take all threads one after the other; ahead, as training does it, the
teacher has one half and the student the other. Data, augmentation and optimizer are part of both.
The teacher is not fine-tuned here, which changes no time. Three epochs of each, by turns: the
fastest counts, for other work on the machine only slows.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.mct_epoch import fewer, timed
from quads_mcu import config as project
from quads_mcu import console
from quads_mcu.training import data, train
from quads_mcu.training.problem import Batch
from quads_mcu.training.schedule import Epoch
from quads_mcu.training.trainer import Trainer


class InTurn(Trainer):
    """Lets the teacher listen when the student asks."""

    def _batches(self, epoch: Epoch) -> Iterator[Batch]:
        return map(self._listened, self.problem.batches(epoch.number, epoch.distills))


def main() -> None:
    settings = project.load(Path(sys.argv[1] if len(sys.argv) > 1 else "examples/s2i/d192x4.toml"))
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 512
    settings = dataclasses.replace(
        settings, teacher=dataclasses.replace(settings.teacher, fine_tune_epochs=0, head_epochs=1)
    )
    torch.set_num_threads(2)
    with console.progress() as progress, tempfile.TemporaryDirectory() as folder:
        corpus = fewer(data.load(settings, progress), count)
        data.load = lambda *_: corpus
        os.environ["QUADS_CACHE"] = folder
        problem = train.load_problem(settings, progress)
        loops = [
            kind(problem, settings.train, settings.quantization, 0, Path(folder, kind.__name__))
            for kind in (InTurn, Trainer)
        ]
        times: list[list[float]] = [[], []]
        for _ in range(3):
            for loop, seconds in zip(loops, times, strict=True):
                epoch_s = timed(loop._train, loop.epochs[0], progress)
                seconds.append(epoch_s / problem.n_batches)
    turn_s, ahead_s = map(min, times)
    console.table(
        f"one step of {settings.project.name}, {settings.train.batch_size} utterances, two threads",
        ("teacher and student in turn, s", "teacher ahead, s", "share"),
        [(f"{turn_s:.3f}", f"{ahead_s:.3f}", f"{ahead_s / turn_s:.2f}")],
    )


if __name__ == "__main__":
    main()
