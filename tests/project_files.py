"""Exported projects with the small random model of firmware_build; shared by tests of formats."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
from c_build import require_tool
from firmware_build import DIMS, model

from quads_mcu import config
from quads_mcu.audio.frontend import features
from quads_mcu.config import ListenSection
from quads_mcu.device import boards
from quads_mcu.device.client import Client, Inference
from quads_mcu.export import project as exports
from quads_mcu.export.listener import Heard
from quads_mcu.export.projects import FORMATS
from quads_mcu.export.projects.project import Files, Project
from quads_mcu.export.reference import Reference
from quads_mcu.model_format import PackedModel

# The window is short: little beside the speech itself shall be in it.
LISTEN = ListenSection(lead_ms=50, tail_ms=100, hangover_ms=200)
WARNINGS = ("-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror")


def exported_model(board_name: str) -> PackedModel:
    """Return the model with the board's frontend and a threshold that accepts some speech."""
    frontend = boards.load(board_name).frontend
    return dataclasses.replace(model(), frontend=frontend, reject_threshold=-2_550_000)


@functools.cache
def project_files(fmt: str, board_name: str, weights: str = "header") -> Files:
    """Return the files of a project."""
    board, packed = boards.load(board_name), exported_model(board_name)
    tree = {"data": {"manifests": ["m.csv"]}, "listen": dataclasses.asdict(LISTEN)}
    settings = config.from_tree(tree, where="tests")
    project = Project(packed, board, exports.predict(packed, board), settings, weights)
    return importlib.import_module(FORMATS[fmt]).files(project)


def write_project(fmt: str, board_name: str, folder: Path, weights: str = "header") -> Files:
    """Write a project to `folder`; return its files."""
    files = project_files(fmt, board_name, weights)
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return files


def clips() -> list[np.ndarray]:
    """Return noise of several levels, silence, full scale, odd lengths, one beyond the window."""
    rng = np.random.default_rng(5)
    whole = DIMS.n_frames * 160
    return [
        rng.normal(0, 3000, whole).clip(-32768, 32767).astype(np.int16),
        (rng.normal(0, 200, whole) + 6000 * np.sin(np.arange(whole) / 5)).astype(np.int16),
        np.zeros(whole, np.int16),
        rng.choice(np.array([-32768, 32767], np.int16), whole),
        rng.normal(0, 8000, 4321).clip(-32768, 32767).astype(np.int16),
        rng.normal(0, 1000, whole + 777).astype(np.int16),
    ]


def inferences_of_the_references(client: Client, packed: PackedModel) -> list[Inference]:
    """Check features and logits of every clip against the reference; return the inferences."""
    reference, inferences = Reference(packed), []
    for pcm in clips():
        client.send_pcm(pcm)
        mel = features(pcm, DIMS.n_mels, DIMS.n_frames, packed.frontend)
        np.testing.assert_array_equal(client.features(), mel)
        found = client.infer()
        np.testing.assert_array_equal(found.logits, reference.logits(mel[None])[0])
        inferences.append(found)
    return inferences


def utterances() -> np.ndarray:
    """Return 2.75 s of PCM, int16 (44000,): two bursts, of which the model refuses one."""
    rng = np.random.default_rng(0)
    pcm = rng.normal(0, 20, 36000)
    for at, level in ((8000, 4000), (20000, 12000)):
        pcm[at : at + 4000] += rng.normal(0, level, 4000) * np.sin(
            np.arange(4000) * rng.uniform(0.1, 1.5)
        )
    pcm = pcm.round().clip(-32768, 32767).astype(np.int16)
    return np.concatenate([pcm, pcm[:8000]])


def spoken(packed: PackedModel, heard: Heard) -> list[str]:
    """Return the lines that the demo writes for what its numpy twin hears."""
    lines = []
    for answers, rejected in zip(heard.answers, heard.rejected, strict=True):
        pairs = zip(packed.slots, answers, strict=True)
        said = ", ".join(f"{slot.name}: {slot.labels[answer]}" for slot, answer in pairs)
        lines.append("no command" if rejected else said)
    return lines


def cmake() -> str:
    """Return CMake: of this Python's environment (pip install cmake) or the system's."""
    own = Path(sys.executable).parent / "cmake"
    return str(own) if own.is_file() else require_tool("cmake")


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
    """Run a command that must succeed; return all that it wrote."""
    done = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False, cwd=cwd
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stdout}")
    return done.stdout
