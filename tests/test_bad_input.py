"""What training refuses, each in one line that names the place and the way out.

A loss that is not finite, checkpoints of other settings or data: test_training.py. Whisper files of
other sizes or mel bands: test_narrow.py, test_whisper_weights.py.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_run

from quads_mcu import atomic, console
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
            r"split train has no usable utterance of 1 of 3 labels: low \(4 in valid, 4 in test\); "
            r"add some, or leave the label out: list the others in \[intents\]",
        ),
        (
            lambda label, split: not (label != "low" and split != "test"),
            r"2 of 3 labels, only split test has them: high \(0 in valid, 4 in test\), middle \(0 ",
        ),
        (
            lambda label, split: label == "low",
            r"the data has 1 label\(s\) \(low\); a classifier needs",
        ),
        (
            lambda label, split: split == "test",
            "split train has no usable utterance, beside 0 of split valid and 12 of split test; ",
        ),
    ],
)
def test_data_that_cannot_be_learned(tmp_path: Path, keep: Keep, message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        train.load_problem(corpus(tmp_path, keep), quiet)


def test_a_label_left_out_in_intents_need_not_be_trained(tmp_path: Path) -> None:
    config = corpus(tmp_path, lambda label, split: label != "low" or split == "test")
    intents = {"high": ["high"], "middle": ["middle"]}
    problem = train.load_problem(dataclasses.replace(config, intents=intents), quiet)
    assert problem.slots[0].labels == ("high", "middle")


def test_labels_that_validation_lacks_are_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_said", set())
    config = corpus(tmp_path, lambda label, split: label == "low" or split != "valid")
    for _ in range(2):
        train.load_problem(config, quiet).check()
    assert capsys.readouterr().err == (
        "warning: split valid has no usable utterance of 2 of 3 labels, so that validation says "
        "nothing of them: high, middle\n"
    )


def test_an_intent_without_any_utterance_is_named(tmp_path: Path) -> None:
    intents = {name: [name] for name in ("high", "low", "middle", "none of these")}
    config = dataclasses.replace(corpus(tmp_path), intents=intents)
    with pytest.raises(TrainingError, match=r"1 of 4 labels: none of these \(0 in valid, 0 in"):
        train.load_problem(config, quiet)


def quads_mcu(folder: Path, command: str) -> str:
    """Run a command in `folder` and return what it writes on stderr."""
    line = [sys.executable, "-m", "quads_mcu.cli", command, "--run", "run"]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_problems_of_the_data_are_shown_once_per_command(tmp_path: Path) -> None:
    config = corpus(tmp_path)
    # Rows 1 to 24 train, 25 to 36 validate, the rest tests: lines 2 to 25, 26 to 37, 38 to 49.
    for name in (1, 2, 3, 4, 37):
        (tmp_path / f"{name}.wav").unlink()
    for name in (25, 38):
        (tmp_path / f"{name}.wav").write_bytes(b"no sound")
    (tmp_path / "hum").mkdir()
    for name in range(40):
        shutil.copy(tmp_path / "5.wav", tmp_path / "hum" / f"{name}.wav")
    shutil.copy(tmp_path / "38.wav", tmp_path / "hum" / "broken.wav")
    short = dataclasses.replace(config.train, warmup_epochs=1)
    heard = dataclasses.replace(config.data, unknown=["hum"])
    config = dataclasses.replace(config, train=short, data=heard)
    (tmp_path / "quads.toml").write_text(project.render(config))
    missing = [f"{number}.wav (manifest.csv:{number + 1}): no such file" for number in (1, 2, 3)]

    # Before and after the sound is loaded, where training reads them.
    for command, unreadable, blocks in (("train", 25, 2), ("export", 25, 1), ("evaluate", 38, 1)):
        text = quads_mcu(tmp_path, command).replace(f"{tmp_path}/", "")
        assert "missing: 5\n" in text, command
        assert "... and 2 more" in text
        for line in (*missing, f"{unreadable}.wav (manifest.csv:{unreadable + 1}): "):
            assert text.count(line) == 1, (command, line)
        assert text.count("hum/broken.wav: ") == 1
        assert text.count("warning: the data has ") == blocks
    page = (tmp_path / "run" / "training.html").read_text()
    assert "Remarks on the data" in page
    assert all(line in page for line in missing)


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
