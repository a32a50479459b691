"""Compile C sources of the firmware into a shared library and load it; shared by several tests."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FIRMWARE = REPOSITORY / "firmware"
STRICT_FLAGS = (
    "-std=c11",
    "-Wall",
    "-Wextra",
    "-Wpedantic",
    "-Wconversion",
    "-Werror",
    "-ffp-contract=off",
)


def require_tool(name: str) -> str:
    """Return the path of a program; skip the test, naming it, when it is not installed."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def compile_shared(
    sources: Iterable[Path],
    include_dirs: Iterable[Path],
    out_dir: Path,
    compiler: str = "gcc",
    flags: Sequence[str] = (),
) -> ctypes.CDLL:
    """Compile `sources` with STRICT_FLAGS and `flags` (last, so "-O3" counts) and load the result.

    Each call makes its own library in `out_dir`. Skips the test when `compiler` is not installed;
    fails it with the compiler's messages when the sources do not compile cleanly.
    """
    handle, library = tempfile.mkstemp(suffix=".so", dir=out_dir)
    os.close(handle)
    command = [require_tool(compiler), *STRICT_FLAGS, "-fPIC", "-shared"]
    command += [f"-I{directory}" for directory in include_dirs]
    command += [*flags, *map(str, sources), "-o", library]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\n{done.stderr}")
    return ctypes.CDLL(library)
