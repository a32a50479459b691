"""The wheel, installed where no source tree is near: does it hold and find what it needs?"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from c_build import REPOSITORY, require_tool
from tiny_run import tiny_run

from quads_mcu import __version__, config
from quads_mcu.run_dir import RunDir

pytestmark = pytest.mark.slow

Run = Callable[..., "subprocess.CompletedProcess[str]"]
# What pip says when it cannot reach an index, by its causes.
UNREACHABLE = ("NewConnectionError", "ConnectTimeoutError", "NameResolutionError", "ProxyError")


def tracked_files() -> list[str]:
    require_tool("git")
    command = ["git", "-C", str(REPOSITORY), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout: no list of the files that belong to the package")
    return [name for name in done.stdout.split("\0") if name and (REPOSITORY / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling", reason="the wheel is built with hatchling, not installed")
    pytest.importorskip("build", reason="`python -m build` is not installed")
    copy = tmp_path_factory.mktemp("tree")
    for name in tracked_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, copy / name)
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)]
    done = subprocess.run([*command, str(copy)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs a program of a fresh environment in an empty folder."""
    place = tmp_path_factory.mktemp("installed")
    venv = place / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {"NO_COLOR": "1", "COLUMNS": "200"}

    def run(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(venv / "bin" / program), *arguments]
        return subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, check=False
        )

    constraints = str(REPOSITORY / ".ci" / "constraints.txt")
    done = run("python", "-m", "pip", "install", "--quiet", "-c", constraints, str(wheel))
    if done.returncode and any(cause in done.stderr for cause in UNREACHABLE):
        pytest.skip("the package index is unreachable: dependencies cannot be installed")
    assert done.returncode == 0, done.stderr
    return run


def test_wheel_holds_every_data_file(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = set(archive.namelist())
    wanted = {
        f"quads_mcu/_data/{name}"
        for name in tracked_files()
        if name.startswith(("templates/", "firmware/", "hil_tests/"))
    }
    wanted |= {name for name in tracked_files() if name.startswith("quads_mcu/")}
    assert wanted <= packed
    for sample in (
        "quads_mcu/_data/templates/model.h.j2",
        "quads_mcu/_data/firmware/include/quads.h",
        "quads_mcu/_data/hil_tests/conftest.py",
        "quads_mcu/device/boards/host.toml",
    ):
        assert sample in packed
    surplus = {name for name in packed - wanted if ".dist-info/" not in name}
    assert not surplus


def test_installs_without_torch(installed: Run) -> None:
    done = installed("python", "-c", "import quads_mcu; print(quads_mcu.__file__)")
    assert "site-packages" in done.stdout, done.stderr
    assert installed("python", "-c", "import torch").returncode != 0
    assert installed("quads-mcu", "--version").stdout.strip() == f"quads-mcu {__version__}"


def test_finds_its_boards(installed: Run) -> None:
    done = installed("quads-mcu", "boards", "--json")
    assert done.returncode == 0, done.stderr
    tracked = {Path(n).stem for n in tracked_files() if n.startswith("quads_mcu/device/boards/")}
    assert {board["name"] for board in json.loads(done.stdout)} == tracked


def test_exports_and_builds_a_trained_run(installed: Run, tmp_path: Path) -> None:
    trained = tiny_run(tmp_path)
    arguments = ("--run", str(trained.path), "--target", "host")
    done = installed("quads-mcu", "export", *arguments)
    assert done.returncode == 0, done.stderr
    done = installed("quads-mcu", "build", *arguments)
    assert done.returncode == 0, done.stderr
    program = trained.build_dir("host") / "firmware.elf"
    assert done.stdout.strip().splitlines()[-1] == str(program)
    assert os.access(program, os.X_OK)


def test_names_the_extra_that_is_missing(installed: Run, tmp_path: Path) -> None:
    (tmp_path / "quads.toml").write_text("[project]\nname = 'x'\n")
    run = RunDir(tmp_path / "run")
    run.write_config(config.load(tmp_path))
    needs = {
        "quads-mcu[train]": ("train", "--project", str(tmp_path)),
        "quads-mcu[hil]": ("test", "--run", str(run.path), "--target", "host"),
    }
    for extra, arguments in needs.items():
        done = installed("quads-mcu", *arguments)
        assert done.returncode == 1
        assert f"pip install '{extra}'" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
