"""Trainings that are really killed, by SIGKILL: they go on, and leave nothing."""

from __future__ import annotations

import copy
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
from safetensors.numpy import load_file
from silent import silent

from quads_mcu import atomic
from quads_mcu import config as project
from quads_mcu.run_dir import RunDir
from quads_mcu.training import train, trainer

pytestmark = pytest.mark.usefixtures("one_thread")

# After so many epochs: in warm-up, in a quantization phase, in the final phase.
KILLED_AFTER = (1, 3, 4)
EPOCHS = {
    "warmup_epochs": 2,
    "cycles": 1,
    "distill_epochs": 1,
    "quant_epochs": 1,
    "final_epochs": 2,
}
FILES = (trainer.CHECKPOINT, trainer.FLOAT_STUDENT, trainer.QUANTIZED_STUDENT)


def begin(folder: Path, run: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "quads_mcu.cli", "train", "--resume"]
    command += ["--project", str(folder), "--run", str(run)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def history(run: Path) -> list[dict[str, Any]]:
    path = run / trainer.HISTORY
    found: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return found


def writing(run: Path) -> bool:
    return any(run.glob(f"{trainer.CHECKPOINT}.*.part"))


def kill(process: subprocess.Popen[str], run: Path, epochs: int, delay_s: float) -> None:
    """Kill a training after so many epochs and a delay; without one, while it writes the next."""
    deadline = time.monotonic() + 600
    while len(history(run)) < epochs or not (delay_s or writing(run) or len(history(run)) > epochs):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.001)
    time.sleep(delay_s)
    process.send_signal(signal.SIGKILL)
    _, text = process.communicate()
    assert process.returncode == -signal.SIGKILL, text


def test_killed_at_any_moment_and_resumed_is_bit_equal(tmp_path: Path) -> None:
    tiny_run.write_corpus(tmp_path)
    tree: dict[str, Any] = copy.deepcopy(tiny_run.SETTINGS)
    tree["train"] |= EPOCHS
    config = project.from_tree(tree, where="test", root=tmp_path)
    (tmp_path / "quads.toml").write_text(project.render(config))
    whole, run = tmp_path / "whole", tmp_path / "run"
    undisturbed = train.train(config, RunDir(whole), silent).history

    moments = random.Random(0)
    for epochs in KILLED_AFTER:
        delay_s = moments.uniform(0, 0.2) if epochs < KILLED_AFTER[-1] else 0.0
        kill(begin(tmp_path, run), run, epochs, delay_s)
        assert epochs <= len(history(run)) < len(undisturbed)

    leftovers = [run / f"{name}.ab12_xyz.part" for name in (*FILES, "history.json", "config.json")]
    kept = [run / name for name in ("checkpoint.safetensors_backup1", "notes.ab12_xyz.part")]
    kept += [run / f"{trainer.CHECKPOINT}.{rest}" for rest in ("ab12_xyz", "part", "mine.part")]
    for path in (*leftovers, *kept):
        path.write_bytes(b"x")
    process = begin(tmp_path, run)
    _, text = process.communicate(timeout=600)
    assert process.returncode == 0, text
    assert not any(path.exists() for path in leftovers)
    assert sorted(run.glob("*.part*")) == sorted(p for p in kept if "part" in p.name)
    assert all(path.read_bytes() == b"x" for path in kept)

    for name in FILES:
        left, right = load_file(whole / name), load_file(run / name)
        assert set(left) == set(right)
        for tensor in left:
            np.testing.assert_array_equal(left[tensor], right[tensor], err_msg=f"{name} {tensor}")
    for entry in (*undisturbed, *(found := history(run))):
        del entry["duration_s"]
    assert found == undisturbed


def test_what_a_killed_write_leaves_is_removed_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    atomic.write(path, b"old")
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom quads_mcu import atomic\n"
        "atomic.os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        "atomic.write(Path(sys.argv[1]), b'new')\n"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", code, str(path)])
        assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.glob("file.json.????????.part"))) == 2
    others = [tmp_path / name for name in ("file.json.part", "file.jsonabcdefgh", "other.json")]
    others.append(tmp_path / "file_json.abcdefgh.part")
    for other in others:
        other.touch()
    (tmp_path / "file.json.folder_1.part").mkdir()
    atomic.remove_leftovers(path)
    assert path.read_bytes() == b"old"
    assert {p.name for p in tmp_path.iterdir()} == {
        path.name, "file.json.folder_1.part", *(other.name for other in others)
    }  # fmt: skip
    atomic.remove_leftovers(tmp_path / "no folder" / "file")
