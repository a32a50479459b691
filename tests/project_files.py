"""Exported projects with the small random model of firmware_build; shared by tests of formats."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from c_build import require_tool
from firmware_build import model

from quads_mcu import config
from quads_mcu.device import boards
from quads_mcu.export import project as exports
from quads_mcu.export.projects import FORMATS
from quads_mcu.export.projects.project import Files, Project
from quads_mcu.model_format import PackedModel

WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")


def exported_model(board_name: str) -> PackedModel:
    """Return the model with the board's frontend."""
    return dataclasses.replace(model(), frontend=boards.load(board_name).frontend)


@functools.cache
def project_files(fmt: str, board_name: str) -> Files:
    """Return the files of a project."""
    board, packed = boards.load(board_name), exported_model(board_name)
    settings = config.from_tree({"data": {"manifests": ["m.csv"]}}, where="tests")
    project = Project(packed, board, exports.predict(packed, board), settings, "header")
    return importlib.import_module(FORMATS[fmt]).files(project)


def write_project(fmt: str, board_name: str, folder: Path) -> Files:
    """Write a project to `folder`; return its files."""
    files = project_files(fmt, board_name)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return files


def compile_all(
    compiler: str, flags: Sequence[str], sources: Iterable[Path], out_dir: Path
) -> list[Path]:
    """Compile each file to an object; fail the test with the compiler's words."""
    out_dir.mkdir(parents=True, exist_ok=True)
    objects = []
    for index, source in enumerate(sources):
        target = out_dir / f"{index:02d}-{source.stem}.o"
        run([require_tool(compiler), *flags, "-c", str(source), "-o", str(target)])
        objects.append(target)
    return objects


def run(command: Sequence[str], cwd: Path | None = None) -> str:
    """Run a command that must succeed; return its standard output."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout
