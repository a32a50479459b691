"""Firmware with a small random model, built once per board; shared by several tests."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import tempfile
from pathlib import Path

import pytest
from random_model import random_model

from quads_mcu.device import boards, build
from quads_mcu.device.boards import Board
from quads_mcu.export import csource
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model_format import PackedModel

DIMS = Dimensions(n_mels=40, n_frames=50, d_model=32, n_heads=2, n_layers=2, n_classes=5)
REJECT_THRESHOLD = 980_000


@functools.cache
def model() -> PackedModel:
    """Two slots, the last label of the first one unknown, and a threshold that rejects some."""
    found = random_model(DIMS, seed=3, slots=[3, 2])
    return dataclasses.replace(found, unknown_class=2, reject_threshold=REJECT_THRESHOLD)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


@functools.cache
def source_dir(kernels: str = "plain") -> Path:
    folder = Path(_folder().name) / f"source-{kernels}"
    csource.write_sources(model(), folder, kernels)
    return folder


@functools.cache
def built(board_name: str, sanitize: bool = False) -> build.Build:
    board = boards.load(board_name)
    require(board)
    out = Path(_folder().name) / f"{board_name}{'-sanitized' if sanitize else ''}"
    return build.build(board, source_dir(board.kernels), out, sanitize=sanitize)


def require(board: Board) -> None:
    """Skip the test, naming the program, when the board cannot be built for or run here."""
    words = [candidate.split() for candidate in board.toolchain.compilers]
    if not any(shutil.which(word[0]) for word in words):
        pytest.skip(f"no compiler for {board.name}: {board.toolchain.install}")
    if board.emulator and shutil.which(board.emulator.command[0]) is None:
        pytest.skip(f"no emulator for {board.name}: {board.emulator.install}")
