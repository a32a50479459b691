"""The client against a scripted board that misbehaves, and against real firmware."""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from firmware_build import DIMS, built, model

from quads_mcu import protocol
from quads_mcu.audio import frontend
from quads_mcu.device import boards, clips, flash
from quads_mcu.device.client import Client, Stats
from quads_mcu.device.link import Link
from quads_mcu.errors import LinkError, ProtocolError
from quads_mcu.export.reference import Reference, decide
from quads_mcu.model_format import STAGES
from quads_mcu.protocol import BY_NAME, Status

HASH = "ab" * 32
HELLO: dict[str, int | bytes] = {
    "protocol_version": 2,
    "format_version": 3,
    "model_hash": bytes.fromhex(HASH),
    "build_id": b"\1\2\3\4\5\6\7\x08",
    "board": b"fake".ljust(32, b"\0"),
    "n_mels": 8,
    "n_frames": 4,
    "n_classes": 2,
    "max_payload_bytes": 68,
    "arena_bytes": 1000,
    "stack_bytes": 0,
    "tick_numerator": 5,
    "tick_denominator": 8,
    "tick_unit": 1,
    "n_stages": len(STAGES),
    "n_clips": 0,
    "reject_threshold": -3,
    "slots": struct.pack("<H", 2),
}
HANG_UP = object()
# What becomes of one answer on its way back.
Fault = Callable[[bytes], "bytes | object"]


class FakeBoard:
    """Takes windows, answers by the table, and passes each answer through the next fault."""

    def __init__(self, faults: list[Fault] | None = None, **hello: int | bytes) -> None:
        self.hello_values = HELLO | hello
        self.faults = faults or []
        self.requests: list[tuple[int, int]] = []  # id, sequence
        self.window = b""
        self.windows_begun = 0
        self._server = socket.create_server(("127.0.0.1", 0))
        self.url = f"socket://127.0.0.1:{self._server.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join(5)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._talk(connection)

    def _talk(self, connection: socket.socket) -> None:
        line = b""
        while data := connection.recv(65536):
            *frames, line = (line + data).split(b"\0")
            for frame in filter(None, frames):
                answer = self._answer(*protocol.decode_frame(frame))
                fault = self.faults.pop(0) if self.faults else passes
                changed = fault(answer)
                if changed is HANG_UP:
                    return
                assert isinstance(changed, bytes)
                connection.sendall(changed)

    def _answer(self, message_id: int, sequence: int, payload: bytes) -> bytes:
        self.requests.append((message_id, sequence))
        name = next(m.name for m in protocol.MESSAGES if m.id == message_id)
        body = getattr(self, name)(payload)
        return protocol.encode_frame(message_id | 0x80, sequence, body)

    def hello(self, payload: bytes) -> bytes:
        return b"\0" + protocol.encode_fields(BY_NAME["hello"].answer, self.hello_values)

    def begin(self, payload: bytes) -> bytes:
        self.window = b""
        self.windows_begun += 1
        return b"\0"

    def chunk(self, payload: bytes) -> bytes:
        (offset,) = struct.unpack_from("<I", payload)
        if offset == len(self.window):
            self.window += payload[4:]
        return b"\0" + struct.pack("<I", len(self.window))

    def echo(self, payload: bytes) -> bytes:
        return b"\0" + payload

    def infer(self, payload: bytes) -> bytes:
        values = struct.pack("<BHHH2i", 0, 1, 2, 1, -5, 7) + struct.pack("<7Q", *range(0, 56, 8))
        return b"\0" + values

    def layers(self, payload: bytes) -> bytes:
        return b"\0" + struct.pack("<H", 3) + struct.pack("<21Q", *range(0, 168, 8))

    def stats(self, payload: bytes) -> bytes:
        return b"\0" + struct.pack("<4I", 1, 2, 3, 4)

    def features(self, payload: bytes) -> bytes:
        return struct.pack("<BII", Status.NOT_READY, 10, 64)


def passes(answer: bytes) -> bytes:
    return answer


def lost(answer: bytes) -> bytes:
    return b""


def twice(answer: bytes) -> bytes:
    return answer * 2


def corrupted(answer: bytes) -> bytes:
    return bytes([answer[0], answer[1] ^ 0xFF or 1]) + answer[2:]


def after_noise(answer: bytes) -> bytes:
    return b"\xffbooting...\r\n\0\0" + answer


