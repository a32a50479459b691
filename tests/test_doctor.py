"""What `doctor` says of computers that have or lack things."""

from __future__ import annotations

import grp
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_tools import FakeTools

from quads_mcu.device import boards, doctor
from quads_mcu.device.flashers import swd

ALL = boards.all_boards()


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeTools:
    """A computer with no programs, no ports, no rules, and a user of no group."""
    for name in ("PICO_SDK_PATH", "ZEPHYR_BASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(doctor, "_comports", lambda: [])
    monkeypatch.setattr(doctor, "UDEV_FOLDERS", (str(tmp_path / "rules.d"),))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "getgroups", lambda: [1000])
    monkeypatch.setattr(doctor.getpass, "getuser", lambda: "ada")
    dialout = grp.struct_group(("dialout", "x", 20, []))
    monkeypatch.setattr(grp, "getgrall", lambda: [dialout])
    return FakeTools(tmp_path / "bin", monkeypatch)


def version(text: str) -> tuple[list[str], int, str]:
    return ["version"], 0, text


def lacks(name: str) -> list[str]:
    return [one.name for one in doctor.readiness(boards.load(name)).missing]


def test_bare_computer_lacks_everything_and_is_told_how_to_get_it(tools: FakeTools) -> None:
    found = doctor.diagnose(ALL)
    assert all(not program.found and program.fix for program in found.programs)
    for target in found.targets:
        assert not target.ready or target.target == "host", target  # ziglang may be there
        assert all(lack.fix and lack.purpose for lack in target.missing)
    text = "\n".join(doctor.lines(found))
    assert "  MISSING idf.py: build esp-idf projects\n      git clone --recursive" in text
    assert "  rp2040: lacks cmake, arm-none-eabi-gcc, $PICO_SDK_PATH\n      apt install" in text
    assert "Ports\n  none" in text


@pytest.mark.parametrize(
    ("name", "programs"),
    [
        ("qemu-an386", ["arm-none-eabi-gcc", "qemu-system-arm"]),
        ("qemu-riscv32", ["riscv64-unknown-elf-gcc", "qemu-system-riscv32"]),
        ("esp32s3", ["idf.py"]),
        ("esp32s3", ["pio"]),  # any one of the formats is enough
        ("stm32f411", ["make", "arm-none-eabi-gcc", "probe-rs"]),
        ("arduino-nano33ble", ["arduino-cli"]),
    ],
)
def test_each_program_makes_its_target_ready(
    name: str, programs: list[str], tools: FakeTools
) -> None:
    before = lacks(name)
    assert before
    for program in programs:
        assert lacks(name)
        tools.add(program, version(f"{program} 12.3.1"))
    assert lacks(name) == []


def test_versions_are_read(tools: FakeTools) -> None:
    tools.add("picotool", (["version"], 0, "picotool v2.1.1 (Linux, GNU-12.2.0, Release)"))
    tools.add("openocd", (["--version"], 0, "Open On-Chip Debugger 0.12.0"))
    tools.add("cmake", (["--version"], 1, "broken"))
    programs = {one.name: one.found for one in doctor.diagnose(ALL).programs}
    assert programs["picotool"] == "2.1.1" and programs["openocd"] == "0.12.0"
    assert programs["cmake"].endswith("/cmake")  # there, of unknown version


def test_rp2_needs_no_flasher_and_openocd_no_nrf5340(tools: FakeTools) -> None:
    assert "picotool" not in lacks("rp2040")
    tools.add("openocd")
    assert "pyocd" in lacks("nrf5340") and "pyocd" not in lacks("nrf52840")
    assert set(swd.TOOLS) <= {one.name for one in doctor.diagnose(ALL).programs}


def test_ports_and_who_may_open_them(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usable = tmp_path / "ttyACM0"
    usable.touch()
    ports = [
        SimpleNamespace(device=str(usable), vid=0x303A, pid=0x1001, description="USB JTAG"),
        SimpleNamespace(device="/dev/none", vid=0x10C4, pid=0xEA60, description="n/a"),
        SimpleNamespace(device="/dev/ttyS9", vid=None, pid=None, description="n/a"),
    ]
    monkeypatch.setattr(doctor, "_comports", lambda: ports)
    first, second, third = doctor.diagnose([]).ports
    assert first.usable and not first.fix
    assert (first.usb, first.description) == ("303a:1001", "ESP32-S3 or -C3, own USB, USB JTAG")
    assert not second.usable and second.fix.startswith("sudo usermod -aG dialout $USER")
    assert (second.usb, second.description, third.usb) == ("10c4:ea60", "CP210x", "")
    text = "\n".join(doctor.lines(doctor.diagnose([])))
    assert "  NO PERMISSION /dev/none 10c4:ea60 CP210x\n      sudo usermod" in text


def test_group_and_udev_rules(
    tools: FakeTools, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = tmp_path / "rules.d"
    rules.mkdir()
    (rules / "60-probes.rules").write_text('ATTRS{idVendor}=="0483", MODE="660"\n')
    found = {one.name: one for one in doctor.diagnose(ALL).permissions}
    assert not found["group dialout"].found
    assert found["udev rule for 0483"].found == str(rules / "60-probes.rules")
    fix = found["udev rule for 2e8a"].fix
    # The command is one that a shell runs: without sudo and udevadm, it writes the rule.
    command = fix.split("|")[0]
    text = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True).stdout
    assert text == 'SUBSYSTEM=="usb", ATTRS{idVendor}=="2e8a", TAG+="uaccess"\n'
    monkeypatch.setattr(os, "getgroups", lambda: [1000, 20])
    assert doctor.diagnose([]).permissions[0].found == "member"


def test_command_line(tmp_path: Path) -> None:
    environment = os.environ | {"PATH": str(tmp_path)}
    command = [sys.executable, "-m", "quads_mcu.cli", "doctor", "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    values = json.loads(done.stdout)
    assert done.returncode == 0 and len(values["targets"]) == len(ALL)
    command += ["--target", "qemu-an386"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    (target,) = json.loads(done.stdout)["targets"]
    assert done.returncode == 1 and target["ready"] is False
    assert [lack["name"] for lack in target["missing"]] == ["arm-none-eabi-gcc", "qemu-system-arm"]
