"""C header and documentation of the serial protocol, rendered from the table in protocol.py."""

from __future__ import annotations

from quads_mcu import protocol
from quads_mcu.paths import data_dir
from quads_mcu.protocol import Field


def render() -> str:
    """Return the text of `quads_protocol.h`.

    Raises:
        InstallationError: the templates are missing.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(data_dir("templates")),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("quads_protocol.h.j2").render(
        protocol_version=protocol.PROTOCOL_VERSION,
        answer_bit=protocol.ANSWER_BIT,
        overhead_bytes=protocol.OVERHEAD_BYTES,
        messages=protocol.MESSAGES,
        statuses=list(protocol.Status),
        fixed_bytes=protocol.fields_bytes,
        open_ended=lambda fields: int(any(field.count < 0 for field in fields)),
        positions=protocol.positions,
    )


def render_doc() -> str:
    """Return the text of docs/protocol.md."""
    parts = [_DOC_HEAD.format(version=protocol.PROTOCOL_VERSION)]
    for message in protocol.MESSAGES:
        parts.append(f"### `0x{message.id:02X}` {message.name}\n\n{message.doc}\n\n")
        parts.append(_doc_fields("Request", message.request))
        parts.append(_doc_fields("Answer, after the status byte", message.answer))
    parts.append(
        "### An event\n\n" + _doc_fields("In the values of `heard`", protocol.EVENT_FIELDS)
    )
    parts.append("### A slot\n\n" + _doc_fields("In `model_info`", protocol.SLOT_FIELDS))
    parts.append(_DOC_STATUS)
    for status in protocol.Status:
        text = protocol.STATUS_TEXT[status].replace("{", "*").replace("}", "*")
        code = f"{status.value} + *reason*" if status == protocol.Status.IMAGE else status.value
        parts.append(f"| {code} | `{status.name}` | {text} |\n")
    parts.append("\n*reason*, and the slots of `NO_MODEL`: a code of [format.md](format.md).\n")
    parts.append(_doc_examples())
    return "".join(parts)


def _doc_fields(title: str, fields: tuple[Field, ...]) -> str:
    if not fields:
        return f"{title}: no fields.\n\n"
    lines = [f"{title}:\n", "| at | field | type | meaning |", "| ---: | --- | --- | --- |"]
    for field, at in protocol.positions(fields):
        kind = field.type
        if field.count:
            kind += "[...]" if field.count < 0 else f"[{field.count}]"
        lines.append(f"| {at} | `{field.name}` | {kind} | {field.doc} |")
    return "\n".join(lines) + "\n\n"


def _doc_examples() -> str:
    echo = protocol.BY_NAME["echo"]
    request = protocol.encode_frame(echo.id, 1, b"\x11\x00\x22")
    answer = protocol.encode_frame(echo.id | protocol.ANSWER_BIT, 1, b"\x00\x11\x00\x22")
    return _DOC_EXAMPLE.format(request=request.hex(" "), answer=answer.hex(" "))


_DOC_HEAD = """\
<!-- Rendered from quads_mcu/protocol.py; tests/test_protocol.py checks that it is current. -->
# Serial protocol, version {version}

8 data bits, no parity, 1 stop bit. The host asks, the device answers; the device never speaks
unasked.

## Frames

    COBS(id u8, sequence u8, payload, CRC-32 u32) 00

- All numbers are little-endian. The CRC is IEEE 802.3's (zlib's `crc32`), over id, sequence and
  payload.
- COBS (Cheshire & Baker, 1999) leaves no zero byte inside a frame, and a zero byte ends every
  frame: a receiver that lost its place is in step again after the next one. Empty frames are
  ignored, so a host may begin with a zero byte.
- An answer has the request's sequence number, and its id with bit 7 set. Hosts count from 1 to
  255 and start over.
- The device answers a damaged or oversized frame with id `0x80`, sequence 0 and the status
  `BAD_CRC`, and the host sends its request again.
- Every request may be sent again after a lost answer. The device runs a clip or an inference only
  once for repetitions with the same sequence number.
- A failed answer carries, after the status byte, two u32: *value* (what was found) and *limit*
  (what was allowed or expected).

## A window

`begin`, `chunk` as often as needed (or `clip` in place of both), then `infer`; `features` reads
back what the encoder saw. Samples beyond the model's window are ignored, a window without enough
samples is filled with silence.

## Messages

"""

_DOC_STATUS = """\
## Status codes

| code | name | meaning |
| ---: | --- | --- |
"""

_DOC_EXAMPLE = """
## Example

`echo` of the three bytes `11 00 22` with sequence number 1, and its answer:

    host    {request}
    device  {answer}
"""
