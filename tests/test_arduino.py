"""The Arduino library: compiled as the cores do, run on a PC that plays an Arduino."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from c_build import require_tool
from project_files import (
    LISTEN,
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

STUB = Path(__file__).parent / "arduino"
BOARDS = [board.name for board in boards.all_boards() if "arduino" in board.formats]
# cflags.txt and cxxflags.txt of ArduinoCore-mbed's Nano 33 BLE, with warnings as errors.
NANO = ["-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=softfp", "-mfpu=fpv4-sp-d16", "-Os",
        "-funsigned-char", "-ffunction-sections", "-fdata-sections", "-fomit-frame-pointer",
        "-DARDUINO_ARDUINO_NANO33BLE"]  # fmt: skip
STRICT = ["-Wall", "-Wextra", "-Werror"]
REQUIRED = {"name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url",
            "architectures"}  # fmt: skip
CATEGORIES = {"Display", "Communication", "Signal Input/Output", "Sensors", "Device Control",
              "Timing", "Data Storage", "Data Processing", "Other"}  # fmt: skip


def build(folder: Path, sketch: str, flags: list[str], tools: tuple[str, str]) -> list[Path]:
    """Compile library and sketch with the include folders that Arduino gives."""
    source = folder / "examples" / sketch / f"{sketch}.ino"
    as_cpp = folder / f"{sketch}.ino.cpp"
    as_cpp.write_text(f"#include <Arduino.h>\n{source.read_text()}")
    includes = [f"-I{folder / 'src'}", f"-I{STUB}"]
    c, cpp = tools
    library = sorted((folder / "src").rglob("*"))
    c_files = [path for path in library if path.suffix in {".c", ".S"}]
    cpp_files = [as_cpp, *(path for path in library if path.suffix == ".cpp")]
    objects = compile_all(c, [*flags, "-std=gnu11", *STRICT, *includes], c_files, folder / "c")
    flags = [*flags, "-std=gnu++14", "-fno-exceptions", "-fno-rtti", *STRICT, *includes]
    return objects + compile_all(cpp, flags, cpp_files, folder / sketch)


@pytest.fixture(scope="module")
def on_host(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return the sketches of the ESP32-C3's library, linked for this PC, by name."""
    folder = tmp_path_factory.mktemp("arduino")
    write_project("arduino", "esp32c3", folder)
    programs = {}
    for sketch in ("Server", "Listen"):
        objects = build(folder, sketch, ["-O2"], ("gcc", "g++"))
        programs[sketch] = folder / f"{sketch}.elf"
        host = compile_all("g++", [f"-I{STUB}", f"-I{folder / 'src'}"], [STUB / "host.cpp"], folder)
        run(["g++", *map(str, objects + host), "-o", str(programs[sketch])])
    return programs


def test_server_computes_what_the_reference_does(on_host: dict[str, Path]) -> None:
    packed = exported_model("esp32c3")
    with (
        Session(boards.load("esp32c3"), [str(on_host["Server"])]) as session,
        Link(session.url) as link,
    ):
        client = Client(link)
        assert client.check(packed.model_hash).board == "esp32c3"
        found = inferences_of_the_references(client, packed)
        accepted = sum(not one.rejected for one in found)
        assert session.output().count("pin 13 ") == accepted > 0


