"""UF2, the format that boot ROMs take as a file copied to a drive.

Layout, flags and the RP2040's family: https://github.com/microsoft/uf2; the RP2350's families:
pico-sdk, boot/uf2.h. 512 bytes per block: two magic numbers, flags, address, payload bytes, number,
count, family, 476 bytes of data, a third magic number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from quads_mcu.errors import DeviceError

BLOCK_BYTES = 512
PAYLOAD_BYTES = 256
SECTOR_BYTES = 4096
MAGIC = (0x0A324655, 0x9E5D5157, 0x0AB16F30)
FAMILY_PRESENT, NOT_MAIN_FLASH = 0x2000, 0x1
FAMILIES = {"RP2040": 0xE48BFF56, "RP2350": 0xE48BFF59}
# A block of this family precedes files of picotool for the RP2350 (its erratum E10).
ABSOLUTE = 0xE48BFF57
HEADER = struct.Struct("<8I")


def write(segments: Iterable[tuple[int, bytes]], family: int) -> bytes:
    """Return a UF2 file of (address, data) segments.

    Sectors that hold data are written whole (the rest FF): the RP2040's ROM erases a sector with
    its first block, and may leave pages of it that no block names (erratum E14).
    """
    pages: dict[int, bytearray] = {}
    for address, data in segments:
        for at in range(address, address + len(data)):
            page = pages.setdefault(at - at % PAYLOAD_BYTES, bytearray(b"\xff" * PAYLOAD_BYTES))
            page[at % PAYLOAD_BYTES] = data[at - address]
    for sector in {page - page % SECTOR_BYTES for page in pages}:
        for at in range(sector, sector + SECTOR_BYTES, PAYLOAD_BYTES):
            pages.setdefault(at, bytearray(b"\xff" * PAYLOAD_BYTES))
    return b"".join(
        HEADER.pack(*MAGIC[:2], FAMILY_PRESENT, page, PAYLOAD_BYTES, index, len(pages), family)
        + bytes(pages[page]).ljust(476, b"\0")
        + MAGIC[2].to_bytes(4, "little")
        for index, page in enumerate(sorted(pages))
    )


def read(data: bytes, family: int, where: str) -> list[tuple[int, bytes]]:
    """Return the (address, data) segments of `family` in a UF2 file, sorted and joined.

    Raises:
        DeviceError: no UF2, for another family, or with missing blocks.
    """
    if not data or len(data) % BLOCK_BYTES:
        raise DeviceError(f"{where}: {len(data)} bytes are no UF2 file; build again")
    pages: dict[int, bytes] = {}
    others, numbers, counts = set(), set(), set()
    for at in range(0, len(data), BLOCK_BYTES):
        first, second, flags, address, n_bytes, number, count, found = HEADER.unpack_from(data, at)
        (last,) = struct.unpack_from("<I", data, at + BLOCK_BYTES - 4)
        if (first, second, last) != MAGIC or n_bytes > 476:
            raise DeviceError(f"{where}: block {at // BLOCK_BYTES} is no UF2 block; build again")
        if flags & NOT_MAIN_FLASH or not flags & FAMILY_PRESENT or found != family:
            others.add(found)
            continue
        pages[address] = data[at + HEADER.size : at + HEADER.size + n_bytes]
        numbers.add(number)
        counts.add(count)
    if not pages:
        raise DeviceError(
            f"{where}: made for family {', '.join(f'{one:#x}' for one in others - {ABSOLUTE})}, "
            f"the board has {family:#x}; export and build for this board"
        )
    if len(counts) != 1 or numbers != set(range(*counts)):
        raise DeviceError(f"{where}: {len(numbers)} of {max(counts)} blocks; build again")
    return _joined(pages)


def _joined(pages: dict[int, bytes]) -> list[tuple[int, bytes]]:
    segments: list[tuple[int, bytearray]] = []
    for address in sorted(pages):
        if segments and segments[-1][0] + len(segments[-1][1]) == address:
            segments[-1][1].extend(pages[address])
        else:
            segments.append((address, bytearray(pages[address])))
    return [(address, bytes(data)) for address, data in segments]
