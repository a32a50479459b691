"""The ESP-IDF project: executed by CMake, compiled for Xtensa and RISC-V, partitions and settings.

ESP-IDF itself is not here: stubs (tests/esp_idf/) have the names, arguments and types of version
5.5. docs/verification.md says what was compared with ESP-IDF's own files.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from c_build import REPOSITORY
from esp_idf_project import BOARDS, COMPILERS, compile_all, configure, copied, exported, settings
from firmware_build import model

from quads_mcu.device import boards
from quads_mcu.errors import ExportError
from quads_mcu.export.projects import esp_idf, esp_partitions
from quads_mcu.export.projects.esp_partitions import Partition

WEIGHTS = ("bin", "header")
MIB = 1 << 20
# Kconfig symbols of ESP-IDF v5.5.5 that may be set, and the file that defines them.
SYMBOLS = {
    "IDF_TARGET": "Kconfig",
    "COMPILER_OPTIMIZATION_PERF": "Kconfig",
    "BOOTLOADER_LOG_LEVEL_WARN": "components/bootloader/Kconfig.log",
    "ESPTOOLPY_FLASHFREQ_80M": "components/spi_flash/TARGET/Kconfig.flash_freq",
    "ESPTOOLPY_FLASHMODE_QIO": "components/esptool_py/Kconfig.projbuild",
    "ESPTOOLPY_FLASHSIZE_4MB": "components/esptool_py/Kconfig.projbuild",
    "ESPTOOLPY_FLASHSIZE_8MB": "components/esptool_py/Kconfig.projbuild",
    "ESPTOOLPY_FLASHSIZE_16MB": "components/esptool_py/Kconfig.projbuild",
    "ESP32S3_DATA_CACHE_64KB": "components/esp_system/port/soc/esp32s3/Kconfig.cache",
    "ESP32S3_DATA_CACHE_LINE_64B": "components/esp_system/port/soc/esp32s3/Kconfig.cache",
    "ESP32S3_INSTRUCTION_CACHE_32KB": "components/esp_system/port/soc/esp32s3/Kconfig.cache",
    "ESP_CONSOLE_SECONDARY_NONE": "components/esp_system/Kconfig",
    "ESP_DEFAULT_CPU_FREQ_MHZ_160": "components/esp_system/port/soc/TARGET/Kconfig.cpu",
    "ESP_DEFAULT_CPU_FREQ_MHZ_240": "components/esp_system/port/soc/TARGET/Kconfig.cpu",
    "ESP_MAIN_TASK_STACK_SIZE": "components/esp_system/Kconfig",
    "ESP_TASK_WDT_CHECK_IDLE_TASK_CPU0": "components/esp_system/Kconfig",
    "ESP_TASK_WDT_CHECK_IDLE_TASK_CPU1": "components/esp_system/Kconfig",
    "FREERTOS_HZ": "components/freertos/Kconfig",
    "LOG_DEFAULT_LEVEL_WARN": "components/log/Kconfig.level",
    "PARTITION_TABLE_CUSTOM": "components/partition_table/Kconfig.projbuild",
    "PARTITION_TABLE_CUSTOM_FILENAME": "components/partition_table/Kconfig.projbuild",
    "SPIRAM": "components/esp_psram/esp32s3/Kconfig.spiram",
    "SPIRAM_ALLOW_BSS_SEG_EXTERNAL_MEMORY": "components/esp_psram/Kconfig.spiram.common",
    "SPIRAM_MODE_OCT": "components/esp_psram/esp32s3/Kconfig.spiram",
    "SPIRAM_MODE_QUAD": "components/esp_psram/esp32s3/Kconfig.spiram",
    "SPIRAM_SPEED_80M": "components/esp_psram/esp32s3/Kconfig.spiram",
}


def target_of(board: str) -> str:
    return boards.load(board).project["idf_target"]


# --- CMake and compilers ----------------------------------------------------------------------


@pytest.mark.parametrize("usb", [True, False])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("board", ["esp32s3", "esp32s3-n16r8", "esp32", "esp32c3"])
def test_everything_compiles_for_the_chip(
    tmp_path: Path, board: str, weights: str, usb: bool
) -> None:
    target = target_of(board)
    if usb and target == "esp32":
        usb = False  # it has no USB; the other settings are the ones not compiled elsewhere
    both = target != "esp32c3" and weights == "bin"
    values = settings(usb, both_cores=both, pie=False)
    done = configure(exported(board, weights), tmp_path / "build", values, COMPILERS[target])
    assert done.returncode == 0, done.stderr
    compile_all(tmp_path / "build")


def test_the_vector_unit_adds_its_assembly_and_changes_the_kernels(tmp_path: Path) -> None:
    values = settings(usb=True, both_cores=True, pie=True)
    project = exported("esp32s3", "bin")
    done = configure(project, tmp_path / "build", values, COMPILERS["esp32s3"])
    assert done.returncode == 0, done.stderr
    rules = "".join(path.read_text() for path in (tmp_path / "build").rglob("build.make"))
    assert "quads_pie_dot_4.S" in rules and "other_core.c" in rules
    flags = "".join(path.read_text() for path in (tmp_path / "build").rglob("flags.make"))
    assert "-DQUADS_PIE=1" in flags and "-DQUADS_CORES=2" in flags


@pytest.mark.parametrize("board", BOARDS)
def test_flash_writes_the_image_and_empties_the_other_slot(tmp_path: Path, board: str) -> None:
    values = settings(usb=False, both_cores=False, pie=False)
    project = exported(board, "bin")
    assert configure(project, tmp_path / "build", values).returncode == 0
    table = {part.name: part for part in partitions(project)}
    lines = (tmp_path / "build" / "flash_files.txt").read_text().splitlines()
    assert [(int(line.split()[0], 0), line.split()[1]) for line in lines] == [
        (table["model_0"].offset, "model.bin"),
        (table["model_1"].offset, "erased.bin"),
    ]
    model_folder = project / "components" / "quads" / "model"
    assert (model_folder / "erased.bin").read_bytes() == b"\xff" * 4096
    assert (model_folder / "model.bin").read_bytes()[:4] == b"QIMG"


BROKEN = {
    "an unknown argument": ("components/quads/CMakeLists.txt", "PRIV_REQUIRES", "PRIVATE_REQUIRES",
                            "no PRIVATE_REQUIRES"),
    "a component that is not there": ("main/CMakeLists.txt", "esp_driver_gpio", "esp_driver_gpoi",
                                      "no component esp_driver_gpoi"),
    "a file that is not there": ("components/quads/CMakeLists.txt", '"src/encoder.c"',
                                 '"src/encodre.c"', "no src/encodre.c"),
    "a partition that is not there": ("partitions.csv", "model_1,", "modle_1,",
                                      "no partition model_1"),
    "a partition that is too small": ("partitions.csv", r"(model_0,.*), 0x\w+", r"\1, 0x1000",
                                      "model.bin has .* bytes, partition model_0 0x1000"),
    "a command that is none": ("components/quads/CMakeLists.txt", "esptool_py_flash_to_partition",
                               "esptool_flash_to_partition", "Unknown CMake command"),
    "another info": ("components/quads/CMakeLists.txt", '"size"', '"length"', "--info length"),
}  # fmt: skip


@pytest.mark.parametrize("broken", BROKEN)
def test_typos_fail(tmp_path: Path, broken: str) -> None:
    """What holds for the generated files would not hold for broken ones."""
    name, pattern, replacement, message = BROKEN[broken]
    project = copied("esp32s3", "bin", tmp_path / "project")
    text, count = re.subn(pattern, replacement, (project / name).read_text())
    assert count
    (project / name).write_text(text)
    values = settings(usb=True, both_cores=True, pie=True)
    done = configure(project, tmp_path / "build", values)
    assert done.returncode != 0
    assert re.search(message, " ".join(done.stderr.split()))


# --- settings ---------------------------------------------------------------------------------


def defaults(board: str, weights: str) -> dict[str, str]:
    """Return what the sdkconfig.defaults files set; no symbol twice."""
    found: dict[str, str] = {}
    for path in exported(board, weights).glob("sdkconfig.defaults*"):
        for line in path.read_text().splitlines():
            if line.startswith("#"):
                continue
            name, value = line.split("=")
            assert name.startswith("CONFIG_") and name[7:] not in found
            found[name[7:]] = value
    return found


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("board", BOARDS)
def test_settings_are_known_and_fit_the_module(board: str, weights: str) -> None:
    found = defaults(board, weights)
    assert set(found) <= set(SYMBOLS)
    facts = boards.load(board)
    assert found["IDF_TARGET"] == f'"{target_of(board)}"'
    assert found[f"ESPTOOLPY_FLASHSIZE_{facts.flash_bytes // MIB}MB"] == "y"
    assert found[f"ESP_DEFAULT_CPU_FREQ_MHZ_{facts.clock_hz // 1_000_000}"] == "y"
    assert found["COMPILER_OPTIMIZATION_PERF"] == "y"
    assert int(found["ESP_MAIN_TASK_STACK_SIZE"]) == facts.stack_bytes
    assert ("SPIRAM" in found) == (facts.psram_bytes > 0)
    assert ("SPIRAM_MODE_OCT" in found) == (facts.project["psram_mode"] == "octal")
    names = {path.name for path in exported(board, weights).glob("sdkconfig.defaults*")}
    assert names == {"sdkconfig.defaults", f"sdkconfig.defaults.{target_of(board)}"}


@pytest.mark.parametrize("board", BOARDS)
def test_every_setting_that_is_used_is_defined(board: str) -> None:
    project = exported(board, "bin")
    defined = {
        name
        for path in project.rglob("Kconfig.projbuild")
        for name in re.findall(r"^\s*config (\w+)$", path.read_text(), re.MULTILINE)
    }
    files = [
        p for p in project.rglob("*") if p.suffix in (".c", ".h") or p.name == "CMakeLists.txt"
    ]
    used = {name for p in files for name in re.findall(r"\bCONFIG_([A-Z]\w+)", p.read_text())}
    assert used - {"QUADS_BOTH_CORES"} <= defined  # which chips with one core lack
    assert {name for name in defined if name.startswith("COMMAND_GPIO_")} == {
        "COMMAND_GPIO_0", "COMMAND_GPIO_1",  # the third label is the unknown one
    }  # fmt: skip


@pytest.mark.parametrize("usb", [True, False])
@pytest.mark.parametrize("board", ["esp32s3", "esp32", "esp32c3"])
def test_menus_are_what_the_other_tests_take_them_for(
    tmp_path: Path, board: str, usb: bool
) -> None:
    kconfiglib = pytest.importorskip("kconfiglib", reason="kconfiglib is not installed")
    target, project = target_of(board), exported(board, "bin")
    system = "config SOC_USB_SERIAL_JTAG_SUPPORTED\n  def_bool {}\nconfig FREERTOS_UNICORE\n"
    text = system.format("n" if target == "esp32" else "y")
    text += f"  def_bool {'y' if target == 'esp32c3' else 'n'}\n"
    text += "".join(f'source "{path}"\n' for path in sorted(project.rglob("Kconfig.projbuild")))
    (tmp_path / "Kconfig").write_text(text)
    tree = kconfiglib.Kconfig(str(tmp_path / "Kconfig"), warn_to_stderr=False)
    if not usb:
        tree.syms["QUADS_LINK_UART"].set_value("y")
    assert not tree.warnings
    values = {name: symbol.str_value for name, symbol in tree.syms.items() if symbol.str_value}
    found = {name: value for name, value in values.items() if value != "n" and "_" in name}
    wanted = settings(usb and target != "esp32", target != "esp32c3", target == "esp32s3")
    pins = esp_idf.PINS[target]
    wanted |= {f"QUADS_MICROPHONE_{name}": pins[name.lower()] for name in ("BCLK", "WS", "DATA")}
    wanted |= {"COMMAND_GPIO_0": pins["led"]}
    expected = {name: "y" if value == 1 else str(value) for name, value in wanted.items()}
    own = ("QUADS_", "COMMAND_")
    assert {name: value for name, value in found.items() if name.startswith(own)} == {
        name: value for name, value in expected.items()
        if name.startswith(own) and name != "COMMAND_GPIO_2"
    }  # fmt: skip


@pytest.mark.parametrize("board", BOARDS)
def test_default_pins_are_different_and_exist(board: str) -> None:
    pins = esp_idf.PINS[target_of(board)]
    used = [pins[name] for name in ("bclk", "ws", "data", "led")]
    assert len(set(used)) == 4 and max(used) <= pins["most"]


def test_labels_cannot_break_generated_files() -> None:
    assert esp_idf._quotable('a*/ "b" \\ $(c)\n| d') == "a__ _b_ _ __c___ d"
    assert esp_idf._quotable("größer, 21.5 °C") == "größer, 21.5 _C"


# --- partitions -------------------------------------------------------------------------------


def partitions(project: Path) -> list[Partition]:
    """Read partitions.csv as gen_esp32part.py does: comments, then five fields."""
    found = []
    for line in (project / "partitions.csv").read_text().splitlines():
        if line and not line.startswith("#"):
            name, kind, subtype, offset, size = (field.strip() for field in line.split(","))
            found.append(Partition(name, kind, subtype, int(offset, 0), int(size, 0)))
    return found


def check_rules(table: list[Partition], flash_bytes: int) -> None:
    """The rules of ESP-IDF's gen_esp32part.py (v5.5.5), and of esptool for the first sectors."""
    assert len({part.name for part in table}) == len(table)
    end = 0x9000  # behind boot loader and the table itself, 0x8000 + 0x1000
    for part in table:
        assert 1 <= len(part.name) <= 15
        assert part.offset >= end and part.size > 0
        aligned = 0x1_0000 if part.type == "app" else 0x1000
        assert part.offset % aligned == 0 and part.size % 0x1000 == 0
        custom = part.type.startswith("0x") and 0x40 <= int(part.type, 0) <= 0xFE
        assert custom or (part.type, part.subtype) in {("data", "nvs"), ("app", "factory")}
        assert not custom or 0 <= int(part.subtype, 0) <= 0xFE
        if part.subtype == "nvs":
            assert part.size >= 0x3000
        end = part.end
    assert end <= flash_bytes


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("board", BOARDS)
def test_partitions_obey_the_rules(board: str, weights: str) -> None:
    project = exported(board, weights)
    table = partitions(project)
    check_rules(table, boards.load(board).flash_bytes)
    slots = [part for part in table if part.name.startswith("model_")]
    assert len(slots) == (2 if weights == "bin" else 0)
    if slots:
        image = project / "components" / "quads" / "model" / "model.bin"
        assert slots[0].size == slots[1].size >= image.stat().st_size


