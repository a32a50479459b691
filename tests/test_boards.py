"""Board files, fit check, energy estimate, clip stores."""

import re
import struct
from pathlib import Path

import numpy as np
import pytest

from quads_mcu.device import boards, build, clips, energy, memory
from quads_mcu.errors import AudioError, ConfigError, ExportError
from quads_mcu.paths import boards_dir

HOST = (boards_dir() / "host.toml").read_text()
AN386 = (boards_dir() / "qemu-an386.toml").read_text()


def test_all_boards_load() -> None:
    found = boards.all_boards()
    assert [board.name for board in found] == sorted(board.name for board in found)
    assert {"host", "qemu-an386"} <= {board.name for board in found}


@pytest.mark.parametrize(
    ("name", "code", "data", "ticks_per_instruction"),
    [
        ("qemu-an386", 0x00000000, 0x20000000, 1.6),
        ("qemu-an500", 0x00000000, 0x20000000, 1.6),
        ("qemu-an505", 0x10000000, 0x38000000, 1.28),
        ("qemu-an547", 0x00000000, 0x30000000, 2.048),
    ],
)
def test_cortex_m_boards(name: str, code: int, data: int, ticks_per_instruction: float) -> None:
    board = boards.load(name)
    assert (board.region("code").start, board.region("data").start) == (code, data)
    ticks = board.defines["QUADS_TICK_DENOMINATOR"] / board.defines["QUADS_TICK_NUMERATOR"]
    assert ticks == ticks_per_instruction == pytest.approx(64e-9 * board.clock_hz)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qemu-an836", "did you mean qemu-an386"),
        ("zzz", "known: arduino-nano33ble, esp32, esp32c3"),
    ],
)
def test_unknown_board_names_the_nearest(name: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        boards.load(name)


@pytest.mark.parametrize("name", ["", "../host", "host.toml"])
def test_names_are_no_paths(name: str) -> None:
    with pytest.raises(ConfigError, match="is unknown"):
        boards.load(name)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("clock_hz = 25", "volume = 11\nclock_hz = 25", "unknown key 'volume'"),
        ("clock_hz = 25_000_000", "", "lacks 'clock_hz'"),
        ("clock_hz = 25_000_000", "clock_hz = true", "not of type int"),
        ('kind = "qemu"', 'kind = "toaster"', "allowed: host, qemu, chip"),
        ('kind = "qemu"', 'kind = "host"', r"\[emulator\] belongs"),
        ('kind = "qemu"', 'kind = "qemu"\nfrontend = "half"', "allowed: float, fixed"),
        ('"constants", "w', '"cookies", "w', "holds 'cookies'"),
        ('"data", "arena"', '"arena"', "no memory region that holds data"),
        ("size_bytes = 4_194_304", "size_bytes = 0", "below the possible"),
        ("QUADS_TIMER = 0x40000000", 'QUADS_TIMER = "late"', "names and integers"),
        ("stack_bytes = 5120", "stack_bytes = 99_000_000", "outside the data region"),
        ('install = "apt install qemu-system-arm"', "instal = 1", "unknown key 'instal'"),
        ('name = "qemu-an386"', 'name = "other"', "in a file called"),
        ("[energy]", "[energy", "qemu-an386.toml: "),
    ],
)
def test_malformed_files_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in AN386
    path = tmp_path / "qemu-an386.toml"
    path.write_text(AN386.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        boards.read(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        boards.read(tmp_path / "none.toml")


# --- fit ------------------------------------------------------------------------------------

MIB = 1 << 20
NEEDS = {"code": 16_000, "constants": 4_000, "weights": 300_000, "data": 6_000, "arena": 80_000}


def places(board: str, **needs: int) -> dict[str, tuple[str, ...]]:
    found = memory.place(boards.load(board), NEEDS | needs)
    return {usage.region: usage.contents for usage in found}


def test_the_host_takes_everything() -> None:
    assert memory.place(boards.load("host"), dict.fromkeys(NEEDS, 1 << 40)) == []


def test_what_fits_lies_in_the_first_region() -> None:
    assert places("qemu-an386") == {
        "flash": ("code", "constants", "weights"),
        "ram": ("data", "arena"),
    }


@pytest.mark.parametrize(
    ("board", "large"), [("qemu-an386", "psram"), ("qemu-an505", "psram"), ("qemu-an547", "ddr")]
)
def test_large_weights_move_alone(board: str, large: str) -> None:
    found = places(board, weights=8 * MIB)
    assert found.pop(large) == ("weights",)
    assert list(found.values()) == [("code", "constants"), ("data", "arena")]


def test_the_arena_takes_the_fastest_memory_with_room() -> None:
    assert places("qemu-an547")["dtcm"] == ("data", "arena")
    assert places("qemu-an547", arena=524_288)["sram"] == ("arena",)
    assert places("qemu-an547", arena=4 * MIB + 8)["ddr"] == ("arena",)


def test_the_last_byte_decides() -> None:
    room = 4 * MIB - NEEDS["code"] - NEEDS["constants"]
    assert "psram" not in places("qemu-an386", weights=room)
    assert places("qemu-an386", weights=room + 1)["psram"] == ("weights",)
    both = places("qemu-an386", weights=8 * MIB, arena=8 * MIB)
    assert both["psram"] == ("weights", "arena")


@pytest.mark.parametrize(
    ("needs", "region", "holds", "size", "over", "ways"),
    [
        ({"weights": 16 * MIB + 1}, "psram", "weights", 16 * MIB, 1, "fewer bits per weight"),
        ({"arena": 16 * MIB + 9}, "psram", "arena", 16 * MIB, 9, "a shorter window"),
        (
            {"arena": 8 * MIB, "weights": 8 * MIB + 5},
            "psram",
            "weights, arena",
            16 * MIB,
            5,
            "a shorter window",
        ),
        ({"data": 5 * MIB}, "ram", "data", 4 * MIB, MIB, "a board with more ram"),
    ],
)
def test_what_fits_nowhere(
    needs: dict[str, int], region: str, holds: str, size: int, over: int, ways: str
) -> None:
    with pytest.raises(ExportError) as caught:
        places("qemu-an386", **needs)
    message = str(caught.value)
    assert message.startswith(
        f"{region} of qemu-an386 ({holds}): {size + over:,} bytes needed, {size:,} available, "
        f"{over:,} too many; use "
    )
    assert ways in message
    if region == "psram":
        assert "smaller student" in message
    assert f"a board with more {region} (`quads-mcu boards`)" in message


# --- energy ---------------------------------------------------------------------------------


def test_reference_measurement_is_reproduced() -> None:
    """MLPerf Tiny v1.3 keyword spotting, STM32L4R5 at 120 MHz: 43.4 ms and 1,431 uJ."""
    board = boards.load("qemu-an386")
    assert board.energy is not None
    cycles = 0.0434 * 120e6
    found = energy.estimate(board, cycles / board.energy.cycles_per_instruction)
    assert found.latency_ms == pytest.approx(43.4)
    assert found.energy_uj == pytest.approx(1431, rel=0.005)
    assert found.energy_uj * 1e6 / cycles == pytest.approx(275, rel=0.005)  # pJ per cycle


def test_estimates_say_that_they_are() -> None:
    method = energy.estimate(boards.load("qemu-an386"), 1e6).method
    assert method.startswith("estimate, not measured")
    assert "MLPerf Tiny" in method
    assert "assumed" in method


def test_no_figures_no_estimate() -> None:
    with pytest.raises(ConfigError, match="no \\[energy\\] figures"):
        energy.estimate(boards.load("host"), 1e6)


# --- linker script --------------------------------------------------------------------------


def test_linker_script_follows_board_and_placement() -> None:
    board = boards.load("qemu-an386")
    script = build.render_linker_script(board, memory.choices(board)[-1])
    assert "flash : ORIGIN = 0x00000000, LENGTH = 4194304" in script
    assert "ram : ORIGIN = 0x20000000, LENGTH = 4194304" in script
    assert ". += 5120;" in script
    for section, region in ((".text", "flash"), (".weights", "psram"), (".arena", "psram")):
        assert re.search(rf"\n  {re.escape(section)} [^>]*> {region}\n", script), section


# --- clip store -----------------------------------------------------------------------------


def test_clip_store_golden_bytes(tmp_path: Path) -> None:
    path = tmp_path / "clips.qclp"
    clips.write(path, [np.array([1, -2], np.int16), np.zeros(0, np.int16)])
    assert path.read_bytes() == bytes.fromhex(
        "51434c50 01000000 02000000 1c000000 04000000 20000000 00000000 0100 feff"
    )


@pytest.mark.parametrize("lengths", [[], [0], [1], [3, 0, 7]])
def test_clip_store_round_trip(tmp_path: Path, lengths: list[int]) -> None:
    rng = np.random.default_rng(1)
    stored = [rng.integers(-32768, 32768, n).astype(np.int16) for n in lengths]
    clips.write(tmp_path / "c", stored)
    found = clips.read(tmp_path / "c")
    assert len(found) == len(stored)
    for a, b in zip(found, stored, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("clip", [np.zeros(3, np.float32), np.zeros((2, 2), np.int16)])
def test_only_mono_int16_is_stored(tmp_path: Path, clip: np.ndarray) -> None:
    with pytest.raises(AudioError, match="expected int16"):
        clips.write(tmp_path / "c", [clip])
    assert list(tmp_path.iterdir()) == []


def test_unwritable_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="cannot be written"):
        clips.write(tmp_path / "none" / "c", [])


HEAD = b"QCLP" + struct.pack("<II", 1, 1)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not a clip store"),
        (b"RIFF" + bytes(60), "not a clip store"),
        (b"QCLP" + struct.pack("<II", 2, 0), "version 2"),
        (b"QCLP" + struct.pack("<II", 1, 0xFFFFFFFF), "4294967295 clips announced"),
        (HEAD + struct.pack("<II", 20, 4), "is not in the file"),
        (HEAD + struct.pack("<II", 0xFFFFFFFF, 2), "is not in the file"),
        (HEAD + struct.pack("<II", 20, 1) + b"x", "is not in the file"),
    ],
)
def test_hostile_clip_stores(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "c").write_bytes(data)
    with pytest.raises(AudioError, match=message):
        clips.read(tmp_path / "c")
