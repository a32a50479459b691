"""The paper-size student (d=384 x 4 layers) on emulated boards, over real utterances.

Whisper's own encoder with fitted codebooks serves, on windows of 3 s; QUADS_S2I_RUN names a trained
run of examples/s2i instead. `quads-mcu test --run runs/s2i --target BOARD --limit 50` does the same
for a report.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from firmware_build import require
from shared_data import SHARED
from silent import silent

from benchmarks.paper_size import fitted
from quads_mcu import model_format
from quads_mcu.device import boards, build
from quads_mcu.device.boards import Board
from quads_mcu.device.client import Client
from quads_mcu.device.flash import open_board
from quads_mcu.device.measure import measure_stored
from quads_mcu.export import csource, project
from quads_mcu.report import evaluation
from quads_mcu.run_dir import RunDir

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

NEEDED = [SHARED / "s2i/manifest.csv", SHARED / "whisper/whisper_tiny_en_encoder_fp16.npz"]
UTTERANCES = 50
MIB = 1 << 20


@pytest.fixture(scope="module")
def student(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[model_format.PackedModel, evaluation.Clips]:
    """The packed student and utterances spread over its test split."""
    if missing := [str(path) for path in NEEDED if not path.is_file()]:
        pytest.skip(f"no {', '.join(missing)} (set QUADS_SHARED_DATA)")
    trained = os.environ.get("QUADS_S2I_RUN")
    run = RunDir(Path(trained)) if trained else fitted(tmp_path_factory.mktemp("student"), silent)
    model = model_format.read(run.model_path)
    clips = evaluation.load_clips(run.config(), model.labels, "test", silent)
    return model, clips.spread(UTTERANCES)


def small_flash(board: Board) -> Board:
    """The board with 1 MiB of flash, as chips of its kind have."""
    first, *rest = board.memory
    return replace(board, memory=(replace(first, size_bytes=min(first.size_bytes, MIB)), *rest))


@pytest.mark.parametrize(("name", "large"), [("qemu-an386", "psram"), ("qemu-an547", "ddr")])
def test_logits_equal_the_reference(
    student: tuple[model_format.PackedModel, evaluation.Clips],
    tmp_path: Path,
    name: str,
    large: str,
) -> None:
    model, clips = student
    board = small_flash(boards.load(name))
    require(board)
    assert (model.dims.d_model, model.dims.n_layers) == (384, 4)
    csource.write_sources(model, tmp_path / "source", board.kernels)
    built = build.build(board, tmp_path / "source", tmp_path / "build")
    assert {one.region: one.contents for one in built.regions}[large] == ("weights",)
    predicted = project.predict(model, board)

    @contextlib.contextmanager
    def open_client(store: Path | None) -> Iterator[Client]:
        with open_board(board, built.elf, clips=store) as client:
            client.check(model.model_hash)
            yield client

    spoken = [pcm[:n] for pcm, n in zip(clips.pcm, clips.lengths, strict=True)]
    measured = measure_stored(open_client, spoken, workers=2, progress=silent)
    features = evaluation.mel_features(clips.pcm, model.dims, silent, model.frontend)
    logits = evaluation.reference_logits(model, features, silent)
    assert measured.logits.shape == (UTTERANCES, model.dims.n_classes)
    np.testing.assert_array_equal(measured.features, features)
    np.testing.assert_array_equal(measured.logits, logits)
    assert measured.stats.arena_used_bytes == predicted.arena_bytes
