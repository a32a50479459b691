"""What training refuses, each in one line that names the place and the way out.

A loss that is not finite, checkpoints of other settings or data: test_training.py. Whisper files of
other sizes or mel bands: test_narrow.py, test_whisper_weights.py.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_run

from quads_mcu import atomic
from quads_mcu import config as project
from quads_mcu.errors import StorageError, TrainingError
from quads_mcu.training import train

Keep = Callable[[str, str], bool]


def corpus(folder: Path, keep: Keep = lambda label, split: True) -> project.Config:
    """The tiny corpus, less the rows whose label and split `keep` refuses."""
    tiny_run.write_corpus(folder)
    path = folder / "manifest.csv"
    header, *rows = path.read_text().splitlines()
    rows = [row for row in rows if keep(*row.split(",")[1:])]
    path.write_text("\n".join([header, *rows]) + "\n")
    tree = json.loads(json.dumps(tiny_run.SETTINGS))
    return project.from_tree(tree, where="test", root=folder)


def quiet(*_: object) -> None:
    pass


@pytest.mark.parametrize(
    ("keep", "message"),
    [
        (
            lambda label, split: not (label == "low" and split == "train"),
            "split train has no usable utterance of low; add some, or take the label out",
        ),
        (
            lambda label, split: not (label != "low" and split == "valid"),
            "split valid has no usable utterance of high, middle; add some",
        ),
        (
            lambda label, split: label == "low",
            r"the data has 1 label\(s\) \(low\); a classifier needs",
        ),
        (
            lambda label, split: split == "test",
            "split train has no usable utterance of high, low, middle",
        ),
    ],
)
def test_data_that_cannot_be_learned(tmp_path: Path, keep: Keep, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        train.load_problem(corpus(tmp_path, keep), quiet)


def test_a_full_disk_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "file"
    atomic.write(path, b"old")
    real = os.fdopen

    class Full:
        def __init__(self, file: Any) -> None:
            self.file = file

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: object) -> None:
            self.file.close()

        def write(self, data: bytes) -> int:
            self.file.write(data[:2])
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fdopen", lambda *arguments: Full(real(*arguments)))
    with pytest.raises(StorageError, match=r"deep/file: 3 bytes cannot be written: No space left"):
        atomic.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert [item.name for item in path.parent.iterdir()] == ["file"]


@pytest.mark.parametrize("place", ["/proc/nothing/file", "/dev/null/file"])
def test_impossible_places_are_named(place: str) -> None:
    with pytest.raises(StorageError, match=f"{place}: 1 bytes cannot be written: "):
        atomic.write(Path(place), b"x")


def test_training_on_a_full_disk_ends_in_one_line_and_goes_on_later(tmp_path: Path) -> None:
    """A limit on file sizes stands for the full disk: writes fail half-way, as there."""
    config = corpus(tmp_path)
    (tmp_path / "quads.toml").write_text(project.render(config))
    command = [sys.executable, "-m", "quads_mcu.cli", "train", "--project", str(tmp_path)]
    command += ["--run", str(tmp_path / "run")]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ") and "bytes cannot be written: File too large" in last
    assert "Traceback" not in done.stderr
    left = {path.name for path in (tmp_path / "run").iterdir()} - {"tensorboard"}
    assert left == {"config.json"}
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "student_quantized.safetensors").exists()
