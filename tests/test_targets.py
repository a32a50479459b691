"""Real chips: facts in their board files, what fits on them, and what an utterance is estimated to
take there. Published figures are written out here once more, from the vendors' documents."""

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from quads_mcu.device import boards, energy, firmware_sizes, memory
from quads_mcu.device.boards import Board
from quads_mcu.errors import ConfigError, ExportError
from quads_mcu.export import kernels, planner, project
from quads_mcu.export.blank import blank
from quads_mcu.export.projects import FORMATS, esp_partitions
from quads_mcu.model.dimensions import dimensions
from quads_mcu.model_format import PackedModel
from quads_mcu.paths import boards_dir
from quads_mcu.report import analysis, costs, kernel_counts, targets

KB, MB = 1024, 1 << 20
# (clock, MHz; flash; SRAM; PSRAM): of the datasheets' first pages.
PUBLISHED = {
    "esp32s3": (240, 8 * MB, 512 * KB, 0),
    "esp32s3-n8r2": (240, 8 * MB, 512 * KB, 2 * MB),
    "esp32s3-n16r8": (240, 16 * MB, 512 * KB, 8 * MB),
    "esp32": (240, 4 * MB, 520 * KB, 0),
    "esp32c3": (160, 4 * MB, 400 * KB, 0),
    "rp2040": (125, 2 * MB, 264 * KB, 0),
    "rp2350": (150, 4 * MB, 520 * KB, 0),
    "stm32f411": (100, 512 * KB, 128 * KB, 0),
    "stm32h743": (480, 2 * MB, 1024 * KB, 0),
    "nrf52840": (64, 1 * MB, 256 * KB, 0),
    "nrf5340": (128, 1 * MB, 512 * KB, 0),
    "arduino-nano33ble": (64, 1 * MB, 256 * KB, 0),
}
NEEDED = {
    "esp-idf": {"idf_target", "flash_mode", "psram_mode"},
    "pico-sdk": {"pico_board", "pico_platform"},
    "zephyr": {"zephyr_board"},
    "arduino": {"arduino_fqbn"},
    "platformio": {"platform", "platformio_board"},
    "cmsis": {"cmsis_device", "cmsis_header"},
}
CHIPS = [board.name for board in boards.all_boards() if board.kind == "chip"]
S3 = (boards_dir() / "esp32s3-n8r2.toml").read_text()


def student(preset: str, window_s: float, n_mels: int, bits: int = 4) -> PackedModel:
    return blank(dimensions(preset, n_mels=n_mels, window_s=window_s, n_classes=31), bits)


# --- facts ----------------------------------------------------------------------------------


def test_the_targets_are_these() -> None:
    assert set(CHIPS) == set(PUBLISHED)


@pytest.mark.parametrize("name", CHIPS)
def test_chips_have_what_is_published(name: str) -> None:
    board = boards.load(name)
    clock_mhz, flash, sram, psram = PUBLISHED[name]
    assert board.clock_hz == clock_mhz * 1_000_000
    assert (board.flash_bytes, board.psram_bytes) == (flash, psram)
    ram = [r for r in board.memory if "arena" in r.holds and r.name != "psram"]
    assert 0 < sum(region.size_bytes for region in ram) <= sram
    assert bool(board.project.get("psram_mode")) == bool(psram)


@pytest.mark.parametrize("name", CHIPS)
def test_every_fact_names_its_source(name: str) -> None:
    board = boards.load(name)
    assert set(board.sources) == set(boards.SOURCES)
    assert all(len(text) > 10 for text in board.sources.values())
    assert board.energy is not None
    assert "assumed" in board.energy.cycles_source
    assert "not modelled" in board.energy.cycles_source
    # A power without a source is left out, and then the sources say why.
    assert bool(board.energy.active_power_mw) != board.sources["power"].startswith("none: ")


@pytest.mark.parametrize("name", CHIPS)
def test_regions_do_not_overlap(name: str) -> None:
    regions = sorted(boards.load(name).memory, key=lambda region: region.start)
    for one, following in itertools.pairwise(regions):
        assert one.start + one.size_bytes <= following.start


@pytest.mark.parametrize("name", CHIPS)
def test_formats_have_the_names_they_need(name: str) -> None:
    board = boards.load(name)
    assert set(board.formats) <= set(FORMATS)
    for fmt in board.formats:
        assert NEEDED[fmt] <= set(board.project), fmt


@pytest.mark.parametrize("name", CHIPS)
def test_something_was_measured_for_every_chip(name: str) -> None:
    board = boards.load(name)
    assert boards.load(board.nearest).emulated
    found = costs.load(board)
    assert found is not None
    own = costs.core(board)
    assert found.core == (own or "rv32imafc")  # Xtensa was counted nowhere
    assert found.variant == board.kernels or not own
    assert firmware_sizes.load(board, 80) is not None


def test_code_for_cores_without_a_board_runs_on_a_stand_in() -> None:
    pico = kernel_counts.stand_in(boards.load("rp2040"))
    assert (pico.name, pico.kernels, pico.frontend) == ("qemu-an386", "plain", "fixed")
    assert "-mcpu=cortex-m0plus" in pico.toolchain.flags
    assert kernel_counts.stand_in(boards.load("stm32f411")) == boards.load("qemu-an386")
    assert kernel_counts.stand_in(boards.load("host")) == boards.load("host")


