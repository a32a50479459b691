"""The portable C on an emulated windowed Xtensa core with FPU (QEMU's machine `sim`, de233_fpu).

clang has Xtensa, but not the core's options: it makes LLVM code, llc the assembly for an ESP32 core
without the instruction that de233_fpu lacks, llvm-mc objects, and GNU ld of another Xtensa links.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from c_build import FIRMWARE, STRICT_FLAGS, require_tool

from quads_mcu.device import build

HERE = Path(__file__).resolve().parent / "xtensa"
LLVM = 22
TOOLS = (f"clang-{LLVM}", f"llc-{LLVM}", f"llvm-mc-{LLVM}", "xtensa-lx106-elf-ld")
ASSEMBLE = [TOOLS[2], "-triple=xtensa", "-mcpu=esp32", "-filetype=obj"]
EMULATOR = "qemu-system-xtensa"
TIMEOUT_S = 120


def require_xtensa() -> None:
    """Skip the test, naming the program, when the tools are not installed."""
    for tool in (*TOOLS, EMULATOR):
        require_tool(tool)


@dataclass(frozen=True)
class Kernels:
    """A variant of the kernels: its name, settings of the build, files beside the runtime's."""

    name: str = "plain"
    settings: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()


PLAIN = Kernels()


def sources(model_dir: Path, files: str, kernels: Kernels) -> list[Path]:
    """Runtime, model and test program; `files`: files_host.c or files_simcall.c."""
    return [
        *(path for path in build.runtime_sources(kernels.name) if path.suffix == ".c"),
        *kernels.files,
        model_dir / "model_data.c",
        HERE / "main.c",
        HERE / files,
    ]


def includes(model_dir: Path) -> list[str]:
    folders = [HERE, model_dir, FIRMWARE / "include", FIRMWARE / "src"]
    return [f"-I{folder}" for folder in folders]


def build_host(model_dir: Path, out_dir: Path, kernels: Kernels = PLAIN) -> Path:
    """Return the test program for this PC."""
    program = out_dir / "host"
    files = map(str, sources(model_dir, "files_host.c", kernels))
    _run(
        [
            require_tool("gcc"),
            *STRICT_FLAGS,
            "-O2",
            *kernels.settings,
            *includes(model_dir),
            *files,
            "-o",
            str(program),
        ]
    )
    return program


def build_xtensa(model_dir: Path, out_dir: Path, kernels: Kernels = PLAIN) -> Path:
    """Return the test program as an ELF file for the emulated core."""
    return _link("sim.ld", ["start"], model_dir, out_dir, kernels)


def build_esp32s3(model_dir: Path, out_dir: Path) -> Path:
    """Return the same program as an ELF file with the memory map of an ESP32-S3 application.

    Nothing here can run it: it is what esptool makes flash images of.
    """
    return _link("esp32s3.ld", ["app_description", "start"], model_dir, out_dir, PLAIN)


def _link(
    script: str, first: Sequence[str], model_dir: Path, out_dir: Path, kernels: Kernels
) -> Path:
    objects = []
    for name in first:
        objects.append(str(out_dir / f"{name}.o"))
        _run([*ASSEMBLE, str(HERE / f"{name}.S"), "-o", objects[-1]])
    objects += _compile(model_dir, out_dir, kernels)
    program = (out_dir / script).with_suffix(".elf")
    command = [TOOLS[3], "--no-relax", "--no-warn-rwx-segments", "-T", str(HERE / script)]
    _run([*command, *objects, "-o", str(program)])
    return program


def _compile(model_dir: Path, out_dir: Path, kernels: Kernels) -> list[str]:
    """Return object files of runtime, model and test program."""
    clang, llc, _, _ = TOOLS
    flags = ["--target=xtensa", *STRICT_FLAGS, "-O2", "-ffreestanding", "-fno-builtin"]
    flags += [f"-I{HERE / 'include'}", *includes(model_dir), *kernels.settings]
    flags += ["-emit-llvm", "-c"]

    def compiled(source: Path) -> str:
        stem = out_dir / source.stem
        code, text, target = (f"{stem}.{suffix}" for suffix in ("bc", "s", "o"))
        _run([clang, *flags, str(source), "-o", code])
        _run([llc, "-mtriple=xtensa", "-mcpu=esp32", "-mattr=-mul32high", code, "-o", text])
        # Literals lie between functions, and llc does not align them.
        assembly = Path(text).read_text()
        literals = "\t.literal_position"
        Path(text).write_text(assembly.replace(literals, f"\t.p2align 2\n{literals}"))
        _run([*ASSEMBLE, text, "-o", target])
        return target

    with ThreadPoolExecutor(2) as pool:
        files = [*sources(model_dir, "files_simcall.c", kernels), HERE / "support.c"]
        return list(pool.map(compiled, files))


def run_host(program: Path, folder: Path) -> None:
    _run([str(program)], folder)


# Ticks of the cycle counter per instruction: 64 ns of virtual time each, a core of 40 MHz.
ICOUNT = ("-icount", "shift=6")
TICKS_PER_INSTRUCTION = 2.56


def run_xtensa(program: Path, folder: Path, options: Sequence[str] = ()) -> None:
    """Run the program on the emulated core; with ICOUNT its "ticks" count instructions."""
    command = [require_tool(EMULATOR), "-M", "sim", "-cpu", "de233_fpu", "-semihosting", *options]
    command += ["-display", "none", "-monitor", "none", "-serial", "null", "-kernel", str(program)]
    _run(command, folder)


def _run(command: Sequence[str], folder: Path | None = None) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    if done.returncode:
        pytest.fail(f"{' '.join(command)}\nended with {done.returncode}\n{done.stderr}")
