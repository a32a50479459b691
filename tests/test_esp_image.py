"""esptool's elf2image, image-info and merge-bin on generated sources linked for an ESP32-S3."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from esp_build import BOOTLOADER_AT, esp_image, partition_table, write_build
from esp_idf_project import exported
from esp_rom_loader import Chip, RomLoader
from firmware_build import DIMS
from random_model import random_model
from xtensa_build import build_esp32s3, require_xtensa

from quads_mcu import image_format
from quads_mcu.device import boards
from quads_mcu.device.elf import Elf
from quads_mcu.device.flashers import esp_project, esptool, plan
from quads_mcu.device.flashers.plan import Part, Plan
from quads_mcu.errors import ModelFormatError
from quads_mcu.export import csource

S3 = boards.load("esp32s3")


def run_esptool(*arguments: str) -> str:
    command = [sys.executable, "-m", "esptool", "--chip", "esp32s3", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def application(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """ELF file and flash image of the generated sources."""
    require_xtensa()
    folder = tmp_path_factory.mktemp("esp32s3")
    csource.write_sources(random_model(DIMS, seed=3), folder / "source")
    elf, image = build_esp32s3(folder / "source", folder), folder / "app.bin"
    run_esptool(
        "elf2image", "--flash-mode", "dio", "--flash-freq", "80m", "--flash-size", "8MB",
        "--output", str(image), str(elf),
    )  # fmt: skip
    return elf, image


def segments(image: bytes) -> tuple[dict[int, bytes], int]:
    """Segments by address and the place behind them; ESP-IDF, "App Image Format"."""
    found, at = {}, 24
    for _ in range(image[1]):
        address, length = struct.unpack_from("<II", image, at)
        found[address] = image[at + 8 : at + 8 + length]
        at += 8 + length
    return found, at


def test_image_holds_what_was_linked(application: tuple[Path, Path]) -> None:
    elf, image = application[0], application[1].read_bytes()
    found, end = segments(image)
    # esptool puts the hash of the ELF file into the application's description.
    digest = hashlib.sha256(elf.read_bytes()).digest()
    description = found[0x3C00_0020]
    assert description[144:176] == digest
    found[0x3C00_0020] = description[:144] + bytes(32) + description[176:]
    for address, data in Elf(elf).loaded():
        start = max(place for place in found if place <= address)
        assert found[start][address - start :][: len(data)] == data
    assert image[0] == 0xE9 and struct.unpack_from("<H", image, 12) == (9,)
    assert image[3] >> 4 == 3  # 8 MB
    # The cache maps pages of 64 KiB: place and address agree in the lower 16 bits.
    at = 24
    for address, data in found.items():
        if 0x3C00_0000 <= address < 0x3E00_0000 or 0x4200_0000 <= address < 0x4400_0000:
            assert (at + 8) % 0x1_0000 == address % 0x1_0000
        at += 8 + len(data)
    checksum_at = end + 15 - end % 16
    state = 0xEF
    for byte in b"".join(segments(image)[0].values()):
        state ^= byte
    assert image[checksum_at] == state
    digest = hashlib.sha256(image[: checksum_at + 1]).digest()
    assert image[checksum_at + 1 :] == digest


def test_image_info_reads_it(application: tuple[Path, Path]) -> None:
    text = run_esptool("image-info", str(application[1]))
    assert "Chip ID: 9 (ESP32-S3)" in text
    assert "(valid)" in text and "invalid" not in text
    assert "Flash size: 8MB" in text


def test_merged_and_flashed(application: tuple[Path, Path], tmp_path: Path) -> None:
    parts = {
        BOOTLOADER_AT[S3.chip]: esp_image(S3.chip, S3.flash_bytes, 20_000, 1),
        0x8000: partition_table([("factory", 0, 0, 0x10000, 0x100000)]),
        0x10000: application[1].read_bytes(),
    }
    arguments = []
    for offset, data in parts.items():
        path = tmp_path / f"{offset:x}.bin"
        path.write_bytes(data)
        arguments += [hex(offset), str(path)]
    merged = tmp_path / "merged.bin"
    run_esptool("merge-bin", "--output", str(merged), *arguments)
    whole = merged.read_bytes()
    assert all(whole[at : at + len(data)] == data for at, data in parts.items())
    chip = Chip()
    with RomLoader(chip, tmp_path / "port") as loader:
        one = Plan(S3.name, (Part("everything", 0, whole, str(merged)),))
        plan.check(one, 0, S3.flash_bytes)
        esptool.flash(one, S3, loader.port, esptool.BAUD, lambda *_: None)
    assert chip.flash[: len(whole)] == whole


@pytest.mark.parametrize("name", ["esp32s3", "esp32", "esp32c3"])
def test_exported_project_is_flashed(name: str, tmp_path: Path) -> None:
    """What ESP-IDF would leave of an export: its table, its image, files where its CMake says."""
    board = boards.load(name)
    project = tmp_path / "project"
    shutil.copytree(exported(name, "bin"), project)
    rows = table_of((project / "partitions.csv").read_text())
    slots = [row for row in rows if row[0].startswith("model")]
    application = next(row for row in rows if row[1] == 0)
    expected = write_build(project, board, app_at=application[3], rows=rows)
    model = project / "components" / "quads" / "model" / "model.bin"
    expected[slots[0][3]] = model.read_bytes()
    path = project / "build" / "flasher_args.json"
    tree = json.loads(path.read_text())
    for slot, file in zip(slots, ("model.bin", "erased.bin"), strict=False):
        tree["flash_files"][hex(slot[3])] = f"../components/quads/model/{file}"
    path.write_text(json.dumps(tree))
    (project / "model.bin").unlink()
    chip = Chip(board.chip.replace("-", "").lower(), board.flash_bytes)
    for slot in slots:
        chip.flash[slot[3] : slot[3] + len(expected[slots[0][3]])] = expected[slots[0][3]]
    with RomLoader(chip, tmp_path / "port") as loader:
        whole = esp_project.read(board, project, "server")
        esptool.flash(whole, board, loader.port, esptool.BAUD, lambda *_: None)
    assert all(chip.flash[at : at + len(data)] == data for at, data in expected.items())
    assert image_format.read_header(bytes(chip.flash[slots[0][3] :])).sequence == 0
    for slot in slots[1:]:
        with pytest.raises(ModelFormatError, match="not a model image"):
            image_format.read_header(bytes(chip.flash[slot[3] : slot[4] + slot[3]]))
    assert [part.what for part in whole.parts][-2:] == ["partition table", "bootloader"]


def table_of(csv: str) -> list[tuple[str, int, int, int, int]]:
    """Rows of partitions.csv; ESP-IDF, "Partition Tables": names of types and subtypes."""
    kinds = {"app": 0, "data": 1}
    subtypes = {"factory": 0, "ota_0": 16, "ota_1": 17, "ota": 0, "phy": 1, "nvs": 2}
    rows = []
    for line in csv.splitlines():
        if line.strip() and not line.startswith("#"):
            name, kind, subtype, offset, size = [word.strip() for word in line.split(",")]
            rows.append(
                (
                    name,
                    kinds[kind] if kind in kinds else int(kind, 0),
                    subtypes[subtype] if subtype in subtypes else int(subtype, 0),
                    int(offset, 0),
                    int(size, 0),
                )
            )
    return rows
