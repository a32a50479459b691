"""The PlatformIO project: its options are known, its sketches are those of the Arduino library."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from project_files import compile_all, project_files, run, write_project

from quads_mcu.device import boards

BOARDS = [board.name for board in boards.all_boards() if "platformio" in board.formats]
# Sections and options of platformio-docs, projectconf/.
OPTIONS = {
    "platformio": {"default_envs"},
    "env": {"platform", "board", "framework", "monitor_speed", "build_src_filter"},
}
# boards/<platform>/<board>.rst of platformio-docs, all with the framework arduino.
KNOWN = {
    "espressif32": {"esp32dev", "esp32-s3-devkitc-1", "esp32-c3-devkitm-1"},
    "nordicnrf52": {"nano33ble", "nrf52840_dk"},
    "raspberrypi": {"pico"},
    "ststm32": {"nucleo_f411re", "nucleo_h743zi"},
}
STUB = Path(__file__).parent / "arduino"


@pytest.mark.parametrize("board_name", BOARDS)
def test_platformio_ini(board_name: str) -> None:
    files = project_files("platformio", board_name)
    settings = configparser.ConfigParser()
    settings.read_string(str(files["platformio.ini"]))
    for section in settings.sections():
        assert set(settings[section]) <= OPTIONS[section.split(":")[0]], section
    assert settings["env"]["board"] in KNOWN[settings["env"]["platform"]]
    programs = [name for name in settings.sections() if name.startswith("env:")]
    assert settings["platformio"]["default_envs"] in {name[4:] for name in programs}
    for name in programs:
        match = re.fullmatch(r"\+<(\w+\.cpp)>", settings[name]["build_src_filter"])
        assert match and f"src/{match[1]}" in files
    assert "lib/quads/library.properties" in files
    assert "## Never run on silicon" in str(files["README.md"])


def test_sketches_and_library_compile(tmp_path: Path) -> None:
    """For the ESP32 this PC stands in: 32-bit code of the same C is proven elsewhere."""
    files = write_project("platformio", "esp32", tmp_path)
    library = tmp_path / "lib" / "quads" / "src"
    flags = ["-O1", "-Wall", "-Wextra", "-Werror", f"-I{library}", f"-I{STUB}"]
    names = [tmp_path / name for name in files]
    c = [path for path in names if path.suffix == ".c"]
    cpp = [path for path in names if path.suffix == ".cpp" and library in path.parents]
    objects = compile_all("gcc", [*flags, "-std=gnu11"], c, tmp_path / "c")
    objects += compile_all(
        "g++", [*flags, "-std=gnu++11"], [*cpp, STUB / "host.cpp"], tmp_path / "l"
    )
    for sketch in ("server", "listen"):
        own = compile_all(
            "g++", [*flags, "-std=gnu++11"], [tmp_path / "src" / f"{sketch}.cpp"], tmp_path / sketch
        )
        run(["g++", *map(str, objects + own), "-o", str(tmp_path / f"{sketch}.elf")])
