"""Flash chips through a debug probe: pyOCD, OpenOCD or probe-rs, whichever is installed.

Identity, flash size and read protection are registers of the chip, read before anything is written;
a locked chip is refused, never unlocked, because unlocking erases it. Every tool reads back what it
wrote. A probe needs no firmware on the chip, so that an interrupted flash is simply repeated.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from quads_mcu.console import Progress
from quads_mcu.device import process
from quads_mcu.device.boards import Board
from quads_mcu.device.elf import Elf
from quads_mcu.device.flashers import plan as plans
from quads_mcu.device.flashers.plan import Part, Plan
from quads_mcu.errors import DeviceError, InstallationError, LinkError, QuadsError

TOOLS = {
    "pyocd": "pip install pyocd",
    "openocd": "apt install openocd",
    "probe-rs": "cargo install probe-rs-tools --locked",
}
ELF_PRODUCTS = ("build/*.elf", "build/zephyr/zephyr.elf", ".pio/build/*/firmware.elf")
NO_PROBE = (
    r"[Nn]o (?:connected |available |target )?(?:debug probe|probe|device|J-Link)|open failed"
)
LOCKED = r"APPROTECT|[Ll]ocked|protect|RDP|erase.all"


@dataclass(frozen=True)
class Identity:
    """Registers of a chip, and what the tools call it.

    part: address, mask, value. flash_kib: address of its size. protection: address, mask, value
    when off; None: the probe cannot read anything of a protected chip. openocd: configuration;
    "": not supported there.
    """

    part: tuple[int, int, int]
    flash_kib: int
    protection: tuple[int, int, int] | None
    openocd: str
    probe_rs: str
    source: str


IDENTITIES = {
    "STM32F411": Identity(
        (0xE004_2000, 0xFFF, 0x431), 0x1FFF_7A22, (0x4002_3C14, 0xFF00, 0xAA00),
        "board/st_nucleo_f4.cfg", "STM32F411RETx",
        "RM0383: DBGMCU_IDCODE 23.6.1, flash size 24.2, FLASH_OPTCR 3.8.6",
    ),
    "STM32H743": Identity(
        (0x5C00_1000, 0xFFF, 0x450), 0x1FF1_E880, (0x5200_201C, 0xFF00, 0xAA00),
        "board/st_nucleo_h743zi.cfg", "STM32H743ZITx",
        "RM0433: DBGMCU_IDC, flash size data register, FLASH_OPTSR_CUR",
    ),
    "nRF52840": Identity(
        (0x1000_0100, 0xFFFF_FFFF, 0x52840), 0x1000_0110, None,
        "board/nordic_nrf52_dk.cfg", "nRF52840_xxAA",
        "nRF52840 Product Specification: FICR INFO.PART, INFO.FLASH",
    ),
    "nRF5340": Identity(
        (0x00FF_020C, 0xFFFF_FFFF, 0x5340), 0x00FF_021C, None,
        "", "nRF5340_xxAA",
        "nRF5340 Product Specification: FICR INFO.PART, INFO.FLASH",
    ),
}  # fmt: skip


def read(board: Board, folder: Path, program: str) -> Plan:
    """Return the checked plan of the ELF file of the build in `folder`.

    Raises:
        BuildError: there is no build.
        DeviceError: it does not fit the flash.
    """
    path = plans.product(folder, ELF_PRODUCTS, program, "ELF file")
    start = board.region("code").start
    inside = [one for one in Elf(path).loaded() if start <= one[0] < start + board.flash_bytes]
    result = Plan(board.name, tuple(Part("firmware", at, data, str(path)) for at, data in inside))
    plans.check(result, start, board.flash_bytes)
    return result


def tool(board: Board) -> str:
    """Return the first of TOOLS that is installed and knows the chip.

    Raises:
        InstallationError: none is.
    """
    for name in TOOLS:
        if shutil.which(name) and (name != "openocd" or IDENTITIES[board.chip].openocd):
            return name
    assert board.flasher is not None
    raise InstallationError(
        f"{', '.join(TOOLS)}: none is installed; one of them flashes {board.name} through a debug "
        f"probe. To get the first: {board.flasher.install}"
    )


def commands(plan: Plan, board: Board, probe: str) -> list[list[str]]:
    """Return the commands that write and verify `plan`, with the parts' own file names."""
    files = [part.file for part in plan.parts]
    return _write(tool(board), board, probe, list(zip(plan.parts, files, strict=True)))


def flash(plan: Plan, board: Board, probe: str, progress: Progress) -> str:
    """Check the chip, write `plan`, verify it and reset; return the tool. probe: its id, or "".

    Raises:
        InstallationError: no tool.
        LinkError: no probe or no chip.
        DeviceError: another chip, too small, locked, or it reads back something else.
    """
    name = tool(board)
    _check(name, plan, board, probe)
    with tempfile.TemporaryDirectory(prefix="quads-flash-") as folder:
        files = []
        for index, part in enumerate(plan.parts):
            path = Path(folder) / f"{index}.bin"
            path.write_bytes(part.data)
            files.append((part, str(path)))
        steps = _write(name, board, probe, files)
        for count, step in enumerate(steps):
            progress(f"{name}: writing and verifying", count, len(steps))
            code, text = process.run(step)
            if code or (step[1] == "commander" and "Mismatched" in text):
                raise _problem(name, board, text, "the firmware is not complete: flash again")
        progress(f"{name}: writing and verifying", len(steps), len(steps))
    return name


