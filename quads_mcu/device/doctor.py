"""What this computer has and lacks for each target, and the command that fixes it."""

from __future__ import annotations

import getpass
import grp
import os
import re
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from quads_mcu.device import build, project_build
from quads_mcu.device.boards import Board
from quads_mcu.device.flashers import swd
from quads_mcu.errors import BuildError, InstallationError

VERSION_TIMEOUT_S = 20.0
VERSION_ARGUMENTS = {"picotool": "version", "arduino-cli": "version"}
# Packages that verbs of some use need: (distribution, what for, how to get it).
PACKAGES = (
    ("esptool", "flash ESP chips", "pip install 'quads-mcu[flash]'"),
    ("torch", "train", "pip install 'quads-mcu[train]'"),
    ("tensorflow", "convert and validate (TFLite)", "pip install 'quads-mcu[tflite]'"),
    ("espeakng-loader", "synth", "pip install 'quads-mcu[synth]'"),
    ("pytest", "test", "pip install 'quads-mcu[hil]'"),
)
# USB devices by vendor, or vendor and product: what they are.
USB_NAMES = {
    (0x303A, 0x1001): "ESP32-S3 or -C3, own USB",
    (0x303A, None): "Espressif",
    (0x10C4, 0xEA60): "CP210x",
    (0x1A86, None): "CH340 or CH910x",
    (0x0403, None): "FTDI",
    (0x2E8A, None): "Raspberry Pi",
    (0x2341, None): "Arduino",
    (0x0483, None): "ST-LINK",
    (0x1366, None): "J-Link",
    (0x0D28, None): "DAPLink",
}
UDEV_FOLDERS = ("/etc/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d")
# Vendors that tools reach by USB instead of a serial port.
UDEV_VENDORS = {
    "2e8a": "picotool: RP2040, RP2350",
    "0483": "debug probe ST-LINK: NUCLEO boards",
    "1366": "debug probe J-Link: nRF boards",
    "0d28": "debug probe DAPLink",
}


@dataclass(frozen=True)
class Finding:
    """One thing that is there (`found`: version or place) or is missing (""), and how to fix it."""

    name: str
    purpose: str
    found: str
    fix: str


@dataclass(frozen=True)
class Port:
    """A serial port. usable: may be opened for reading and writing by this user."""

    device: str
    description: str
    usb: str
    usable: bool
    fix: str


@dataclass(frozen=True)
class Readiness:
    """What a target lacks; ready: it can be built, and flashed or started."""

    target: str
    missing: tuple[Finding, ...]

    @property
    def ready(self) -> bool:
        """Whether nothing is missing."""
        return not self.missing


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found."""

    programs: tuple[Finding, ...]
    packages: tuple[Finding, ...]
    ports: tuple[Port, ...]
    permissions: tuple[Finding, ...]
    targets: tuple[Readiness, ...]

    def to_json(self) -> dict[str, Any]:
        """Return everything as plain values."""
        values = asdict(self)
        for target, one in zip(values["targets"], self.targets, strict=True):
            target["ready"] = one.ready
        return values


def diagnose(boards: Sequence[Board]) -> Diagnosis:
    """Look for what `boards` need on this computer."""
    return Diagnosis(
        programs=tuple(_programs(boards)),
        packages=tuple(_packages()),
        ports=tuple(_ports()),
        permissions=tuple(_permissions(boards)),
        targets=tuple(readiness(board) for board in boards),
    )


def readiness(board: Board) -> Readiness:
    """Return what is missing to build for `board` and to flash or start it."""
    lacks = _for_project(board) if board.kind == "chip" else _for_firmware(board)
    return Readiness(board.name, tuple(lacks))


# --- targets -------------------------------------------------------------------------------


def _for_firmware(board: Board) -> list[Finding]:
    lacks = []
    try:
        build.find_compiler(board)
    except BuildError:
        names = " or ".join(board.toolchain.compilers)
        lacks.append(Finding(names, f"build {board.name}", "", board.toolchain.install))
    if board.emulator and shutil.which(board.emulator.command[0]) is None:
        program, install = board.emulator.command[0], board.emulator.install
        lacks.append(Finding(program, f"start {board.name}", "", install))
    return lacks


def _for_project(board: Board) -> list[Finding]:
    """One format that can be built is enough; else the first one's lacks are told."""
    lacks = []
    if all(project_build.missing(fmt) for fmt in board.formats):
        fmt = board.formats[0]
        names = ", ".join(project_build.missing(fmt))
        install = project_build.install(board, fmt)
        lacks.append(Finding(names, f"build {fmt} projects for {board.name}", "", install))
    assert board.flasher is not None
    flasher = board.flasher
    if not _has_flasher(board):
        lacks.append(Finding(flasher.tool, f"flash {board.name}", "", flasher.install))
    return lacks


def _has_flasher(board: Board) -> bool:
    assert board.flasher is not None
    if board.flasher.tool == "esptool":
        return bool(_version_of_package("esptool").startswith("5."))
    if board.flasher.tool == "picotool":
        return True  # the ROM's drive takes a file without any tool
    if board.flasher.tool != "pyocd":
        return True  # comes with the core that builds for it
    try:
        return bool(swd.tool(board))
    except InstallationError:
        return False


# --- programs and packages -----------------------------------------------------------------


