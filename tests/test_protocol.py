"""Framing and dispatch: golden bytes, and the Python and C sides against each other."""

import contextlib
import ctypes
import struct
import zlib
from pathlib import Path

import pytest
from c_build import FIRMWARE, REPOSITORY, compile_shared
from hypothesis import given, settings
from hypothesis import strategies as st

from quads_mcu import protocol
from quads_mcu.export import protocol_source
from quads_mcu.protocol import FrameError, Status

# Cheshire & Baker's rules worked by hand, as in the table of the Wikipedia article on COBS.
COBS_GOLDEN = [
    (b"", b"\x01"),
    (b"\x00", b"\x01\x01"),
    (b"\x00\x00", b"\x01\x01\x01"),
    (b"\x00\x11\x00", b"\x01\x02\x11\x01"),
    (b"\x11\x22\x00\x33", b"\x03\x11\x22\x02\x33"),
    (b"\x11\x22\x33\x44", b"\x05\x11\x22\x33\x44"),
    (b"\x11\x00\x00\x00", b"\x02\x11\x01\x01\x01"),
    (bytes(range(1, 254)), b"\xfe" + bytes(range(1, 254))),
    (bytes(range(0, 255)), b"\x01\xff" + bytes(range(1, 255)) + b"\x01"),
    (bytes(range(1, 256)), b"\xff" + bytes(range(1, 255)) + b"\x02\xff"),
    (bytes(range(2, 256)) + b"\x00", b"\xff" + bytes(range(2, 256)) + b"\x01\x01"),
]
# Few zeros make the long blocks that random bytes almost never have.
PAYLOADS = st.one_of(
    st.binary(max_size=1024),
    st.lists(st.sampled_from([0, 1, 255]), max_size=1100).map(bytes),
    st.builds(lambda n, tail: b"\x55" * n + tail, st.integers(0, 1030), st.binary(max_size=4)),
)


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("protocol")
    (folder / "quads_protocol.h").write_text(protocol_source.render())
    sources = [FIRMWARE / "src" / "protocol.c", REPOSITORY / "tests" / "protocol_shim.c"]
    flags = ["-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all"]
    library = compile_shared(sources, [folder, FIRMWARE / "include"], folder, flags=flags)
    for name in ("shim_encode", "shim_receive", "shim_dispatch"):
        getattr(library, name).restype = ctypes.c_size_t
    return library


def c_encode(shim: ctypes.CDLL, message_id: int, sequence: int, payload: bytes) -> bytes:
    out = ctypes.create_string_buffer(2 * len(payload) + 64)
    n = shim.shim_encode(
        ctypes.c_uint8(message_id),
        ctypes.c_uint8(sequence),
        payload,
        ctypes.c_size_t(len(payload)),
        out,
        ctypes.c_size_t(len(out)),
    )
    return out.raw[:n]


def c_receive(shim: ctypes.CDLL, line: bytes, capacity: int = 2048) -> tuple[int, bytes, int]:
    """Return (good frames, the last one's id, sequence and payload, damaged frames)."""
    body = ctypes.create_string_buffer(max(capacity, 1))
    body_bytes, damaged = ctypes.c_size_t(0), ctypes.c_size_t(0)
    good = shim.shim_receive(
        line,
        ctypes.c_size_t(len(line)),
        ctypes.create_string_buffer(max(capacity, 1)),
        ctypes.c_size_t(capacity),
        body,
        ctypes.byref(body_bytes),
        ctypes.byref(damaged),
    )
    return good, body.raw[: body_bytes.value], damaged.value


def c_dispatch(shim: ctypes.CDLL, line: bytes) -> list[tuple[int, int, bytes]]:
    """Return what a fresh device answers."""
    out = ctypes.create_string_buffer(1 << 16)
    n = shim.shim_dispatch(line, ctypes.c_size_t(len(line)), out, ctypes.c_size_t(len(out)))
    assert n < len(out)
    frames = out.raw[:n].split(b"\0")
    assert frames.pop() == b""
    return [protocol.decode_frame(frame) for frame in frames]


# --- framing --------------------------------------------------------------------------------


