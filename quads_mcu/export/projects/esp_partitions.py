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

    The application gets a quarter more than it needs, at least 1 MiB. The image gets two slots, an
    eighth larger than it; where that is too much, two just large enough, or one, and then an
    application just large enough.

    Raises:
        ExportError: it does not fit; names bytes, limit and ways out.
    """
    least = whole_pages(SYSTEM_BYTES + program_bytes)
    app = max(LEAST_APP_BYTES, whole_pages((SYSTEM_BYTES + program_bytes) * 5 // 4))
    image = whole_pages(image_bytes)
    roomy = whole_pages(image_bytes * (ROOM_SHARE + 1) // ROOM_SHARE)
    for app_bytes, slots, size in ((app, 2, roomy), (app, 2, image), (app, 1, image),
                                   (least, 1, image)):  # fmt: skip
        end = APP_OFFSET + app_bytes
        if end + slots * size <= flash_bytes:
            return [
                Partition("nvs", "data", "nvs", NVS_OFFSET, NVS_BYTES),
                Partition("factory", "app", "factory", APP_OFFSET, app_bytes),
                *_slots(end, slots if image_bytes else 0, size),
            ]
    raise ExportError(
        f"application ({least:,} bytes) and model image ({image:,}) need "
        f"{APP_OFFSET + least + image:,} bytes of flash, the module has {flash_bytes:,}; use fewer "
        "bits per weight ([quantization] bits), a smaller student ([student] preset), or a board "
        "with more flash (`quads-mcu boards`)"
    )


def whole_pages(n_bytes: int) -> int:
    """Round up to pages."""
    return -(-n_bytes // PAGE_BYTES) * PAGE_BYTES


def _slots(offset: int, count: int, size: int) -> list[Partition]:
    return [
        Partition(f"model_{slot}", MODEL_TYPE, f"0x{slot:02x}", offset + slot * size, size)
        for slot in range(count)
    ]
