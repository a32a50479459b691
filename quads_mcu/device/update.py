"""Another model onto a board that runs, over its serial port; the application stays as it is."""

from __future__ import annotations

import time
from dataclasses import dataclass

from quads_mcu import image_format, protocol
from quads_mcu.console import Progress
from quads_mcu.device.client import SMALLEST_PAYLOAD_BYTES, Client, Hello, RefusedError
from quads_mcu.device.link import DroppedError
from quads_mcu.errors import ProtocolError
from quads_mcu.image_format import HEADER_BYTES, Header
from quads_mcu.protocol import ImageStatus, Status

WRITE_BYTES = 256  # QUADS_PORT_MODEL_WRITE_BYTES of firmware/ports/quads_port.h
NONE_RUNS = 255  # `running` of model_info
NUMBERS = ("found", "allowed", "slot_bytes", "length_bytes", "sequence")
DROPS = 3  # how often a dropped link is opened again


@dataclass(frozen=True)
class ModelSlot:
    """One of a board's places for a model image. Hashes are hexadecimal.

    status: what the board makes of the image; of one that does not run only its header was read.
    """

    status: ImageStatus
    found: int
    allowed: int
    slot_bytes: int
    length_bytes: int
    sequence: int
    model_hash: str


@dataclass(frozen=True)
class ModelInfo:
    """A board's model slots; `running` is the one whose model runs, None if none does."""

    max_payload_bytes: int
    running: int | None
    slots: tuple[ModelSlot, ...]


@dataclass(frozen=True)
class Update:
    """What became of an update.

    slot: where the model that runs now lies. sequence: its number. n_bytes: sent, 0 if the board
    ran this model already. hello: the board's new identity.
    """

    slot: int
    sequence: int
    n_bytes: int
    seconds: float
    hello: Hello


def _silent(description: str, completed: float, total: float) -> None:
    del description, completed, total


def update_model(client: Client, image: bytes, progress: Progress = _silent) -> Update:
    """Send a model image to the board's slot that is not in use, and let it run from there.

    The image gets a sequence number above that of the running model. Until the board has verified
    all of it the running model stays as it is, whatever happens on the way. A link that drops is
    opened again, and the transfer goes on where it was.

    Args:
        client: of the board.
        image: as `export.image.pack` made it, for the kernels of the board's build.
        progress: gets bytes.
    Raises:
        ModelFormatError: `image` is damaged or no image.
        ProtocolError: the board refuses it, with the reason; the model that ran before still runs.
        LinkError: the board stays silent.
    """
    start = time.monotonic()
    header = image_format.read_header(image)
    info = _info(client)
    if _runs(info, header):
        return _done(client, info, header, 0, start)
    image = image_format.with_sequence(image, _next_sequence(info))
    for drops in range(DROPS + 1):
        try:
            return _send(client, image, header, start, progress)
        except DroppedError:
            if drops == DROPS:
                raise
            client.reopen()
            info = _info(client)
            if _runs(info, header):  # only the last answer was lost
                return _done(client, info, header, len(image), start)
    raise AssertionError("unreachable")


def model_info(client: Client) -> ModelInfo:
    """Ask which models the board holds; one without a valid model answers this, too.

    Raises:
        ProtocolError: the firmware was built without slots for models, or answers nonsense.
        LinkError: the board stays silent.
    """
    try:
        values = client.request("model_info", {}, computes=False)
    except RefusedError as problem:
        if problem.status == Status.UNKNOWN_MESSAGE:
            raise _no_slots(client) from None
        raise
    largest, running, data = values["max_payload_bytes"], values["running"], values["slots"]
    assert isinstance(largest, int) and isinstance(running, int) and isinstance(data, bytes)
    if largest < SMALLEST_PAYLOAD_BYTES:
        raise ProtocolError(
            f"model_info: payloads of {largest} bytes, the least is {SMALLEST_PAYLOAD_BYTES}"
        )
    client.max_payload_bytes = largest
    slots = _slots(data)
    if len(slots) <= running < NONE_RUNS:
        raise ProtocolError(
            f"model_info: slot {running} runs, of {len(slots)}; build and flash again"
        )
    return ModelInfo(largest, None if running == NONE_RUNS else running, slots)


