"""Whole models with the Helium kernels on the emulated Cortex-M55: logits, arena, instructions."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from firmware_build import require
from random_model import random_model

from quads_mcu import model_format
from quads_mcu.device import boards, build, flash
from quads_mcu.device.client import Inference, Stats
from quads_mcu.export import csource, planner
from quads_mcu.export.reference import Reference
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model_format import PackedModel

BOARD = "qemu-an547"
SMALL = Dimensions(n_mels=40, n_frames=50, d_model=72, n_heads=3, n_layers=1, n_classes=5)
PAPER = Dimensions(n_mels=80, n_frames=300, d_model=384, n_heads=6, n_layers=4, n_classes=31)


def run(model: PackedModel, folder: Path) -> tuple[Inference, Stats]:
    """Infer from random audio on the board; logits must be the reference's."""
    board = boards.load(BOARD)
    require(board)
    csource.write_sources(model, folder / "source", board.kernels)
    built = build.build(board, folder / "source", folder / "build")
    samples = model.dims.n_frames * 160
    pcm = np.random.default_rng(1).integers(-9000, 9000, samples).astype(np.int16)
    with flash.open_board(board, built.elf) as client:
        client.send_pcm(pcm)
        features = client.features()
        inference = client.infer()
        again = client.infer()
        stats = client.stats()
    expected = Reference(model).logits(features[None])[0]
    np.testing.assert_array_equal(inference.logits, expected)
    np.testing.assert_array_equal(again.logits, expected)
    return inference, stats


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"n_frames": 2, "n_classes": 2},
        {"n_frames": 6, "n_mels": 8, "d_model": 8, "n_heads": 1},
        {"n_frames": 142, "d_model": 96, "n_heads": 4, "n_layers": 2},
    ],
    ids=["halves of blocks", "one token", "smallest", "several blocks"],
)
def test_logits_equal_the_reference(tmp_path: Path, change: dict[str, int]) -> None:
    dims = dataclasses.replace(SMALL, **change)
    every_width = itertools.cycle(model_format.BITS)
    bits = {name: next(every_width) for name in model_format.linear_shapes(dims)}
    _, stats = run(random_model(dims, bits, seed=1), tmp_path)
    assert stats.arena_used_bytes <= planner.plan(dims, "helium").arena_bytes


@pytest.mark.slow
def test_paper_size_student(tmp_path: Path) -> None:
    inference, stats = run(random_model(PAPER, 4, seed=1), tmp_path)
    assert inference.instructions.sum() <= 205_000_000
    assert stats.arena_used_bytes <= 270_000
