"""Debug probes and Arduino's boot loader: what is asked, run and made of the answers.

The tools are stand-ins on PATH. Their words are those of pyOCD 0.46, OpenOCD 0.12 and the documents
of probe-rs and arduino-cli.
"""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from fake_tools import FakeTools
from silent import silent

from quads_mcu.device import boards, flashers, link
from quads_mcu.device.flashers import arduino, swd
from quads_mcu.errors import BuildError, DeviceError, InstallationError, LinkError

F411, NRF52, NRF53 = (boards.load(name) for name in ("stm32f411", "nrf52840", "nrf5340"))
NANO = boards.load("arduino-nano33ble")
CODE = bytes(range(256)) * 20


def elf(segments: list[tuple[int, bytes]]) -> bytes:
    """A 32-bit Arm ELF file of loaded segments, and one of RAM that is not loaded."""
    start = 52 + 32 * (len(segments) + 1)
    headers, content = b"", b""
    for address, data in segments:
        at = start + len(content)
        headers += struct.pack("<8I", 1, at, address, address, len(data), len(data), 5, 4)
        content += data
    headers += struct.pack("<8I", 1, 0, 0x2000_0000, 0x2000_0000, 0, 4096, 6, 4)
    identity = b"\x7fELF\x01\x01\x01" + bytes(9)
    return identity + struct.pack("<HHIIIIIHHHHHH", 2, 40, 1, segments[0][0], 52, 0, 0, 52, 32,
                                  len(segments) + 1, 40, 0, 0) + headers + content  # fmt: skip


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTools:
    return FakeTools(tmp_path / "bin", monkeypatch)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    (folder / "build").mkdir(parents=True)
    (folder / "build" / "quads.elf").write_bytes(elf([(0x0800_0000, CODE)]))
    return folder


def pyocd_reads(address: int, value: int) -> tuple[list[str], int, str]:
    return ([f"read32 {address:#x}"], 0, f"{address:08x}:  {value:08x}    |....|")


GOOD_F411 = [
    pyocd_reads(0xE004_2000, 0x1000_6431),
    pyocd_reads(0x4002_3C14, 0x0FFF_AAED),
    pyocd_reads(0x1FFF_7A20, 512 << 16 | 0xFFFF),
]


def test_parts_are_the_loaded_segments(project: Path) -> None:
    (part,) = swd.read(F411, project, "server").parts
    assert (part.offset, part.data) == (0x0800_0000, CODE)


def test_pyocd_checks_then_writes_then_compares(tools: FakeTools, project: Path) -> None:
    compared = (["compare"], 0, "All 5120 bytes match.")
    tools.add("pyocd", *GOOD_F411, compared)
    assert (
        flashers.flash(swd.read(F411, project, "server"), F411, None, None, silent)
        == "STM32F411 by pyocd"
    )
    *reads, load, check = tools.calls()
    assert [call[-1] for call in reads] == [
        "read32 0xe0042000", "read32 0x40023c14", "read32 0x1fff7a20",
    ]  # fmt: skip
    assert load[1] == "load" and load[load.index("-a") + 1] == "0x8000000"
    assert check[-4:-2] == ["-c", f"compare 0x8000000 {load[-1]}"]
    # pyOCD erases a locked chip to get at it, unless it is told not to.
    assert all("auto_unlock=false" in call for call in tools.calls())


def test_pyocd_finds_a_difference(tools: FakeTools, project: Path) -> None:
    tools.add("pyocd", *GOOD_F411, (["compare"], 0, "Mismatched byte at 0x08000000 (offset 0x0)"))
    with pytest.raises(DeviceError, match="not complete: flash again"):
        swd.flash(swd.read(F411, project, "server"), F411, "", silent)


def test_openocd_verifies_itself(tools: FakeTools, project: Path) -> None:
    tools.add(
        "openocd",
        (["0xe0042000"], 0, "Info : x\n0xe0042000: 10006431 \n"),
        (["0x40023c14"], 0, "0x40023c14: 0fffaaed \n"),
        (["0x1fff7a20"], 0, "0x1fff7a20: 0200ffff \n"),
        (["program"], 0, "** Verified OK **"),
    )
    assert swd.flash(swd.read(F411, project, "server"), F411, "066BFF", silent) == "openocd"
    last = tools.calls()[-1]
    assert last[1:5] == ["-f", "board/st_nucleo_f4.cfg", "-c", "adapter serial 066BFF"]
    assert last[6].startswith("program ") and last[6].endswith(" 0x8000000 verify")