def _slots(data: bytes) -> tuple[ModelSlot, ...]:
    size = protocol.fields_bytes(protocol.SLOT_FIELDS)
    try:
        records = [
            protocol.decode_fields(protocol.SLOT_FIELDS, data[at : at + size])
            for at in range(0, len(data), size)
        ]
        return tuple(_slot(record) for record in records)
    except ValueError as problem:
        raise ProtocolError(f"model_info: {problem}; build and flash again") from None


def _slot(record: dict[str, int | bytes]) -> ModelSlot:
    status, model_hash = record["status"], record["model_hash"]
    assert isinstance(status, int) and isinstance(model_hash, bytes)
    numbers = {name: int(record[name]) for name in NUMBERS}
    return ModelSlot(status=ImageStatus(status), model_hash=model_hash.hex(), **numbers)


def _info(client: Client) -> ModelInfo:
    info = model_info(client)
    if not info.slots:
        raise _no_slots(client)
    return info


def _no_slots(client: Client) -> ProtocolError:
    return ProtocolError(
        f"the firmware at {client.link.url} has no slots for models; flash all of it: "
        "`quads-mcu flash`"
    )


def _runs(info: ModelInfo, header: Header) -> bool:
    return info.running is not None and info.slots[info.running].model_hash == header.model_hash


def _next_sequence(info: ModelInfo) -> int:
    """Above the running model's; without one, above all, damaged or not, while that is possible."""
    numbers = (
        [info.slots[info.running].sequence]
        if info.running is not None
        else [slot.sequence for slot in info.slots]
    )
    greatest = max(numbers)
    if greatest < image_format.MAX_SEQUENCE:
        return greatest + 1
    if info.running is None:
        return 0
    raise ProtocolError(
        f"the running model has the last sequence number, {greatest}: no other can follow it; "
        "write the image to its slot by the flasher"
    )


def _send(client: Client, image: bytes, header: Header, start: float, progress: Progress) -> Update:
    begun = client.request("model_begin", {"header": image[:HEADER_BYTES]})
    offset, sent = _offset(begun, len(image)), 0
    size = (client.max_payload_bytes - 4) // WRITE_BYTES * WRITE_BYTES
    if size == 0:
        raise ProtocolError(
            f"payloads of {client.max_payload_bytes} bytes are too small for a model, the least is "
            f"{WRITE_BYTES + 4}; flash all of the firmware"
        )
    while offset < len(image):
        part = image[offset : offset + size]
        values: dict[str, int | bytes] = {"offset_bytes": offset, "data": part}
        answer = client.request("model_data", values, computes=False)
        if _offset(answer, len(image)) != offset + len(part):
            raise ProtocolError(
                f"model_data: the board expects offset {answer['next_offset_bytes']!r} next, not "
                f"{offset + len(part)}; update again"
            )
        offset += len(part)
        sent += len(part)
        progress("sending the model", offset, len(image))
    client.request("model_end", {})
    return _done(client, _info(client), header, sent, start)


def _offset(answer: dict[str, int | bytes], limit: int) -> int:
    offset = answer["next_offset_bytes"]
    if not isinstance(offset, int) or offset > limit:
        raise ProtocolError(f"the board expects offset {offset!r} of {limit} bytes; update again")
    return offset


def _done(client: Client, info: ModelInfo, header: Header, n_bytes: int, start: float) -> Update:
    hello = client.check(header.model_hash)
    if info.running is None:
        raise ProtocolError("the board says hello, but that no model runs; build and flash again")
    seconds = time.monotonic() - start
    return Update(info.running, info.slots[info.running].sequence, n_bytes, seconds, hello)