@pytest.mark.parametrize("name", CHIPS)
def test_json_is_complete(name: str) -> None:
    board = boards.load(name)
    found = json.loads(json.dumps(board.to_json()))
    assert {field.name for field in dataclasses.fields(Board)} == set(found)
    assert found["sources"] == dict(board.sources)
    assert found["flasher"]["tool"] and found["project"]["core"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('power = "ESP', 'pwr = "ESP', r"\[sources\] lacks 'power'"),
        ('clock = "ESP', 'clock = ""  # ', r"\[sources\] lacks 'clock'"),
        ('formats = ["esp-idf"', 'formats = [7, "esp-idf"', "formats takes strings"),
        ('idf_target = "esp32s3"', "idf_target = 3", r"\[project\] takes names and strings"),
        ('tool = "esptool"', 'tools = "esptool"', r"unknown key 'tools' in \[flasher\]"),
        ("psram_bytes = 2_097_152", "psram_bytes = 2_000_000", "region psram has 2,031,616 bytes"),
        ("active_power_mw = 169.0", "", "go together"),
        ('chip = "ESP32-S3"', "", "kind chip needs chip"),
    ],
)
def test_malformed_chips_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in S3
    path = tmp_path / "esp32s3-n8r2.toml"
    path.write_text(S3.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        boards.read(path)


# --- fit ------------------------------------------------------------------------------------


def test_a_model_larger_than_the_flash_is_refused_to_the_byte() -> None:
    model, board = student("d192x4", 2.0, 80), boards.load("stm32f411")
    cost = project.predict(model, board)
    weights = sum(kernels.flash_by_kind(model, "dsp").values())
    assert cost.needs["weights"] >= weights > board.flash_bytes
    used = sum(cost.needs[content] for content in ("code", "constants", "weights"))
    with pytest.raises(ExportError) as caught:
        memory.place(board, cost.needs)
    text = str(caught.value)
    assert f"flash of stm32f411 (code, constants, weights): {used:,} bytes needed" in text
    assert f"524,288 available, {used - 524_288:,} too many" in text
    assert "fewer bits per weight" in text and "a smaller student" in text


def test_the_last_byte_of_a_chip_decides() -> None:
    board = boards.load("nrf52840")
    cost = project.predict(student("d96x2", 2.0, 40), board)
    room = board.region("arena").size_bytes - cost.needs["data"]
    assert memory.place(board, cost.needs | {"arena": room})
    with pytest.raises(ExportError, match="229,377 bytes needed, 229,376 available, 1 too many"):
        memory.place(board, cost.needs | {"arena": room + 1})


def test_variants_with_room_are_named() -> None:
    model = student("d384x4", 6.0, 80)
    assert planner.plan(model.dims, "esp").arena_bytes > 300_000
    needs = project.predict(model, boards.load("esp32s3")).needs
    with pytest.raises(ExportError, match="a shorter window") as caught:
        memory.place(boards.load("esp32s3"), needs)
    assert "there is room on --target esp32s3-n16r8 and on --target esp32s3-n8r2" in str(
        caught.value
    )
    (held,) = [one for one in memory.place(boards.load("esp32s3-n8r2"), needs)
               if "arena" in one.contents]  # fmt: skip
    assert held.region == "psram"


def test_the_paper_size_student_fits_the_smallest_esp32s3() -> None:
    board = boards.load("esp32s3")
    usages = memory.place(board, project.predict(student("d384x4", 3.0, 80), board).needs)
    assert [one.region for one in usages] == ["flash", "ram"]


@pytest.mark.parametrize("name", [name for name in CHIPS if name.startswith("esp32")])
def test_what_fits_the_flash_fits_the_partitions(name: str) -> None:
    """Pages and boot loader are left out of the region."""
    board = boards.load(name)
    room, program = board.region("weights").size_bytes, 22_000
    table = esp_partitions.plan(board.flash_bytes, program, room - program)
    assert table[-1].end <= board.flash_bytes
    assert esp_partitions.plan(board.flash_bytes, room, 0)[-1].end <= board.flash_bytes


# --- estimates ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHIPS)
def test_estimates_follow_from_instructions(name: str) -> None:
    board = boards.load(name)
    found = analysis.analyze("d96x2", student("d96x2", 2.0, 40), board)
    assert found.instructions and found.latency_ms and board.energy
    cycles = found.instructions * board.energy.cycles_per_instruction
    assert found.latency_ms == pytest.approx(1e3 * cycles / board.clock_hz, rel=1e-6)
    power_mw = board.energy.active_power_mw
    expected = found.latency_ms * power_mw / 1e3 if power_mw else None
    assert found.energy_mj == (pytest.approx(expected) if expected else None)


def test_the_method_says_what_is_counted_and_what_is_not() -> None:
    lines = analysis.analyze("d96x2", student("d96x2", 2.0, 40), boards.load("esp32s3")).method
    text = "\n".join(lines)
    for part in ("emulated rv32imafc, plain kernels", "has another core (xtensa-lx7)", "1.7 cycles",
                 "assumed", "51.2 mA", "flash is not modelled"):  # fmt: skip
        assert part in text, part
    lines = analysis.analyze("d96x2", student("d96x2", 2.0, 40), boards.load("rp2040")).method
    assert "emulated m0, plain kernels" in lines[0]
    assert "no mJ: RP2040 Datasheet" in lines[-1]


def test_no_power_no_energy() -> None:
    found = energy.estimate(boards.load("rp2040"), 125e6)
    assert found.energy_uj is None
    assert found.latency_ms == pytest.approx(1500)


# --- the page -------------------------------------------------------------------------------


def test_the_page_is_what_is_rendered() -> None:
    page = Path(__file__).parent.parent / "docs" / "targets.md"
    hint = "python -m quads_mcu.report.targets > docs/targets.md"
    assert page.read_text(encoding="utf-8") == targets.render(), hint
