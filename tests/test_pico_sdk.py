"""The pico-sdk project: its own C, on the few SDK functions it calls, in an emulated RP2040."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from c_build import require_tool
from firmware_build import DIMS
from project_files import (
    LISTEN,
    WARNINGS,
    clips,
    cmake,
    exported_model,
    inferences_of_the_references,
    project_files,
    run,
    spoken,
    utterances,
    write_project,
)

from quads_mcu.audio import frontend
from quads_mcu.device import boards
from quads_mcu.device.client import Client
from quads_mcu.device.flash import Session
from quads_mcu.device.link import Link
from quads_mcu.device.update import update_model
from quads_mcu.errors import ExportError
from quads_mcu.export import image, listener
from quads_mcu.export.listener import GateSettings
from quads_mcu.export.projects import pico_sdk
from quads_mcu.export.projects.project import IMAGE, Project
from quads_mcu.export.reference import Reference

STUB = Path(__file__).parent / "pico_sdk"
RP2040 = boards.load("rp2040")
NPM_TIMEOUT_S = 120


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with rp2040js and the script that runs an image."""
    require_tool("node")
    folder = tmp_path_factory.mktemp("rp2040js")
    for name in ("package.json", "package-lock.json", "rp2040.cjs"):
        shutil.copy(STUB / name, folder)
    command = [require_tool("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
    try:
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, check=False, timeout=NPM_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        pytest.skip(f"rp2040js: the npm registry did not answer within {NPM_TIMEOUT_S} s")
    if done.returncode:
        pytest.skip(f"rp2040js cannot be installed from npm: {done.stderr.strip()[-300:]}")
    return folder


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with quads_server.bin and quads_demo.bin, made by the project's CMake."""
    return make(tmp_path_factory.mktemp("pico"))


def make(folder: Path, weights: str = "header") -> Path:
    """Write the project and build both programs; return the folder they are in."""
    require_tool("arm-none-eabi-gcc")
    write_project("pico-sdk", "rp2040", folder, weights)
    warnings = f"-DCMAKE_C_FLAGS=-mcpu=cortex-m0plus -mthumb {' '.join(WARNINGS)} -std=c11"
    configure(folder, f"-DPICO_SDK_PATH={STUB}", warnings)
    run([cmake(), "--build", str(folder / "build"), "-j2"])
    assert not (folder / "build" / "quads_demo.bin").exists()
    run([cmake(), "--build", str(folder / "build"), "-j2", "-t", "quads_demo"])
    return folder / "build"


def configure(folder: Path, *options: str) -> str:
    """Run CMake, which must succeed; return what it wrote."""
    return run([cmake(), "-S", str(folder), "-B", str(folder / "build"), *options])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["-DPICO_SDK_PATH=/nowhere"],
            "PICO_SDK_PATH is '/nowhere', where no pico-sdk is. Get one",
        ),
        (
            [f"-DPICO_SDK_PATH={STUB}", "-DPICO_SDK_VERSION_STRING=1.5.1"],
            "pico-sdk 1.5.1 is too old; 2.0.0 or newer is needed",
        ),
    ],
)
def test_cmake_says_what_is_missing(tmp_path: Path, options: list[str], message: str) -> None:
    write_project("pico-sdk", "rp2040", tmp_path)
    done = subprocess.run(
        [cmake(), "-S", str(tmp_path), "-B", str(tmp_path / "build"), *options],
        capture_output=True, text=True, check=False,
        env={name: text for name, text in os.environ.items() if name != "PICO_SDK_PATH"},
    )  # fmt: skip
    assert done.returncode != 0
    assert message in re.sub(r"\s+", " ", done.stderr)


def test_cmake_stops_at_a_missing_file(tmp_path: Path) -> None:
    write_project("pico-sdk", "rp2040", tmp_path)
    (tmp_path / "quads/src/gate.c").unlink()
    with pytest.raises(pytest.fail.Exception, match=r"gate\.c does not exist"):
        configure(tmp_path, f"-DPICO_SDK_PATH={STUB}")


@pytest.mark.parametrize("board_name", ["rp2040", "rp2350"])
def test_project(board_name: str) -> None:
    files = project_files("pico-sdk", board_name)
    board = boards.load(board_name)
    listed = re.findall(r"^  (quads/\S+\.[cS])$", str(files["CMakeLists.txt"]), re.M)
    assert sorted(listed) == sorted(name for name in files if name.endswith((".c", ".S")))
    assert f"set(PICO_BOARD {board.project['pico_board']} " in str(files["CMakeLists.txt"])
    assert "## Never run on silicon" in str(files["README.md"])


