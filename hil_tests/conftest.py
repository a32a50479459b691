"""Fixtures of the board tests: the device under test, the run it belongs to, what is expected.

    pytest hil_tests --run-dir runs/demo --board qemu-an386
    pytest hil_tests --run-dir runs/demo --board qemu-an386 --port /dev/ttyUSB0

Without --port the board's emulator (or host process) is started; with it, the board is already
running there. `quads-mcu test` runs these files and prints the report they write.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

import numpy as np
import pytest

from quads_mcu import console, model_format
from quads_mcu.device import boards
from quads_mcu.device.client import Client
from quads_mcu.device.flash import open_board
from quads_mcu.device.measure import Measurement, measure_sent, measure_stored
from quads_mcu.errors import QuadsError
from quads_mcu.report import evaluation
from quads_mcu.report.board import BoardReport
from quads_mcu.run_dir import RunDir, write_json


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("quads-mcu")
    group.addoption("--run-dir", type=Path, default=Path("runs/default"), help="run to test")
    group.addoption("--board", default=None, help="board; default: the run's target")
    group.addoption("--port", default=None, help="port or URL of a board that runs already")
    group.addoption("--split", default="test", help="data split (default: test)")
    group.addoption("--limit", type=int, default=0, help="use only so many utterances; 0: all")
    group.addoption("--workers", type=int, default=2, help="emulators at once (default: 2)")
    group.addoption("--report-dir", type=Path, default=None, help="where report.json goes")


def pytest_exception_interact(
    node: pytest.Item, call: pytest.CallInfo[None], report: pytest.TestReport
) -> None:
    """End the session at the first error of link, model or settings: the next test has it too."""
    problem = call.excinfo.value if call.excinfo else None
    if isinstance(problem, QuadsError):
        if folder := node.config.getoption("--report-dir"):
            error = {"exit_code": problem.exit_code, "text": str(problem)}
            write_json(folder / "error.json", error)
        pytest.exit(str(problem), returncode=problem.exit_code)


class Bench:
    """One board with one run's model, and lazily everything the tests compare."""

    def __init__(self, options: pytest.Config) -> None:
        self.run = RunDir(options.getoption("--run-dir"))
        self.config = self.run.config()
        self.board = boards.load(options.getoption("--board") or self.config.target.board)
        self.port: str | None = options.getoption("--port")
        self.split: str = options.getoption("--split")
        self.limit: int = options.getoption("--limit")
        self.workers: int = options.getoption("--workers")
        self.model = model_format.read(self.run.model_path)
        report_dir = options.getoption("--report-dir") or self.run.report_dir(self.board.name)
        self.report = BoardReport(self.run, self.config, self.board, self.model, report_dir)

    @contextlib.contextmanager
    def open(self, clips: Path | None = None) -> Iterator[Client]:
        """Open the board; refuse one with another model."""
        firmware = self.run.build_dir(self.board.name) / "firmware.elf"
        with open_board(self.board, firmware, port=self.port, clips=clips) as client:
            client.check(self.model.model_hash)
            yield client

    @cached_property
    def clips(self) -> evaluation.Clips:
        with console.progress() as progress:
            clips = evaluation.load_clips(self.config, self.model.labels, self.split, progress)
        return clips.spread(self.limit) if self.limit else clips

    @cached_property
    def pcm(self) -> list[np.ndarray]:
        """The utterances as they are spoken to the board: without the padding of the window."""
        return [p[:n] for p, n in zip(self.clips.pcm, self.clips.lengths, strict=True)]

    @cached_property
    def features(self) -> np.ndarray:
        """Features of the numpy twin, int8 (N, n_frames, n_mels)."""
        with console.progress() as progress:
            return evaluation.mel_features(
                self.clips.pcm, self.model.dims, progress, self.model.frontend
            )

    @cached_property
    def logits(self) -> np.ndarray:
        """Logits of the integer reference, int32 (N, n_classes)."""
        with console.progress() as progress:
            return evaluation.reference_logits(self.model, self.features, progress)

    @cached_property
    def measured(self) -> Measurement:
        """What the board computed for the whole split, through its PCM path."""
        with console.progress() as progress:
            if self.port is None and self.board.stores_clips:
                return measure_stored(self.open, self.pcm, self.workers, progress)
            with self.open() as client:
                return measure_sent(client, self.pcm, progress)


@pytest.fixture(scope="session")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    found = Bench(request.config)
    yield found
    found.report.write()


@pytest.fixture(scope="module")
def dut(bench: Bench) -> Iterator[Client]:
    """A client of the device under test; closed after each file, since a port has one user."""
    with bench.open() as client:
        yield client
