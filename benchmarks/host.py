"""Speed of the host side, and what the device's int8 features cost in accuracy.

Usage: python benchmarks/host.py [RUN]          (default runs/demo)
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "2")

import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from quads_mcu import console, model_format, slots
from quads_mcu.audio.logmel import log_mel
from quads_mcu.export.reference import Reference
from quads_mcu.report import evaluation
from quads_mcu.report.statistics import whole_command
from quads_mcu.run_dir import RunDir


def rate(count: int, work: Callable[[], object]) -> str:
    """Return utterances per second of `work` on `count` utterances."""
    start_s = time.perf_counter()
    work()
    return f"{count / (time.perf_counter() - start_s):.0f}"


def main() -> None:
    run = RunDir(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/demo"))
    model = model_format.read(run.model_path)
    config = run.config()
    with console.progress() as progress:
        # The valid split: the test split is for the report alone.
        clips = evaluation.load_clips(config, model.labels, "valid", progress)
        mel = evaluation.mel_features(clips.pcm, model.dims, progress, model.frontend)
    reference = Reference(model)
    rows = [
        ("device features, numpy twin", rate(
            len(mel), lambda: evaluation.mel_features(clips.pcm, model.dims, _silent))),
        ("integer reference", rate(len(mel), lambda: reference.logits(mel))),
    ]  # fmt: skip
    console.table("Host, two threads", ("", "utterances/s"), rows)
    _features(run, model, clips, mel)


def _features(
    run: RunDir, model: model_format.PackedModel, clips: evaluation.Clips, mel: np.ndarray
) -> None:
    """Compare the float student on Whisper's float log-mel and on the device's int8 log-mel."""
    import torch

    from quads_mcu.training.evaluation import FLOAT_STUDENT, logits_of, read_student

    student, _ = read_student(run.path / FLOAT_STUDENT)
    on_device = logits_of(lambda real: student(real)[1], mel)
    reference = np.stack([log_mel(pcm, model.dims.n_mels) for pcm in clips.pcm])
    with torch.inference_mode():
        on_reference = np.concatenate([
            student(torch.from_numpy(part))[1].numpy()
            for part in np.array_split(reference, -(-len(reference) // 32))
        ])  # fmt: skip
    rows = [
        (name, whole_command(clips.answers, slots.argmax(logits, model.slots), model.slots).text())
        for name, logits in (("Whisper's log-mel, float", on_reference),
                             ("device frontend, int8", on_device))
    ]  # fmt: skip
    answers = [slots.argmax(logits, model.slots) for logits in (on_device, on_reference)]
    agreement = (answers[0] == answers[1]).all(axis=1).mean()
    rows.append(("same answer from both", f"{100 * agreement:.1f} %"))
    title = f"Float student on both features, {len(mel)} utterances of split valid"
    console.table(title, ("features", "accuracy (95 % interval)"), rows)


def _silent(description: str, completed: float, total: float) -> None:
    del description, completed, total


if __name__ == "__main__":
    main()
