"""Compile generated sources and the firmware tree into one ELF file, and measure it."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from quads_mcu.console import Progress
from quads_mcu.device.boards import Board
from quads_mcu.device.elf import Elf
from quads_mcu.errors import BuildError
from quads_mcu.paths import data_dir

FIRMWARE_NAME = "firmware.elf"
SUMMARY_NAME = "build.json"
BUILD_ID_BYTES = 8
COMPILE_FLAGS = (
    "-std=c11", "-O2", "-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror",
    "-ffp-contract=off", "-ffunction-sections", "-fdata-sections",
)  # fmt: skip
SANITIZE_FLAGS = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# What the model file defines beside weights and tables.
NOT_WEIGHTS = {"layers", "labels"}
ERROR_LINES = 6


@dataclass(frozen=True)
class Build:
    """A finished build. All sizes in bytes, measured in the ELF file.

    weight_bytes: indices, codebooks and tables of the model. flash_bytes: code, constants and
    initial data. ram_bytes: data, arena and, where the port has one, the stack region.
    """

    elf: Path
    text: int
    rodata: int
    data: int
    bss: int
    weight_bytes: int
    build_id: str
    compiler: str

    @property
    def flash_bytes(self) -> int:
        """Bytes that lie in flash."""
        return self.text + self.rodata + self.data

    @property
    def ram_bytes(self) -> int:
        """Bytes that lie in RAM."""
        return self.data + self.bss

    @classmethod
    def read(cls, out_dir: Path) -> Build:
        """Return the build whose ELF file lies in `out_dir`.

        Raises:
            BuildError: there is none, or its summary is damaged.
        """
        try:
            values = json.loads((out_dir / SUMMARY_NAME).read_text(encoding="utf-8"))
            return cls(elf=out_dir / FIRMWARE_NAME, **values)
        except OSError:
            raise BuildError(f"{out_dir} holds no build; run `quads-mcu build` first") from None
        except (ValueError, TypeError) as problem:
            raise BuildError(f"{out_dir / SUMMARY_NAME}: {problem}; build again") from None


def _silent(description: str, completed: float, total: float) -> None:
    del description, completed, total


def build(
    board: Board,
    source_dir: Path,
    out_dir: Path,
    sanitize: bool = False,
    progress: Progress = _silent,
    compiler: str | None = None,
) -> Build:
    """Compile the model in `source_dir` with the firmware for `board`; write out_dir/firmware.elf.

    Args:
        source_dir: what `quads-mcu export` wrote.
        out_dir: gets objects, linker script, ELF and build.json. The ELF appears only when whole.
        sanitize: host only: address and undefined-behaviour sanitizers.
        compiler: use this one instead of the board's candidates.
    Raises:
        BuildError: no source, no toolchain, code that does not compile, or a region that overflows.
    """
    if sanitize and board.kind != "host":
        raise BuildError(f"--sanitize runs on board host only, not on {board.name}")
    if not (source_dir / "model_data.c").is_file():
        raise BuildError(f"{source_dir} holds no exported model; run `quads-mcu export` first")
    firmware = data_dir("firmware")
    sources = [
        *sorted(source_dir.glob("*.c")),
        *sorted((firmware / "src").glob("*.c")),
        *sorted((firmware / "src" / "frontend").glob("*.c")),
        *kernel_sources(board.kernels),
        *sorted((firmware / "app").glob("*.c")),
        *sorted((firmware / "ports" / board.port).glob("*.c")),
    ]
    includes = [source_dir, firmware / "include", firmware / "src", firmware / "ports"]
    return compile_and_link(board, sources, includes, out_dir, sanitize, progress, compiler)


def kernel_sources(variant: str) -> list[Path]:
    """Return the C and assembly files of a kernel variant (boards.KERNELS).

    Every kernel is a file in plain/; a file of the same stem in the variant's folder replaces it,
    and whatever else lies there comes too.
    """
    folder = data_dir("firmware") / "src" / "kernels"
    chosen: dict[str, list[Path]] = {}
    for name in dict.fromkeys(("plain", variant)):
        stems: dict[str, list[Path]] = {}
        for path in sorted((folder / name).glob("*.[cS]")):
            stems.setdefault(path.stem, []).append(path)
        chosen |= stems
    return [path for stem in sorted(chosen) for path in chosen[stem]]


def compile_and_link(
    board: Board,
    sources: Sequence[Path],
    includes: Sequence[Path],
    out_dir: Path,
    sanitize: bool = False,
    progress: Progress = _silent,
    compiler: str | None = None,
) -> Build:
    """Compile any set of C files for `board`; the rest is as in `build`."""
    command, version = find_compiler(board, compiler)
    extra = SANITIZE_FLAGS if sanitize else ()
    build_id = _build_id(board, sources, includes, [version, *extra])
    flags = [*COMPILE_FLAGS, *board.toolchain.flags, *extra, *_defines(board, build_id)]
    flags += [f"-I{folder}" for folder in includes]
    try:
        out_dir.mkdir(parents=True, exist_ok=True)
        objects = _compile([*command, *flags], sources, out_dir, progress)
        elf = _link([*command, *board.toolchain.flags, *extra], board, objects, out_dir)
        return _measured(elf, build_id, version)
    except OSError as problem:
        raise BuildError(f"{problem.filename}: {problem.strerror}") from None


def find_compiler(board: Board, compiler: str | None = None) -> tuple[list[str], str]:
    """Return the command of the first compiler that is installed, and its version line.

    Raises:
        BuildError: none is; says what it is for and how to get one.
    """
    candidates = (compiler,) if compiler else board.toolchain.compilers
    for candidate in candidates:
        words = candidate.split()
        if words[0] == "python":
            if importlib.util.find_spec(words[2]) is None:
                continue
            words[0] = sys.executable
        elif shutil.which(words[0]) is None:
            continue
        done = subprocess.run([*words, "--version"], capture_output=True, text=True, check=False)
        if done.returncode == 0 and done.stdout:
            return words, done.stdout.splitlines()[0]
    other = "" if board.kind == "host" else "; or build for this PC: --target host"
    raise BuildError(
        f"{' / '.join(candidates)}: not installed; it compiles the firmware for {board.name}. "
        f"To get it: {board.toolchain.install}{other}"
    )


def _defines(board: Board, build_id: str) -> list[str]:
    values = {name: f"{value}u" for name, value in board.defines.items()}
    values["QUADS_KERNELS"] = f"QUADS_KERNELS_{board.kernels.upper()}"
    values["QUADS_CLOCK_HZ"] = f"{board.clock_hz}u"
    values["QUADS_BOARD_NAME"] = f'"{board.name}"'
    values["QUADS_BUILD_ID"] = "{" + ",".join(f"0x{b:02x}" for b in bytes.fromhex(build_id)) + "}"
    return [f"-D{name}={value}" for name, value in values.items()]


def _build_id(
    board: Board, sources: Iterable[Path], includes: Iterable[Path], settings: list[str]
) -> str:
    """Hash names and contents of all sources and headers, the board and the compiler."""
    digest = hashlib.sha256(json.dumps([board.to_json(), settings]).encode())
    headers = {header for folder in includes for header in folder.rglob("*.h")}
    for path in [*sources, *sorted(headers, key=lambda header: (header.name, str(header)))]:
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)}\n".encode() + content)
    return digest.digest()[:BUILD_ID_BYTES].hex()


def _compile(
    command: list[str], sources: Sequence[Path], out_dir: Path, progress: Progress
) -> list[Path]:
    folder = out_dir / "objects"
    folder.mkdir(exist_ok=True)
    # Numbered: two folders may hold files of the same name.
    objects = [folder / f"{index:02d}-{path.stem}.o" for index, path in enumerate(sources)]

    def run(item: tuple[Path, Path]) -> subprocess.CompletedProcess[str]:
        source, target = item
        return _run([*command, "-c", str(source), "-o", str(target)])

    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        try:
            jobs = pool.map(run, zip(sources, objects, strict=True))
            for count, (source, done) in enumerate(zip(sources, jobs, strict=True), 1):
                progress("compiling", count, len(sources))
                if done.returncode:
                    raise BuildError(f"{source.name} does not compile: {_errors(done.stderr)}")
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return objects


def _link(command: list[str], board: Board, objects: list[Path], out_dir: Path) -> Path:
    elf = out_dir / FIRMWARE_NAME
    options = ["-Wl,--gc-sections", *board.toolchain.link_flags]
    if board.memory:
        script = out_dir / "board.ld"
        _write_text(script, render_linker_script(board))
        options = [f"-T{script}", *options]
    handle, temporary = tempfile.mkstemp(dir=out_dir, prefix="link-")
    os.close(handle)
    try:
        done = _run([*command, *map(str, objects), *options, "-o", temporary])
        if done.returncode:
            raise BuildError(_overflow(board, done.stderr) or f"linking: {_errors(done.stderr)}")
        Path(temporary).chmod(0o755)
        (out_dir / SUMMARY_NAME).unlink(missing_ok=True)
        Path(temporary).replace(elf)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return elf


def render_linker_script(board: Board) -> str:
    """Return the linker script of a board with memory regions."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(data_dir("templates")), undefined=StrictUndefined
    )
    return environment.get_template(f"{board.port}.ld.j2").render(board=board) + "\n"