def truncated(answer: bytes) -> bytes:
    return answer[:4] + b"\0"


def empty_status(answer: bytes) -> bytes:
    _, sequence, _ = protocol.decode_frame(answer[:-1])
    return protocol.encode_frame(answer[1], sequence, b"")


def request_was_damaged(answer: bytes) -> bytes:
    return protocol.encode_frame(0x80, 0, struct.pack("<BII", Status.BAD_CRC, 1, 0))


def endless(answer: bytes) -> bytes:
    return b"\x01" * 400_000


def hang_up(answer: bytes) -> object:
    return HANG_UP


@pytest.fixture
def connect() -> Iterator[Callable[..., tuple[FakeBoard, Client]]]:
    with contextlib.ExitStack() as stack:

        def connected(*faults: Fault, **hello: int | bytes) -> tuple[FakeBoard, Client]:
            board = FakeBoard(list(faults), **hello)
            stack.callback(board.close)
            link = stack.enter_context(Link(board.url))
            return board, Client(link, timeout_s=0.3, compute_timeout_s=0.3, retries=3)

        yield connected


# --- faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "attempts"),
    [
        (passes, 1),
        (after_noise, 1),
        (twice, 1),
        (lost, 2),
        (corrupted, 2),
        (truncated, 2),
        (empty_status, 2),
        (request_was_damaged, 2),
    ],
)
def test_one_fault_is_survived(connect, fault: Fault, attempts: int) -> None:
    board, client = connect(fault)
    assert client.hello().board == "fake"
    assert len(board.requests) == attempts
    assert len(set(board.requests)) == 1  # repetitions keep their sequence number


def test_endless_noise_is_not_kept(connect) -> None:
    board, client = connect(endless)
    assert client.hello().board == "fake"
    assert len(board.requests) <= 3  # the end of the noise may spoil the second answer
    assert len(client._received) < 1000


@pytest.mark.parametrize("fault", [lost, corrupted, twice, request_was_damaged, after_noise])
def test_faults_in_the_middle_of_an_upload(connect, fault: Fault) -> None:
    pcm = np.arange(100, dtype=np.int16)
    board, client = connect(passes, passes, passes, fault, passes, fault)
    client.send_pcm(pcm)
    assert board.window == pcm.tobytes()
    assert board.windows_begun == 1


def test_late_answers_to_earlier_requests_are_passed_over(connect) -> None:
    kept = []

    def late(answer: bytes) -> bytes:
        kept.append(answer)
        return b""

    def with_the_late_one(answer: bytes) -> bytes:
        return kept.pop() + answer

    _, client = connect(passes, late, passes, with_the_late_one)
    client.hello()
    assert client.echo(b"one") == b"one"
    assert client.echo(b"two") == b"two"


def test_silence_names_request_port_and_time(connect) -> None:
    board, client = connect(*[lost] * 9)
    start = time.monotonic()
    with pytest.raises(LinkError) as caught:
        client.hello()
    assert 1.2 <= time.monotonic() - start < 3
    assert len(board.requests) == 4
    message = str(caught.value)
    for part in ("no answer to hello", board.url, "4 attempts of 0.3 s", "Reset the board"):
        assert part in message


def test_constant_damage_is_told_apart_from_silence(connect) -> None:
    _, client = connect(*[corrupted] * 9)
    with pytest.raises(LinkError, match="4 damaged frames"):
        client.hello()


def test_dropped_link_resumes_the_upload_once(connect) -> None:
    pcm = np.arange(200, dtype=np.int16)
    board, client = connect(passes, passes, passes, hang_up)
    client.send_pcm(pcm)
    assert board.window == pcm.tobytes()
    assert board.windows_begun == 2


def test_link_that_drops_again_is_an_error(connect) -> None:
    board, client = connect(passes, passes, hang_up, passes, passes, hang_up)
    with pytest.raises(LinkError, match="was dropped"):
        client.send_pcm(np.arange(200, dtype=np.int16))
    assert board.windows_begun == 2


def test_another_board_after_the_drop_is_refused(connect) -> None:
    def exchanged(answer: bytes) -> object:
        board.hello_values["build_id"] = bytes(8)
        return HANG_UP

    board, client = connect(passes, passes, exchanged)
    with pytest.raises(ProtocolError, match="another board or build"):
        client.send_pcm(np.arange(200, dtype=np.int16))


