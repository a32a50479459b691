"""Flash RP2040 and RP2350: by picotool where it is installed, else as a file on the ROM's drive.

Both talk to the boot ROM, which a board enters when BOOTSEL is held while it is plugged in: no
firmware on it matters, so that an interrupted flash is repeated in the same way. picotool reads
back what it wrote. The drive cannot be read back; the ROM leaves it only after it has received
every block, and that is waited for.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from quads_mcu.console import Progress
from quads_mcu.device import process
from quads_mcu.device.boards import Board
from quads_mcu.device.elf import Elf
from quads_mcu.device.flashers import plan as plans
from quads_mcu.device.flashers import uf2
from quads_mcu.device.flashers.plan import Part, Plan
from quads_mcu.errors import DeviceError, LinkError

FLASH_START = 0x1000_0000
INFO_FILE = "INFO_UF2.TXT"
BOARD_IDS = {"RP2040": "RPI-RP2", "RP2350": "RP2350"}
LEAVE_TIMEOUT_S = 15.0
CHUNK_BYTES = 64 * 1024
BOOTSEL = (
    "hold BOOTSEL while you plug the board in, and run the command again; on Linux picotool needs "
    "its udev rules (99-picotool.rules of its sources) or root"
)
FOLDERS = ("build/*.", "build/*/*.ino.", ".pio/build/*/firmware.", "build/zephyr/zephyr.")


def read(board: Board, folder: Path, program: str) -> Plan:
    """Return the checked plan of the build in `folder`: of its UF2 file, else of its ELF file.

    Raises:
        BuildError: there is no build.
        DeviceError: it is for another chip, or does not fit the flash.
    """
    family = uf2.FAMILIES[board.chip]
    patterns = [f"{one}{suffix}" for suffix in ("uf2", "elf") for one in FOLDERS]
    has_uf2 = any(path for one in FOLDERS for path in folder.glob(f"{one}uf2"))
    patterns = patterns[: len(FOLDERS)] if has_uf2 else patterns
    path = plans.product(folder, patterns, program, "UF2 or ELF file")
    data = plans.read(path) if has_uf2 else uf2.write(Elf(path).loaded(), family)
    segments = uf2.read(data, family, str(path))
    parts = tuple(Part("firmware", address, data, str(path)) for address, data in segments)
    result = Plan(board.name, parts)
    plans.check(result, FLASH_START, board.flash_bytes)
    return result


def command(plan: Plan, board: Board, port: str) -> list[str]:
    """Return what will be run; port: the drive's folder, or ""."""
    file = plan.parts[0].file
    if port or shutil.which("picotool") is None:
        return ["copy", file, port or f"the {BOARD_IDS[board.chip]} drive"]
    return ["picotool", "load", "-v", "-x", file]


def flash(plan: Plan, board: Board, port: str, progress: Progress) -> str:
    """Write `plan`; return what chip it was. port: the drive's folder; "": picotool, or search.

    Raises:
        LinkError: no board in BOOTSEL mode, no permission, or it went away.
        DeviceError: another chip, flash too small, or it reads back something else.
    """
    data = uf2.write([(p.offset, p.data) for p in plan.parts], uf2.FAMILIES[board.chip])
    if not port and shutil.which("picotool"):
        return _by_picotool(data, plan, board, progress)
    drive = Path(port) if port else _find_drive(board)
    _check_drive(drive, board)
    _copy(data, drive, progress)
    return f"{board.chip} at {drive}"


# --- picotool ------------------------------------------------------------------------------


