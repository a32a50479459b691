"""ESP-IDF projects of a random model, and CMake with stubs in place of ESP-IDF."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import firmware_build
import pytest
from c_build import STRICT_FLAGS, require_tool

from quads_mcu.config import Config
from quads_mcu.device import boards
from quads_mcu.export import project as exports
from quads_mcu.export.projects import write

HERE = Path(__file__).resolve().parent / "esp_idf"
BOARDS = ("esp32s3", "esp32s3-n8r2", "esp32s3-n16r8", "esp32", "esp32c3")
XTENSA = ("clang-22", ("--target=xtensa", "-ffreestanding", "-fno-builtin", f"-I{HERE / 'libc'}",
                       "-emit-llvm"))  # fmt: skip
RISCV = ("riscv64-unknown-elf-gcc", ("-march=rv32imc", "-mabi=ilp32", "--specs=picolibc.specs"))
HOST = ("gcc", ())
COMPILERS = {"esp32s3": XTENSA, "esp32": XTENSA, "esp32c3": RISCV}
MICROPHONE = {"BCLK": 4, "WS": 5, "DATA": 6, "GAIN_BITS": 3}


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


@functools.cache
def exported(board_name: str, weights: str) -> Path:
    """Return a project of the small random model; shared, not to be changed."""
    board = boards.load(board_name)
    model = replace(firmware_build.model(), frontend=board.frontend)
    folder = Path(_folder().name) / f"{board_name}-{weights}"
    write("esp-idf", model, board, exports.predict(model, board), Config(), folder, weights)
    return folder


def copied(board_name: str, weights: str, to: Path) -> Path:
    """Return a copy of the project that a test may change."""
    return Path(shutil.copytree(exported(board_name, weights), to))


def settings(usb: bool, both_cores: bool, pie: bool) -> dict[str, int]:
    """Return what menuconfig would make of these choices, for the project's own menus."""
    values = {"QUADS_LINK_USB": usb, "QUADS_LINK_UART": not usb}
    values |= {"QUADS_BOTH_CORES": both_cores, "QUADS_PIE": pie}
    found = {name: 1 for name, chosen in values.items() if chosen}
    found |= {f"QUADS_MICROPHONE_{name}": value for name, value in MICROPHONE.items()}
    found |= {"QUADS_LINK_BAUD": 115200} if not usb else {}
    found |= {f"COMMAND_GPIO_{index}": 7 - 8 * (index > 0) for index in range(3)}
    return found | {"ESP_MAIN_TASK_STACK_SIZE": 6144, "FREERTOS_HZ": 1000}


def configure(
    source: Path,
    build: Path,
    values: dict[str, int],
    compiler: tuple[str, tuple[str, ...]] = HOST,
) -> subprocess.CompletedProcess[str]:
    """Run CMake; the stubs refuse what ESP-IDF would refuse."""
    build.mkdir(parents=True)
    lines = [f"CONFIG_{name}={value}" for name, value in values.items()]
    (build / "sdkconfig").write_text("\n".join(lines) + "\n")
    defines = [f"#define CONFIG_{name} {value}" for name, value in values.items()]
    (build / "sdkconfig.h").write_text("\n".join(defines) + "\n")
    name, flags = compiler
    flags = (*STRICT_FLAGS, *flags, "-O1", f"-I{build}")
    command = [cmake(), "-S", str(source), "-B", str(build), "-DCMAKE_SYSTEM_NAME=Generic"]
    command += [f"-DCMAKE_C_COMPILER={require_tool(name)}", "-DCMAKE_C_COMPILER_WORKS=1"]
    command += [f"-DCMAKE_C_FLAGS={' '.join(flags)}", "-G", "Unix Makefiles"]
    command += [f"-DSTUBS={HERE / 'include'}", f"-DCONFIGS={build / 'sdkconfig'}"]
    environment = os.environ | {"IDF_PATH": str(HERE / "idf")}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def compile_all(build: Path) -> None:
    """Compile every file of a configured project; a warning is an error."""
    done = subprocess.run(
        [cmake(), "--build", str(build), "-j2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


def cmake() -> str:
    """Return CMake: of this Python's environment (pip install cmake) or the system's."""
    own = Path(sys.executable).parent / "cmake"
    require_tool("make")
    if own.exists():
        return str(own)
    return require_tool("cmake")


def skip_without(*tools: str) -> None:
    """Skip the test, naming the first program that is not installed."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
