"""The model alone, over the serial port of firmware that runs, by the command line."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from firmware_build import require
from random_model import random_model

from quads_mcu import model_format
from quads_mcu.device import boards, build, flash
from quads_mcu.export import csource
from quads_mcu.model.dimensions import Dimensions

DIMS = Dimensions(n_mels=40, n_frames=40, d_model=32, n_heads=2, n_layers=1, n_classes=5)


def quads_mcu(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quads_mcu.cli", "flash", "--target", "host", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_model_over_serial(tmp_path: Path) -> None:
    board = boards.load("host")
    require(board)
    csource.write_sources(random_model(DIMS, seed=1), tmp_path / "source")
    elf = build.build(board, tmp_path / "source", tmp_path / "build").elf
    slots = tmp_path / "slots"
    slots.write_bytes(b"\xff" * 2 * 64 * 1024)
    new = random_model(DIMS, seed=2)
    model_format.write(new, tmp_path / "run" / "model.safetensors")
    command = [str(elf), "--tcp", "0", "--model-slots", str(slots)]
    arguments = ["--run", str(tmp_path / "run"), "--model-only", "--port"]
    with flash.Session(board, command) as session:
        dry = quads_mcu(*arguments, session.url, "--dry-run")
        assert dry.returncode == 0 and "EMPTY" in dry.stdout, dry.stderr
        assert slots.read_bytes().count(0xFF) == 2 * 64 * 1024
        done = quads_mcu(*arguments, session.url)
        assert done.returncode == 0, done.stderr
        assert f"runs model {new.model_hash[:12]} from slot 0: " in done.stderr
        again = quads_mcu(*arguments, session.url, "--dry-run")
    assert new.model_hash[:12] in again.stdout and "runs" in again.stdout