@pytest.mark.parametrize(("data", "encoded"), COBS_GOLDEN)
def test_cobs_golden(data: bytes, encoded: bytes) -> None:
    assert protocol.cobs_encode(data) == encoded
    assert protocol.cobs_decode(encoded) == data


def test_frame_golden() -> None:
    body = b"\x08\x01\x11\x00\x22"
    assert zlib.crc32(body) == 0x866A531A
    frame = b"\x04\x08\x01\x11\x06\x22\x1a\x53\x6a\x86\x00"
    assert protocol.encode_frame(8, 1, b"\x11\x00\x22") == frame
    assert protocol.decode_frame(frame[:-1]) == (8, 1, b"\x11\x00\x22")


@given(data=PAYLOADS)
def test_cobs_round_trip_without_zeros(data: bytes) -> None:
    encoded = protocol.cobs_encode(data)
    assert 0 not in encoded
    assert len(encoded) <= len(data) + 1 + len(data) // 254
    assert protocol.cobs_decode(encoded) == data


@given(data=st.binary(max_size=300))
def test_decoding_anything_raises_only_frame_errors(data: bytes) -> None:
    with contextlib.suppress(FrameError):
        protocol.decode_frame(data)


@given(data=st.binary(max_size=64), position=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_a_changed_byte_never_passes(data: bytes, position: int, flip: int) -> None:
    frame = bytearray(protocol.encode_frame(3, 7, data)[:-1])
    frame[position % len(frame)] ^= flip
    if 0 in frame:
        return
    with pytest.raises(FrameError):
        protocol.decode_frame(bytes(frame))


# --- C and Python ---------------------------------------------------------------------------


@settings(deadline=None)
@given(message_id=st.integers(0, 255), sequence=st.integers(0, 255), payload=PAYLOADS)
def test_c_encodes_like_python(
    shim: ctypes.CDLL, message_id: int, sequence: int, payload: bytes
) -> None:
    expected = protocol.encode_frame(message_id, sequence, payload)
    assert c_encode(shim, message_id, sequence, payload) == expected


@settings(deadline=None)
@given(message_id=st.integers(0, 255), sequence=st.integers(0, 255), payload=PAYLOADS)
def test_c_decodes_what_python_encodes(
    shim: ctypes.CDLL, message_id: int, sequence: int, payload: bytes
) -> None:
    frame = protocol.encode_frame(message_id, sequence, payload)
    assert c_receive(shim, frame) == (1, bytes((message_id, sequence)) + payload, 0)


@settings(deadline=None)
@given(data=st.binary(max_size=80))
def test_c_and_python_agree_about_any_bytes(shim: ctypes.CDLL, data: bytes) -> None:
    expected = []
    for frame in (data + b"\0").split(b"\0")[:-1]:
        if frame:
            try:
                expected.append(protocol.decode_frame(frame))
            except FrameError:
                expected.append(None)
    good, _, damaged = c_receive(shim, data + b"\0")
    assert good == sum(frame is not None for frame in expected)
    assert damaged == sum(frame is None for frame in expected)


@pytest.mark.parametrize("payload_bytes", [0, 1, 57, 58])
def test_frames_up_to_the_buffer_pass(shim: ctypes.CDLL, payload_bytes: int) -> None:
    frame = protocol.encode_frame(1, 2, b"x" * payload_bytes)
    assert c_receive(shim, frame, capacity=64)[0] == 1


@pytest.mark.parametrize("payload_bytes", [59, 60, 1000, 70_000])
def test_longer_frames_are_dropped_whole(shim: ctypes.CDLL, payload_bytes: int) -> None:
    line = protocol.encode_frame(1, 2, b"x" * payload_bytes) + protocol.encode_frame(8, 3, b"ok")
    assert c_receive(shim, line, capacity=64) == (1, b"\x08\x03ok", 1)


# --- dispatch -------------------------------------------------------------------------------


def test_answer_has_the_sequence_and_the_answer_bit(shim: ctypes.CDLL) -> None:
    request = protocol.encode_frame(0x08, 77, b"abc")
    assert c_dispatch(shim, request) == [(0x88, 77, b"\0\0abc")]


def test_repetition_is_noticed_only_right_after_the_request(shim: ctypes.CDLL) -> None:
    first, other = protocol.encode_frame(8, 1, b""), protocol.encode_frame(8, 2, b"")
    answers = c_dispatch(shim, first + first + other + first)
    assert [payload[1] for _, _, payload in answers] == [0, 1, 0, 0]


def failure(status: Status, value: int, limit: int) -> bytes:
    return struct.pack("<BII", status, value, limit)


@pytest.mark.parametrize("message_id", [0, 1, 10, 0x1F, 0x80, 255])
def test_unknown_message(shim: ctypes.CDLL, message_id: int) -> None:
    expected = failure(Status.UNKNOWN_MESSAGE, message_id, 9)
    found = c_dispatch(shim, protocol.encode_frame(message_id, 5, b""))
    assert found == [(message_id | 0x80, 5, expected)]
    assert protocol.status_text(expected[0], expected[1:]) == f"unknown message id {message_id}"


@pytest.mark.parametrize("length", [0, 3, 5, 40])
def test_wrong_length(shim: ctypes.CDLL, length: int) -> None:
    found = c_dispatch(shim, protocol.encode_frame(4, 5, bytes(length)))
    assert found == [(0x84, 5, failure(Status.BAD_LENGTH, length, 4))]


def test_damage_is_answered_with_sequence_0_and_the_link_recovers(shim: ctypes.CDLL) -> None:
    damaged = bytearray(protocol.encode_frame(8, 9, b"abc"))
    damaged[4] ^= 1
    line = b"noise\0" + bytes(damaged) + b"\0\0\0" + protocol.encode_frame(8, 9, b"abc")
    assert c_dispatch(shim, line) == [
        (0x80, 0, failure(Status.BAD_CRC, 1, 0)),
        (0x80, 0, failure(Status.BAD_CRC, 2, 0)),
        (0x88, 9, b"\0\0abc"),
    ]


@settings(deadline=None)
@given(noise=st.binary(max_size=300))
def test_any_noise_is_survived(shim: ctypes.CDLL, noise: bytes) -> None:
    line = noise + b"\0" + protocol.encode_frame(8, 200, b"still here")
    assert c_dispatch(shim, line)[-1][2][2:] == b"still here"


# --- table, header, document ----------------------------------------------------------------


def test_ids_and_names_are_unique_and_in_range() -> None:
    ids = [message.id for message in protocol.MESSAGES]
    assert len(set(ids)) == len(ids) == len({message.name for message in protocol.MESSAGES})
    assert all(1 <= message_id <= 0x1F for message_id in ids)
    assert set(protocol.STATUS_TEXT) == set(Status)


def test_fields_round_trip() -> None:
    fields = protocol.BY_NAME["features"].request
    payload = protocol.encode_fields(fields, {"offset_bytes": 0x01020304, "length_bytes": 0x0506})
    assert payload == bytes.fromhex("04 03 02 01 06 05")
    assert protocol.decode_fields(fields, payload) == {
        "offset_bytes": 0x01020304,
        "length_bytes": 0x0506,
    }


@pytest.mark.parametrize("length", [0, 5, 7])
def test_fields_of_wrong_length(length: int) -> None:
    with pytest.raises(FrameError):
        protocol.decode_fields(protocol.BY_NAME["features"].request, bytes(length))


def test_header_carries_the_table() -> None:
    header = protocol_source.render()
    for line in (
        "#define QUADS_PROTOCOL_VERSION 2u",
        "QUADS_MESSAGE_INFER = 0x06,",
        "QUADS_LINK_BAD_OFFSET = 4,",
        "[QUADS_MESSAGE_CHUNK] = {4, 1},",
        "#define QUADS_FEATURES_LENGTH_BYTES_AT 4u",
        "#define QUADS_HELLO_MODEL_HASH_BYTES 32u",
    ):
        assert line in header


def test_document_is_current() -> None:
    path = Path(REPOSITORY / "docs" / "protocol.md")
    assert path.read_text() == protocol_source.render_doc(), (
        "docs/protocol.md is stale: write quads_mcu.export.protocol_source.render_doc() to it"
    )
