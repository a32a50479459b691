"""UF2 files against the layout of their specification, and drives of boot ROMs."""

from __future__ import annotations

import struct
import threading
import time
from pathlib import Path

import pytest
from fake_tools import FakeTools
from hypothesis import given
from hypothesis import strategies as st
from silent import silent

from quads_mcu.device import boards
from quads_mcu.device.flashers import rp2, uf2
from quads_mcu.device.flashers.plan import Part, Plan
from quads_mcu.errors import DeviceError, LinkError

PICO, PICO2 = boards.load("rp2040"), boards.load("rp2350")
# github.com/microsoft/uf2, utils/uf2families.json; pico-sdk, boot/uf2.h.
RP2040, RP2350_ARM_S = 0xE48BFF56, 0xE48BFF59


def boot_rom(data: bytes, family: int) -> dict[int, bytes] | None:
    """What a boot ROM flashes of a file, by the specification; None: it waits for more blocks."""
    flash: dict[int, bytes] = {}
    seen: set[int] = set()
    count = 0
    for block in (data[at : at + 512] for at in range(0, len(data), 512)):
        words = struct.unpack("<8I", block[:32])
        assert len(block) == 512
        if words[:2] != (0x0A324655, 0x9E5D5157) or block[508:] != b"\x30\x6f\xb1\x0a":
            continue
        if words[2] != 0x2000 or words[7] != family:
            continue
        assert words[3] % 256 == 0 and words[4] == 256
        flash[words[3]] = block[32 : 32 + 256]
        seen.add(words[5])
        count = words[6]
    return flash if count and seen == set(range(count)) else None


@pytest.mark.parametrize("size", [1, 255, 256, 257, 4096, 4097, 10_000])
@pytest.mark.parametrize("offset", [0, 0x100, 0x1004])
def test_what_is_written_is_what_a_boot_rom_flashes(size: int, offset: int) -> None:
    data = bytes(index * 7 % 251 for index in range(size))
    file = uf2.write([(0x1000_0000 + offset, data)], RP2040)
    flash = boot_rom(file, RP2040)
    assert flash is not None
    pages = b"".join(flash[page] for page in sorted(flash))
    start = min(flash)
    assert pages[0x1000_0000 + offset - start :][:size] == data
    assert sorted(flash) == list(range(start, start + len(pages), 256))
    assert start % 4096 == 0 and len(pages) % 4096 == 0  # whole sectors: erratum E14
    assert boot_rom(file, RP2350_ARM_S) is None
    assert boot_rom(file[:-512], RP2040) is None


def test_families_are_the_registered_ones() -> None:
    assert uf2.FAMILIES == {"RP2040": RP2040, "RP2350": RP2350_ARM_S}


@given(
    st.lists(
        st.tuples(st.integers(0, 300), st.binary(min_size=1, max_size=700)), min_size=1, max_size=6
    )
)
def test_reading_returns_what_was_written(segments: list[tuple[int, bytes]]) -> None:
    placed = [(0x1000_0000 + 16384 * n + 4 * at, data) for n, (at, data) in enumerate(segments)]
    found = uf2.read(uf2.write(placed, RP2040), RP2040, "file")
    for address, data in placed:
        start, content = next(one for one in found if one[0] <= address < one[0] + len(one[1]))
        assert content[address - start :][: len(data)] == data


def test_damaged_and_foreign_files() -> None:
    file = uf2.write([(0x1000_0000, bytes(9000))], RP2040)
    for damaged in (b"", file[:100], file[:-1], b"x" * 512, file[:-4] + b"\0\0\0\0"):
        with pytest.raises(DeviceError, match="no UF2"):
            uf2.read(damaged, RP2040, "f")
    with pytest.raises(DeviceError, match="made for family 0xe48bff56, the board has 0xe48bff59"):
        uf2.read(file, RP2350_ARM_S, "f")
    with pytest.raises(DeviceError, match="47 of 48 blocks"):
        uf2.read(file[:512] + file[1024:], RP2040, "f")


def test_block_of_picotool_before_the_firmware_is_passed_over() -> None:
    """picotool puts a block of family "absolute" before RP2350 firmware (erratum E10)."""
    extra = bytearray(uf2.write([(0x10FF_FF00, b"\xef" * 256)], 0xE48BFF57)[-512:])
    file = bytes(extra) + uf2.write([(0x1000_0000, b"firmware")], RP2350_ARM_S)
    assert uf2.read(file, RP2350_ARM_S, "f")[0][1][:8] == b"firmware"


# --- projects and drives --------------------------------------------------------------------


def build(folder: Path, n_bytes: int = 9000, family: int = RP2040) -> bytes:
    data = bytes(index % 253 for index in range(n_bytes))
    (folder / "build").mkdir(parents=True)
    (folder / "build" / "quads.uf2").write_bytes(uf2.write([(0x1000_0000, data)], family))
    return data


class Drive:
    """A mounted boot ROM: takes the file's blocks as they come, and leaves when it has all."""

    def __init__(self, folder: Path, board_id: str, family: int, stays: bool = False) -> None:
        self.folder, self.family, self.stays = folder, family, stays
        self.flash: dict[int, bytes] | None = None
        folder.mkdir()
        info = f"UF2 Bootloader v3.0\nModel: Raspberry Pi RP2\nBoard-ID: {board_id}\n"
        (folder / "INFO_UF2.TXT").write_text(info)
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        path = self.folder / "firmware.uf2"
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not self.stays:
            data = path.read_bytes() if path.exists() else b""
            if data and len(data) % 512 == 0 and (flash := boot_rom(data, self.family)):
                self.flash = flash
                (self.folder / "INFO_UF2.TXT").unlink()
                return
            time.sleep(0.01)


