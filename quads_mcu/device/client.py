"""The host's end of the serial protocol: one request at a time, repeated until it is answered."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from quads_mcu import protocol
from quads_mcu.device.link import DroppedError, Transport
from quads_mcu.errors import LinkError, ProtocolError
from quads_mcu.model_format import FORMAT_VERSION, STAGES
from quads_mcu.protocol import ANSWER_BIT, BY_NAME, FrameError, Status

TIMEOUT_S = 3.0  # an emulator may take a second to notice that somebody listens
COMPUTE_TIMEOUT_S = 60.0
RETRIES = 3
KIND_PCM, KIND_FEATURES = 0, 1
SMALLEST_PAYLOAD_BYTES = 64
FEATURES_AT_ONCE_BYTES = 8192
# A longer run of bytes without a zero cannot be a frame.
MAX_FRAME_BYTES = protocol.MAX_FRAME_PAYLOAD_BYTES * 2
TICK_UNITS = ("none", "instructions", "cycles", "nanoseconds")


class RefusedError(ProtocolError):
    """The board answered with a failure; `status` is protocol.Status, or what follows IMAGE."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Hello:
    """Who answered. Hashes and ids are hexadecimal; `tick_unit` is one of TICK_UNITS.

    slots: the number of labels of each slot; their sum is n_classes.
    """

    protocol_version: int
    format_version: int
    model_hash: str
    build_id: str
    board: str
    n_mels: int
    n_frames: int
    n_classes: int
    max_payload_bytes: int
    arena_bytes: int
    stack_bytes: int
    tick_numerator: int
    tick_denominator: int
    tick_unit: str
    n_stages: int
    n_clips: int
    reject_threshold: int
    slots: tuple[int, ...]

    @property
    def counts_instructions(self) -> bool:
        """Whether ticks are executed instructions."""
        return self.tick_unit == "instructions"


@dataclass(frozen=True)
class Inference:
    """One inference: answers int64 (n_slots,), whether the device rejects it, logits int32
    (n_classes,), work per stage in `unit` int64 (n_stages,).

    Stages are those of `model_format.STAGES`.
    """

    answers: NDArray[np.int64]
    rejected: bool
    logits: NDArray[np.int32]
    work: NDArray[np.int64]
    unit: str

    @property
    def intent(self) -> int:
        """Answer of the first slot."""
        return int(self.answers[0])

    @property
    def instructions(self) -> NDArray[np.int64]:
        """Executed instructions per stage; zeros where the board counts something else."""
        return self.work if self.unit == "instructions" else np.zeros_like(self.work)


@dataclass(frozen=True)
class Stats:
    """High-water marks and link counters since the board started."""

    arena_used_bytes: int
    stack_used_bytes: int
    frames_received: int
    frames_damaged: int

    def worst(self, other: Stats) -> Stats:
        """Return the higher marks of both, and the sums of the counters."""
        return Stats(
            max(self.arena_used_bytes, other.arena_used_bytes),
            max(self.stack_used_bytes, other.stack_used_bytes),
            self.frames_received + other.frames_received,
            self.frames_damaged + other.frames_damaged,
        )


@dataclass(frozen=True)
class Transfer:
    """What an upload took."""

    n_bytes: int
    seconds: float


