"""The Zephyr module under real CMake, its Kconfig parsed, its programs run on a PC."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from c_build import require_tool
from project_files import (
    LISTEN,
    WARNINGS,
    cmake,
    compile_all,
    exported_model,
    inferences_of_the_references,
    project_files,
    run,
    spoken,
    utterances,
    write_project,
)

from quads_mcu.device import boards
from quads_mcu.device.client import Client
from quads_mcu.device.flash import Session
from quads_mcu.device.link import Link
from quads_mcu.export import listener
from quads_mcu.export.listener import GateSettings
from quads_mcu.export.projects import zephyr

STUB = Path(__file__).parent / "zephyr"
BOARDS = [board.name for board in boards.all_boards() if "zephyr" in board.formats]
SERVER, DEMO = (
    ["CONFIG_QUADS=y", "CONFIG_QUADS_SERVER=y"],
    ["CONFIG_QUADS=y", "CONFIG_QUADS_DEMO=y"],
)
# Symbols that prj.conf, demo.conf and the module's Kconfig name, where Zephyr defines them:
# drivers/{gpio,serial,console,audio}/Kconfig, kernel/Kconfig, arch/Kconfig.
ZEPHYR_KCONFIG = """
config GPIO
	bool "GPIO"
config SERIAL
	bool "Serial"
	default y
config UART_INTERRUPT_DRIVEN
	bool "UART interrupts"
	depends on SERIAL
config CONSOLE
	bool "Console"
	default y
config UART_CONSOLE
	bool "UART console"
	depends on SERIAL
	select CONSOLE
config BOOT_BANNER
	bool "Boot banner"
	default y
config MAIN_STACK_SIZE
	int "Main stack"
	default 1024
config FPU
	bool "FPU"
config AUDIO
	bool "Audio"
if AUDIO
config AUDIO_DMIC
	bool "Microphones"
endif
"""


def build(
    folder: Path, config: list[str], out: Path, options: list[str], toolchain: Path | None = None
) -> None:
    """Configure and build the sample with Zephyr's stand-in."""
    out.mkdir()
    (out / ".config").write_text("\n".join(config) + "\n")
    defines = [f"-D{line.removesuffix('=y')}=1" for line in config]
    flags = " ".join([*defines, f"-I{STUB / 'include'}", *options])
    command = [cmake(), "-S", str(folder / "sample"), "-B", str(out / "build")]
    command += [f"-DDOTCONFIG={out / '.config'}", f"-DCMAKE_C_FLAGS={flags}"]
    command += [f"-DCMAKE_TOOLCHAIN_FILE={toolchain}"] if toolchain else []
    done = subprocess.run(
        command, capture_output=True, text=True, check=False,
        env=os.environ | {"ZEPHYR_BASE": str(STUB)},
    )  # fmt: skip
    assert done.returncode == 0 and "Warning" not in done.stderr, done.stderr
    run([cmake(), "--build", str(out / "build"), "-j2"])


@pytest.mark.parametrize(("config", "main"), [(SERVER, "server"), (DEMO, "demo")])
def test_cmake_builds_the_module_for_the_chip(tmp_path: Path, config: list[str], main: str) -> None:
    require_tool("arm-none-eabi-gcc")
    write_project("zephyr", "nrf52840", tmp_path / "quads")
    core = " ".join(boards.load("nrf52840").toolchain.flags)
    toolchain = tmp_path / "arm.cmake"
    toolchain.write_text(
        "set(CMAKE_SYSTEM_NAME Generic)\n"
        "set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)\n"
        "set(CMAKE_C_COMPILER arm-none-eabi-gcc)\n"
        f'set(CMAKE_ASM_FLAGS "{core}")\n'
    )
    options = [core, "-std=gnu17", "-Wall", "-Wextra", "-Werror"]
    build(tmp_path / "quads", config, tmp_path / "out", options, toolchain)
    library = tmp_path / "out" / "build" / "modules" / "quads" / "libquads.a"
    names = run(["arm-none-eabi-nm", str(library)])
    assert f" T quads_{main}_main" in names
    assert (" T microphone_start" in names) == (main == "demo")


@pytest.mark.parametrize("missing", ["quads/src/quads.c", "Kconfig", "quads/model"])
def test_cmake_stops_at_what_is_missing(tmp_path: Path, missing: str) -> None:
    write_project("zephyr", "rp2040", tmp_path / "quads")
    gone = tmp_path / "quads" / missing
    shutil.rmtree(gone) if gone.is_dir() else gone.unlink()
    with pytest.raises(AssertionError, match="does not exist"):
        build(tmp_path / "quads", SERVER, tmp_path / "out", [])


