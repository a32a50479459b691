"""Listening in C against its numpy twin: same utterances, features and logits in any chunks."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from c_build import FIRMWARE, STRICT_FLAGS, require_tool
from numpy.typing import NDArray
from random_model import random_model

from quads_mcu.audio import frontend
from quads_mcu.config import ListenSection
from quads_mcu.device.build import kernel_sources
from quads_mcu.export import csource, listener
from quads_mcu.export.listener import GateSettings, Heard, Utterance
from quads_mcu.export.reference import Reference
from quads_mcu.model.dimensions import Dimensions

DIMS = Dimensions(n_mels=40, n_frames=100, d_model=16, n_heads=2, n_layers=1, n_classes=4)
SECTION = ListenSection(lead_ms=200)
SETTINGS = GateSettings.of(SECTION)
COMPILERS = {
    "gcc -O2": ["gcc", "-O2"],
    "gcc sanitizers": ["gcc", "-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover"],
}
COUNTERS = (
    "frames", "utterances", "utterances_lost", "inferences", "inferences_stopped", "gaps",
    "tokens_early", "tokens_late",
)  # fmt: skip
COMMAND, REJECTED, LOST = 0, 1, 2


def recording(
    seed: int,
    *,
    noise: float,
    level: float,
    seconds: float = 12,
    burst_s: tuple[float, float] = (0.1, 1.6),
) -> NDArray[np.int16]:
    """Bursts of tones with pauses of 0.05 to 1.5 s, in noise."""
    rng = np.random.default_rng(seed)
    pcm = rng.normal(0, 1, round(seconds * 16000)) * noise
    at = 16000
    while at < len(pcm):
        n = min(len(pcm) - at, int(16000 * rng.uniform(*burst_s)))
        time_s = np.arange(n) / 16000
        tones = rng.uniform(200, 5000, 6)
        loud = level * rng.uniform(0.3, 1.5)
        pcm[at : at + n] += loud * np.sin(2 * np.pi * tones[:, None] * time_s).sum(axis=0) / 6
        at += n + int(rng.uniform(800, 24000))
    return pcm.clip(-32768, 32767).astype(np.int16)


RECORDINGS = {
    "noise": recording(1, noise=30, level=6000),
    "loud": recording(2, noise=3, level=40000),
    "digital silence": recording(3, noise=0, level=20000),
    "short bursts": recording(6, noise=30, level=6000, burst_s=(0.03, 0.12)),
    "only noise": recording(4, noise=300, level=0, seconds=4),
    "nothing": np.zeros(0, np.int16),
    "one sample": np.ones(1, np.int16),
    "one frame": np.full(200, 77, np.int16),
}


class Report(NamedTuple):
    """What the C program wrote: events (N, 7), features, logits, counters by name."""

    events: NDArray[np.uint32]
    features: NDArray[np.int8]
    logits: NDArray[np.int32]
    counters: dict[str, int]


Run = Callable[..., Report]


@pytest.fixture(scope="module", params=COMPILERS)
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that listens to a recording with the compiled listener."""
    compiler = COMPILERS[request.param]
    require_tool(compiler[0])
    out = tmp_path_factory.mktemp("listener")
    csource.write_sources(random_model(DIMS, seed=5), out, listen=SECTION)
    sources = [
        Path(__file__).parent / "listen_main.c",
        out / "model_data.c",
        *sorted((FIRMWARE / "src").glob("*.c")),
        *sorted((FIRMWARE / "src" / "frontend").glob("*.c")),
        *kernel_sources("plain"),
    ]
    includes = [f"-I{path}" for path in (out, FIRMWARE / "include", FIRMWARE / "src")]
    done = subprocess.run(
        [*compiler, *STRICT_FLAGS, *includes, *map(str, sources), "-o", str(out / "run")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr

    def run(
        pcm: NDArray[np.int16],
        seed: int = 1,
        *,
        ring_frames: int = SETTINGS.ring_frames(DIMS.n_frames),
        polled: int = 0,
        gap: tuple[int, int] = (0, 0),
        busy: int = 0,
    ) -> Report:
        path = out / "recording.raw"
        path.write_bytes(pcm.tobytes())
        numbers = (seed, ring_frames, polled, *gap, busy)
        done = subprocess.run(
            [str(out / "run"), str(path), *map(str, numbers)], capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        return _report(done.stdout)

    return run


def _report(data: bytes) -> Report:
    kinds = [
        ("event", "<u4", 7),
        ("features", "i1", (DIMS.n_frames, DIMS.n_mels)),
        ("logits", "<i4", DIMS.n_classes),
    ]
    body, tail = data[: -4 * len(COUNTERS)], data[-4 * len(COUNTERS) :]
    rows = np.frombuffer(body, np.dtype(kinds))
    counters = dict(zip(COUNTERS, np.frombuffer(tail, "<u4").tolist(), strict=True))
    return Report(rows["event"], rows["features"], rows["logits"], counters)


def _twin(pcm: NDArray[np.int16]) -> Heard:
    return listener.listen(random_model(DIMS, seed=5), pcm, SETTINGS)


def _assert_equal(found: Report, expected: Heard) -> None:
    times = [(u.start, u.length, u.end, u.confirmed) for u in expected.utterances]
    assert found.events[:, 2:6].tolist() == [list(time) for time in times]
    kinds = np.where(expected.rejected, REJECTED, COMMAND)
    assert found.events[:, 0].tolist() == kinds.tolist()
    assert found.events[:, 1].tolist() == expected.answers[:, 0].tolist()
    np.testing.assert_array_equal(found.features, expected.windows)
    np.testing.assert_array_equal(found.logits, expected.logits)
    assert found.counters["frames"] == len(expected.frames)
    assert found.counters["utterances"] == len(expected.utterances)
    assert found.counters["utterances_lost"] == 0


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", RECORDINGS)
def test_random_chunks_hear_what_the_twin_hears(name: str, seed: int, run: Run) -> None:
    expected = _twin(RECORDINGS[name])
    if name in {"noise", "loud", "digital silence"}:
        assert len(expected.utterances) >= 4
        assert {u.length < DIMS.n_frames for u in expected.utterances} == {True, False}
    _assert_equal(run(RECORDINGS[name], seed), expected)


def _chunks_until(sample: int, seed: int) -> int:
    """Return how many of the random chunks of listen_main.c reach this sample."""
    n = at = 0
    while at < sample:
        seed = (seed * 1664525 + 1013904223) % 2**32
        at += (seed >> 8) % 700
        n += 1
    return n


@pytest.mark.parametrize("late_frames", [1, 4, 7, 10])
def test_a_queue_that_was_full_when_the_speech_paused(late_frames: int, run: Run) -> None:
    """The fifth utterance waits for a place in the queue; its window ends where it always does."""
    pcm = np.concatenate([RECORDINGS["loud"][: 4 * 16000], RECORDINGS["loud"]])
    expected = _twin(pcm)
    fifth = expected.utterances[4]
    paused = fifth.start + fifth.length
    assert fifth.length < DIMS.n_frames
    found = run(pcm, 3, ring_frames=4000, busy=_chunks_until(160 * (paused + late_frames) + 200, 3))
    assert paused <= found.events[0, 6] < fifth.confirmed  # the first event is made in between
    _assert_equal(found, expected)


@pytest.mark.parametrize("polled", [1, 2, 5])
@pytest.mark.parametrize("name", ["noise", "loud", "digital silence"])
def test_hearing_goes_on_during_inference(name: str, polled: int, run: Run) -> None:
    """Up to 0.2 s at each of the encoder's polls: utterances begin and resume meanwhile."""
    found = run(RECORDINGS[name], 7, polled=polled, ring_frames=4000)
    _assert_equal(found, _twin(RECORDINGS[name]))


def test_speech_that_goes_on_after_a_pause_stops_the_inference(run: Run) -> None:
    """A pause longer than the tail and shorter than the hangover is inside the utterance."""
    pcm = np.random.default_rng(0).normal(0, 20, 64000)
    tone = 8000 * np.sin(np.arange(4800) * 0.3) * np.sin(np.arange(4800) * 0.011)
    pcm[16000:20800] += tone
    pcm[25600:30400] += tone  # 300 ms later
    recorded = pcm.astype(np.int16)
    found = run(recorded, 3, polled=1, ring_frames=1000)
    _assert_equal(found, _twin(recorded))
    assert len(found.events) == 1
    assert found.counters["inferences"] == 2
    assert found.counters["inferences_stopped"] <= 1


def test_front_rows_are_made_early_where_the_clamp_allows(run: Run) -> None:
    """In noise the clamp changes nothing; after digital silence it makes rows stale."""
    counts = {name: run(RECORDINGS[name]).counters for name in ("noise", "digital silence")}
    tokens = {n: c["inferences"] * DIMS.n_tokens for n, c in counts.items()}
    assert counts["noise"]["tokens_early"] > tokens["noise"] // 4
    late = {n: c["tokens_late"] / tokens[n] for n, c in counts.items()}
    assert late["noise"] < late["digital silence"]


@pytest.mark.parametrize(
    ("seed", "polled"), [(0, 0), (7, 40)], ids=["one chunk", "an inference as long as all"]
)
def test_a_listener_too_slow_loses_utterances_and_says_so(seed: int, polled: int, run: Run) -> None:
    pcm = RECORDINGS["loud"]
    found, expected = run(pcm, seed, polled=polled), _twin(pcm)
    lost = found.counters["utterances_lost"]
    assert lost > 0
    assert found.counters["utterances"] == len(expected.utterances)
    by_start = {u.start: index for index, u in enumerate(expected.utterances)}
    answered = found.events[found.events[:, 0] != LOST]
    assert len(answered) == len(expected.utterances) - lost
    for row, start in enumerate(found.events[:, 2].tolist()):
        if found.events[row, 0] != LOST:
            np.testing.assert_array_equal(found.features[row], expected.windows[by_start[start]])


@pytest.mark.parametrize("n_lost", [1, 160, 777, 20000])
def test_no_window_reaches_across_a_gap(n_lost: int, run: Run) -> None:
    pcm, at = RECORDINGS["noise"], 70_123
    found = run(pcm, 5, gap=(at, n_lost))
    assert found.counters["gaps"] == 1
    # Frames before the gap are those of the recording, frames after it those of a new stream.
    before = listener.frames_in(at)
    first = (at + n_lost) // 160
    mel = frontend.frames(pcm[:at], DIMS.n_mels, before)
    rest = pcm[at + n_lost :]
    after = frontend.frames(rest, DIMS.n_mels, listener.frames_in(len(rest)))
    assert len(found.events) >= 3
    assert found.counters["frames"] == before + len(after)
    for event, window in zip(found.events, found.features, strict=True):
        start, length = int(event[2]), int(event[3])
        if start < before:
            assert start + length <= before
            expected = listener.window(mel, Utterance(start, length, 0, 0), DIMS.n_frames)
        else:
            shifted = Utterance(start - first, length, 0, 0)
            expected = listener.window(after, shifted, DIMS.n_frames)
        np.testing.assert_array_equal(window, expected)
    np.testing.assert_array_equal(
        found.logits, Reference(random_model(DIMS, seed=5)).logits(found.features)
    )


def _steps(*stretches: tuple[int, int], n_mels: int = 40) -> NDArray[np.int8]:
    """Frames at given levels: stretches of (frames, LSB)."""
    return np.concatenate([np.full((n, n_mels), level, np.int8) for n, level in stretches])


@pytest.mark.parametrize(("n_loud", "hangover"), [(6, 75), (8, 75), (9, 50), (20, 50)])
def test_a_short_burst_waits_longer(n_loud: int, hangover: int) -> None:
    """A level falls by half per frame, so the first quiet frame, 30 above the floor, is loud."""
    frames = _steps((200, -60), (n_loud, 0), (200, -60))
    (found,) = listener.utterances(frames, SETTINGS, 200)
    assert found.end == 200 + n_loud + 1
    assert found.confirmed == found.end + hangover - 1


@pytest.mark.parametrize(("pause", "n_utterances"), [(70, 1), (80, 2)])
def test_a_short_burst_belongs_to_the_word_behind_it(pause: int, n_utterances: int) -> None:
    frames = _steps((200, -60), (7, 0), (pause, -60), (40, 0), (200, -60))
    assert len(listener.utterances(frames, SETTINGS, 400)) == n_utterances


@pytest.mark.parametrize(("n_loud", "n_utterances"), [(2, 2), (4, 1)])
def test_clatter_does_not_end_a_pause(n_loud: int, n_utterances: int) -> None:
    """The second burst is loud for a frame longer than it lasts."""
    frames = _steps((200, -60), (40, 0), (30, -60), (n_loud, 0), (30, -60), (40, 0), (200, -60))
    assert len(listener.utterances(frames, SETTINGS, 400)) == n_utterances


@pytest.mark.parametrize(("pause", "n_utterances"), [(25, 1), (35, 2)])
def test_after_a_full_window_a_pause_opens_the_gate_again(pause: int, n_utterances: int) -> None:
    frames = _steps((200, -60), (130, 0), (pause, -60), (40, 0), (200, -60))
    assert len(listener.utterances(frames, SETTINGS, 100)) == n_utterances


@pytest.mark.parametrize(("above", "n_utterances"), [(24, 0), (28, 1)])
def test_speech_counts_that_exceeds_the_gate(above: int, n_utterances: int) -> None:
    frames = _steps((200, -60), (30, -60 + above), (200, -60))
    assert len(listener.utterances(frames, SETTINGS, 200)) == n_utterances


def test_settings_are_rounded_to_frames_and_lsb() -> None:
    section = ListenSection(gate_db=12.3, lead_ms=204, tail_ms=196, hangover_ms=100)
    assert GateSettings.of(section) == GateSettings(25, 20, 20, 20)
    assert GateSettings.of(ListenSection()) == GateSettings(24, 50, 20, 50)


@pytest.mark.parametrize(
    ("n_samples", "n_frames"), [(0, 0), (199, 0), (200, 1), (359, 1), (360, 2), (16000, 99)]
)
def test_frames_in(n_samples: int, n_frames: int) -> None:
    assert listener.frames_in(n_samples) == n_frames