def test_dropped_link_outside_an_upload(connect) -> None:
    _, client = connect(passes, hang_up)
    client.hello()
    with pytest.raises(LinkError, match="was dropped"):
        client.stats()


# --- identity -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hello", "message"),
    [
        ({"protocol_version": 1}, "protocol version 1, this quads-mcu 2"),
        ({"format_version": 9}, "fake at .* format version 9"),
        ({"n_stages": 3}, "3 stages, expected 7"),
        ({"model_hash": bytes(32)}, "runs model 000000000000, expected abababababab"),
        ({"tick_unit": 4}, "tick unit 4"),
        ({"tick_denominator": 0}, "tick unit"),
        ({"max_payload_bytes": 8}, "payloads of 8 bytes"),
        ({"slots": b""}, r"slots of \(\) labels for 2 logits"),
        ({"slots": b"\2\0\1"}, "slots of"),
        ({"slots": b"\2\0\1\0"}, r"slots of \(2, 1\) labels for 2 logits"),
    ],
)
def test_mismatches_are_refused_by_name(connect, hello, message: str) -> None:
    _, client = connect(**hello)
    with pytest.raises(ProtocolError, match=message):
        client.check(HASH)


def test_another_protocol_version_may_have_another_layout(connect) -> None:
    board, client = connect()
    board.hello = lambda payload: b"\0\x07\x00and more"
    with pytest.raises(ProtocolError, match="protocol version 7"):
        client.hello()


def test_matching_board(connect) -> None:
    _, client = connect()
    hello = client.check(HASH)
    assert (hello.board, hello.build_id) == ("fake", "0102030405060708")
    assert hello.counts_instructions


# --- answers --------------------------------------------------------------------------------


def test_infer_converts_ticks_to_instructions(connect) -> None:
    _, client = connect()
    found = client.infer()
    assert (found.intent, found.answers.tolist(), found.rejected) == (1, [1], False)
    assert found.logits.tolist() == [-5, 7]
    assert found.instructions.tolist() == [0, 5, 10, 15, 20, 25, 30]


def test_boards_that_count_nothing_report_zero_instructions(connect) -> None:
    _, client = connect(tick_unit=3)
    found = client.infer()
    assert found.unit == "nanoseconds"
    assert found.instructions.tolist() == [0] * 7


def test_failures_are_told_in_words(connect) -> None:
    _, client = connect()
    with pytest.raises(ProtocolError, match="features: no complete window: 10 of 64 bytes"):
        client.features()


@pytest.mark.parametrize("answer", [struct.pack("<H", 1), struct.pack("<H7Q", 1, *range(7)),
                                    struct.pack("<H13Q", 2, *range(13))])  # fmt: skip
def test_layers_of_the_wrong_size(connect, answer: bytes) -> None:
    board, client = connect()
    board.layers = lambda payload: b"\0" + answer
    with pytest.raises(ProtocolError, match="layers: "):
        client.layers()


@pytest.mark.parametrize("answer", [b"\0", b"\0" + bytes(4), b"\0" + bytes(300)])
def test_infer_of_the_wrong_size(connect, answer: bytes) -> None:
    board, client = connect()
    board.infer = lambda payload: answer
    with pytest.raises(ProtocolError, match="infer: "):
        client.infer()


@pytest.mark.parametrize("answer", [b"\0", b"\0\0\0\0", b"\0" + bytes(5)])
def test_chunk_answers_of_the_wrong_size_or_place(connect, answer: bytes) -> None:
    board, client = connect()
    board.chunk = lambda payload: answer
    with pytest.raises(ProtocolError, match="chunk: "):
        client.send_pcm(np.ones(4, np.int16))


def test_payload_beyond_the_boards_limit(connect) -> None:
    _, client = connect()
    client.hello()
    with pytest.raises(ProtocolError, match="69 bytes of payload, the board takes 68"):
        client.echo(bytes(69))


def test_sequence_numbers_skip_zero(connect) -> None:
    board, client = connect()
    client.hello()
    for _ in range(300):
        client.echo(b"x")
    assert {sequence for _, sequence in board.requests} == set(range(1, 256))


def test_worst_of_two_boards() -> None:
    assert Stats(5, 1, 10, 1).worst(Stats(2, 7, 20, 0)) == Stats(5, 7, 30, 1)


# --- real firmware --------------------------------------------------------------------------

