"""Flashing chips: one module per tool, all in three steps.

    plan = flashers.read(board, folder)        what a build wants where; checked without the board
    flashers.commands(plan, board, port, baud)            what will be run
    flashers.flash(plan, board, port, baud, progress)     check the chip, write, verify, start

Emulated boards and this PC are not flashed but started: device.flash.
"""

from __future__ import annotations

from pathlib import Path

from quads_mcu.console import Progress
from quads_mcu.device import link
from quads_mcu.device.boards import Board
from quads_mcu.device.flashers import arduino, esp_project, esptool, rp2, swd
from quads_mcu.device.flashers.plan import Plan
from quads_mcu.errors import ConfigError

# Tools that need no serial port: they find the board by USB.
WITHOUT_PORT = ("picotool", "pyocd")


def tool(board: Board) -> str:
    """Return the name of the tool that flashes `board`.

    Raises:
        ConfigError: it is not flashed.
    """
    if board.flasher is None:
        raise ConfigError(f"{board.name} is not flashed, it is started; leave out these options")
    return board.flasher.tool


def read(board: Board, folder: Path, program: str = "server") -> Plan:
    """Return what the build in `folder`, an exported project, wants where in flash.

    program: of a project with two, the one that answers tests ("server") or listens ("demo").
    Raises:
        BuildError: there is no build.
        DeviceError: it is for another chip, or does not fit.
    """
    modules = {"esptool": esp_project, "picotool": rp2, "pyocd": swd}
    reader = modules.get(tool(board), arduino).read
    plan: Plan = reader(board, folder, program)
    return plan


def commands(plan: Plan, board: Board, port: str | None, baud: int | None) -> list[list[str]]:
    """Return the command lines that write `plan`; files are named where they were built."""
    name, place = tool(board), port or ""
    if name == "esptool":
        return [esptool.command(plan, board, place or "PORT", baud or esptool.BAUD)]
    if name == "picotool":
        return [rp2.command(plan, board, place)]
    if name == "pyocd":
        return swd.commands(plan, board, place)
    return [arduino.command(plan, board, place or "PORT")]


def flash(plan: Plan, board: Board, port: str | None, baud: int | None, progress: Progress) -> str:
    """Check the chip, write `plan`, verify it, start the board; return what was flashed by what.

    Args:
        port: serial port or URL; for RP2 the folder of the drive, for SWD the probe's id. None:
            the only one there is.
        baud: of a serial port; None: the tool's best.
    Raises:
        InstallationError: the tool is missing.
        LinkError: no such port, busy, no permission, no answer, or dropped on the way.
        DeviceError: another chip, too small, locked, or it reads back something else.
    """
    name = tool(board)
    place = port or ("" if name in WITHOUT_PORT else link.only_port())
    if name == "esptool":
        chip = esptool.flash(plan, board, place, baud or esptool.BAUD, progress)
        return f"{chip.description} at {place}"
    if name == "picotool":
        return rp2.flash(plan, board, place, progress)
    if name == "pyocd":
        return f"{board.chip} by {swd.flash(plan, board, place, progress)}"
    return f"{board.name} at {place} by {arduino.flash(plan, board, place, progress)}"


def plan_model(board: Board, port: str | None, baud: int | None, image: bytes) -> Plan:
    """Return a plan that replaces the model alone, in the slot that is not in use.

    Raises:
        ConfigError: this board's flasher cannot; the serial protocol may.
        LinkError, DeviceError: as `flash`; the board has no slots, or the image does not fit.
    """
    if tool(board) != "esptool":
        raise ConfigError(
            f"--model-only writes a partition of an ESP chip; {board.name} takes a new model with "
            "its firmware: export, build and flash"
        )
    esp_project.check_model(image, "the model image", board)
    place = port or link.only_port()
    return esptool.plan_model(board, place, baud or esptool.BAUD, image)