class Client:
    """Talks to one board over `link`.

    Every method raises LinkError when the board stays silent, and ProtocolError when it answers
    something else than expected or reports a failure.
    """

    def __init__(
        self,
        link: Transport,
        *,
        timeout_s: float = TIMEOUT_S,
        compute_timeout_s: float = COMPUTE_TIMEOUT_S,
        retries: int = RETRIES,
    ) -> None:
        self.link = link
        self.frames_damaged = 0  # answers that came in damaged
        self._timeout_s = timeout_s
        self._compute_timeout_s = compute_timeout_s
        self._retries = retries
        self._sequence = 0
        self._received = bytearray()
        self._hello: Hello | None = None
        self.max_payload_bytes = SMALLEST_PAYLOAD_BYTES  # until the board says what it takes

    def hello(self) -> Hello:
        """Ask who is there.

        Raises:
            ProtocolError: the board speaks another version of the protocol.
        """
        answer = self._request("hello")
        version = int.from_bytes(answer[:2], "little")
        if version != protocol.PROTOCOL_VERSION:
            raise ProtocolError(
                f"the board at {self.link.url} speaks protocol version {version}, this quads-mcu "
                f"{protocol.PROTOCOL_VERSION}; build and flash again with this version"
            )
        self._hello = _hello(_fields("hello", answer))
        self.max_payload_bytes = self._hello.max_payload_bytes
        return self._hello

    def check(self, model_hash: str) -> Hello:
        """Refuse a board that was not built from the model with this hash (hexadecimal).

        Raises:
            ProtocolError: names the mismatch: protocol, format, stages or model.
        """
        hello = self.hello()
        here = f"{hello.board} at {self.link.url}"
        if hello.format_version != FORMAT_VERSION:
            raise ProtocolError(
                f"{here} runs a model of format version {hello.format_version}, this quads-mcu "
                f"writes {FORMAT_VERSION}; export, build and flash again"
            )
        if hello.n_stages != len(STAGES):
            raise ProtocolError(
                f"{here} reports {hello.n_stages} stages, expected {len(STAGES)}; build and flash "
                "again with this version"
            )
        if hello.model_hash != model_hash:
            raise ProtocolError(
                f"{here} runs model {hello.model_hash[:12]}, expected {model_hash[:12]}; "
                "export, build and flash the model you want to test"
            )
        return hello

    def send_pcm(self, pcm: NDArray[np.int16], chunk_bytes: int | None = None) -> Transfer:
        """Send one utterance, int16 (samples,), 16 kHz; the window closes with its last sample.

        chunk_bytes: payload per message; None: as much as the board takes.
        """
        data = np.ascontiguousarray(pcm, dtype="<i2").tobytes()
        return self._upload(KIND_PCM, data, chunk_bytes)

    def send_features(self, mel: NDArray[np.int8], chunk_bytes: int | None = None) -> Transfer:
        """Send int8 log-mel features (n_frames, n_mels) in place of PCM."""
        data = np.ascontiguousarray(mel, dtype=np.int8).tobytes()
        return self._upload(KIND_FEATURES, data, chunk_bytes)

    def run_clip(self, index: int) -> int:
        """Run a stored clip through the board's PCM path; return its length in bytes."""
        answer = self._request("clip", struct.pack("<I", index), self._compute_timeout_s)
        return _number(_fields("clip", answer)["length_bytes"])

    def features(self) -> NDArray[np.int8]:
        """Read the closed window's features, int8 (n_frames, n_mels)."""
        hello = self._hello or self.hello()
        n_bytes = hello.n_frames * hello.n_mels
        data = bytearray()
        while len(data) < n_bytes:
            wanted = min(FEATURES_AT_ONCE_BYTES, n_bytes - len(data))
            part = self._request("features", struct.pack("<IH", len(data), wanted))
            if len(part) != wanted:
                raise ProtocolError(f"features: {len(part)} bytes answered, {wanted} asked for")
            data += part
        return np.frombuffer(bytes(data), np.int8).reshape(hello.n_frames, hello.n_mels)

    def infer(self) -> Inference:
        """Run the encoder on the closed window."""
        hello = self._hello or self.hello()
        values = _fields("infer", self._request("infer", b"", self._compute_timeout_s))
        n, data = _number(values["n_logits"]), _bytes(values["values"])
        answered = _number(values["n_slots"])
        n_slots, size = len(hello.slots), 2 * len(hello.slots) + 4 * n + 8 * hello.n_stages
        if n != hello.n_classes or answered != n_slots or len(data) != size:
            raise ProtocolError(
                f"infer: {answered} slots and {n} logits in {len(data)} bytes answered, "
                f"expected {n_slots} and {hello.n_classes} in "
                f"{2 * n_slots + 4 * hello.n_classes + 8 * hello.n_stages}"
            )
        answers = np.frombuffer(data, "<u2", n_slots).astype(np.int64)
        if (answers >= hello.slots).any():
            raise ProtocolError(
                f"infer: answers {answers.tolist()}, slots have {hello.slots} labels; build and "
                "flash again"
            )
        ticks = np.frombuffer(data, "<u8", hello.n_stages, 2 * n_slots + 4 * n).astype(np.int64)
        return Inference(
            answers=answers,
            rejected=values["rejected"] != 0,
            logits=np.frombuffer(data, "<i4", n, 2 * n_slots).astype(np.int32),
            work=ticks * hello.tick_numerator // hello.tick_denominator,
            unit=hello.tick_unit,
        )

    def layers(self) -> NDArray[np.int64]:
        """Where the last inference spent its work, int64 (n_layers + 2, n_stages).

        Rows: before the encoder layers (frontend, convolutions), each layer, after them. In the
        unit of `Inference.work`, to which they add up.
        """
        hello = self._hello or self.hello()
        values = _fields("layers", self._request("layers"))
        n, data = _number(values["n_rows"]), _bytes(values["values"])
        if n < 2 or len(data) != 8 * n * hello.n_stages:
            raise ProtocolError(
                f"layers: {n} rows in {len(data)} bytes answered, expected {hello.n_stages} u64 "
                "in each; build and flash again"
            )
        ticks = np.frombuffer(data, "<u8").astype(np.int64).reshape(n, hello.n_stages)
        return ticks * hello.tick_numerator // hello.tick_denominator

    def stats(self) -> Stats:
        """Read high-water marks and link counters."""
        fields = _fields("stats", self._request("stats"))
        return Stats(**{name: _number(value) for name, value in fields.items()})

    def echo(self, data: bytes) -> bytes:
        """Return what the board makes of `data`, at most `max_payload_bytes`."""
        return self._request("echo", data)

    def request(
        self, name: str, values: dict[str, int | bytes], *, computes: bool = True
    ) -> dict[str, int | bytes]:
        """Send any message of protocol.MESSAGES; return the fields of its answer.

        computes: whether the board may have to work before it answers.
        """
        payload = protocol.encode_fields(BY_NAME[name].request, values)
        timeout_s = self._compute_timeout_s if computes else self._timeout_s
        return _fields(name, self._request(name, payload, timeout_s))

    def reopen(self) -> None:
        """Close the link and open it again; the board may have restarted meanwhile.

        Raises:
            LinkError: the port is gone.
        """
        self._received.clear()
        self._hello = None
        self.link.reopen()

    # --- uploads ---------------------------------------------------------------------------

    def _upload(self, kind: int, data: bytes, chunk_bytes: int | None) -> Transfer:
        """Send a whole window; once, when the link drops on the way, reopen it and start over."""
        hello = self._hello or self.hello()
        largest = hello.max_payload_bytes - 4
        size = largest if chunk_bytes is None else max(1, min(chunk_bytes, largest))
        start = time.monotonic()
        try:
            self._send_window(kind, data, size)
        except DroppedError:
            self._reopen(hello)
            self._send_window(kind, data, size)
        return Transfer(len(data), time.monotonic() - start)

    def _send_window(self, kind: int, data: bytes, size: int) -> None:
        self._request("begin", struct.pack("<BI", kind, len(data)))
        for offset in range(0, len(data), size):
            part = data[offset : offset + size]
            answer = self._request("chunk", struct.pack("<I", offset) + part)
            position = _number(_fields("chunk", answer)["next_offset_bytes"])
            if position != offset + len(part):
                raise ProtocolError(
                    f"chunk: the board expects offset {position} next, not {offset + len(part)}"
                )

    def _reopen(self, before: Hello) -> None:
        self.reopen()
        after = self.hello()
        if replace(after, n_clips=0) != replace(before, n_clips=0):
            raise ProtocolError(
                f"another board or build answers at {self.link.url} since the link was dropped; "
                "run the test again"
            )

    # --- requests --------------------------------------------------------------------------

    def _request(self, name: str, payload: bytes = b"", timeout_s: float | None = None) -> bytes:
        """Send until answered; return the answer's payload after its status byte."""
        message = BY_NAME[name]
        limit = self.max_payload_bytes
        if len(payload) > limit:
            raise ProtocolError(
                f"{name}: {len(payload)} bytes of payload, the board takes {limit} at most"
            )
        self._sequence = self._sequence % 255 + 1
        # The leading zero ends whatever lies unfinished in the board's receiver.
        frame = b"\0" + protocol.encode_frame(message.id, self._sequence, payload)
        timeout_s = self._timeout_s if timeout_s is None else timeout_s
        for _ in range(1 + self._retries):
            self.link.write(frame)
            answer = self._answer(message.id | ANSWER_BIT, timeout_s)
            if answer is None:
                continue
            if answer[:1] == b"\0":
                return answer[1:]
            text = protocol.status_text(answer[0], answer[1:])
            raise RefusedError(f"{name}: {text}", answer[0])
        raise LinkError(
            f"no answer to {name} from {self.link.url}: {1 + self._retries} attempts of "
            f"{timeout_s:g} s, {self.frames_damaged} damaged frames; is the firmware running and "
            "this its port? Reset the board, or build and flash again"
        )

    def _answer(self, answer_id: int, timeout_s: float) -> bytes | None:
        """Return the payload of this request's answer; None after the timeout or a damaged frame.

        Late answers to earlier requests are passed over.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            while (frame := self._next_frame()) is not None:
                try:
                    found_id, sequence, payload = protocol.decode_frame(frame)
                except FrameError:
                    self.frames_damaged += 1
                    continue
                if (found_id, sequence) == (answer_id, self._sequence) and payload:
                    return payload
                if found_id == ANSWER_BIT and payload[:1] == bytes([Status.BAD_CRC]):
                    self.frames_damaged += 1
                    return None
            left = deadline - time.monotonic()
            if left <= 0:
                return None
            self._received += self.link.read(left)
            if len(self._received) > MAX_FRAME_BYTES and 0 not in self._received:
                self._received.clear()

    def _next_frame(self) -> bytes | None:
        """Take the next non-empty frame from what was received."""
        while (end := self._received.find(0)) >= 0:
            frame = bytes(self._received[:end])
            del self._received[: end + 1]
            if frame:
                return frame
        return None


def _fields(name: str, answer: bytes) -> dict[str, int | bytes]:
    try:
        return protocol.decode_fields(BY_NAME[name].answer, answer)
    except FrameError as problem:
        raise ProtocolError(f"{name}: answer with a {problem}; build and flash again") from None


def _hello(values: dict[str, int | bytes]) -> Hello:
    found: dict[str, int | str | tuple[int, ...]] = {}
    for name, value in values.items():
        found[name] = value if isinstance(value, int) else value.hex()
    unit = _number(values["tick_unit"])
    if unit >= len(TICK_UNITS) or not values["tick_denominator"]:
        raise ProtocolError(f"hello: tick unit {unit} or its denominator is impossible")
    largest = _number(values["max_payload_bytes"])
    if largest < SMALLEST_PAYLOAD_BYTES:
        raise ProtocolError(
            f"hello: payloads of {largest} bytes, the least is {SMALLEST_PAYLOAD_BYTES}"
        )
    found["board"] = _bytes(values["board"]).rstrip(b"\0").decode("ascii", "replace")
    found["tick_unit"] = TICK_UNITS[unit]
    found["slots"] = _slots(_bytes(values["slots"]), _number(values["n_classes"]))
    return Hello(**found)  # type: ignore[arg-type]


def _slots(data: bytes, n_classes: int) -> tuple[int, ...]:
    found = tuple(np.frombuffer(data[: len(data) // 2 * 2], "<u2").tolist())
    if not data or len(data) % 2 or sum(found) != n_classes:
        raise ProtocolError(
            f"hello: slots of {found} labels for {n_classes} logits; build and flash again"
        )
    return found


def _number(value: int | bytes) -> int:
    assert isinstance(value, int)
    return value


def _bytes(value: int | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value
