"""What a build for an ESP chip wants in flash, read from what its build system left.

ESP-IDF and the ESP part of PlatformIO and Arduino leave a bootloader, a partition table and an
application; weights in their own partition come as model.bin. The order of writing: weights,
application, then the partition table, the bootloader last. So a chip that was never flashed starts
nothing before everything is there, and one that was refuses an application or weights that are
incomplete, because both carry their SHA-256. The ROM's loader takes the next flash in any state.
"""

from __future__ import annotations

import json
import os
import struct
from dataclasses import replace
from pathlib import Path

from quads_mcu import image_format
from quads_mcu.device.boards import KERNELS, Board
from quads_mcu.device.flashers import partitions, plan
from quads_mcu.device.flashers.partitions import Partition
from quads_mcu.device.flashers.plan import Part, Plan
from quads_mcu.errors import BuildError, DeviceError, ModelFormatError
from quads_mcu.model_format import FRONTENDS

TABLE_OFFSET = 0x8000
SECTOR_BYTES = 4096
IMAGE_MAGIC = 0xE9
CHIP_ID_AT = 12  # u16 in the header of applications and bootloaders
MODEL = "model.bin"
IDF_BUILD = "build/flasher_args.json"
BOOTLOADER, TABLE, APPLICATION, WEIGHTS = "bootloader", "partition table", "application", "model"
# chip: (its id in images, where the ROM looks for the bootloader)
CHIPS = {"ESP32": (0, 0x1000), "ESP32-C3": (5, 0x0), "ESP32-S3": (9, 0x0)}
FLASH_SIZES = {0: 1 << 20, 1: 2 << 20, 2: 4 << 20, 3: 8 << 20, 4: 16 << 20, 5: 32 << 20}
ORDER = (WEIGHTS, "", APPLICATION, TABLE, BOOTLOADER)


def read(board: Board, folder: Path, program: str) -> Plan:
    """Return the checked plan of the build of `program` in `folder`, an exported project.

    Raises:
        BuildError: there is no build, or it lacks a file.
        DeviceError: it is for another chip, or does not fit its flash or partitions.
    """
    found = _from_idf(folder) or _from_arduino_core(board, folder, program)
    table = next((part for part in found if part.what == TABLE), None)
    if table is None:
        raise BuildError(f"{folder}: the build has no partition table; build again")
    slots = partitions.parse(table.data, table.file)
    found = _with_model(found, partitions.model_slots(slots), folder)
    result = Plan(board.name, tuple(sorted(found, key=lambda part: _rank(part.what))))
    _check_partitions(result, slots, board)
    plan.check(result, 0, board.flash_bytes)
    for part in result.parts:
        if part.what in (APPLICATION, BOOTLOADER):
            _check_image(part, board)
        if part.what == WEIGHTS:
            check_model(part.data, part.file, board)
    return result


def _rank(what: str) -> int:
    return ORDER.index(what) if what in ORDER else 1


# --- where build systems leave things ------------------------------------------------------


def _from_idf(folder: Path) -> list[Part] | None:
    """build/flasher_args.json of ESP-IDF names every file and its offset."""
    path = folder / IDF_BUILD
    if not path.is_file():
        return None
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        files = {str(name): int(offset, 0) for offset, name in tree["flash_files"].items()}
        roles = {tree[key]["file"]: what for key, what in (
            ("bootloader", BOOTLOADER), ("partition-table", TABLE), ("app", APPLICATION)
        ) if key in tree}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise BuildError(f"{path}: {problem!r}; run `quads-mcu build` again") from None
    return [
        Part(
            roles.get(name, WEIGHTS if Path(name).name == MODEL else Path(name).stem),
            offset,
            plan.read(path.parent / name),
            os.path.normpath(path.parent / name),
        )
        for name, offset in files.items()
    ]


def _from_arduino_core(board: Board, folder: Path, program: str) -> list[Part]:
    """What PlatformIO leaves in .pio/build/ENVIRONMENT, or arduino-cli in build/SKETCH."""
    # The first is not there, see _from_idf; it stands in the message.
    patterns = (IDF_BUILD, ".pio/build/*/partitions.bin", "build/*/*.ino.partitions.bin")
    table = plan.product(folder, patterns, program, "finished build")
    stem = str(table).removesuffix("partitions.bin")
    application = f"{stem}firmware.bin" if table.name == "partitions.bin" else f"{stem}bin"
    files = {BOOTLOADER: f"{stem}bootloader.bin", TABLE: str(table), APPLICATION: application}
    return _three(board, {what: Path(name) for what, name in files.items()})