def _by_picotool(data: bytes, plan: Plan, board: Board, progress: Progress) -> str:
    code, text = process.run(["picotool", "info", "-d"])
    if code:
        raise LinkError(f"picotool finds no {board.chip}: {_last(text)}; {BOOTSEL}")
    chip = re.search(r"^ *type: *(\S+)", text, re.M)
    size = re.search(r"^ *flash size: *(\d+)K", text, re.M)
    if chip and not chip[1].startswith(board.chip):
        raise DeviceError(f"the board is an {chip[1]}, {board.name} needs an {board.chip}")
    if size and int(size[1]) << 10 < max(part.end for part in plan.parts) - FLASH_START:
        raise DeviceError(f"the board has {size[1]} KiB of flash; nothing was written")
    if re.search(r"^ *secure boot: *1", text, re.M):
        raise DeviceError(
            "the board has secure boot on and starts only what its owner signed; nothing was "
            "written: sign with picotool seal, or take another board"
        )

    def follow(line: str) -> None:
        if found := re.search(r"(Loading|Verifying).*?(\d+)%", line):
            progress(f"{found[1].lower()} firmware", int(found[2]), 100)

    with tempfile.TemporaryDirectory(prefix="quads-flash-") as folder:
        path = Path(folder) / "firmware.uf2"
        path.write_bytes(data)
        code, text = process.run(["picotool", "load", "-v", "-x", str(path)], follow)
    if code:
        raise DeviceError(
            f"picotool could not write or verify: {_last(text)}. The board starts nothing or half "
            f"of it; the boot ROM is untouched: {BOOTSEL}"
        )
    return chip[1] if chip else board.chip


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(lines[-2:]) or "no reason given"


# --- the drive -----------------------------------------------------------------------------


def _find_drive(board: Board) -> Path:
    found = [place for place in _mounts() if _info(place)]
    fitting = [place for place in found if _board_id(place) == BOARD_IDS[board.chip]]
    if len(fitting) == 1:
        return fitting[0]
    if fitting:
        raise DeviceError(
            f"{len(fitting)} boards are in BOOTSEL mode: {', '.join(map(str, fitting))}; name the "
            "drive by --port"
        )
    if found:
        _check_drive(found[0], board)
    raise LinkError(
        f"no {BOARD_IDS[board.chip]} drive is mounted and picotool is not installed; {BOOTSEL}. "
        "Mount the drive, or name its folder by --port"
    )


def _mounts() -> list[Path]:
    places = [*Path("/Volumes").glob("*"), *Path("/media").glob("*/*")]
    with suppress(OSError):
        lines = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
        places += [Path(line.split()[1].replace("\\040", " ")) for line in lines]
    return list(dict.fromkeys(places))


def _info(place: Path) -> str:
    try:
        return (place / INFO_FILE).read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""


def _board_id(place: Path) -> str:
    found = re.search(r"^Board-ID: *(\S+)", _info(place), re.M)
    return found[1] if found else ""


def _check_drive(drive: Path, board: Board) -> None:
    found, needed = _board_id(drive), BOARD_IDS[board.chip]
    if not _info(drive):
        raise LinkError(f"{drive} is no drive of a boot ROM (no {INFO_FILE}); {BOOTSEL}")
    if found != needed:
        raise DeviceError(
            f"the board at {drive} is {found or 'unknown'}, {board.name} needs {needed}; nothing "
            "was written"
        )


def _copy(data: bytes, drive: Path, progress: Progress) -> None:
    """Write all blocks through to the device, and wait until its ROM has left for the firmware."""
    done = 0
    try:
        with (drive / "firmware.uf2").open("wb", buffering=0) as file:
            while done < len(data):
                file.write(data[done : done + CHUNK_BYTES])
                os.fsync(file.fileno())
                done = min(done + CHUNK_BYTES, len(data))
                progress("writing firmware", done, len(data))
    except OSError as problem:
        if done < len(data) or (drive / INFO_FILE).exists():
            raise LinkError(
                f"{drive}: {problem.strerror} after {done:,} of {len(data):,} bytes; the firmware "
                f"is not complete: {BOOTSEL}"
            ) from None
    deadline = time.monotonic() + LEAVE_TIMEOUT_S
    while (drive / INFO_FILE).exists():
        if time.monotonic() > deadline:
            raise DeviceError(
                f"{drive} is still there {LEAVE_TIMEOUT_S:g} s after the last byte: its ROM has "
                f"not received every block; {BOOTSEL}"
            )
        time.sleep(0.1)
