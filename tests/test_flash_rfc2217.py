"""A flash over the network: RFC 2217 asks for a round trip per setting, so it takes a minute."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from esp_build import write_build
from esp_rom_loader import Chip, RomLoader
from rfc2217_server import Rfc2217Server

from quads_mcu.device import boards
from quads_mcu.export.projects import folder as folders


@pytest.mark.slow
def test_flash_over_rfc2217(tmp_path: Path) -> None:
    board, chip, project = boards.load("esp32s3"), Chip(), tmp_path / "project"
    folders.write(project, {"README.md": ""}, {"board": board.name, "format": "esp-idf"})
    expected = write_build(project, board, app_bytes=20_000)
    with (
        RomLoader(chip, tmp_path / "port") as loader,
        Rfc2217Server(loader.port) as server,
    ):
        command = [sys.executable, "-m", "quads_mcu.cli", "flash", "--port", server.url]
        command += ["--project-dir", str(project)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(chip.flash[at : at + len(data)] == data for at, data in expected.items())