def test_the_image_computes_what_the_reference_does(emulator: Path, images: Path) -> None:
    packed = exported_model("rp2040")
    assert packed.frontend == "fixed"
    command = [require_tool("node"), "rp2040.cjs", str(images / "quads_server.bin")]
    with Session(RP2040, command, emulator) as session, Link(session.url) as link:
        client = Client(link, timeout_s=20)
        hello = client.check(packed.model_hash)
        assert hello.board == "rp2040"
        found = inferences_of_the_references(client, packed)
        accepted = sum(not one.rejected for one in found)
        assert session.output().count("led toggled") == accepted > 0
        assert all(one.unit == "nanoseconds" and one.work.sum() > 0 for one in found)


def test_the_demo_hears_through_the_i2s_microphone(
    emulator: Path, images: Path, tmp_path: Path
) -> None:
    packed = exported_model("rp2040")
    pcm = utterances()
    (tmp_path / "pcm.raw").write_bytes(pcm.tobytes())
    heard = listener.listen(packed, pcm, GateSettings.of(LISTEN))
    assert heard.rejected.tolist() == [False, True]

    command = [require_tool("node"), "rp2040.cjs", str(images / "quads_demo.bin")]
    command.append(str(tmp_path / "pcm.raw"))
    done = subprocess.run(
        command, cwd=emulator, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["listening", *spoken(packed, heard)]
    assert done.stderr.count("led toggled") == (~heard.rejected).sum()


def test_model_is_sent_to_flash_and_replaced(emulator: Path, tmp_path: Path) -> None:
    build = make(tmp_path, "bin")
    first, pcm = exported_model("rp2040"), clips()[0]
    second = dataclasses.replace(first, reject_threshold=2**31 - 1)
    assert (tmp_path / "quads/model/model.bin").read_bytes() == image.pack(first, "plain")
    assert not (tmp_path / "quads/model/model_data.c").exists()
    command = [require_tool("node"), "rp2040.cjs", str(build / "quads_server.bin")]
    with Session(RP2040, command, emulator) as session, Link(session.url) as link:
        client = Client(link, timeout_s=20)
        for packed, slot in ((first, 0), (second, 1), (first, 0)):
            assert update_model(client, image.pack(packed, "plain")).slot == slot
            assert client.check(packed.model_hash).model_hash == packed.model_hash
            client.send_pcm(pcm)
            mel = frontend.features(pcm, DIMS.n_mels, DIMS.n_frames, packed.frontend)
            found = client.infer()
            np.testing.assert_array_equal(found.logits, Reference(packed).logits(mel[None])[0])
            assert found.rejected == (packed is second)


def test_an_application_that_reaches_into_the_slots_is_not_linked(tmp_path: Path) -> None:
    require_tool("arm-none-eabi-gcc")
    write_project("pico-sdk", "rp2040", tmp_path, "bin")
    script = tmp_path / "slots.ld"
    script.write_text(re.sub("<= 0x[0-9A-F]+", "<= 0x10000100", script.read_text()))
    configure(tmp_path, f"-DPICO_SDK_PATH={STUB}")
    with pytest.raises(pytest.fail.Exception, match="the application reaches into the model slots"):
        run([cmake(), "--build", str(tmp_path / "build"), "-j2"])


@pytest.mark.parametrize(
    ("image_bytes", "slots"), [(0, 2), (1_790_000, 1), (1_966_081, 0)], ids=["two", "one", "none"]
)
def test_slots_fill_the_flash(
    image_bytes: int, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Project, "model_sources", lambda _: {IMAGE: bytes(image_bytes)})
    project = Project(exported_model("rp2040"), RP2040, None, None, "bin")  # type: ignore[arg-type]
    if not slots:
        with pytest.raises(ExportError, match="takes 1,966,081 bytes, the flash of rp2040 has 1,9"):
            pico_sdk._slots(project)
        return
    found = pico_sdk._slots(project)
    start, size = found["QUADS_FLASH_SLOTS_AT"], found["QUADS_FLASH_SLOT_BYTES"]
    assert found["QUADS_FLASH_SLOTS"] == slots and start + slots * size == RP2040.flash_bytes
    assert start >= pico_sdk.APPLICATION_BYTES and start % 4096 == size % 4096 == 0
    assert size >= image_bytes