BOARDS = [board.name for board in boards.all_boards() if board.kind != "chip"]
WINDOW_SAMPLES = 160 * DIMS.n_frames


def utterances() -> list[np.ndarray]:
    """Noise of every awkward length: none, odd, the window, beyond it."""
    rng = np.random.default_rng(5)
    lengths = (0, 1, 159, 201, WINDOW_SAMPLES - 1, WINDOW_SAMPLES, WINDOW_SAMPLES + 999)
    return [(rng.normal(size=n) * 4000).astype(np.int16) for n in lengths]


@pytest.fixture(scope="module", params=BOARDS)
def board_with_clips(request, tmp_path_factory) -> Iterator[Client]:
    board = boards.load(request.param)
    elf = built(board.name).elf
    store = tmp_path_factory.mktemp("store") / "awkward, name.qclp"
    clips.write(store, utterances())
    with flash.open_board(board, elf, clips=store) as client:
        yield client


def expected(pcm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Features and logits of the numpy twins."""
    mel = frontend.features(pcm, DIMS.n_mels, DIMS.n_frames)
    return mel, Reference(model()).logits(mel[None])[0]


def test_real_hello(board_with_clips: Client) -> None:
    hello = board_with_clips.check(model().model_hash)
    board = boards.load(hello.board)
    assert hello.stack_bytes == board.stack_bytes
    assert hello.build_id == built(board.name).build_id
    assert hello.n_clips == len(utterances())
    assert hello.counts_instructions == board.emulated
    assert (hello.slots, hello.reject_threshold) == ((3, 2), model().reject_threshold)


@pytest.mark.parametrize("index", range(len(utterances())))
def test_stored_clips_equal_the_reference(board_with_clips: Client, index: int) -> None:
    pcm = utterances()[index]
    mel, logits = expected(pcm)
    assert board_with_clips.run_clip(index) == 2 * len(pcm)
    np.testing.assert_array_equal(board_with_clips.features(), mel)
    found = board_with_clips.infer()
    np.testing.assert_array_equal(found.logits, logits)
    answers, rejected = decide(model(), logits[None])
    assert found.answers.tolist() == answers[0].tolist()
    assert found.rejected == rejected[0]


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 254, 255, None])
def test_uploads_equal_the_reference(board_with_clips: Client, chunk_bytes: int | None) -> None:
    pcm = utterances()[3] if chunk_bytes and chunk_bytes < 9 else utterances()[5]
    mel, logits = expected(pcm)
    board_with_clips.send_pcm(pcm, chunk_bytes=chunk_bytes)
    np.testing.assert_array_equal(board_with_clips.features(), mel)
    np.testing.assert_array_equal(board_with_clips.infer().logits, logits)


@pytest.mark.parametrize("chunk_bytes", [255, None])
def test_features_can_be_sent_instead(board_with_clips: Client, chunk_bytes: int | None) -> None:
    rng = np.random.default_rng(6)
    mel = rng.integers(-128, 128, (DIMS.n_frames, DIMS.n_mels)).astype(np.int8)
    board_with_clips.send_features(mel, chunk_bytes=chunk_bytes)
    np.testing.assert_array_equal(board_with_clips.features(), mel)
    found = board_with_clips.infer().logits
    np.testing.assert_array_equal(found, Reference(model()).logits(mel[None])[0])


def test_work_is_counted_per_stage_and_repeatable(board_with_clips: Client) -> None:
    board_with_clips.run_clip(5)
    first, second = board_with_clips.infer(), board_with_clips.infer()
    assert (first.work > 0).all()
    assert first.work[0] == second.work[0]
    if first.unit == "instructions":
        # A tick is 0.625 instructions, and one is in progress at each end.
        assert np.abs(first.work - second.work).max() <= 16
        assert first.work[0] > 100 * DIMS.n_frames
    np.testing.assert_array_equal(first.logits, second.logits)


def test_layers_add_up_to_the_stages(board_with_clips: Client) -> None:
    board_with_clips.run_clip(5)
    work = board_with_clips.infer().work
    layers = board_with_clips.layers()
    assert layers.shape == (DIMS.n_layers + 2, len(work))
    # Ticks become whole units row by row.
    assert np.abs(layers.sum(axis=0) - work).max() <= DIMS.n_layers + 2
    used = {place: set(np.flatnonzero(row).tolist()) for place, row in enumerate(layers)}
    assert used == {0: {0, 1}, 1: {2, 3, 4, 5}, 2: {2, 3, 4, 5}, 3: {2, 6}}


def test_statistics(board_with_clips: Client) -> None:
    board_with_clips.run_clip(5)
    board_with_clips.infer()
    hello, stats = board_with_clips.hello(), board_with_clips.stats()
    assert 0.9 * hello.arena_bytes < stats.arena_used_bytes <= hello.arena_bytes
    if hello.stack_bytes:
        assert 1000 < stats.stack_used_bytes <= hello.stack_bytes - 256
    assert stats.frames_damaged == 0


@pytest.mark.parametrize("data", [b"", b"\0", bytes(254), bytes(range(256)) * 4])
def test_echo(board_with_clips: Client, data: bytes) -> None:
    board_with_clips.hello()
    assert board_with_clips.echo(data) == data


def test_missing_clip(board_with_clips: Client) -> None:
    with pytest.raises(ProtocolError, match="clip 7 does not exist, the device stores 7"):
        board_with_clips.run_clip(7)


HEAD = b"QCLP" + struct.pack("<II", 1, 1)


@pytest.mark.parametrize("board", BOARDS)
@pytest.mark.parametrize(
    ("store", "count"),
    [
        (b"", 0),
        (b"QCLP", 0),
        (b"QCLX" + struct.pack("<II", 1, 1) + bytes(100), 0),
        (b"QCLP" + struct.pack("<II", 2, 1) + bytes(100), 0),
        (b"QCLP" + struct.pack("<II", 1, 0xFFFFFFFF) + bytes(100), 0),
        (b"QCLP" + struct.pack("<II", 1, 2) + bytes(15), 0),
        (HEAD + struct.pack("<II", 20, 2), 1),
        (HEAD + struct.pack("<II", 0xFFFFFFFE, 4), 1),
        (HEAD + struct.pack("<II", 20, 0xFFFFFFFE), 1),
        (HEAD + struct.pack("<II", 20, 3) + bytes(9), 1),
    ],
)
def test_hostile_clip_stores(tmp_path: Path, board: str, store: bytes, count: int) -> None:
    path = tmp_path / "clips.qclp"
    path.write_bytes(store)
    with flash.open_board(boards.load(board), built(board).elf, clips=path) as client:
        assert client.hello().n_clips == count
        with pytest.raises(ProtocolError, match="could not be read" if count else "does not exist"):
            client.run_clip(0)
        with pytest.raises(ProtocolError, match="no complete window"):
            client.infer()


# --- the device's rules, frame by frame -----------------------------------------------------


class Raw:
    """Sends single requests to a sanitized host build, with any sequence number."""

    def __init__(self, session: flash.Session) -> None:
        self.session = session
        self.link = Link(session.url)
        self.received = b""

    def ask(self, name: str, payload: bytes = b"", sequence: int = 1) -> tuple[int, bytes]:
        """Return (status, rest) of the answer."""
        self.link.write(protocol.encode_frame(BY_NAME[name].id, sequence, payload))
        while b"\0" not in self.received:
            data = self.link.read(10)
            assert data, self.session.output()
            self.received += data
        frame, _, self.received = self.received.partition(b"\0")
        message_id, answered, body = protocol.decode_frame(frame)
        assert (message_id, answered) == (BY_NAME[name].id | 0x80, sequence)
        return body[0], body[1:]


@pytest.fixture(scope="module")
def sanitized() -> Iterator[Raw]:
    elf = built("host", sanitize=True).elf
    with flash.start(boards.load("host"), elf) as session:
        raw = Raw(session)
        yield raw
        raw.link.close()
        assert session.running, session.output()


def begin(kind: int, length: int) -> bytes:
    return struct.pack("<BI", kind, length)


def chunk(offset: int, data: bytes) -> bytes:
    return struct.pack("<I", offset) + data


def numbers(value: int, limit: int) -> bytes:
    return struct.pack("<II", value, limit)


MEL_BYTES = DIMS.n_frames * DIMS.n_mels


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        (begin(2, 0), (Status.BAD_VALUE, numbers(2, 1))),
        (begin(0, 7), (Status.BAD_LENGTH, numbers(7, 6))),
        (begin(1, 0), (Status.BAD_LENGTH, numbers(0, MEL_BYTES))),
        (begin(1, 0xFFFFFFFF), (Status.BAD_LENGTH, numbers(0xFFFFFFFF, MEL_BYTES))),
        (begin(0, 0), (Status.OK, b"")),
        (begin(0, 0xFFFFFFFE), (Status.OK, b"")),
    ],
)
def test_begin(sanitized: Raw, payload: bytes, expected: tuple[int, bytes]) -> None:
    assert sanitized.ask("begin", payload) == expected


def test_chunk_rules(sanitized: Raw) -> None:
    assert sanitized.ask("begin", begin(0, 10)) == (0, b"")
    assert sanitized.ask("infer") == (Status.NOT_READY, numbers(0, 10))
    assert sanitized.ask("features", struct.pack("<IH", 0, 1))[0] == Status.NOT_READY
    assert sanitized.ask("chunk", chunk(4, b"xx")) == (Status.BAD_OFFSET, numbers(4, 0))
    assert sanitized.ask("chunk", chunk(0, bytes(11))) == (Status.BAD_LENGTH, numbers(11, 10))
    for _ in range(2):
        assert sanitized.ask("chunk", chunk(0, b"abcde")) == (0, struct.pack("<I", 5))
    assert sanitized.ask("chunk", chunk(1, b"bc")) == (0, struct.pack("<I", 5))
    assert sanitized.ask("chunk", chunk(3, b"defg"))[0] == Status.BAD_OFFSET
    assert sanitized.ask("chunk", chunk(5, b"fghij")) == (0, struct.pack("<I", 10))
    assert sanitized.ask("chunk", chunk(5, b"fghij")) == (0, struct.pack("<I", 10))
    assert sanitized.ask("chunk", chunk(10, b"k"))[0] == Status.BAD_LENGTH
    assert sanitized.ask("chunk", chunk(0xFFFFFFFF, b"kk"))[0] == Status.BAD_OFFSET
    assert sanitized.ask("infer")[0] == Status.OK


def test_repeated_inference_is_answered_from_memory(sanitized: Raw) -> None:
    sanitized.ask("begin", begin(0, 0))
    first = sanitized.ask("infer", sequence=9)
    assert first[0] == Status.OK
    assert sanitized.ask("infer", sequence=9) == first  # equal to the nanosecond
    assert sanitized.ask("infer", sequence=10) != first


@pytest.mark.parametrize(
    ("offset", "length", "status"),
    [
        (0, MEL_BYTES, Status.OK),
        (MEL_BYTES, 0, Status.OK),
        (MEL_BYTES - 1, 1, Status.OK),
        (MEL_BYTES, 1, Status.BAD_OFFSET),
        (1, MEL_BYTES, Status.BAD_OFFSET),
        (0xFFFFFFFF, 2, Status.BAD_OFFSET),
    ],
)
def test_feature_ranges(sanitized: Raw, offset: int, length: int, status: Status) -> None:
    sanitized.ask("begin", begin(0, 0))
    found, data = sanitized.ask("features", struct.pack("<IH", offset, length))
    assert found == status
    assert found != Status.OK or len(data) == length


def _random_request(rng: random.Random) -> bytes:
    """Return noise, a damaged frame, or a valid frame with edge values in its fields."""
    edges = [0, 1, 2, 255, 256, 1019, 1020, 1024, MEL_BYTES, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]
    kind = rng.random()
    if kind < 0.1:
        return rng.randbytes(rng.randrange(1, 3000)) + b"\0"
    payload = b"".join(struct.pack("<I", rng.choice(edges)) for _ in range(rng.randrange(3)))
    payload = bytes([rng.randrange(3)])[: rng.randrange(2)] + payload
    payload += rng.randbytes(rng.choice([0, 0, 1, 2, 64, 1000, 1020, 1024, 1100]))
    frame = bytearray(protocol.encode_frame(rng.randrange(10), rng.randrange(256), payload))
    if kind < 0.2:
        frame[rng.randrange(len(frame))] = rng.randrange(256)
    return bytes(frame)


@pytest.mark.parametrize("seed", range(4))
def test_random_requests_never_harm_the_firmware(sanitized: Raw, seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(60):
        sanitized.link.write(b"".join(_random_request(rng) for _ in range(10)))
        while sanitized.link.read(0.002):
            pass
        assert sanitized.session.running, sanitized.session.output()
    sanitized.link.write(b"\0")
    while sanitized.link.read(0.2):
        pass
    sanitized.received = b""
    assert sanitized.ask("echo", b"well?") == (0, b"well?")
