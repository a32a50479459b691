"""Partition tables of the ESP-IDF, as they lie in flash.

Format: ESP-IDF Programming Guide, "Partition Tables"; gen_esp32part.py. 32 bytes per entry: magic
AA 50, type, subtype, offset u32, size u32, name[16], flags u32; then an entry EB EB, 14 bytes FF
and the MD5 of the entries before it; the rest FF.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

from quads_mcu.errors import DeviceError

TABLE_BYTES = 0xC00
ENTRY_BYTES = 32
ENTRY_MAGIC, MD5_MAGIC = b"\xaa\x50", b"\xeb\xeb"
APP = 0
MODEL_PREFIX = "model"


@dataclass(frozen=True)
class Partition:
    """One partition; type: APP, or what an application keeps (data 1, its own kinds from 0x40)."""

    name: str
    type: int
    subtype: int
    offset: int
    size_bytes: int

    @property
    def end(self) -> int:
        """First address behind the partition."""
        return self.offset + self.size_bytes


def parse(table: bytes, where: str) -> list[Partition]:
    """Return the partitions of a binary table.

    Raises:
        DeviceError: not a partition table, or a damaged one.
    """
    found: list[Partition] = []
    for at in range(0, min(len(table), TABLE_BYTES) - ENTRY_BYTES + 1, ENTRY_BYTES):
        entry = table[at : at + ENTRY_BYTES]
        if entry[:2] == MD5_MAGIC:
            if entry[16:] != hashlib.md5(table[:at], usedforsecurity=False).digest():
                raise DeviceError(f"{where}: the MD5 of the partition table is wrong")
            break
        if entry[:2] != ENTRY_MAGIC:
            break
        kind, subtype, offset, size, name, _ = struct.unpack_from("<BBII16sI", entry, 2)
        text = name.split(b"\0")[0].decode("ascii", "replace")
        found.append(Partition(text, kind, subtype, offset, size))
    if not found:
        raise DeviceError(f"{where}: no partition table; flash the board completely once")
    return found


def model_slots(partitions: list[Partition]) -> list[Partition]:
    """Return the partitions that hold model images, by address."""
    slots = [one for one in partitions if one.type != APP and one.name.startswith(MODEL_PREFIX)]
    return sorted(slots, key=lambda one: one.offset)