def test_copied_to_the_drive(tmp_path: Path) -> None:
    data = build(tmp_path / "project")
    drive = Drive(tmp_path / "RPI-RP2", "RPI-RP2", RP2040)
    plan = rp2.read(PICO, tmp_path / "project", "server")
    seen: list[float] = []
    rp2.flash(plan, PICO, str(drive.folder), lambda what, done, total: seen.append(done / total))
    assert drive.flash is not None
    written = b"".join(drive.flash[page] for page in sorted(drive.flash))
    assert written[: len(data)] == data
    assert seen[-1] == 1.0


def test_drive_of_another_chip(tmp_path: Path) -> None:
    build(tmp_path / "project")
    drive = Drive(tmp_path / "RP2350", "RP2350", RP2350_ARM_S)
    plan = rp2.read(PICO, tmp_path / "project", "server")
    with pytest.raises(DeviceError, match="is RP2350, rp2040 needs RPI-RP2; nothing was written"):
        rp2.flash(plan, PICO, str(drive.folder), silent)
    assert not (drive.folder / "firmware.uf2").exists()


def test_folder_that_is_no_drive(tmp_path: Path) -> None:
    build(tmp_path / "project")
    plan = rp2.read(PICO, tmp_path / "project", "server")
    with pytest.raises(LinkError, match=r"no drive of a boot ROM .*hold BOOTSEL"):
        rp2.flash(plan, PICO, str(tmp_path), silent)


def test_drive_that_never_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rp2, "LEAVE_TIMEOUT_S", 0.3)
    build(tmp_path / "project")
    drive = Drive(tmp_path / "RPI-RP2", "RPI-RP2", RP2040, stays=True)
    with pytest.raises(DeviceError, match="has not received every block"):
        rp2.flash(rp2.read(PICO, tmp_path / "project", "server"), PICO, str(drive.folder), silent)


def test_firmware_for_another_chip_or_too_large(tmp_path: Path) -> None:
    build(tmp_path / "a", family=RP2350_ARM_S)
    with pytest.raises(DeviceError, match="made for family 0xe48bff59"):
        rp2.read(PICO, tmp_path / "a", "server")
    build(tmp_path / "b", PICO.flash_bytes + 1)
    with pytest.raises(DeviceError, match="the flash of rp2040 ends at 0x10200000"):
        rp2.read(PICO, tmp_path / "b", "server")


# --- picotool -------------------------------------------------------------------------------

RP2040_INFO = "Device Information\n type:         RP2040\n flash size:   2048K\n ROM version:  3\n"
RP2350_INFO = "Device Information\n type:         RP2350\n secure boot:  0\n flash size:   4096K\n"


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTools:
    return FakeTools(tmp_path / "bin", monkeypatch)


def small_plan() -> Plan:
    return Plan("rp2040", (Part("firmware", 0x1000_0000, bytes(5000), "quads.uf2"),))


def test_picotool_reads_before_it_loads_and_verifies(tools: FakeTools) -> None:
    load = "Loading into Flash:   [=====     ]  50%\nVerifying Flash: [==========]  100%"
    tools.add("picotool", (["info"], 0, RP2040_INFO), (["load"], 0, load))
    seen: list[tuple[str, float]] = []
    rp2.flash(small_plan(), PICO, "", lambda what, done, total: seen.append((what, done)))
    info, write = tools.calls()
    assert info == ["picotool", "info", "-d"]
    assert write[:4] == ["picotool", "load", "-v", "-x"] and write[4].endswith(".uf2")
    assert seen == [("loading firmware", 50), ("verifying firmware", 100)]


@pytest.mark.parametrize(
    ("board", "info", "message"),
    [
        (PICO, RP2350_INFO, "is an RP2350, rp2040 needs an RP2040"),
        (PICO2, RP2040_INFO, "is an RP2040, rp2350 needs an RP2350"),
        (PICO, RP2040_INFO.replace("2048K", "4K"), "4 KiB of flash"),
        (PICO2, RP2350_INFO.replace("boot:  0", "boot:  1"), "secure boot on"),
    ],
)
def test_picotool_finds_another_chip(
    tools: FakeTools, board: boards.Board, info: str, message: str
) -> None:
    tools.add("picotool", (["info"], 0, info))
    with pytest.raises(DeviceError, match=message):
        rp2.flash(small_plan(), board, "", silent)
    assert len(tools.calls()) == 1


def test_picotool_without_board_or_with_a_bad_one(tools: FakeTools) -> None:
    none = "No accessible RP-series devices in BOOTSEL mode were found."
    tools.add("picotool", (["info"], 249, none))
    with pytest.raises(LinkError, match=r"No accessible .*hold BOOTSEL .*udev rules"):
        rp2.flash(small_plan(), PICO, "", silent)
    failed = (["load"], 1, "ERROR: Verify failed")
    tools.add("picotool", (["info"], 0, RP2040_INFO), failed)
    with pytest.raises(DeviceError, match=r"Verify failed.*boot ROM is untouched"):
        rp2.flash(small_plan(), PICO, "", silent)