# --- checks --------------------------------------------------------------------------------


def _check(name: str, plan: Plan, board: Board, probe: str) -> None:
    identity = IDENTITIES[board.chip]
    address, mask, value = identity.part
    found = _register(name, board, probe, address) & mask
    if found != value:
        raise DeviceError(
            f"the chip says {found:#x}, an {board.chip} says {value:#x} ({identity.source}); "
            "nothing was written: is this the right board?"
        )
    if identity.protection:
        address, mask, value = identity.protection
        if _register(name, board, probe, address) & mask != value:
            raise DeviceError(_locked(board))
    word = _register(name, board, probe, identity.flash_kib & ~3)
    kib = (word >> 8 * (identity.flash_kib & 3)) & 0xFFFF
    needed = max(part.end for part in plan.parts) - board.region("code").start
    if kib << 10 < needed:
        raise DeviceError(
            f"the chip has {kib} KiB of flash, the firmware needs {needed:,} bytes; nothing was "
            "written: take fewer bits or a smaller student"
        )


def _register(name: str, board: Board, probe: str, address: int) -> int:
    code, text = process.run(_read(name, board, probe, address))
    lines = re.findall(rf"^(?:(?:0x)?{address:08x}: +)?([0-9a-f]{{8}})\b", text, re.M | re.I)
    if code or not lines:
        raise _problem(name, board, text, "nothing was written")
    return int(lines[-1], 16)


def _locked(board: Board) -> str:
    return (
        f"the {board.chip} is read-protected; nothing was written. Unlocking erases everything on "
        "it: if that is what you want, do it with the vendor's tool, then flash again"
    )


def _problem(name: str, board: Board, text: str, state: str) -> QuadsError:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = next((line for line in lines if re.search("rror|critical|fail", line)), "")
    said = said or (lines[-1] if lines else "no reason given")
    if "not recognized" in text and board.flasher:
        return InstallationError(f"{name}: {said}; {state}. To get it: {board.flasher.install}")
    if re.search(NO_PROBE, text):
        return LinkError(
            f"{name} finds no debug probe ({said}); {state}. Plug it in; on Linux it needs udev "
            "rules (pyocd.io/docs/installing) and no other program that holds it"
        )
    if re.search(LOCKED, text):
        return DeviceError(_locked(board))
    return LinkError(f"{name}: {said}; {state}. Is the board powered and the probe wired to it?")


# --- command lines -------------------------------------------------------------------------


def _read(name: str, board: Board, probe: str, address: int) -> list[str]:
    identity = IDENTITIES[board.chip]
    if name == "pyocd":
        return [*_pyocd("commander", board, probe), "-M", "attach", "-c", f"read32 {address:#x}"]
    if name == "openocd":
        return [*_openocd(identity, probe), "-c", f"init; mdw {address:#x}; shutdown"]
    chip = ["--chip", identity.probe_rs, *(["--probe", probe] if probe else [])]
    return ["probe-rs", "read", *chip, "b32", f"{address:#x}", "1"]


def _write(name: str, board: Board, probe: str, parts: list[tuple[Part, str]]) -> list[list[str]]:
    identity = IDENTITIES[board.chip]
    places = [(f"{part.offset:#x}", file) for part, file in parts]
    if name == "pyocd":
        load = [*_pyocd("load", board, probe), "--format", "bin", "--no-reset"]
        check = [*_pyocd("commander", board, probe), "-M", "halt"]
        for at, file in places:
            check += ["-c", f"compare {at} {file}"]
        return [[*load, "-a", at, file] for at, file in places] + [[*check, "-c", "reset"]]
    if name == "openocd":
        step = _openocd(identity, probe)
        for at, file in places:
            step += ["-c", f"program {file} {at} verify"]
        return [[*step, "-c", "reset run; shutdown"]]
    chip = ["--chip", identity.probe_rs, *(["--probe", probe] if probe else [])]
    load = ["probe-rs", "download", *chip, "--verify", "--binary-format", "bin"]
    steps = [[*load, "--base-address", at, file] for at, file in places]
    return [*steps, ["probe-rs", "reset", *chip]]


def _pyocd(verb: str, board: Board, probe: str) -> list[str]:
    """auto_unlock=false: pyOCD would else erase a protected chip to get at it."""
    assert board.flasher is not None
    which = ["-u", probe] if probe else []
    return ["pyocd", verb, "-t", board.flasher.target, "-W", "-O", "auto_unlock=false", *which]


def _openocd(identity: Identity, probe: str) -> list[str]:
    which = ["-c", f"adapter serial {probe}"] if probe else []
    return ["openocd", "-f", identity.openocd, *which]
