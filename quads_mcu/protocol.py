"""Contract 2: the serial protocol, its messages, status codes and framing. No I/O.

The tables below are the one source: the C header, the client and docs/protocol.md are rendered
from or built on them.

A frame is `COBS(id u8, sequence u8, payload, CRC-32 u32) 00`, little-endian throughout; CRC-32 is
the IEEE one (zlib), over id, sequence and payload. A zero byte ends every frame, so a receiver that
lost its place is in step again after the next one. The host asks, the device answers: the answer
has the request's sequence number and its id with bit 7 set, and its payload starts with a status
byte. Every request may be sent again after a lost answer: repeating it changes nothing.

Requests use ids 0x01 .. 0x1F, those of the listening firmware from 0x10 on; a later text mode
(printable verbs ending in `%`) is told apart by its terminator and shares the dispatcher.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

PROTOCOL_VERSION = 2
ANSWER_BIT = 0x80
OVERHEAD_BYTES = 6  # id, sequence, CRC-32
MAX_FRAME_PAYLOAD_BYTES = 1 << 16

# Field types: name -> (struct code, bytes, C type).
TYPES = {
    "u8": ("B", 1, "uint8_t"),
    "u16": ("H", 2, "uint16_t"),
    "u32": ("I", 4, "uint32_t"),
    "u64": ("Q", 8, "uint64_t"),
    "i8": ("b", 1, "int8_t"),
    "i16": ("h", 2, "int16_t"),
    "i32": ("i", 4, "int32_t"),
}


class Status(IntEnum):
    """First byte of every answer."""

    OK = 0
    UNKNOWN_MESSAGE = 1
    BAD_LENGTH = 2
    BAD_CRC = 3
    BAD_OFFSET = 4
    BAD_VALUE = 5
    NOT_READY = 6
    NO_CLIP = 7
    STORAGE = 8
    INTERNAL = 9
    NO_MODEL = 10
    NO_SLOT = 11
    NO_UPDATE = 12
    FLASH = 13
    IMAGE = 32


# `{value}` and `{limit}` are the two u32 that follow the status of a failed answer.
STATUS_TEXT = {
    Status.OK: "ok",
    Status.UNKNOWN_MESSAGE: "unknown message id {value}",
    Status.BAD_LENGTH: "payload of {value} bytes, expected {limit}",
    Status.BAD_CRC: "frame damaged on the way to the device ({value} so far)",
    Status.BAD_OFFSET: "chunk at offset {value}, expected {limit}",
    Status.BAD_VALUE: "value {value} out of range, limit {limit}",
    Status.NOT_READY: "no complete window: {value} of {limit} bytes received",
    Status.NO_CLIP: "clip {value} does not exist, the device stores {limit}",
    Status.STORAGE: "stored clip {value} could not be read",
    Status.INTERNAL: "runtime error {value}",
    Status.NO_MODEL: "no valid model (slot 0: {value}; slot 1: {limit}); send one: "
    "`quads-mcu flash --model-only`",
    Status.NO_SLOT: "this firmware has no slots for models; flash all of it",
    Status.NO_UPDATE: "no whole model received: {value} of {limit} bytes; begin again",
    Status.FLASH: "model slot {value} could not be erased or written at {limit}",
    Status.IMAGE: "model image refused: {reason} (found {value}, allowed {limit})",
}


class ImageStatus(IntEnum):
    """What the device makes of an image: quads_image_status_t of firmware/include/quads_image.h."""

    OK = 0
    EMPTY = 1
    ALIGNMENT = 2
    MAGIC = 3
    VERSION = 4
    FORMAT = 5
    TRUNCATED = 6
    DAMAGED = 7
    KERNELS = 8
    FRONTEND = 9
    MELS = 10
    ARENA = 11
    FRAMES = 12
    LAYERS = 13
    CLASSES = 14
    SLOTS = 15
    SIZES = 16
    CONTENTS = 17
    PLAN = 18
    BOUNDS = 19


# In the words of the device; what was found and what is allowed are told beside it.
IMAGE_STATUS_TEXT = {
    ImageStatus.OK: "ok",
    ImageStatus.EMPTY: "empty",
    ImageStatus.ALIGNMENT: "not at a multiple of 16 bytes",
    ImageStatus.MAGIC: "not a model image",
    ImageStatus.VERSION: "image version that this firmware does not read",
    ImageStatus.FORMAT: "model format version that this firmware does not run",
    ImageStatus.TRUNCATED: "longer than the bytes that are there",
    ImageStatus.DAMAGED: "damaged: contents do not match the SHA-256",
    ImageStatus.KERNELS: "packed for other kernels than this build's",
    ImageStatus.FRONTEND: "wants features of another arithmetic than this build's",
    ImageStatus.MELS: "wants another number of mel bands than this build computes",
    ImageStatus.ARENA: "needs more arena bytes than this build has",
    ImageStatus.FRAMES: "window of more frames than this build has room for",
    ImageStatus.LAYERS: "more layers than this build has room for",
    ImageStatus.CLASSES: "more classes than this build has room for",
    ImageStatus.SLOTS: "more slots than this build has room for",
    ImageStatus.SIZES: "sizes that no model has",
    ImageStatus.CONTENTS: "tables, texts and tensors do not fill the image",
    ImageStatus.PLAN: "arena plan with a tensor outside the arena",
    ImageStatus.BOUNDS: "value that breaks a bound of the arithmetic",
}


@dataclass(frozen=True)
class Field:
    """One field of a payload. `count` 0: a single value; -1: as many as fit; n: an array."""

    name: str
    type: str
    doc: str
    count: int = 0


@dataclass(frozen=True)
class Message:
    """A request and its answer (the answer's status byte is not listed)."""

    name: str
    id: int
    doc: str
    request: tuple[Field, ...] = ()
    answer: tuple[Field, ...] = ()


MESSAGES = (
    Message(
        "hello",
        0x01,
        "Identity of device, build and model. The host refuses a mismatch.",
        answer=(
            Field("protocol_version", "u16", "PROTOCOL_VERSION of the firmware"),
            Field("format_version", "u16", "FORMAT_VERSION of the model"),
            Field("model_hash", "u8", "SHA-256 of the packed model", 32),
            Field("build_id", "u8", "first bytes of the SHA-256 of all sources of the build", 8),
            Field("board", "u8", "board name, ASCII, zero-padded", 32),
            Field("n_mels", "u16", "mel bands"),
            Field("n_frames", "u16", "mel frames per window"),
            Field("n_classes", "u16", "logits"),
            Field("max_payload_bytes", "u16", "largest request payload the device takes"),
            Field("arena_bytes", "u32", "size of the arena"),
            Field("stack_bytes", "u32", "size of the stack region, 0: unknown"),
            Field("tick_numerator", "u32", "instructions (or ns) per tick, numerator"),
            Field("tick_denominator", "u32", "denominator"),
            Field("tick_unit", "u8", "0: none, 1: instructions, 2: cycles, 3: nanoseconds"),
            Field("n_stages", "u8", "entries of infer's ticks"),
            Field("n_clips", "u32", "clips in the device's storage"),
            Field("reject_threshold", "i32", "least score of an accepted command"),
            Field("slots", "u16", "labels of each slot: how the logits divide", -1),
        ),
    ),
    Message(
        "begin",
        0x02,
        "Start a new window.",
        request=(
            Field("kind", "u8", "0: PCM (int16), 1: features (int8)"),
            Field("length_bytes", "u32", "bytes that will be sent"),
        ),
    ),
    Message(
        "chunk",
        0x03,
        "The next bytes. A chunk already received is acknowledged again. With the last one the "
        "window closes.",
        request=(
            Field("offset_bytes", "u32", "position of the first byte"),
            Field("data", "u8", "bytes", -1),
        ),
        answer=(Field("next_offset_bytes", "u32", "position the device expects next"),),
    ),
    Message(
        "clip",
        0x04,
        "Run a clip from the device's storage through the PCM path, as if it had been sent.",
        request=(Field("index", "u32", "clip number"),),
        answer=(Field("length_bytes", "u32", "bytes of PCM in the clip"),),
    ),
    Message(
        "features",
        0x05,
        "Read the closed window's features (int8, frame-major).",
        request=(
            Field("offset_bytes", "u32", "position of the first byte"),
            Field("length_bytes", "u16", "bytes wanted"),
        ),
        answer=(Field("data", "u8", "bytes", -1),),
    ),
    Message(
        "infer",
        0x06,
        "Run the encoder on the closed window.",
        answer=(
            Field("rejected", "u8", "1: the score is below the model's threshold"),
            Field("n_slots", "u16", "number of answers"),
            Field("n_logits", "u16", "number of logits, of all slots"),
            Field(
                "values",
                "u8",
                "n_slots u16 labels, then n_logits i32 logits, then n_stages u64 ticks",
                -1,
            ),
        ),
    ),
    Message(
        "stats",
        0x07,
        "High-water marks and link counters since start.",
        answer=(
            Field("arena_used_bytes", "u32", "highest arena byte ever written, plus one"),
            Field("stack_used_bytes", "u32", "deepest stack use, 0: unknown"),
            Field("frames_received", "u32", "good frames"),
            Field("frames_damaged", "u32", "frames with a wrong CRC, length or encoding"),
        ),
    ),
    Message(
        "echo",
        0x08,
        "Return the payload: a test of the link.",
        request=(Field("data", "u8", "bytes", -1),),
        answer=(Field("data", "u8", "bytes", -1),),
    ),
    Message(
        "layers",
        0x09,
        "Where the last inference spent its ticks: a row before the encoder layers, one for each, "
        "one after them. The rows add up to the ticks of infer.",
        answer=(
            Field("n_rows", "u16", "encoder layers + 2"),
            Field("values", "u8", "n_rows x n_stages u64 ticks", -1),
        ),
    ),
    Message(
        "model_info",
        0x0A,
        "The slots for model images. Firmware without a valid model answers the messages about "
        "models; everything else with `NO_MODEL`.",
        answer=(
            Field("max_payload_bytes", "u16", "largest request payload the device takes"),
            Field("running", "u8", "slot of the model that runs; 255: none of them"),
            Field("slots", "u8", "of every slot the fields below", -1),
        ),
    ),
    Message(
        "model_begin",
        0x0B,
        "Begin to replace the model that does not run; its slot is erased. The header is judged "
        "before. If the same image was being received, nothing is erased and it goes on.",
        request=(Field("header", "u8", "the image's header, whole", -1),),
        answer=(
            Field("slot", "u8", "where the image will lie"),
            Field("next_offset_bytes", "u32", "position the device expects next"),
        ),
    ),
    Message(
        "model_data",
        0x0C,
        "The next bytes of the image. Bytes already received are acknowledged again.",
        request=(
            Field("offset_bytes", "u32", "position of the first byte, a multiple of 256"),
            Field("data", "u8", "a multiple of 256 bytes, but for the last ones", -1),
        ),
        answer=(Field("next_offset_bytes", "u32", "position the device expects next"),),
    ),
    Message(
        "model_end",
        0x0D,
        "Verify the image where it lies, and run it from now on. If it is refused, the model "
        "that ran before goes on.",
        answer=(Field("slot", "u8", "slot of the model that runs"),),
    ),
    Message(
        "listen",
        0x10,
        "Listening firmware: begin to listen, to the microphone or to a stored clip in its place.",
        request=(
            Field("clip", "u32", "clip number; 0xFFFFFFFF: the microphone"),
            Field(
                "ticks_per_s", "u32", "ticks that count as a second; 0: no pace, nothing is lost"
            ),
            Field("rate_hz", "u32", "samples the clip yields in such a second"),
            Field("chunk_seed", "u32", "of random chunk sizes; 0: as many samples as there are"),
        ),
        answer=(
            Field("gate_lsb", "u8", "[listen] gate_db in 0.5 dB"),
            Field("lead_frames", "u16", "[listen] lead_ms in 10 ms"),
            Field("tail_frames", "u16", "[listen] tail_ms in 10 ms"),
            Field("hangover_frames", "u16", "[listen] hangover_ms in 10 ms"),
            Field("ring_frames", "u32", "frames of the ring"),
            Field("audio_samples", "u32", "samples the microphone keeps until they are read"),
        ),
    ),
    Message(
        "heard",
        0x11,
        "Listening firmware: how it goes, and the event of this number once there is one. Events "
        "below it are forgotten.",
        request=(Field("event", "u32", "number of the event, from 0"),),
        answer=(
            Field("running", "u8", "0: the clip has ended"),
            Field("frames", "u32", "frames heard"),
            Field("frames_crc", "u32", "CRC-32 of all of them, before the clamp"),
            Field("samples_made", "u32", "samples of the source so far"),
            Field("samples_due", "u32", "samples it should have made by the board's clock"),
            Field("samples_lost", "u32", "samples nobody read in time"),
            Field("stalls", "u32", "waits for 10 ms of audio that took over 20 ms"),
            Field("utterances", "u32", "utterances confirmed"),
            Field("utterances_lost", "u32", "of those, never inferred"),
            Field("inferences", "u32", "inferences begun"),
            Field("inferences_stopped", "u32", "of those, in a pause that was not the end"),
            Field("tokens_early", "u32", "front rows made as frames came in"),
            Field("tokens_late", "u32", "front rows made after the pause began"),
            Field("events", "u32", "events so far"),
            Field("events_dropped", "u32", "events nobody asked for in time"),
            Field("working_ticks", "u64", "ticks not spent waiting"),
            Field("slice_ticks", "u32", "most ticks between two reads of the microphone"),
            Field(
                "values",
                "u8",
                "nothing, or the event: its fields, n_slots u16 answers, n_classes i32 logits",
                -1,
            ),
        ),
    ),
)
# One event of `heard`.
EVENT_FIELDS = (
    Field("kind", "u8", "0: command, 1: rejected, 2: lost"),
    Field("start", "u32", "first frame of the window"),
    Field("length", "u32", "frames of audio in it"),
    Field("end", "u32", "frame before which the speech ended"),
    Field("confirmed", "u32", "frame that made the end certain"),
    Field("answered_sample", "u32", "samples the source had made when the answer was there"),
    Field("features_crc", "u32", "CRC-32 of the window's features"),
)
# One slot of `model_info`.
SLOT_FIELDS = (
    Field("status", "u8", "what the header says (format.md); of the running model, all of it"),
    Field("found", "u32", "where the status has numbers: what was found"),
    Field("allowed", "u32", "and what is allowed"),
    Field("slot_bytes", "u32", "size of the slot"),
    Field("length_bytes", "u32", "of the image in it"),
    Field("sequence", "u32", "the greatest one of a valid image runs"),
    Field("model_hash", "u8", "SHA-256 of the packed model", 32),
)
BY_NAME = {message.name: message for message in MESSAGES}

FAILURE_FIELDS = (
    Field("value", "u32", "what was found"),
    Field("limit", "u32", "what was allowed or expected"),
)


class FrameError(ValueError):
    """A frame whose encoding, length or CRC is wrong."""


def cobs_encode(data: bytes) -> bytes:
    """Encode without zero bytes (Cheshire & Baker 1999); the terminating zero is not added."""
    out = bytearray()
    for block in _cobs_blocks(data):
        out.append(len(block) + 1)
        out += block
    return bytes(out)


def _cobs_blocks(data: bytes) -> list[bytes]:
    """Split at zeros; a run of 254 or more yields full blocks and a shorter rest."""
    blocks: list[bytes] = []
    for run in data.split(b"\0"):
        full = len(run) - len(run) % 254
        blocks += [run[at : at + 254] for at in range(0, full, 254)]
        blocks.append(run[full:])
    return blocks


def cobs_decode(data: bytes) -> bytes:
    """Undo `cobs_encode`.

    Raises:
        FrameError: a zero inside, or a block that runs past the end.
    """
    out = bytearray()
    at = 0
    while at < len(data):
        code = data[at]
        block = data[at + 1 : at + code]
        if code == 0 or len(block) != code - 1 or 0 in block:
            raise FrameError(f"COBS block of {code} bytes at {at} is malformed")
        out += block
        at += code
        if code != 0xFF and at < len(data):
            out.append(0)
    return bytes(out)


def encode_frame(message_id: int, sequence: int, payload: bytes) -> bytes:
    """Return a whole frame with its terminating zero."""
    body = bytes((message_id, sequence)) + payload
    return cobs_encode(body + struct.pack("<I", zlib.crc32(body))) + b"\0"


def decode_frame(frame: bytes) -> tuple[int, int, bytes]:
    """Return (message id, sequence, payload) of a frame without its terminating zero.

    Raises:
        FrameError: wrong encoding, too short, or wrong CRC.
    """
    data = cobs_decode(frame)
    if len(data) < OVERHEAD_BYTES:
        raise FrameError(f"frame of {len(data)} bytes, shortest is {OVERHEAD_BYTES}")
    body, (crc,) = data[:-4], struct.unpack("<I", data[-4:])
    if zlib.crc32(body) != crc:
        raise FrameError(f"CRC {crc:08x}, computed {zlib.crc32(body):08x}")
    return body[0], body[1], body[2:]


def fields_bytes(fields: tuple[Field, ...]) -> int:
    """Return the bytes of fields that lie side by side, an open-ended one left out."""
    return sum(TYPES[field.type][1] * (field.count or 1) for field in fields if field.count >= 0)


def positions(fields: tuple[Field, ...]) -> list[tuple[Field, int]]:
    """Return every field with its position in bytes."""
    return [(field, fields_bytes(fields[:index])) for index, field in enumerate(fields)]


def encode_fields(fields: tuple[Field, ...], values: dict[str, int | bytes]) -> bytes:
    """Return the payload for these values (arrays as bytes)."""
    out = bytearray()
    for field in fields:
        value = values[field.name]
        if isinstance(value, int):
            out += struct.pack("<" + TYPES[field.type][0], value)
        else:
            out += value
    return bytes(out)


def decode_fields(fields: tuple[Field, ...], payload: bytes) -> dict[str, int | bytes]:
    """Return values by name; arrays come as bytes.

    Raises:
        FrameError: the payload is shorter or longer than the fields.
    """
    values: dict[str, int | bytes] = {}
    at = 0
    for field in fields:
        code, size, _ = TYPES[field.type]
        length = size * (field.count or 1) if field.count >= 0 else len(payload) - at
        part = payload[at : at + length]
        if len(part) != length:
            raise FrameError(f"payload of {len(payload)} bytes ends inside field {field.name}")
        values[field.name] = part if field.count else struct.unpack("<" + code, part)[0]
        at += length
    if at != len(payload):
        raise FrameError(f"payload of {len(payload)} bytes, expected {at}")
    return values


def status_text(status: int, detail: bytes) -> str:
    """Return the text of a failed answer from its status and the payload after it."""
    try:
        found = decode_fields(FAILURE_FIELDS, detail)
        reason = ""
        if status > Status.IMAGE:
            reason = IMAGE_STATUS_TEXT[ImageStatus(status - Status.IMAGE)]
            status = Status.IMAGE
        if status == Status.NO_MODEL:
            texts = {
                name: IMAGE_STATUS_TEXT[ImageStatus(int(code))] for name, code in found.items()
            }
            return STATUS_TEXT[Status.NO_MODEL].format(**texts)
        return STATUS_TEXT[Status(status)].format(**found, reason=reason)
    except ValueError:
        return f"status {status}, detail {detail.hex() or 'none'}"