def _programs(boards: Sequence[Board]) -> list[Finding]:
    """Return compilers, emulators, build systems and flashers of the boards, each once."""
    wanted: dict[str, tuple[str, str]] = {}

    def want(name: str, purpose: str, fix: str) -> None:
        wanted.setdefault(name, (purpose, fix))

    for board in boards:
        if board.kind != "chip":
            want(board.toolchain.compilers[0], "compile firmware", board.toolchain.install)
        if board.emulator:
            want(board.emulator.command[0], "emulate boards", board.emulator.install)
        for fmt in board.formats:
            builder = project_build.BUILDERS[fmt]
            for program in builder.programs:
                want(program, f"build {fmt} projects", builder.install)
        if board.flasher and board.flasher.tool == "pyocd":
            for program, install in swd.TOOLS.items():
                want(program, "flash by a debug probe (one is enough)", install)
        elif board.flasher and board.flasher.tool == "picotool":
            want("picotool", "flash RP2 boards (or copy to the drive)", board.flasher.install)
    with ThreadPoolExecutor(4) as pool:
        versions = pool.map(_version_of_program, wanted)
    return [
        Finding(name, *wanted[name][:1], found, "" if found else wanted[name][1])
        for name, found in zip(wanted, versions, strict=True)
    ]


def _version_of_program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        return ""
    try:
        done = subprocess.run(
            [path, VERSION_ARGUMENTS.get(name, "--version")], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", check=False,
            timeout=VERSION_TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return path
    told = re.search(r"\d+\.\d+[\w.+-]*", done.stdout or done.stderr)
    return told[0] if told else path


def _packages() -> list[Finding]:
    found = [(name, purpose, _version_of_package(name), fix) for name, purpose, fix in PACKAGES]
    return [
        Finding(name, purpose, version, "" if version else fix)
        for name, purpose, version, fix in found
    ]


def _version_of_package(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


# --- ports and permissions -----------------------------------------------------------------


def _comports() -> list[Any]:
    from serial.tools import list_ports

    return sorted(list_ports.comports())


def _ports() -> list[Port]:
    found = []
    for port in _comports():
        usb, name = "", ""
        if port.vid is not None:
            usb = f"{port.vid:04x}:{port.pid:04x}"
            name = USB_NAMES.get((port.vid, port.pid)) or USB_NAMES.get((port.vid, None), "")
        usable = os.access(port.device, os.R_OK | os.W_OK)
        fix = "" if usable else _group_fix(_group_of(port.device))
        text = ", ".join(one for one in (name, port.description) if one and one != "n/a")
        found.append(Port(port.device, text, usb, usable, fix))
    return found


def _group_of(device: str) -> str:
    try:
        return grp.getgrgid(Path(device).stat().st_gid).gr_name
    except (OSError, KeyError):
        return "dialout"


def _group_fix(group: str) -> str:
    return f"sudo usermod -aG {group} $USER   (then log in again)"


def _permissions(boards: Sequence[Board]) -> list[Finding]:
    found = [_group_finding()]
    tools = {board.flasher.tool for board in boards if board.flasher}
    rules = _udev_rules()
    for vendor, purpose in UDEV_VENDORS.items():
        if ("picotool" if vendor == "2e8a" else "pyocd") not in tools or not rules:
            continue
        place = next((name for name, text in rules.items() if vendor in text.lower()), "")
        place = place or ("root needs none" if os.geteuid() == 0 else "")
        found.append(Finding(f"udev rule for {vendor}", purpose, place, _udev_fix(vendor, place)))
    return found


def _group_finding() -> Finding:
    """Return whether this user may open serial ports: by the group that owns them."""
    groups = {group.gr_name: group for group in grp.getgrall()}
    name = next((one for one in ("dialout", "uucp") if one in groups), "dialout")
    user, group = getpass.getuser(), groups.get(name)
    member = group is not None and (user in group.gr_mem or group.gr_gid in os.getgroups())
    found = "root" if os.geteuid() == 0 else ("member" if member else "")
    return Finding(f"group {name}", "open serial ports", found, "" if found else _group_fix(name))


def _udev_rules() -> dict[str, str]:
    rules = {}
    for folder in UDEV_FOLDERS:
        for path in Path(folder).glob("*.rules"):
            try:
                rules[str(path)] = path.read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
    return rules


def _udev_fix(vendor: str, place: str) -> str:
    if place:
        return ""
    rule = f'SUBSYSTEM==\\"usb\\", ATTRS{{idVendor}}==\\"{vendor}\\", TAG+=\\"uaccess\\"'
    return (
        f'echo "{rule}" | sudo tee /etc/udev/rules.d/70-quads-{vendor}.rules && sudo udevadm '
        "control --reload && sudo udevadm trigger"
    )


# --- text ----------------------------------------------------------------------------------


def lines(found: Diagnosis) -> list[str]:
    """Return a diagnosis as text, a fix under what is missing."""
    text = []
    for title, findings in (
        ("Programs", found.programs),
        ("Python packages", found.packages),
        ("Permissions", found.permissions),
    ):
        text += [title, *(line for one in findings for line in _told(one))]
    text += ["Ports", *(line for port in found.ports for line in _port_lines(port))]
    text += ["  none"] if not found.ports else []
    text += ["Targets", *(line for one in found.targets for line in _target_lines(one))]
    return text


def _told(one: Finding) -> list[str]:
    if one.found:
        return [f"  {one.name} ({one.found}): {one.purpose}"]
    return [f"  MISSING {one.name}: {one.purpose}", f"      {one.fix}"]


def _port_lines(port: Port) -> list[str]:
    text = " ".join(part for part in (port.device, port.usb, port.description) if part)
    return [f"  {text}"] if port.usable else [f"  NO PERMISSION {text}", f"      {port.fix}"]


def _target_lines(one: Readiness) -> list[str]:
    if one.ready:
        return [f"  {one.target}: ready"]
    text = [f"  {one.target}: lacks {', '.join(lack.name for lack in one.missing)}"]
    return text + [f"      {lack.fix}" for lack in one.missing]
