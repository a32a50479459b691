"""Time of one MCT epoch (distillation, then quantization) against a plain implementation.

Usage: python benchmarks/mct_epoch.py [PROJECT] [UTTERANCES]
    (default examples/wakewords-large, 64 utterances, two threads)

Both train the project's student with its teacher on the same utterances and batch size. The plain
implementation does what a direct reading of the paper suggests: every utterance is padded to 30 s,
the teacher computes anew in every step, and after every quantization step each tensor is snapped to
its codebook through a matrix of all distances. This tool's own epoch includes augmentation; its
teacher's outputs are cached, and the time to compute them once is printed beside.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import dataclasses
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from quads_mcu import config as project
from quads_mcu import console
from quads_mcu.audio.logmel import log_mel
from quads_mcu.model import whisper, whisper_files
from quads_mcu.model.encoder import Student
from quads_mcu.training import data, train
from quads_mcu.training.schedule import Epoch
from quads_mcu.training.trainer import Trainer

WHISPER_SAMPLES = 30 * 16_000


class Unvalidated(Trainer):
    """Trains alone, as the plain implementation does."""

    def _validate(self, epoch: Epoch) -> dict[str, float]:
        return {}


class Plain:
    """Distillation and quantization step by step, at 30 s."""

    def __init__(
        self, student: Student, teacher: Student, pcm: np.ndarray, labels: np.ndarray, batch: int
    ) -> None:
        self.student, self.teacher = student, teacher.requires_grad_(False).eval()
        self.pcm, self.labels, self.batch = pcm, torch.from_numpy(labels), batch
        width = teacher.dims.d_model
        self.projection = nn.Linear(student.dims.d_model, width)
        parameters = [*student.parameters(), *self.projection.parameters()]
        self.adam = torch.optim.Adam(parameters, lr=1e-5)
        self.sgd = torch.optim.SGD(student.parameters(), lr=0.01, momentum=0.9)
        self.codebooks: dict[str, Tensor] = {}

    def mel(self, rows: np.ndarray) -> Tensor:
        padded = np.zeros((len(rows), WHISPER_SAMPLES), np.int16)
        padded[:, : self.pcm.shape[1]] = self.pcm[rows]
        return torch.from_numpy(log_mel(padded, self.student.dims.n_mels))

    def epoch(self, quantize: bool) -> None:
        for rows in np.array_split(np.arange(len(self.pcm)), -(-len(self.pcm) // self.batch)):
            mel = self.mel(rows)
            tokens, logits = self.student(mel)
            loss = F.cross_entropy(logits, self.labels[rows])
            if not quantize:
                told = self.teacher(self.wide(rows))[0].mean(dim=1)
                loss = loss + 1e-6 * (self.projection(tokens.mean(dim=1)) - told).abs().sum()
            optimizer = self.sgd if quantize else self.adam
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if quantize:
                self.snap()

    def wide(self, rows: np.ndarray) -> Tensor:
        """The teacher's own log-mel: it may hear other bands than the student."""
        padded = np.zeros((len(rows), WHISPER_SAMPLES), np.int16)
        padded[:, : self.pcm.shape[1]] = self.pcm[rows]
        return torch.from_numpy(log_mel(padded, self.teacher.dims.n_mels))

    @torch.no_grad()
    def snap(self) -> None:
        for name, weight in self.student.named_parameters():
            if weight.ndim < 2:
                continue
            values = weight.flatten()
            centroids = self.codebooks.setdefault(name, self.kmeans(values))
            nearest = (values[:, None] - centroids[None, :]).abs().argmin(dim=1)
            for k in range(len(centroids)):
                if (nearest == k).any():
                    centroids[k] = values[nearest == k].mean()
            weight.copy_(centroids[nearest].view_as(weight))

    @staticmethod
    def kmeans(values: Tensor, k: int = 16, steps: int = 10) -> Tensor:
        centroids = torch.quantile(
            values[:: max(1, len(values) // 100_000)], torch.linspace(0, 1, k)
        )
        for _ in range(steps):
            nearest = (values[:, None] - centroids[None, :]).abs().argmin(dim=1)
            for cluster in range(k):
                if (nearest == cluster).any():
                    centroids[cluster] = values[nearest == cluster].mean()
        return centroids


def fewer(corpus: data.Corpus, count: int) -> data.Corpus:
    """Return a corpus of which `count` utterances are left to train on."""
    chosen = np.random.default_rng(0).permutation(len(corpus.train.pcm))[:count]
    fields = dataclasses.fields(data.Utterances)
    parts = {item.name: getattr(corpus.train, item.name)[chosen] for item in fields}
    return dataclasses.replace(corpus, train=data.Utterances(**parts))


def timed(work: object, *arguments: object) -> float:
    start_s = time.perf_counter()
    work(*arguments)  # type: ignore[operator]
    return time.perf_counter() - start_s


def main() -> None:
    settings = project.load(Path(sys.argv[1] if len(sys.argv) > 1 else "examples/wakewords-large"))
    count = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    torch.set_num_threads(2)
    with console.progress() as progress, tempfile.TemporaryDirectory() as folder:
        corpus = fewer(data.load(settings, progress), count)
        data.load = lambda *_: corpus  # the same utterances for both
        os.environ["QUADS_CACHE"] = folder
        start_s = time.perf_counter()
        problem = train.load_problem(settings, progress)
        preparation_s = time.perf_counter() - start_s
        once = dataclasses.replace(
            settings.train, warmup_epochs=0, cycles=1, distill_epochs=1, quant_epochs=1,
            final_epochs=1,
        )  # fmt: skip
        loop = Unvalidated(problem, once, settings.quantization, 0, Path(folder))
        loop.epochs = loop.epochs[:2]
        loop.run(progress)
        ours = [entry["duration_s"] for entry in loop.history]
        plain = Plain(*_thirty_seconds(settings, problem), corpus.train.pcm,
                      corpus.train.answers[:, 0], settings.train.batch_size)  # fmt: skip
        theirs = [timed(plain.epoch, quantize) for quantize in (False, True)]
    rows = [
        (phase, f"{a:.2f}", f"{b:.2f}", f"{b / a:.0f}")
        for phase, a, b in zip(("distillation", "quantization"), ours, theirs, strict=True)
    ]
    rows.append(
        (
            "one MCT epoch",
            f"{sum(ours):.2f}",
            f"{sum(theirs):.2f}",
            f"{sum(theirs) / sum(ours):.0f}",
        )
    )
    console.table(
        f"{count} utterances of {settings.project.name}, two threads; data and teacher once: "
        f"{preparation_s:.1f} s",
        ("", "here, s", "plain at 30 s, s", "ratio"),
        rows,
    )


def _thirty_seconds(settings: project.Config, problem: train.Problem) -> tuple[Student, Student]:
    where = settings.teacher.weights
    encoder = whisper.read_encoder(whisper_files.locate(where, settings.resolve(where)))
    teacher = Student(encoder.dimensions(3000, problem.dims.n_classes))
    teacher.encoder.load_state_dict(
        {name: torch.from_numpy(tensor) for name, tensor in encoder.state(1500).items()}
    )
    return Student(dataclasses.replace(problem.dims, n_frames=3000)), teacher


if __name__ == "__main__":
    main()
