"""`quads-mcu profile`: what `analyze` predicts, measured on a board, side by side."""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.console import Progress
from quads_mcu.device import build as builder
from quads_mcu.device import clips, flash
from quads_mcu.device.boards import Board
from quads_mcu.device.build import Build
from quads_mcu.device.client import Stats
from quads_mcu.errors import DeviceError
from quads_mcu.export import csource
from quads_mcu.model_format import STAGES, PackedModel
from quads_mcu.report import analysis
from quads_mcu.report.analysis import Analysis

SAMPLES_PER_FRAME = 160


@dataclass(frozen=True)
class Measured:
    """One utterance of noise on a board.

    instructions: int64 (n_layers + 2, n_stages), by place and stage; build, stats: of the firmware.
    """

    instructions: NDArray[np.int64]
    build: Build
    stats: Stats


@dataclass(frozen=True)
class Profile:
    """Prediction and measurement of the same model on the same board."""

    predicted: Analysis
    measured: Measured

    def rows(self) -> list[tuple[int, str, int | None, int]]:
        """Return (place, stage, predicted, measured) instructions, in order of computation."""
        return [
            (
                part.place,
                part.stage,
                part.instructions,
                int(self.measured.instructions[part.place, STAGES.index(part.stage)]),
            )
            for part in self.predicted.parts
        ]

    @property
    def total(self) -> int:
        """Measured instructions of the utterance."""
        return int(self.measured.instructions.sum())

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        build = self.measured.build
        dims = self.predicted.dims
        return {
            "predicted": self.predicted.to_json(),
            "measured": {
                "instructions": self.total,
                "parts": [
                    {
                        "place": analysis.place_name(place, dims),
                        "stage": stage,
                        "instructions": measured,
                        "error": error(predicted, measured),
                    }
                    for place, stage, predicted, measured in self.rows()
                ],
                "error": error(self.predicted.instructions, self.total),
                "regions": [asdict(one) for one in build.regions],
                "weight_bytes": build.weight_bytes,
                "arena_used_bytes": self.measured.stats.arena_used_bytes,
                "stack_used_bytes": self.measured.stats.stack_used_bytes,
                "compiler": build.compiler,
            },
        }


def error(predicted: float | None, measured: float) -> float | None:
    """Return the relative error of a prediction, or None without one."""
    return None if predicted is None or not measured else predicted / measured - 1


def profile(name: str, model: PackedModel, board: Board, progress: Progress) -> Profile:
    """Build firmware for `model`, run one utterance of noise on `board`, compare.

    Raises:
        DeviceError: the board does not count instructions.
        BuildError, LinkError, ProtocolError: as building and the client raise them.
    """
    return Profile(analysis.analyze(name, model, board), measure(model, board, progress))


def measure(model: PackedModel, board: Board, progress: Progress) -> Measured:
    """As `profile`, without the prediction."""
    if not board.emulated:
        raise DeviceError(
            f"board {board.name} does not count instructions; use an emulated one: --target "
            "qemu-an386"
        )
    model = replace(model, frontend=board.frontend)
    rng = np.random.default_rng(0)
    pcm = rng.normal(0, 3000, model.dims.n_frames * SAMPLES_PER_FRAME).astype(np.int16)
    with tempfile.TemporaryDirectory(prefix="quads-profile-") as folder:
        source, out, store = (Path(folder) / part for part in ("source", "build", "clips.bin"))
        csource.write_sources(model, source, board.kernels)
        build = builder.build(board, source, out, progress=progress)
        clips.write(store, [pcm])
        with flash.open_board(board, build.elf, clips=store) as client:
            client.check(model.model_hash)
            client.run_clip(0)
            client.infer()
            return Measured(client.layers(), build, client.stats())
