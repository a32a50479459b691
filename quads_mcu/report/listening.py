"""Listen to a recording with a board, and hold what it heard against the twin and the truth."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quads_mcu import model_format
from quads_mcu.audio.files import Pcm
from quads_mcu.audio.scene import Segment
from quads_mcu.console import Progress
from quads_mcu.device import boards, clips, flash, listening
from quads_mcu.device import build as builder
from quads_mcu.device.listening import SAMPLE_RATE, Event, Listening
from quads_mcu.errors import BuildError, QuadsError
from quads_mcu.export import listener
from quads_mcu.export.listener import GateSettings, Heard
from quads_mcu.model_format import PackedModel
from quads_mcu.run_dir import RunDir
from quads_mcu.slots import Slot

# A clock that is off by more is not a clock's tolerance.
RATE_TOLERANCE = 0.01
SETTINGS_FILE = "listen_settings.h"


def run(
    found: RunDir,
    board: boards.Board,
    pcm: Pcm,
    progress: Progress,
    *,
    mips: float | None = None,
    rate_hz: int = SAMPLE_RATE,
    chunk_seed: int = 0,
    paced: bool = True,
) -> Listening:
    """Build the listening firmware of an exported run and let it hear a recording.

    Args:
        pcm: int16 (n,), 16 kHz.
        mips: pace; see `device.listening.pace`.
        rate_hz, chunk_seed: as in `device.listening.listen`.
        paced: False: the recording waits for the board, nothing can be lost.
    Raises:
        BuildError: the run was not exported for the board, or does not compile.
        DeviceError, LinkError, ProtocolError: the board failed.
    """
    source = found.source_dir(board.name)
    if not (source / SETTINGS_FILE).is_file():
        raise BuildError(
            f"{source} holds no {SETTINGS_FILE}; run `quads-mcu export --target {board.name}`"
        )
    model = model_format.read(found.model_path)
    built = builder.build(
        board, source, found.listen_dir(board.name), progress=progress, listening=True
    )
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "recording.bin"
        clips.write(store, [pcm])
        with flash.open_board(board, built.elf, clips=store) as client:
            hello = client.check(model.model_hash)
            ticks_per_s = listening.pace(board, hello, mips) if paced else 0
            return listening.listen(
                client, len(pcm), ticks_per_s, progress, rate_hz=rate_hz, chunk_seed=chunk_seed
            )


def differences(found: Listening, model: PackedModel, pcm: Pcm) -> list[str]:
    """Return how the board differs from the twin, in words; nothing when all is equal.

    Compared: every frame's features, every utterance's times, window, logits and intent. Not
    defined for a board that lost audio or utterances.
    """
    names = ("gate_lsb", "lead_frames", "tail_frames", "hangover_frames")
    settings = GateSettings(**{name: found.settings[name] for name in names})
    expected = listener.listen(model, pcm, settings)
    problems = []
    if found.counters.frames != len(expected.frames):
        problems.append(f"{found.counters.frames} frames heard, {len(expected.frames)} expected")
    elif found.counters.frames_crc != zlib.crc32(expected.frames.tobytes()):
        problems.append("features of frames differ")
    if len(found.events) != len(expected.utterances):
        problems.append(f"{len(found.events)} events, {len(expected.utterances)} expected")
    return problems + _event_differences(found.events, expected)


def _event_differences(events: Sequence[Event], expected: Heard) -> list[str]:
    problems = []
    for index, (event, utterance) in enumerate(zip(events, expected.utterances, strict=False)):
        window = np.ascontiguousarray(expected.windows[index])
        kind = "rejected" if expected.rejected[index] else "command"
        times = (event.start, event.length, event.end, event.confirmed)
        wanted = (utterance.start, utterance.length, utterance.end, utterance.confirmed)
        if event.kind == "lost":
            problems.append(f"event {index}: lost")
        elif times != wanted:
            problems.append(f"event {index}: frames {times}, expected {wanted}")
        elif event.features_crc != zlib.crc32(window.tobytes()):
            problems.append(f"event {index}: features differ")
        elif not np.array_equal(event.logits, expected.logits[index]):
            problems.append(f"event {index}: logits differ")
        elif event.kind != kind or not np.array_equal(event.answers, expected.answers[index]):
            problems.append(f"event {index}: {event.kind} {event.answers}, expected {kind}")
    return problems


@dataclass(frozen=True)
class Score:
    """Commands against events, by overlap in time.

    The gate: once: commands with exactly one event of their own; missed: with none; split: with
    several; merged: that share their event with another clip; other_events: events on other
    speech; noise_events: on neither. The model: of the commands heard once, recognized: accepted
    with the right first answer; rejected.
    """

    commands: int
    once: int
    missed: int
    split: int
    merged: int
    recognized: int
    rejected: int
    other_speech: int
    other_events: int
    noise_events: int


def score(events: Sequence[Event], segments: Sequence[Segment], lead_frames: int) -> Score:
    """Match events with the clips of a scene.

    An event belongs to every clip that its speech overlaps: from lead_frames after the window's
    start to its end.
    """
    hits: list[list[int]] = [[] for _ in segments]
    owners: list[list[int]] = [[] for _ in events]
    for index, event in enumerate(events):
        start, end = 160 * (event.start + lead_frames), 160 * event.end
        for place, segment in enumerate(segments):
            if segment.start < end and start < segment.end:
                hits[place].append(index)
                owners[index].append(place)
    commands = [place for place, segment in enumerate(segments) if segment.label is not None]
    shared = [p for p in commands if any(len(owners[index]) > 1 for index in hits[p])]
    once = [p for p in commands if len(hits[p]) == 1 and p not in set(shared)]
    return Score(
        commands=len(commands),
        once=len(once),
        missed=sum(not hits[p] for p in commands),
        split=sum(len(hits[p]) > 1 for p in commands),
        merged=len(shared),
        recognized=sum(
            events[hits[p][0]].kind == "command"
            and int(events[hits[p][0]].answers[0]) == segments[p].label
            for p in once
        ),
        rejected=sum(events[hits[p][0]].kind == "rejected" for p in once),
        other_speech=len(segments) - len(commands),
        other_events=sum(
            bool(places) and all(segments[p].label is None for p in places) for places in owners
        ),
        noise_events=sum(not places for places in owners),
    )


def _text(event: Event, slots: Sequence[Slot]) -> str:
    if event.kind != "command":
        return event.kind
    answers = zip(slots, event.answers.tolist(), strict=True)
    return ", ".join(slot.labels[answer] for slot, answer in answers)


def rows(found: Listening, slots: Sequence[Slot]) -> list[tuple[str, ...]]:
    """Return a printable row per event: start and end of speech, what was heard, latency."""
    return [
        (
            f"{event.start / 100:.2f}",
            f"{event.end / 100:.2f}",
            _text(event, slots),
            f"{event.latency_ms:.0f}",
        )
        for event in found.events
    ]


def summary(found: Listening) -> list[tuple[str, str]]:
    """Return printable counters."""
    counters, unit = found.counters, found.hello.tick_unit
    mean, largest = found.work
    latencies = [event.latency_ms for event in found.events if event.kind != "lost"]
    median = f"{np.median(latencies):.0f} / {max(latencies):.0f} ms" if latencies else "-"
    return [
        ("audio heard", f"{counters.frames / 100:.2f} s"),
        ("source, by the board's clock", f"{found.source_hz:.0f} Hz"),
        ("samples lost", f"{counters.samples_lost:,}"),
        ("stalls of the source", f"{counters.stalls:,}"),
        ("utterances, lost", f"{counters.utterances:,}, {counters.utterances_lost:,}"),
        ("inferences, stopped", f"{counters.inferences:,}, {counters.inferences_stopped:,}"),
        ("front rows made early, late", f"{counters.tokens_early:,}, {counters.tokens_late:,}"),
        ("end of speech to answer, median / longest", median),
        (f"{unit} per 10 ms, mean", f"{mean:,.0f}"),
        (f"{unit} between reads of the microphone, most", f"{largest:,.0f}"),
    ]


def warnings(found: Listening) -> list[str]:
    """Return what a user should know about the source and the board's speed."""
    found_hz, counters = found.source_hz, found.counters
    lines = []
    if abs(found_hz / SAMPLE_RATE - 1) > RATE_TOLERANCE:
        word = "faster" if found_hz > SAMPLE_RATE else "slower"
        lines.append(
            f"the source yields {found_hz:.0f} samples per second of the board's clock, "
            f"{word} than {SAMPLE_RATE}; speech sounds higher or lower than it is"
        )
    if counters.stalls:
        lines.append(f"the source came late {counters.stalls} times: 10 ms took over 20 ms")
    if counters.samples_lost:
        lines.append(
            f"{counters.samples_lost} samples were lost: the board was busy for longer than the "
            f"microphone keeps ({found.settings['audio_samples']} samples); use a smaller student "
            "or a faster board"
        )
    if counters.utterances_lost:
        lines.append(
            f"{counters.utterances_lost} utterances were not inferred: they came faster than the "
            "board infers; use a smaller student or a faster board"
        )
    return lines


def to_json(found: Listening, slots: Sequence[Slot]) -> dict[str, Any]:
    """Return events and counters as plain values."""
    mean, largest = found.work
    return {
        "board": found.hello.board,
        "settings": found.settings,
        "counters": vars(found.counters),
        "source_hz": found.source_hz,
        "unit": found.hello.tick_unit,
        "work_per_frame": mean,
        "largest_slice": largest,
        "events": [
            {
                "kind": event.kind,
                "heard": _text(event, slots),
                "start_s": event.start / 100,
                "end_s": event.end / 100,
                "latency_ms": event.latency_ms,
            }
            for event in found.events
        ],
    }


def raise_for(problems: Sequence[str]) -> None:
    """Turn differences into an error.

    Raises:
        QuadsError: there are some.
    """
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise QuadsError(f"the board differs from the reference: {'; '.join(problems[:3])}{more}")