def test_probe_rs(tools: FakeTools, tmp_path: Path) -> None:
    (tmp_path / "p" / "build").mkdir(parents=True)
    (tmp_path / "p" / "build" / "zephyr.elf").write_bytes(elf([(0, CODE)]))
    tools.add(
        "probe-rs",
        (["0xff020c"], 0, "00005340"),
        (["0xff021c"], 0, "00000400"),
    )
    tools.add("openocd")  # knows no nRF5340
    assert swd.flash(swd.read(NRF53, tmp_path / "p", "server"), NRF53, "", silent) == "probe-rs"
    read, _, download, reset = tools.calls()
    assert read == ["probe-rs", "read", "--chip", "nRF5340_xxAA", "b32", "0xff020c", "1"]
    assert download[1:8] == ["download", "--chip", "nRF5340_xxAA", "--verify", "--binary-format",
                             "bin", "--base-address"]  # fmt: skip
    assert reset == ["probe-rs", "reset", "--chip", "nRF5340_xxAA"]


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ([pyocd_reads(0xE004_2000, 0x413)], "says 0x413, an STM32F411 says 0x431"),
        ([GOOD_F411[0], pyocd_reads(0x4002_3C14, 0x0FFF_55ED)], "read-protected; nothing was"),
        ([*GOOD_F411[:2], pyocd_reads(0x1FFF_7A20, 4 << 16)], "has 4 KiB of flash"),
        ([(["read32"], 1, "Error: APPROTECT enabled: not automatically unlocking")], "protected"),
    ],
)
def test_refused_before_anything_is_written(
    answers: list[tuple[list[str], int, str]], message: str, tools: FakeTools, project: Path
) -> None:
    tools.add("pyocd", *answers)
    with pytest.raises(DeviceError, match=message) as problem:
        swd.flash(swd.read(F411, project, "server"), F411, "", silent)
    assert "nothing was written" in str(problem.value)
    assert not any("load" in call for call in tools.calls())


@pytest.mark.parametrize(
    ("tool", "text"),
    [
        ("pyocd", "No connected debug probes"),
        ("openocd", "Info : clock speed 2000 kHz\nError: open failed"),
        ("openocd", "Error: No J-Link device found"),
    ],
)
def test_no_probe(tool: str, text: str, tools: FakeTools, project: Path) -> None:
    tools.add(tool, ([], 1, text))
    with pytest.raises(LinkError, match=r"finds no debug probe .*nothing was written.*udev"):
        swd.flash(swd.read(F411, project, "server"), F411, "", silent)


def test_no_tool_and_no_chip_support(tools: FakeTools, project: Path) -> None:
    plan = swd.read(F411, project, "server")
    with pytest.raises(InstallationError, match=r"none is installed.*pip install pyocd"):
        swd.flash(plan, F411, "", silent)
    tools.add("pyocd", ([], 1, "Error: Target type stm32f411re not recognized."))
    with pytest.raises(InstallationError, match="pyocd pack install stm32f411re"):
        swd.flash(plan, F411, "", silent)


def test_image_larger_than_the_flash(project: Path) -> None:
    (project / "build" / "quads.elf").write_bytes(elf([(0x0800_0000, bytes(512 * 1024 + 1))]))
    with pytest.raises(DeviceError, match="the flash of stm32f411 ends at 0x8080000"):
        swd.read(F411, project, "server")


# --- Arduino --------------------------------------------------------------------------------


@pytest.fixture
def sketch(tmp_path: Path) -> Path:
    for name, code in (("Server", CODE), ("Listen", CODE[::-1])):
        (tmp_path / "build" / name).mkdir(parents=True)
        (tmp_path / "build" / name / f"{name}.ino.elf").write_bytes(elf([(0x1_0000, code)]))
    return tmp_path


def test_arduino_uploads_and_verifies(
    tools: FakeTools, sketch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "check", lambda port: None)
    monkeypatch.setattr(link, "usb_ids", lambda port: (0x2341, 0x805A))
    tools.add("arduino-cli", (["upload"], 0, "Verify successful"))
    flashers.flash(arduino.read(NANO, sketch, "server"), NANO, "/dev/ttyACM0", None, silent)
    assert tools.calls() == [
        ["arduino-cli", "upload", "--verify", "-b", "arduino:mbed_nano:nano33ble",
         "-p", "/dev/ttyACM0", "--input-dir", str(sketch / "build" / "Server")]
    ]  # fmt: skip


def test_which_of_two_programs(sketch: Path, project: Path) -> None:
    assert arduino.read(NANO, sketch, "server").parts[0].data == CODE
    assert arduino.read(NANO, sketch, "demo").parts[0].data == CODE[::-1]
    (project / "build" / "quads.elf").rename(project / "build" / "server.elf")
    with pytest.raises(BuildError, match="no ELF file of program demo"):
        swd.read(F411, project, "demo")


def test_arduino_refuses_other_boards_and_tells_failures(
    tools: FakeTools, sketch: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = arduino.read(NANO, sketch, "server")
    monkeypatch.setattr(link, "check", lambda port: None)
    monkeypatch.setattr(link, "usb_ids", lambda port: (0x303A, 0x1001))
    with pytest.raises(InstallationError, match="arduino-cli is not installed"):
        arduino.flash(plan, NANO, "/dev/ttyACM0", silent)
    tools.add("arduino-cli", (["upload"], 1, "No device found on ttyACM0"))
    with pytest.raises(DeviceError, match="USB device 303a:1001, which is no arduino-nano33ble"):
        arduino.flash(plan, NANO, "/dev/ttyACM0", silent)
    monkeypatch.setattr(link, "usb_ids", lambda port: None)
    with pytest.raises(LinkError, match=r"No device found on ttyACM0.*press reset twice"):
        arduino.flash(plan, NANO, "/dev/ttyACM0", silent)
