"""The flash of an ESP-IDF project: application and slots for model images, as partitions."""

from __future__ import annotations

from dataclasses import dataclass

from quads_mcu.errors import ExportError

# Of a memory-mapped page, of an application's offset and of the blocks that flash erases fastest.
PAGE_BYTES = 0x1_0000
NVS_OFFSET, NVS_BYTES = 0x9000, 0x6000
APP_OFFSET = 0x1_0000
# ESP-IDF's own part of an application (assumed: about twice a minimal one), and the least we take.
SYSTEM_BYTES = 256 * 1024
LEAST_APP_BYTES = 1024 * 1024
# The application's own type; the images in it are not ESP-IDF's.
MODEL_TYPE = "0x40"
ROOM_SHARE = 8


@dataclass(frozen=True)
class Partition:
    """One line of partitions.csv; offset and size in bytes."""

    name: str
    type: str
    subtype: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Offset of the first byte behind it."""
        return self.offset + self.size


def plan(flash_bytes: int, program_bytes: int, image_bytes: int) -> list[Partition]:
    """Return the partitions for a program and a model image in a flash of `flash_bytes`.

    Args:
        program_bytes: code and constants beside ESP-IDF's, and weights that are compiled in.
        image_bytes: of the model image; 0 for none.

    The application gets a quarter more than it needs, at least 1 MiB. The image gets two slots, each
    an eighth larger than it; where that is too much, two just large enough, or one.

    Raises:
        ExportError: it does not fit; names bytes, limit and ways out.
    """
    app = max(LEAST_APP_BYTES, whole_pages((SYSTEM_BYTES + program_bytes) * 5 // 4))
    table = [
        Partition("nvs", "data", "nvs", NVS_OFFSET, NVS_BYTES),
        Partition("factory", "app", "factory", APP_OFFSET, app),
    ]
    left = flash_bytes - table[-1].end
    exact, roomy = whole_pages(image_bytes), whole_pages(image_bytes * (ROOM_SHARE + 1) // ROOM_SHARE)
    if image_bytes == 0 and left >= 0:
        return table
    for slots, size in ((2, roomy), (2, exact), (1, exact)):
        if slots * size <= left:
            return [*table, *_slots(table[-1].end, slots, size)]
    raise ExportError(
        f"application ({app:,} bytes) and model image ({image_bytes:,}) need "
        f"{APP_OFFSET + app + exact:,} bytes of flash, the module has {flash_bytes:,}; use fewer bits "
        "per weight ([quantization] bits), a smaller student ([student] preset), or a board with "
        "more flash (`quads-mcu boards`)"
    )


def whole_pages(n_bytes: int) -> int:
    """Round up to pages."""
    return -(-n_bytes // PAGE_BYTES) * PAGE_BYTES


def _slots(offset: int, count: int, size: int) -> list[Partition]:
    return [
        Partition(f"model_{slot}", MODEL_TYPE, f"0x{slot:02x}", offset + slot * size, size)
        for slot in range(count)
    ]
