"""The listening firmware on boards: against the twin, and with sources too fast and too slow."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from firmware_build import require
from numpy.typing import NDArray
from random_model import random_model
from test_listener import RECORDINGS
from typer.testing import CliRunner

from quads_mcu import cli, config, model_format
from quads_mcu.audio import files, scene
from quads_mcu.device import boards, build, clips, flash, listening
from quads_mcu.device.client import Client
from quads_mcu.device.listening import Event, Listening
from quads_mcu.errors import BuildError, ConfigError, ProtocolError
from quads_mcu.export import csource
from quads_mcu.model.dimensions import Dimensions, dimensions
from quads_mcu.model_format import PackedModel
from quads_mcu.report import listening as report
from quads_mcu.run_dir import RunDir

DIMS = Dimensions(n_mels=40, n_frames=100, d_model=16, n_heads=2, n_layers=1, n_classes=4)
LABELS = ("alexa", "computer", "jarvis", "smart_mirror", "snowboy", "view_glass")
PCM = RECORDINGS["noise"]

OpenBoard = Callable[..., contextlib.AbstractContextManager[Client]]


def quiet(description: str, completed: float, total: float) -> None:
    del description, completed, total


@pytest.fixture(scope="module")
def model() -> PackedModel:
    return random_model(DIMS, seed=5)


@pytest.fixture(scope="module", params=["host", "qemu-an386"])
def board(request: pytest.FixtureRequest) -> boards.Board:
    found = boards.load(request.param)
    require(found)
    return found


@pytest.fixture(scope="module")
def open_board(
    board: boards.Board, model: PackedModel, tmp_path_factory: pytest.TempPathFactory
) -> OpenBoard:
    """Return a context manager that starts the board with a recording in its storage."""
    out = tmp_path_factory.mktemp("listening")
    csource.write_sources(model, out / "source", board.kernels)
    sanitize = board.kind == "host"
    built = build.build(board, out / "source", out / "build", sanitize, listening=True)

    @contextlib.contextmanager
    def opened(pcm: NDArray[np.int16] = PCM) -> Iterator[Client]:
        clips.write(out / "recording.bin", [pcm])
        with flash.open_board(board, built.elf, clips=out / "recording.bin") as client:
            yield client

    return opened


def _listen(client: Client, board: boards.Board, mips: float | None, **options: int) -> Listening:
    ticks_per_s = listening.pace(board, client.hello(), mips) if mips else 0
    return listening.listen(client, len(PCM), ticks_per_s, quiet, **options)


@pytest.mark.parametrize("chunk_seed", [0, 1, 2])
def test_a_board_hears_what_the_twin_hears(
    chunk_seed: int, open_board: OpenBoard, board: boards.Board, model: PackedModel
) -> None:
    with open_board() as client:
        found = _listen(client, board, None, chunk_seed=chunk_seed)
    assert len(found.events) >= 4
    assert report.differences(found, model, PCM) == []
    assert (found.counters.samples_made, found.counters.samples_lost) == (len(PCM), 0)


def test_at_the_pace_of_a_microphone_nothing_is_lost(
    open_board: OpenBoard, board: boards.Board, model: PackedModel
) -> None:
    with open_board() as client:
        found = _listen(client, board, 100.0, chunk_seed=5)
        stats = client.stats()
    assert report.differences(found, model, PCM) == []
    counters = found.counters
    assert (counters.samples_lost, counters.utterances_lost, counters.stalls) == (0, 0, 0)
    assert found.source_hz == pytest.approx(16000, rel=0.001)
    hangover_ms, tail_ms = 500, 200
    for event in found.events:  # a full window is answered before the speech is over
        assert event.length == DIMS.n_frames or event.latency_ms >= hangover_ms - tail_ms
    assert stats.stack_used_bytes <= board.stack_bytes
    assert stats.frames_damaged == 0
    assert report.warnings(found) == []


@pytest.mark.parametrize(("rate_hz", "word"), [(17_600, "faster"), (6000, "slower")])
def test_a_source_of_another_speed_is_reported(
    rate_hz: int, word: str, open_board: OpenBoard, board: boards.Board, model: PackedModel
) -> None:
    with open_board() as client:
        found = _listen(client, board, 100.0, rate_hz=rate_hz)
    assert found.source_hz == pytest.approx(rate_hz, rel=0.001)
    assert (found.counters.stalls > 0) == (rate_hz < 8000)
    assert word in report.warnings(found)[0]
    assert found.counters.samples_lost == 0
    assert report.differences(found, model, PCM) == []


def test_a_board_too_slow_counts_what_it_loses_and_stays_sane(
    board: boards.Board, open_board: OpenBoard, model: PackedModel
) -> None:
    if not board.emulated:
        pytest.skip("the host's speed cannot be set")
    with open_board() as client:
        found = _listen(client, board, 1.0)
        again = _listen(client, board, None)
    counters = found.counters
    assert counters.samples_made == len(PCM)
    assert counters.samples_lost > len(PCM) // 10
    # Every sample was heard or counted: at most one frame is unfinished at each gap.
    assert counters.frames <= (len(PCM) - counters.samples_lost) // 160 + counters.frames
    assert "samples were lost" in " ".join(report.warnings(found))
    assert all(event.start + event.length <= len(PCM) // 160 for event in found.events)
    assert report.differences(again, model, PCM) == []


def test_refusals(open_board: OpenBoard, board: boards.Board) -> None:
    with open_board() as client:
        client.hello()
        values: dict[str, int | bytes] = {"ticks_per_s": 0, "rate_hz": 16000, "chunk_seed": 0}
        with pytest.raises(ProtocolError, match="clip 1 does not exist, the device stores 1"):
            client.request("listen", values | {"clip": 1})
        client._sequence -= 1  # as when the answer was lost: the same request once more
        with pytest.raises(ProtocolError, match="clip 1 does not exist, the device stores 1"):
            client.request("listen", values | {"clip": 1})
        with pytest.raises(ProtocolError, match="out of range"):
            client.request("listen", values | {"clip": 0, "rate_hz": 0})
        with pytest.raises(ProtocolError, match="out of range"):  # there is no microphone
            client.request("listen", values | {"clip": 2**32 - 1})
        with pytest.raises(ProtocolError, match="value 1 out of range, limit 0"):
            client.request("heard", {"event": 1})
        with pytest.raises(ProtocolError, match="unknown message"):
            client.request("infer", {})
        assert client.request("heard", {"event": 0})["frames"] == 0


def test_asking_twice_for_an_event_changes_nothing(open_board: OpenBoard) -> None:
    with open_board() as client:
        client.hello()
        start: dict[str, int | bytes] = {"ticks_per_s": 0, "rate_hz": 16000, "chunk_seed": 0}
        client.request("listen", start | {"clip": 0})
        while (answer := client.request("heard", {"event": 0}))["running"]:
            pass
        assert answer == client.request("heard", {"event": 0})
        first = answer["values"]
        second = client.request("heard", {"event": 1})["values"]
        assert first and second and first != second
        assert client.request("heard", {"event": 0})["values"] == b""  # forgotten


# The command line and the report.


@pytest.fixture
def run_dir(tmp_path: Path, model: PackedModel) -> RunDir:
    run = RunDir(tmp_path / "run")
    run.write_config(config.from_tree({"target": {"board": "host"}}, where="a test"))
    model_format.write(model, run.model_path)
    return run


def test_command_line(run_dir: RunDir, model: PackedModel, tmp_path: Path) -> None:
    require(boards.load("host"))
    csource.write_sources(model, run_dir.source_dir("host"))
    files.write_wav(tmp_path / "a.wav", PCM)
    arguments = ["listen", str(tmp_path / "a.wav"), "--run", str(run_dir.path)]
    done = CliRunner().invoke(cli.app, [*arguments, "--json", "--seed", "4"])
    assert done.exit_code == 0, done.output
    values = json.loads(done.stdout)
    assert values["settings"]["hangover_frames"] == 50
    assert len(values["events"]) >= 4
    labels = {"rejected", *model.slots[0].labels}
    assert {event["heard"] for event in values["events"]} <= labels
    assert "equals the reference" in done.stderr


def test_a_run_that_was_not_exported(run_dir: RunDir) -> None:
    with pytest.raises(BuildError, match="run `quads-mcu export --target host`"):
        report.run(run_dir, boards.load("host"), PCM, quiet)


def test_differences_are_named(open_board: OpenBoard, board: boards.Board) -> None:
    with open_board() as client:
        found = _listen(client, board, None)
    other = report.differences(found, random_model(DIMS, seed=6), PCM)
    assert "event 0: logits differ" in other
    louder = (PCM // 2).astype(np.int16)
    assert "features of frames differ" in report.differences(
        found, random_model(DIMS, seed=5), louder
    )
    shorter = report.differences(found, random_model(DIMS, seed=5), PCM[:-16000])
    assert shorter[0].endswith("expected")


def test_pace() -> None:
    an386 = boards.load("qemu-an386")
    hello = _hello("instructions")
    assert listening.pace(an386, hello, 10) == 16_000_000  # 1.6 ticks per instruction
    assert listening.pace(an386, hello) == round(120e6 / 1.3 * 1.6)
    with pytest.raises(ConfigError, match="out of range"):
        listening.pace(an386, hello, 1e9)
    with pytest.raises(ConfigError, match="needs instructions"):
        listening.pace(an386, _hello("cycles"))


def _hello(unit: str) -> listening.Hello:
    return listening.Hello(
        1, 1, "", "", "", 40, 100, 4, 64, 0, 0, tick_numerator=5, tick_denominator=8,
        tick_unit=unit, n_stages=7, n_clips=1, reject_threshold=0, slots=(4,),
    )  # fmt: skip


def _event(start: int, end: int, intent: int = 0) -> Event:
    """An event whose speech is [start, end), with a lead of 10 frames."""
    return Event(
        "command", start - 10, 50, end, end + 50, 0, 0, np.array([intent]), np.zeros(4, np.int32)
    )


def test_score_matches_events_with_clips() -> None:
    truth = [(100, 200, 0), (300, 400, 1), (500, 600, None), (700, 800, 2), (850, 950, 3),
             (1000, 1100, 1)]  # fmt: skip
    segments = [scene.Segment(160 * a, 160 * b, label) for a, b, label in truth]
    events = [
        _event(90, 190, 0),  # once, right
        _event(290, 330, 1), _event(350, 390, 1),  # split
        _event(510, 590),  # other speech
        _event(640, 660),  # noise
        _event(690, 940, 2),  # two commands in one event
    ]  # fmt: skip
    found = report.score(events, segments, 10)
    assert (found.commands, found.once, found.missed, found.split, found.merged) == (5, 1, 1, 1, 2)
    assert (found.recognized, found.other_events, found.noise_events) == (1, 1, 1)


def test_scene_places_clips_where_it_says() -> None:
    rng = np.random.default_rng(0)
    tone = (8000 * np.sin(np.arange(8000))).astype(np.int16)
    noise = rng.normal(0, 1000, 16000).astype(np.int16)
    made = scene.compose([scene.Clip(tone, 3)], [], [noise], 20, seed=1, snr_db=(20, 20))
    assert len(made.pcm) == 320_000
    assert len(made.segments) >= 4
    silent = np.ones(len(made.pcm), bool)
    for segment in made.segments:
        assert segment.label == 3
        silent[segment.start : segment.end] = False
        level = np.sqrt(np.mean(made.pcm[segment.start : segment.end].astype(float) ** 2))
        assert level > 500
    assert np.sqrt(np.mean(made.pcm[silent].astype(float) ** 2)) == pytest.approx(100, rel=0.05)
    again = scene.compose([scene.Clip(tone, 3)], [], [noise], 20, seed=1, snr_db=(20, 20))
    np.testing.assert_array_equal(made.pcm, again.pcm)
    without = scene.compose([scene.Clip(tone, 3)], [], [], 5, seed=1)
    assert not without.pcm[:48000].any()


# Recorded speech.


def _benchmark() -> ModuleType:
    path = Path(__file__).parent.parent / "benchmarks" / "listening.py"
    spec = importlib.util.spec_from_file_location("listening_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_five_minutes_of_recorded_commands_in_noise(tmp_path: Path) -> None:
    """A random model of the demo's size: the hour with the trained one is `make listen`."""
    benchmark = _benchmark()
    if not (benchmark.shared_data() / "wakewords" / "manifest.csv").is_file():
        pytest.skip("no recordings of wakewords in ../shared/data (QUADS_SHARED_DATA)")
    board = boards.load("qemu-an386")
    require(board)
    dims = dimensions("d96x2", n_mels=40, window_s=2, n_classes=len(LABELS))
    packed = random_model(dims, seed=1)
    run = RunDir(tmp_path)
    run.write_config(config.from_tree({}, where="a test"))
    model_format.write(packed, run.model_path)
    csource.write_sources(packed, run.source_dir(board.name), board.kernels)
    made = benchmark.shared_scene(LABELS, 5.0, seed=3)
    pcm = np.concatenate([made.pcm, np.zeros(16_000, np.int16)])
    found = report.run(run, board, pcm, quiet, chunk_seed=9)
    assert report.differences(found, packed, pcm) == []
    assert (found.counters.samples_lost, found.counters.utterances_lost) == (0, 0)
    score = report.score(found.events, made.segments, found.settings["lead_frames"])
    assert score.commands > 50
    assert score.once == score.commands
