"""Flash boards with Arduino's own boot loader: arduino-cli enters it, writes and verifies.

The boot loader stays whatever happens; two quick presses of the reset button enter it by hand.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from quads_mcu.console import Progress
from quads_mcu.device import link, process
from quads_mcu.device.boards import Board
from quads_mcu.device.elf import Elf
from quads_mcu.device.flashers import plan as plans
from quads_mcu.device.flashers.plan import Part, Plan
from quads_mcu.errors import DeviceError, InstallationError, LinkError

PRODUCTS = ("build/*/*.ino.elf", ".pio/build/*/firmware.elf", "build/zephyr/zephyr.elf")
# USB vendor and products: application and boot loader (boards.txt of arduino:mbed_nano).
USB_IDS = {"arduino-nano33ble": {(0x2341, 0x805A), (0x2341, 0x005A)}}


def read(board: Board, folder: Path, program: str) -> Plan:
    """Return the checked plan of the build in `folder`.

    Raises:
        BuildError: there is no build.
        DeviceError: it does not fit.
    """
    path = plans.product(folder, PRODUCTS, program, "ELF file")
    region = board.region("code")
    end = region.start + region.size_bytes
    inside = [one for one in Elf(path).loaded() if region.start <= one[0] < end]
    result = Plan(board.name, tuple(Part("firmware", at, data, str(path)) for at, data in inside))
    plans.check(result, region.start, region.size_bytes)
    return result


def command(plan: Plan, board: Board, port: str) -> list[str]:
    """Return the command that writes and verifies the build."""
    folder = str(Path(plan.parts[0].file).parent)
    board_name = board.project["arduino_fqbn"]
    return ["arduino-cli", "upload", "--verify", "-b", board_name, "-p", port,
            "--input-dir", folder]  # fmt: skip


def flash(plan: Plan, board: Board, port: str, progress: Progress) -> str:
    """Check by its USB ids that the port is this board's, write and verify; return the tool.

    Raises:
        InstallationError: arduino-cli is missing.
        LinkError: no such port, busy or no permission.
        DeviceError: another board, or writing or verifying failed.
    """
    if shutil.which("arduino-cli") is None:
        raise InstallationError(
            "arduino-cli is not installed (arduino.github.io/arduino-cli); it enters this board's "
            "boot loader. Then: arduino-cli core install arduino:mbed_nano"
        )
    link.check(port)
    found = link.usb_ids(port)
    if found and found not in USB_IDS[board.name]:
        raise DeviceError(
            f"{port} is the USB device {found[0]:04x}:{found[1]:04x}, which is no {board.name}; "
            "nothing was written"
        )
    progress("writing and verifying", 0, 1)
    code, text = process.run(command(plan, board, port))
    if code:
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        raise LinkError(
            f"arduino-cli could not write or verify: {lines[-1] if lines else 'no reason given'}. "
            "The boot loader is untouched: press reset twice and run the command again"
        )
    progress("writing and verifying", 1, 1)
    return "arduino-cli"