def sample(tmp_path: Path, config: list[str]) -> Path:
    """Return a program of the RP2040's module, linked for this PC."""
    write_project("zephyr", "rp2040", tmp_path / "quads")
    build(tmp_path / "quads", config, tmp_path / "out", ["-std=gnu17", *WARNINGS[:2], "-Werror"])
    libraries = [
        tmp_path / "out" / "build" / name for name in ("libapp.a", "modules/quads/libquads.a")
    ]
    host = compile_all("gcc", [f"-I{STUB / 'include'}"], [STUB / "host.c"], tmp_path / "host")
    program = tmp_path / "program"
    run(["gcc", "-pthread", *map(str, host), "-Wl,--start-group", *map(str, libraries),
         "-Wl,--end-group", "-o", str(program)])  # fmt: skip
    return program


def test_server_computes_what_the_reference_does(tmp_path: Path) -> None:
    packed = exported_model("rp2040")
    program = sample(tmp_path, SERVER)
    with Session(boards.load("rp2040"), [str(program)]) as session, Link(session.url) as link:
        client = Client(link)
        assert client.check(packed.model_hash).board == "rp2040"
        found = inferences_of_the_references(client, packed)
        accepted = sum(not one.rejected for one in found)
        assert session.output().count("toggled") == accepted > 0


def test_demo_says_what_its_twin_hears(tmp_path: Path) -> None:
    packed, pcm = exported_model("rp2040"), utterances()
    (tmp_path / "pcm.raw").write_bytes(pcm.tobytes())
    heard = listener.listen(packed, pcm, GateSettings.of(LISTEN))
    done = subprocess.run(
        [str(sample(tmp_path, DEMO))], capture_output=True, text=True, check=True, timeout=60,
        env=os.environ | {"PCM": str(tmp_path / "pcm.raw")},
    )  # fmt: skip
    assert done.stdout.splitlines() == ["listening", *spoken(packed, heard)]
    assert done.stderr.splitlines() == ["led 1 toggled"]


@pytest.mark.parametrize("board_name", BOARDS)
@pytest.mark.parametrize("demo", [False, True])
def test_kconfig_takes_every_setting(tmp_path: Path, board_name: str, demo: bool) -> None:
    kconfiglib = pytest.importorskip("kconfiglib", reason="kconfiglib is not installed")
    files = write_project("zephyr", board_name, tmp_path)
    (tmp_path / "Kconfig.zephyr").write_text(ZEPHYR_KCONFIG + f'source "{tmp_path}/Kconfig"\n')
    tree = kconfiglib.Kconfig(str(tmp_path / "Kconfig.zephyr"), warn_to_stderr=False)
    names = ["sample/prj.conf", *(["sample/demo.conf"] if demo else [])]
    for place, name in enumerate(names):
        tree.load_config(str(tmp_path / name), replace=place == 0)
    assert not tree.warnings
    values = {name: symbol.str_value for name, symbol in tree.syms.items()}
    assert values["QUADS_DEMO" if demo else "QUADS_SERVER"] == "y"
    assert values["QUADS_SERVER" if demo else "QUADS_DEMO"] == "n"
    for name in names:
        for key, value in re.findall(r"^CONFIG_(\w+)=(.+)$", str(files[name]), re.M):
            assert values[key] == value, key
    board = boards.load(board_name)
    assert values["FPU"] == ("y" if board.frontend == "float" else "n")
    assert values["MAIN_STACK_SIZE"] == str(board.stack_bytes)


@pytest.mark.parametrize("board_name", BOARDS)
def test_readme_and_overlay(board_name: str) -> None:
    assert board_name in zephyr.BOARDS
    files, board = project_files("zephyr", board_name), boards.load(board_name)
    readme = str(files["README.md"])
    assert f"west build -b {board.project['zephyr_board']} quads/sample" in readme
    assert "## Never run on silicon" in readme
    pins = zephyr.BOARDS[board_name].pins
    overlays = {name: str(text) for name, text in files.items() if name.endswith(".overlay")}
    assert bool(overlays) == (pins is not None)
    for name, text in overlays.items():
        assert name == f"sample/boards/{board.project['zephyr_board'].replace('/', '_')}.overlay"
        assert pins and f"<NRF_PSEL(PDM_CLK, 0, {pins[0]})>" in text
        assert "dmic_dev: &pdm0" in text and f"P0.{pins[1]}" in readme
