"""Run the listening firmware on a recording and collect what it hears."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quads_mcu import protocol
from quads_mcu.console import Progress
from quads_mcu.device.boards import Board
from quads_mcu.device.client import Client, Hello
from quads_mcu.errors import ConfigError, ProtocolError

SAMPLE_RATE = 16_000
KINDS = ("command", "rejected", "lost")
POLL_S = 0.02
MAX_TICKS_PER_S = (1 << 32) - 1


@dataclass(frozen=True)
class Event:
    """One utterance. Frames of 10 ms, samples at 16 kHz; `protocol.EVENT_FIELDS` has the meaning.

    answers: int64 (n_slots,); logits: int32 (n_classes,).
    """

    kind: str
    start: int
    length: int
    end: int
    confirmed: int
    answered_sample: int
    features_crc: int
    answers: NDArray[np.int64]
    logits: NDArray[np.int32]

    @property
    def latency_ms(self) -> float:
        """From the end of speech to the answer, ms of the microphone's time."""
        return (self.answered_sample - 160 * self.end) * 1000 / SAMPLE_RATE


@dataclass(frozen=True)
class Counters:
    """Counters of message `heard`; the protocol's table has the meaning of each."""

    frames: int
    frames_crc: int
    samples_made: int
    samples_due: int
    samples_lost: int
    stalls: int
    utterances: int
    utterances_lost: int
    inferences: int
    inferences_stopped: int
    tokens_early: int
    tokens_late: int
    events: int
    events_dropped: int
    working_ticks: int
    slice_ticks: int


@dataclass(frozen=True)
class Listening:
    """What a board heard in a recording: events in order of confirmation, and its counters.

    settings: [listen] in the device's units, from the answer to `listen`.
    """

    hello: Hello
    events: tuple[Event, ...]
    counters: Counters
    settings: dict[str, int]

    @property
    def work(self) -> tuple[float, float]:
        """Mean work per frame and the largest slice, in the board's unit (hello.tick_unit)."""
        scale = self.hello.tick_numerator / self.hello.tick_denominator
        mean = self.counters.working_ticks / max(1, self.counters.frames)
        return mean * scale, self.counters.slice_ticks * scale

    @property
    def source_hz(self) -> float:
        """Sample rate of the source by the board's clock; 16000 is as it should be."""
        return SAMPLE_RATE * self.counters.samples_made / max(1, self.counters.samples_due)


def listen(
    client: Client,
    n_samples: int,
    ticks_per_s: int,
    progress: Progress,
    *,
    rate_hz: int = SAMPLE_RATE,
    chunk_seed: int = 0,
) -> Listening:
    """Let the board listen to its stored clip 0 of `n_samples`.

    Args:
        ticks_per_s: pace; see `pace`. 0: none.
        rate_hz: samples the clip yields per second of the board's time.
        chunk_seed: of random chunk sizes; 0: as they come.
    Raises:
        LinkError, ProtocolError: as the client raises them.
    """
    hello = client.hello()
    start: dict[str, int | bytes] = {"clip": 0, "ticks_per_s": ticks_per_s, "rate_hz": rate_hz}
    settings = client.request("listen", start | {"chunk_seed": chunk_seed})
    events: list[Event] = []
    while True:
        answer = client.request("heard", {"event": len(events)})
        values = answer.pop("values")
        if isinstance(values, bytes) and values:
            events.append(_event(values, hello))
            continue
        numbers = {name: int(value) for name, value in answer.items()}
        running = numbers.pop("running")
        counters = Counters(**numbers)
        progress("samples heard", counters.samples_made, n_samples)
        if not running and len(events) + counters.events_dropped >= counters.events:
            return Listening(hello, tuple(events), counters, _integers(settings))
        if counters.events_dropped:
            raise ProtocolError(
                f"{counters.events_dropped} events were dropped before the host asked for them; "
                "is this computer busy? Listen to a shorter recording"
            )
        time.sleep(POLL_S)


def pace(board: Board, hello: Hello, mips: float | None = None) -> int:
    """Return the ticks that count as a second of the board's time.

    Args:
        mips: million instructions per second; None: those of the chip in the board's [energy],
            on the host its own time.
    Raises:
        ConfigError: the board's counter cannot be told in instructions, or the value is too large.
    """
    if hello.tick_unit == "nanoseconds":
        per_s = 1e9
    elif not hello.counts_instructions:
        raise ConfigError(f"{board.name} counts {hello.tick_unit}; a pace needs instructions")
    elif mips is not None:
        per_s = mips * 1e6
    elif board.energy is not None:
        per_s = board.energy.clock_hz / board.energy.cycles_per_instruction
    else:
        per_s = float(board.clock_hz)
    ticks = per_s * hello.tick_denominator / hello.tick_numerator
    if not 0.5 < ticks <= MAX_TICKS_PER_S:  # false for NaN too
        raise ConfigError(f"{per_s / 1e6:g} million instructions per second are out of range")
    return round(ticks)


def _event(data: bytes, hello: Hello) -> Event:
    head = sum(protocol.TYPES[field.type][1] for field in protocol.EVENT_FIELDS)
    n_slots = len(hello.slots)
    expected = head + 2 * n_slots + 4 * hello.n_classes
    if len(data) != expected:
        raise ProtocolError(f"heard: event of {len(data)} bytes, expected {expected}")
    numbers = _integers(protocol.decode_fields(protocol.EVENT_FIELDS, data[:head]))
    kind = numbers.pop("kind")
    answers = np.frombuffer(data, "<u2", n_slots, head).astype(np.int64)
    if kind >= len(KINDS) or (answers >= hello.slots).any():
        raise ProtocolError(f"heard: event of kind {kind}, answers {answers.tolist()}")
    logits = np.frombuffer(data, "<i4", hello.n_classes, head + 2 * n_slots).astype(np.int32)
    return Event(kind=KINDS[kind], **numbers, answers=answers, logits=logits)


def _integers(values: dict[str, int | bytes]) -> dict[str, int]:
    return {name: value for name, value in values.items() if isinstance(value, int)}