def _three(board: Board, files: dict[str, Path]) -> list[Part]:
    table = plan.read(files[TABLE])
    apps = [one for one in partitions.parse(table, str(files[TABLE])) if one.type == partitions.APP]
    if not apps:
        raise BuildError(f"{files[TABLE]}: no partition for an application; build again")
    offsets = {BOOTLOADER: CHIPS[board.chip][1], TABLE: TABLE_OFFSET, APPLICATION: apps[0].offset}
    return [Part(what, offsets[what], plan.read(path), str(path)) for what, path in files.items()]


def _with_model(found: list[Part], slots: list[Partition], folder: Path) -> list[Part]:
    """Add the model image for the first slot, and an erased sector that empties the second.

    The second slot may hold an image of an earlier flash, which would win by its sequence number.
    """
    path = folder / MODEL
    if not any(part.what == WEIGHTS for part in found) and path.is_file():
        if not slots:
            raise DeviceError(f"{path} has no partition to lie in; export and build again")
        found = [*found, Part(WEIGHTS, slots[0].offset, plan.read(path), str(path))]
    taken = {part.offset for part in found}
    names = {slot.offset: f"{slot.name}, emptied" for slot in slots}
    found = [
        replace(part, what=names[part.offset])
        if part.offset in names and part.data.count(0xFF) == len(part.data)
        else part
        for part in found
    ]
    blank = b"\xff" * SECTOR_BYTES
    emptied = [
        Part(names[slot.offset], slot.offset, blank, "-")
        for slot in slots[1:]
        if slot.offset not in taken
    ]
    return found + emptied


# --- checks --------------------------------------------------------------------------------


def _check_partitions(found: Plan, table: list[Partition], board: Board) -> None:
    """Every part but bootloader and table lies in one partition; all lie in the chip's flash."""
    for one in table:
        if one.end > board.flash_bytes:
            raise DeviceError(
                f"partition {one.name} ends at {one.end:#x}, the flash of {board.name} at "
                f"{board.flash_bytes:#x}; export for this board and build again"
            )
    for part in found.parts:
        if part.what in (BOOTLOADER, TABLE):
            limit = TABLE_OFFSET if part.what == BOOTLOADER else TABLE_OFFSET + SECTOR_BYTES
            if part.end > limit:
                raise DeviceError(f"{part.what} ends at {part.end:#x}, its place at {limit:#x}")
            continue
        home = next((one for one in table if one.offset <= part.offset < one.end), None)
        if home is None or part.end > home.end:
            raise DeviceError(
                f"{part.what} ({len(part.data):,} bytes at {part.offset:#x}) does not fit "
                + (f"partition {home.name}, which has {home.end - part.offset:,} there"
                   if home else "into any partition")
                + "; export and build again: the export computes the table from the sizes"
            )  # fmt: skip


def check_model(image: bytes, file: str, board: Board) -> None:
    """Refuse a model image that is damaged or was packed for another kind of chip.

    Raises:
        DeviceError: says why.
    """
    try:
        header = image_format.read_header(image)
    except ModelFormatError as problem:
        raise DeviceError(f"{file}: {problem}") from None
    kernels, frontend = _name(KERNELS, header.kernels), _name(FRONTENDS, header.frontend)
    if (kernels, frontend) != (board.kernels, board.frontend):
        raise DeviceError(
            f"{file} was packed for {kernels} kernels and {frontend} features, {board.name} has "
            f"{board.kernels} and {board.frontend}; export for --target {board.name}"
        )


def _name(names: tuple[str, ...], index: int) -> str:
    return names[index] if index < len(names) else f"unknown ({index})"


def _check_image(part: Part, board: Board) -> None:
    """Refuse an application or bootloader that was built for another chip, or for more flash."""
    chip_id = CHIPS[board.chip][0]
    if len(part.data) < 24 or part.data[0] != IMAGE_MAGIC:
        raise DeviceError(f"{part.file} is not an image for an ESP chip; build again")
    (found,) = struct.unpack_from("<H", part.data, CHIP_ID_AT)
    if found != chip_id:
        known = {number: name for name, (number, _) in CHIPS.items()}
        raise DeviceError(
            f"{part.file} was built for {known.get(found, f'chip {found}')}, not for {board.chip}; "
            f"export and build for --target {board.name}"
        )
    flash_bytes = FLASH_SIZES.get(part.data[3] >> 4, 0)
    if part.what == BOOTLOADER and flash_bytes > board.flash_bytes:
        raise DeviceError(
            f"{part.file} was built for {flash_bytes >> 20} MB of flash, {board.name} has "
            f"{board.flash_bytes >> 20} MB; export and build for this board"
        )
