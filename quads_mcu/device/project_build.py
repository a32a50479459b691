"""Build an exported project with the vendor's own tools, which are on the user's machine.

Nothing here replaces what the project's README says: the same commands, run in the same folder.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quads_mcu.console import Progress
from quads_mcu.device import process
from quads_mcu.device.boards import Board
from quads_mcu.errors import BuildError, DeviceError

SILENCE_S = 1800.0
ERROR_LINES = 4
LOG_NAME = "quads_build.log"


@dataclass(frozen=True)
class Builder:
    """What builds a format: programs and environment variables it needs, and how to get them."""

    programs: tuple[str, ...]
    variables: tuple[str, ...]
    install: str


BUILDERS = {
    "esp-idf": Builder(
        ("idf.py",), (),
        "git clone --recursive -b v5.5 https://github.com/espressif/esp-idf ~/esp/esp-idf && "
        "~/esp/esp-idf/install.sh, then in every new shell: . ~/esp/esp-idf/export.sh",
    ),
    "pico-sdk": Builder(
        ("cmake", "arm-none-eabi-gcc"), ("PICO_SDK_PATH",),
        "apt install cmake gcc-arm-none-eabi libnewlib-arm-none-eabi "
        "libstdc++-arm-none-eabi-newlib && git clone --recurse-submodules "
        "https://github.com/raspberrypi/pico-sdk && export PICO_SDK_PATH=$PWD/pico-sdk",
    ),
    "zephyr": Builder(
        ("west",), ("ZEPHYR_BASE",),
        "pip install west && west init ~/zephyrproject && cd ~/zephyrproject && west update && "
        "west packages pip --install && west sdk install, then in every new shell: "
        ". ~/zephyrproject/zephyr/zephyr-env.sh",
    ),
    "arduino": Builder(
        ("arduino-cli",), (),
        "curl -fsSL https://raw.githubusercontent.com/arduino/arduino-cli/master/install.sh | sh",
    ),
    "platformio": Builder(("pio",), (), "pip install platformio"),
    "cmsis": Builder(
        ("make", "arm-none-eabi-gcc"), (),
        "apt install make gcc-arm-none-eabi libnewlib-arm-none-eabi",
    ),
}  # fmt: skip


# Arduino cores that are not in its own index.
ARDUINO_INDEXES = {
    "esp32:esp32": "https://espressif.github.io/arduino-esp32/package_esp32_index.json",
    "rp2040:rp2040": "https://github.com/earlephilhower/arduino-pico/releases/download/global/"
    "package_rp2040_index.json",
}


def install(board: Board, fmt: str) -> str:
    """Return the commands that get what builds a format for `board`."""
    if fmt != "arduino":
        return BUILDERS[fmt].install
    core = ":".join(board.project["arduino_fqbn"].split(":")[:2])
    index = ARDUINO_INDEXES.get(core)
    more = f" --additional-urls {index}" if index else ""
    return f"{BUILDERS[fmt].install} && arduino-cli core install {core}{more}"


def missing(fmt: str) -> list[str]:
    """Return the programs and variables that building a format lacks here."""
    builder = BUILDERS[fmt]
    lacks = [name for name in builder.programs if shutil.which(name) is None]
    return lacks + [f"${name}" for name in builder.variables if not os.environ.get(name)]


def commands(board: Board, fmt: str, folder: Path) -> list[list[str]]:
    """Return the commands that build the project in `folder`, to be run there."""
    if fmt == "esp-idf":
        return [["idf.py", "build"]]
    if fmt == "platformio":
        return [["pio", "run", "-e", "server", "-e", "listen"]]
    if fmt == "cmsis":
        return [["make"]]
    if fmt == "zephyr":
        application = next(iter(sorted(folder.glob("**/prj.conf"))), folder)
        place = str(application.parent.relative_to(folder))
        return [["west", "build", "-b", board.project["zephyr_board"], "-d", "build", place]]
    if fmt == "arduino":
        name = board.project["arduino_fqbn"]
        sketches = sorted(path.parent for path in folder.glob("examples/*/*.ino"))
        return [
            ["arduino-cli", "compile", "-b", name, "--library", ".", "--output-dir",
             f"build/{sketch.name}", str(sketch.relative_to(folder))]
            for sketch in sketches
        ]  # fmt: skip
    return [["cmake", "-S", ".", "-B", "build"], ["cmake", "--build", "build"]]


def build(board: Board, fmt: str, folder: Path, progress: Progress) -> None:
    """Build the project of format `fmt` in `folder`; what was printed goes to its quads_build.log.

    Raises:
        BuildError: a tool is missing, or it failed; says what to do by hand.
    """
    steps = commands(board, fmt, folder)
    by_hand = " && ".join([f"cd {folder}", *(" ".join(step) for step in steps)])
    if lacks := missing(fmt):
        raise BuildError(
            f"{', '.join(lacks)}: missing; it builds {fmt} projects. To get it: "
            f"{install(board, fmt)}. The folder can also be built elsewhere: {by_hand}"
        )

    def follow(line: str) -> None:
        if found := re.match(r"\[ *(\d+)(?:/(\d+)|%)\]", line):  # ninja, make
            progress("building", int(found[1]), int(found[2] or 100))

    log = ""
    for step in steps:
        progress("building", 0, 1)
        try:
            code, text = process.run(step, follow, folder=folder, silence_s=SILENCE_S)
        except DeviceError as problem:
            raise BuildError(f"{problem}; build by hand: {by_hand}") from None
        log += f"$ {' '.join(step)}\n{text}\n"
        _write_log(folder / LOG_NAME, log)
        if code:
            raise BuildError(
                f"`{' '.join(step)}` in {folder} ended with {code}: {_errors(text.splitlines())}; "
                f"all of it is in {folder / LOG_NAME}"
            )
    progress("building", 1, 1)


def _write_log(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as problem:
        raise BuildError(f"{path}: {problem.strerror}") from None


def _errors(lines: Sequence[str]) -> str:
    telling = [
        line.strip() for line in lines if re.search(r"\berror\b|Error|overflow|FAILED", line)
    ]
    told = [line.strip() for line in lines if line.strip()]
    return " | ".join(telling[:ERROR_LINES] or told[-ERROR_LINES:]) or "it said nothing"
