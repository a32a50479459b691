"""`quads-mcu test` on the host board, end to end: what it reports and how it fails."""

from __future__ import annotations

import json
import os
import pty
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_run import tiny_run

from quads_mcu import model_format
from quads_mcu.device import boards, build
from quads_mcu.export import project
from quads_mcu.run_dir import RunDir, write_json


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    """A tiny trained run, exported and built for this PC."""
    found = tiny_run(tmp_path_factory.mktemp("board_test"))
    host = boards.load("host")
    project.export(found, host, bits=None, out=None)
    build.build(host, found.source_dir("host"), found.build_dir("host"))
    return found


def board_test(run: RunDir, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quads_mcu.cli", "test", "--run", str(run.path)]
    command += ["--target", "host", "--split", "valid", *arguments]
    environment = os.environ | {"NO_COLOR": "1", "COLUMNS": "200"}
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_board_equals_reference_and_reports_say_so(run: RunDir) -> None:
    done = board_test(run, "--json")
    assert done.returncode == 0, done.stderr
    values = json.loads(done.stdout)
    equality = values["equality"]
    assert equality["feature_bytes"] > 0
    assert equality["feature_bytes_differing"] == equality["logits_differing"] == 0
    assert values["memory"]["weights"]["predicted"] == values["memory"]["weights"]["measured"]
    folder = run.report_dir("host")
    assert json.loads((folder / "report.json").read_text())["accuracy"] == values["accuracy"]
    assert "0 differ" in (folder / "report.html").read_text()
    suite = ET.parse(folder / "junit.xml").getroot().find("testsuite")
    assert suite is not None and suite.get("failures") == suite.get("errors") == "0"


def test_board_with_the_integer_frontend(run: RunDir, tmp_path: Path) -> None:
    copy = RunDir(tmp_path / "run")
    shutil.copytree(run.path, copy.path)
    host = replace(boards.load("host"), frontend="fixed")
    project.export(copy, host, bits=None, out=None)
    build.build(host, copy.source_dir("host"), copy.build_dir("host"))
    done = board_test(copy, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["equality"]["feature_bytes_differing"] == 0
    assert model_format.read(copy.model_path).frontend == "fixed"


def test_missing_port_is_a_link_error(run: RunDir) -> None:
    done = board_test(run, "--port", "/dev/ttyNOPE")
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("error: /dev/ttyNOPE: no such port; found:")


def test_silent_board_is_named_with_what_was_expected(run: RunDir) -> None:
    master, slave = pty.openpty()
    try:
        done = board_test(run, "--port", os.ttyname(slave))
    finally:
        os.close(master)
        os.close(slave)
    assert done.returncode == 3
    assert "no answer to hello from /dev/pts/" in done.stderr.splitlines()[-1]


def test_board_with_another_model_is_refused(run: RunDir, tmp_path: Path) -> None:
    other = RunDir(tmp_path / "run")
    shutil.copytree(run.path, other.path)
    model = other.model_path
    from dataclasses import replace

    from quads_mcu import model_format

    changed = model_format.read(model)
    model_format.write(replace(changed, pool_multiplier=changed.pool_multiplier + 1), model)
    done = board_test(other)
    assert done.returncode == 3
    assert "runs model" in done.stderr.splitlines()[-1]


def test_damaged_model_is_refused(run: RunDir, tmp_path: Path) -> None:
    other = RunDir(tmp_path / "run")
    shutil.copytree(run.path, other.path)
    other.model_path.write_bytes(other.model_path.read_bytes()[:500])
    done = board_test(other)
    assert done.returncode == 1
    assert "not a readable model file" in done.stderr.splitlines()[-1]


def test_missed_threshold_has_its_own_code(run: RunDir, tmp_path: Path) -> None:
    other = RunDir(tmp_path / "run")
    shutil.copytree(run.path, other.path)
    stored = json.loads(other.config_path.read_text())
    stored["settings"]["thresholds"]["weight_bytes"] = 1000
    write_json(other.config_path, stored)
    done = board_test(other)
    assert done.returncode == 4
    assert "missed: weights, bytes, at most" in done.stderr.splitlines()[-1]
    assert "MISSED" in done.stdout
