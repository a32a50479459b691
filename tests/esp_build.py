"""What a build for an ESP chip leaves in its project folder, made from the formats' documents."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from random_model import random_model

from quads_mcu.device.boards import Board
from quads_mcu.export import image
from quads_mcu.model.dimensions import Dimensions

CHIP_IDS = {"ESP32": 0, "ESP32-C3": 5, "ESP32-S3": 9}
BOOTLOADER_AT = {"ESP32": 0x1000, "ESP32-C3": 0, "ESP32-S3": 0}
SIZE_CODES = {2 << 20: 1, 4 << 20: 2, 8 << 20: 3, 16 << 20: 4}
APP_AT, SLOT_A, SLOT_B, SLOT_BYTES = 0x10000, 0x110000, 0x190000, 0x80000


def model_image(board: Board, seed: int = 0, d_model: int = 32) -> bytes:
    """A small model's image for the board's kernels; d_model 96: some blocks of esptool's."""
    dims = Dimensions(n_mels=40, n_frames=16, d_model=d_model, n_heads=2, n_layers=1, n_classes=5)
    model = random_model(dims, seed=seed)
    if board.frontend == "fixed":
        from dataclasses import replace

        model = replace(model, frontend="fixed")
    return image.pack(model, board.kernels)


def esp_image(chip: str, flash_bytes: int, n_bytes: int, seed: int) -> bytes:
    """Header of an application or bootloader (ESP-IDF, esp_app_format.h) and arbitrary content."""
    header = struct.pack("<BBBBI", 0xE9, 1, 2, SIZE_CODES[flash_bytes] << 4 | 0xF, 0x40000000)
    header += struct.pack("<BBBBHBHH4xB", 0xEE, 0, 0, 0, CHIP_IDS[chip], 0, 0, 0xFFFF, 0)
    noise = np.random.default_rng(seed).integers(0, 256, n_bytes // 2, np.uint8).tobytes()
    return (header + noise).ljust(n_bytes, b"\0")


def partition_table(rows: Sequence[tuple[str, int, int, int, int]]) -> bytes:
    """Name, type, subtype, offset, size of each; as gen_esp32part.py lays them out."""
    table = b"".join(
        b"\xaa\x50" + struct.pack("<BBII16sI", kind, subtype, offset, size, name.encode(), 0)
        for name, kind, subtype, offset, size in rows
    )
    table += b"\xeb\xeb" + b"\xff" * 14 + hashlib.md5(table).digest()
    return table.ljust(0xC00, b"\xff")


ROWS = (
    ("nvs", 1, 2, 0x9000, 0x6000),
    ("phy_init", 1, 1, 0xF000, 0x1000),
    ("factory", 0, 0, APP_AT, 0x100000),
    ("model_0", 0x40, 0, SLOT_A, SLOT_BYTES),
    ("model_1", 0x40, 0, SLOT_B, SLOT_BYTES),
)


def write_build(
    folder: Path,
    board: Board,
    *,
    app_bytes: int = 120_000,
    app_at: int = APP_AT,
    chip: str = "",
    rows: Sequence[tuple[str, int, int, int, int]] = ROWS,
) -> dict[int, bytes]:
    """Write an ESP-IDF build into `folder`; return what must be in flash, by offset."""
    build, chip = folder / "build", chip or board.chip
    files = {
        BOOTLOADER_AT[board.chip]: ("bootloader/bootloader.bin", "bootloader",
                                    esp_image(chip, board.flash_bytes, 21_001, 1)),
        0x8000: ("partition_table/partition-table.bin", "partition-table", partition_table(rows)),
        app_at: ("quads.bin", "app", esp_image(chip, board.flash_bytes, app_bytes, 2)),
    }  # fmt: skip
    for name, _, data in files.values():
        (build / name).parent.mkdir(parents=True, exist_ok=True)
        (build / name).write_bytes(data)
    arguments = {
        "flash_files": {f"{offset:#x}": name for offset, (name, _, _) in files.items()},
        **{
            role: {"offset": f"{offset:#x}", "file": name, "encrypted": "false"}
            for offset, (name, role, _) in files.items()
        },
    }
    (build / "flasher_args.json").write_text(json.dumps(arguments))
    expected = {offset: data for offset, (_, _, data) in files.items()}
    if any(name.startswith("model") for name, *_ in rows):
        expected[SLOT_A] = model_image(board)
        (folder / "model.bin").write_bytes(expected[SLOT_A])
    return expected