def test_listen_says_what_its_twin_hears(on_host: dict[str, Path], tmp_path: Path) -> None:
    packed, pcm = exported_model("esp32c3"), utterances()
    (tmp_path / "pcm.raw").write_bytes(pcm.tobytes())
    heard = listener.listen(packed, pcm, GateSettings.of(LISTEN))
    assert heard.rejected.tolist() == [False, True]
    done = subprocess.run(
        [str(on_host["Listen"]), str(tmp_path / "pcm.raw")],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["listening", *spoken(packed, heard)]
    assert done.stderr.splitlines() == [f"pin 13 {1 - answer % 2}" for answer in [1]]


@pytest.mark.parametrize("sketch", ["Server", "Listen"])
def test_compiles_as_for_the_nano_33_ble(tmp_path: Path, sketch: str) -> None:
    write_project("arduino", "arduino-nano33ble", tmp_path)
    objects = build(tmp_path, sketch, NANO, ("arm-none-eabi-gcc", "arm-none-eabi-g++"))
    needed = undefined(objects, tmp_path / "all.o")
    api = {"pinMode", "digitalWrite", "micros", "delay", "yield", "Serial", "PDM"}
    methods = {"begin", "available", "read", "write", "onReceive", "setGain"}
    c = {"memcpy", "memset", "memmove", "memchr", "strlen", "memcmp"}
    left = {name for name in needed if not name.startswith("__aeabi_")} - api - c
    mangled = re.compile(r"_ZN(?:14HardwareSerial|8PDMClass)\d+([a-zA-Z]+?)E")
    assert {match[1] if (match := mangled.match(name)) else name for name in left} <= methods


def undefined(objects: list[Path], target: Path) -> set[str]:
    """Link to one object; return the names it still lacks."""
    run(["arm-none-eabi-ld", "-r", *map(str, objects), "-o", str(target)])
    lines = run(["arm-none-eabi-nm", "--undefined-only", str(target)]).splitlines()
    return {line.split()[-1] for line in lines}


def test_features_use_no_fused_multiply_add(tmp_path: Path) -> None:
    files = project_files("arduino", "arduino-nano33ble")
    assert exported_model("arduino-nano33ble").frontend == "float"
    write_project("arduino", "arduino-nano33ble", tmp_path)
    sources = [tmp_path / name for name in files if re.match(r"src/frontend/.*\.c", name)]
    assert len(sources) >= 7
    flags = [*NANO, "-std=gnu11", f"-I{tmp_path / 'src'}"]
    disassemble = [require_tool("arm-none-eabi-objdump"), "-d"]
    fused = re.compile(r"\bvf(n)?m[as]\.f32")
    objects = compile_all("arm-none-eabi-gcc", flags, sources, tmp_path / "objects")
    assert not fused.search("".join(run([*disassemble, str(path)]) for path in objects))
    for path in sources:  # without the line at the top it would be
        path.write_text(path.read_text().split("\n", 3)[3])
    objects = compile_all("arm-none-eabi-gcc", flags, sources, tmp_path / "objects")
    assert fused.search("".join(run([*disassemble, str(path)]) for path in objects))


@pytest.mark.parametrize("board_name", BOARDS)
def test_library_metadata(board_name: str) -> None:
    files = project_files("arduino", board_name)
    lines = str(files["library.properties"]).splitlines()
    values = dict(line.split("=", 1) for line in lines)
    assert set(values) >= REQUIRED and all(values[key] for key in REQUIRED)
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9 ._-]*", values["name"])
    assert not values["name"].startswith("Arduino")
    assert re.fullmatch(r"\d+\.\d+\.\d+", values["version"])
    assert values["category"] in CATEGORIES
    assert f"src/{values['includes']}" in files
    assert values["architectures"] == boards.load(board_name).project["arduino_fqbn"].split(":")[1]
    kinds = {"KEYWORD1", "KEYWORD2", "LITERAL1"}
    keywords = [line.split("\t") for line in str(files["keywords.txt"]).splitlines() if line]
    assert len(keywords) > 15 and all(len(k) == 2 and k[1] in kinds for k in keywords)
    for sketch in ("Listen", "Server"):
        assert f"examples/{sketch}/{sketch}.ino" in files
    assert "## Never run on silicon" in str(files["README.md"])


@pytest.mark.parametrize("board_name", BOARDS)
def test_every_include_is_found_from_src_alone(board_name: str) -> None:
    files = project_files("arduino", board_name)
    for name, content in files.items():
        if not name.startswith("src/"):
            continue
        folder = Path(name).parent
        for include in re.findall(r'^#include "(.+)"', str(content), re.M):
            beside = (folder / include).as_posix()
            parts: list[str] = []
            for part in beside.split("/"):
                parts = parts[:-1] if part == ".." else [*parts, part]
            assert "/".join(parts) in files or f"src/{include}" in files, (name, include)
