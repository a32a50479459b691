"""The pico-sdk project: its own C, on the few SDK functions it calls, in an emulated RP2040."""

from __future__ import annotations

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
    compile_all,
    exported_model,
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
from quads_mcu.export import listener
from quads_mcu.export.listener import GateSettings
from quads_mcu.export.projects import firmware
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
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pico")
    write_project("pico-sdk", "rp2040", folder)
    return folder


def image(project: Path, program: str, out_dir: Path) -> Path:
    """Link a program of the project with the SDK's stand-in; return a flat flash image."""
    require_tool("arm-none-eabi-gcc")
    files = {str(path.relative_to(project)): "" for path in project.rglob("*") if path.is_file()}
    programs = firmware.Programs.of(dict(files))
    names = [*programs.shared, *(programs.server if program == "server" else programs.demo)]
    flags = [*RP2040.toolchain.flags, "-std=c11", "-O2", "-ffunction-sections", *WARNINGS]
    flags += [f"-I{project / name}" for name in firmware.INCLUDES] + [f"-I{STUB / 'include'}"]
    sources = [*(project / name for name in names), STUB / "sdk.c"]
    objects = compile_all("arm-none-eabi-gcc", flags, sources, out_dir / program)
    elf, flat = out_dir / f"{program}.elf", out_dir / f"{program}.bin"
    run(
        ["arm-none-eabi-gcc", *RP2040.toolchain.flags, *map(str, objects), f"-T{STUB / 'rp2040.ld'}",
         "-nostartfiles", "-Wl,--gc-sections", "--specs=nosys.specs", "-o", str(elf)]
    )  # fmt: skip
    run([require_tool("arm-none-eabi-objcopy"), "-O", "binary", str(elf), str(flat)])
    return flat


def test_the_image_computes_what_the_reference_does(
    emulator: Path, project: Path, tmp_path: Path
) -> None:
    packed = exported_model("rp2040")
    assert packed.frontend == "fixed"
    reference = Reference(packed)
    flat = image(project, "server", tmp_path)
    command = [require_tool("node"), "rp2040.cjs", str(flat)]
    with Session(RP2040, command, emulator) as session, Link(session.url) as link:
        client = Client(link, timeout_s=20)
        hello = client.check(packed.model_hash)
        assert hello.board == "rp2040"
        accepted = 0
        for pcm in clips():
            client.send_pcm(pcm)
            mel = frontend.features(pcm, DIMS.n_mels, DIMS.n_frames, packed.frontend)
            np.testing.assert_array_equal(client.features(), mel)
            found = client.infer()
            np.testing.assert_array_equal(found.logits, reference.logits(mel[None])[0])
            assert found.unit == "nanoseconds" and found.work.sum() > 0
            accepted += not found.rejected
        assert session.output().count("led toggled") == accepted > 0


def test_the_demo_hears_through_the_i2s_microphone(
    emulator: Path, project: Path, tmp_path: Path
) -> None:
    packed = exported_model("rp2040")
    pcm = utterances()
    (tmp_path / "pcm.raw").write_bytes(pcm.tobytes())
    heard = listener.listen(packed, pcm, GateSettings.of(LISTEN))
    assert heard.rejected.tolist() == [False, True]

    flat = image(project, "demo", tmp_path)
    command = [require_tool("node"), "rp2040.cjs", str(flat), str(tmp_path / "pcm.raw")]
    done = subprocess.run(
        command, cwd=emulator, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["listening", *spoken(packed, heard)]
    assert done.stderr.count("led toggled") == (~heard.rejected).sum()