def _measured(elf: Path, build_id: str, compiler: str) -> Build:
    image = Elf(elf)
    sizes = image.sizes()
    weights = sum(
        symbol.size_bytes
        for symbol in image.objects()
        if symbol.source.endswith("model_data.c") and symbol.name not in NOT_WEIGHTS
    )
    found = Build(elf=elf, weight_bytes=weights, build_id=build_id, compiler=compiler,
                  **asdict(sizes))  # fmt: skip
    summary = {name: value for name, value in asdict(found).items() if name != "elf"}
    _write_text(elf.parent / SUMMARY_NAME, json.dumps(summary, indent=2) + "\n")
    return found


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, errors="replace", check=False,
        env=os.environ | {"LC_ALL": "C"},
    )  # fmt: skip


def _errors(text: str) -> str:
    """Return the first lines that say what is wrong."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    telling = [line for line in lines if re.search(r"\berror\b|undefined|overflow|cannot", line)]
    return " | ".join((telling or lines)[:ERROR_LINES]) or "the compiler said nothing"


def _overflow(board: Board, text: str) -> str | None:
    found = re.search(r"region [`'\"]?(\w+)'? overflowed by (\d+) bytes", text)
    if found is None:
        return None
    from quads_mcu.device.boards import overflow_text

    region = next(region for region in board.memory if region.name == found[1])
    return overflow_text(board, region, region.size_bytes + int(found[2]))


def _write_text(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