@pytest.mark.parametrize(
    ("flash_mib", "image_bytes", "slots", "slot_bytes"),
    [
        (8, 0, 0, 0),
        (8, 1, 2, 0x1_0000),
        (8, 0x1_0000, 2, 0x2_0000),
        (8, 3 * MIB, 2, 0x36_0000),  # an eighth more
        (8, 3 * MIB + MIB * 7 // 16, 2, 3 * MIB + MIB * 7 // 16),  # just large enough
        (8, 4 * MIB, 1, 4 * MIB),
        (16, 4 * MIB, 2, 4 * MIB + MIB // 2),
        (4, 3 * MIB - 0x1_0000, 1, 3 * MIB - 0x1_0000),
    ],
)
def test_slots(flash_mib: int, image_bytes: int, slots: int, slot_bytes: int) -> None:
    table = esp_partitions.plan(flash_mib * MIB, 100_000, image_bytes)
    check_rules(table, flash_mib * MIB)
    found = [part for part in table if part.type == esp_partitions.MODEL_TYPE]
    assert [part.size for part in found] == [slot_bytes] * slots
    assert all(part.offset % 0x1_0000 == 0 for part in found)


def test_application_grows_with_what_is_compiled_in() -> None:
    app = {part.name: part for part in esp_partitions.plan(8 * MIB, 2 * MIB, 0)}["factory"]
    assert app.size == 0x2D_0000  # five quarters of 2 MiB + 256 KiB, whole pages


def test_an_application_just_large_enough_leaves_room_for_the_image() -> None:
    app, image = esp_partitions.plan(4 * MIB, 100_000, 3 * MIB)[1:]
    assert (app.size, image.name, image.size) == (0x6_0000, "model_0", 3 * MIB)


@pytest.mark.parametrize(("program", "image"), [(100_000, 15 * MIB // 4), (15 * MIB // 4, 0)])
def test_what_does_not_fit_is_refused_with_ways_out(program: int, image: int) -> None:
    with pytest.raises(ExportError, match=r"4,194,304; use fewer bits .* a board with more flash"):
        esp_partitions.plan(4 * MIB, program, image)


# --- the rest ---------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("board", BOARDS)
def test_readme_leads_to_a_blinking_led(board: str, weights: str) -> None:
    text = (exported(board, weights) / "README.md").read_text()
    pins = esp_idf.PINS[target_of(board)]
    led, first = f"GPIO {pins['led']} |", model().slots[0].labels[0]
    for part in ("idf.py build", "idf.py -p PORT flash monitor", led, "listening", first):
        assert part in text
    assert ("--model-only" in text) == (weights == "bin")
    assert "Nothing of this was ever executed on a chip" in text


def test_everything_that_is_used_of_esp_idf_is_in_the_list() -> None:
    """docs/verification.md names every function, command, component and Kconfig symbol."""
    listed = (REPOSITORY / "docs" / "verification.md").read_text()
    names = {f"CONFIG_{name}" for board in BOARDS for name in defaults(board, "bin")}
    for board in ("esp32s3", "esp32"):
        project = exported(board, "bin")
        component = (project / "components" / "quads" / "CMakeLists.txt").read_text()
        main = (project / "main" / "CMakeLists.txt").read_text()
        names |= set(re.findall(r"\b(?:idf|esptool|partition|target|set_source)\w*(?=\()",
                                component + main))  # fmt: skip
        names |= set(re.findall(r"\besp_(?:driver_\w+|timer|partition)\b", component + main))
        for path in [
            *(project / "components/quads/ports/esp_idf").glob("*.c"),
            project / "main/main.c",
        ]:
            names |= {name for pair in re.findall(CALLS, path.read_text()) for name in pair if name}
            names |= set(
                re.findall(r'#include "((?:driver|esp|freertos)[\w/.]*\.h)"', path.read_text())
            )
    names.add(esp_idf.IDF_VERSIONS)
    assert len(names) > 60
    assert sorted(name for name in names if f"`{name}`" not in listed) == []


# Functions, macros and constants of ESP-IDF and FreeRTOS by their prefixes.
CALLS = (
    r"\b((?:esp_(?:cpu|timer|partition)|uart|usb_serial_jtag|i2s|gpio|xTask|xSemaphore|ulTask|vTask|"
    r"uxTask)\w*)(?=\()|\b((?:ESP|UART|I2S|GPIO|IRAM|pd|port)_?[A-Z]\w+)\b"
)
