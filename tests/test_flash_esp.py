"""The real esptool, driven by our code, against a simulated ROM loader and its faults."""

from __future__ import annotations

import errno
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import serial
from esp_build import APP_AT, SLOT_A, SLOT_B, model_image, partition_table, write_build
from esp_rom_loader import SECURE_BOOT, SECURE_DOWNLOAD, Chip, Fault, RomLoader
from silent import silent

from quads_mcu import image_format
from quads_mcu.device import boards
from quads_mcu.device.boards import Board
from quads_mcu.device.flashers import esp_project, esptool
from quads_mcu.errors import BuildError, DeviceError, LinkError
from quads_mcu.export.projects import folder as folders
from quads_mcu.protocol import positions

S3 = boards.load("esp32s3")
BAUD = 460800


@pytest.fixture(autouse=True)
def _impatient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """esptool gives up sooner: its own settings, for tests that wait for a timeout."""
    path = tmp_path / "esptool.cfg"
    path.write_text("[esptool]\ntimeout = 0.6\nconnect_attempts = 2\n")
    monkeypatch.setenv("ESPTOOL_CFGFILE", str(path))


def flash(board: Board, project: Path, loader: RomLoader) -> None:
    plan = esp_project.read(board, project, "server")
    esptool.flash(plan, board, loader.port, BAUD, silent)


def holds(chip: Chip, expected: dict[int, bytes]) -> bool:
    return all(chip.flash[at : at + len(data)] == data for at, data in expected.items())


def untouched(chip: Chip) -> bool:
    return chip.flash.count(0xFF) == len(chip.flash)


# --- the whole way --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["esp32s3", "esp32s3-n8r2", "esp32s3-n16r8", "esp32", "esp32c3"])
def test_everything_is_written_and_verified(name: str, tmp_path: Path) -> None:
    board = boards.load(name)
    expected = write_build(tmp_path, board)
    chip = Chip(board.chip.replace("-", "").lower(), board.flash_bytes, board.psram_bytes >> 20)
    chip.flash[SLOT_B : SLOT_B + 8] = b"QIMG old"
    with RomLoader(chip, tmp_path / "port") as loader:
        seen: list[tuple[str, float, float]] = []
        plan = esp_project.read(board, tmp_path, "server")
        found = esptool.flash(plan, board, loader.port, BAUD, lambda *values: seen.append(values))
    assert found.name == board.chip and found.flash_bytes == board.flash_bytes
    assert holds(chip, expected)
    # An image of an earlier flash in the second slot would win by its sequence number.
    assert chip.flash[SLOT_B : SLOT_B + 4096] == b"\xff" * 4096
    written = sum(map(len, expected.values())) + 4096
    done = [completed for what, completed, total in seen if what.startswith("writing")]
    assert done == sorted(done) and done[-1] == written and len(done) > 5


def test_what_makes_the_board_start_is_written_last(tmp_path: Path) -> None:
    write_build(tmp_path, S3)
    plan = esp_project.read(S3, tmp_path, "server")
    assert [part.what for part in plan.parts] == [
        "model", "model_1, emptied", "application", "partition table", "bootloader",
    ]  # fmt: skip
    assert [part.offset for part in plan.parts] == [SLOT_A, SLOT_B, APP_AT, 0x8000, 0]


def test_a_second_flash_replaces_the_first(tmp_path: Path) -> None:
    chip = Chip()
    with RomLoader(chip, tmp_path / "port") as loader:
        write_build(tmp_path, S3, app_bytes=200_000)
        flash(S3, tmp_path, loader)
        expected = write_build(tmp_path, S3, app_bytes=90_000)
        flash(S3, tmp_path, loader)
    assert holds(chip, expected)


@pytest.mark.parametrize("kind", ["esp32s3", "esp32", "esp32c3"])
@pytest.mark.parametrize("stub", [True, False], ids=["stub", "ROM"])
def test_the_simulated_chip_alone(kind: str, stub: bool, tmp_path: Path) -> None:
    """esptool without our code: what it writes, verifies and reads back, in both modes."""
    data = b"QUADS" * 5000 + bytes(20_000)
    (tmp_path / "data").write_bytes(data)
    chip = Chip(kind, 4 << 20)
    chip.flash[0x20000:0x30000] = bytes(0x10000)  # has to be erased
    with RomLoader(chip, tmp_path / "port") as loader:
        command = [sys.executable, "-m", "esptool", "--port", loader.port]
        command += [] if stub else ["--no-stub"]
        for verb in (
            ["write-flash", "0x20000", str(tmp_path / "data")],
            ["read-flash", "0x20000", "2048", str(tmp_path / "read")],
        ):
            done = subprocess.run([*command, *verb], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        assert ("stub" in loader.log) == stub
    assert chip.flash[0x20000 : 0x20000 + len(data)] == data
    assert (tmp_path / "read").read_bytes() == data[:2048]


# --- faults ---------------------------------------------------------------------------------

PULLS = [
    ("sync", 0, "dropped while connecting|stopped answering|no ESP chip"),
    ("detect", 1, "dropped while connecting|stopped answering"),
    ("stub", 1, "nothing was written"),
    ("begin", 0, "not complete: model; as before: .*bootloader"),
    ("data", 3, "not complete: .*; as before: .*bootloader"),
    ("end", 0, "not complete: model; as before: .*bootloader"),
    ("md5", 2, "written and verified: model, model_1, emptied; not complete: application; "
     "as before: partition table, bootloader"),
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "index", "message"), PULLS, ids=[p[0] for p in PULLS])
def test_cable_pulled(stage: str, index: int, message: str, tmp_path: Path) -> None:
    expected = write_build(tmp_path, S3)
    chip = Chip()
    with RomLoader(chip, tmp_path / "port", Fault("pull", stage, index)) as loader:
        with pytest.raises(LinkError, match=message) as problem:
            flash(S3, tmp_path, loader)
        assert "run the same command again" in str(problem.value)
        assert untouched(chip) == (stage in ("sync", "detect", "stub", "begin"))
        loader.replug()
        flash(S3, tmp_path, loader)
    assert holds(chip, expected)


def test_cable_back_in_time_goes_unnoticed(tmp_path: Path) -> None:
    expected = write_build(tmp_path, S3)
    chip = Chip()
    with RomLoader(chip, tmp_path / "port", Fault("pull", "data", 4), replug_s=1.0) as loader:
        flash(S3, tmp_path, loader)
    assert holds(chip, expected)


@pytest.mark.parametrize("stage", ["data", "begin", "md5"])
def test_bytes_lost_for_good(stage: str, tmp_path: Path) -> None:
    expected = write_build(tmp_path, S3)
    chip = Chip()
    with RomLoader(chip, tmp_path / "port", Fault("lost_request", stage, 1, 99)) as loader:
        with pytest.raises(LinkError, match=r"stopped answering .*not complete"):
            flash(S3, tmp_path, loader)
        loader.replug()
        flash(S3, tmp_path, loader)
    assert holds(chip, expected)


def test_bytes_lost_once_are_sent_again(tmp_path: Path) -> None:
    expected = write_build(tmp_path, S3)
    chip = Chip()
    with RomLoader(chip, tmp_path / "port", Fault("lost_request", "data", 2)) as loader:
        flash(S3, tmp_path, loader)
    assert holds(chip, expected)


def test_answers_lost_are_an_error_or_repaired(tmp_path: Path) -> None:
    """A block sent twice breaks the compressed stream; nothing wrong passes as verified."""
    expected = write_build(tmp_path, S3)
    chip = Chip()
    with RomLoader(chip, tmp_path / "port", Fault("lost_answer", "data", 1)) as loader:
        with pytest.raises(DeviceError, match="not complete"):
            flash(S3, tmp_path, loader)
        loader.replug()
        flash(S3, tmp_path, loader)
    assert holds(chip, expected)


def test_wrong_md5(tmp_path: Path) -> None:
    expected = write_build(tmp_path, S3)
    chip = Chip()
    with RomLoader(chip, tmp_path / "port", Fault("wrong_md5", "md5", 2)) as loader:
        with pytest.raises(
            DeviceError, match=r"reads back differently .*not complete: application.*--baud 115200"
        ):
            flash(S3, tmp_path, loader)
        flash(S3, tmp_path, loader)
    assert holds(chip, expected)


def test_no_answer(tmp_path: Path) -> None:
    write_build(tmp_path, S3)
    chip = Chip()
    with (
        RomLoader(chip, tmp_path / "port", Fault("silent", "sync", 0, 999)) as loader,
        pytest.raises(LinkError, match=r"no ESP chip answers .*nothing was written: hold BOOT"),
    ):
        flash(S3, tmp_path, loader)
    assert untouched(chip)


# --- chips that are refused -----------------------------------------------------------------

REFUSED = [
    (Chip("esp32c3"), "esp32s3", "has an ESP32-C3 .*needs an ESP32-S3"),
    (Chip("esp32"), "esp32s3", "has an ESP32 .*needs an ESP32-S3"),
    (Chip(security_flags=SECURE_DOWNLOAD), "esp32s3", "secure download mode"),
    (Chip(security_flags=SECURE_BOOT), "esp32s3", "secure boot"),
    (Chip(crypt_count=1), "esp32s3", "flash encryption"),
    (Chip("esp32", crypt_count=1), "esp32", "flash encryption"),
    (Chip("esp32", security_flags=SECURE_BOOT), "esp32", "secure boot"),
    (Chip("esp32c3", security_flags=SECURE_BOOT), "esp32c3", "secure boot"),
    (Chip(flash_bytes=4 << 20), "esp32s3", "4 MB of flash, esp32s3 8 MB"),
    (Chip("esp32", 2 << 20), "esp32", "2 MB of flash, esp32 4 MB"),
    (Chip(), "esp32s3-n8r2", "0 MB of PSRAM, esp32s3-n8r2 2 MB"),
    (Chip(flash_bytes=16 << 20, psram_mib=2), "esp32s3-n16r8", "2 MB of PSRAM, .* 8 MB"),
]


@pytest.mark.parametrize(("chip", "name", "message"), REFUSED)
def test_refused_before_anything_is_written(
    chip: Chip, name: str, message: str, tmp_path: Path
) -> None:
    board = boards.load(name)
    write_build(tmp_path, board)
    with RomLoader(chip, tmp_path / "port") as loader:
        with pytest.raises(DeviceError, match=message) as problem:
            flash(board, tmp_path, loader)
        assert "nothing was written" in str(problem.value)
        assert not {"begin", "data"} & set(loader.log)
    assert untouched(chip)


def test_even_count_of_encryption_bits_means_off(tmp_path: Path) -> None:
    with RomLoader(Chip("esp32", 4 << 20, crypt_count=3), tmp_path / "port") as loader:
        assert not esptool.probe(loader.port).flash_encryption


def test_flash_of_unknown_size_is_refused() -> None:
    chip = esptool.Chip("ESP32-S3", "ESP32-S3", None, 0, False, False, False)
    with pytest.raises(DeviceError, match="size of its flash; nothing was written"):
        esptool.check(chip, S3, "port")


def test_image_for_kernels_that_are_not_known_yet() -> None:
    image = bytearray(model_image(S3))
    places = {field.name: at for field, at in positions(image_format.HEADER)}
    image[places["kernels"]] = 200
    image[image_format.SHA256_AT : image_format.HASHED_FROM] = image_format.digest(bytes(image))
    with pytest.raises(DeviceError, match=r"packed for unknown \(200\) kernels"):
        esp_project.check_model(bytes(image), "model.bin", S3)


def test_ports_that_cannot_be_used(tmp_path: Path) -> None:
    write_build(tmp_path, S3)
    plan = esp_project.read(S3, tmp_path, "server")
    with pytest.raises(LinkError, match="no such port; found: "):
        esptool.flash(plan, S3, "/dev/ttyNONE7", BAUD, silent)
    with RomLoader(Chip(), tmp_path / "port") as loader:
        from quads_mcu.device.link import Link

        with Link(loader.port), pytest.raises(LinkError, match="busy"):
            esptool.flash(plan, S3, loader.port, BAUD, silent)


# --- the model alone ------------------------------------------------------------------------


@pytest.fixture
def flashed(tmp_path: Path) -> Iterator[tuple[RomLoader, Chip]]:
    write_build(tmp_path, S3)
    chip = Chip()
    with RomLoader(chip, tmp_path / "port") as loader:
        flash(S3, tmp_path, loader)
        yield loader, chip


def sequence(chip: Chip, slot: int) -> int:
    return image_format.read_header(bytes(chip.flash[slot : slot + 0x80000])).sequence


def update(loader: RomLoader, image: bytes) -> None:
    plan = esptool.plan_model(S3, loader.port, BAUD, image)
    esptool.flash(plan, S3, loader.port, BAUD, silent)


def test_model_goes_into_the_slot_not_in_use(flashed: tuple[RomLoader, Chip]) -> None:
    loader, chip = flashed
    before = bytes(chip.flash)
    update(loader, model_image(S3, seed=7))
    assert sequence(chip, SLOT_B) == sequence(chip, SLOT_A) + 1
    assert chip.flash[:SLOT_B] == before[:SLOT_B]  # the slot in use and everything else stays
    update(loader, model_image(S3, seed=8))
    assert sequence(chip, SLOT_A) == sequence(chip, SLOT_B) + 1


def test_interrupted_model_update_leaves_the_model_in_use(
    flashed: tuple[RomLoader, Chip],
) -> None:
    loader, chip = flashed
    before = bytes(chip.flash)
    loader.replug(Fault("lost_request", "data", 0, 99))
    with pytest.raises(LinkError, match="not complete: model_1"):
        update(loader, model_image(S3, seed=7))
    assert chip.flash[:SLOT_B] == before[:SLOT_B]
    loader.replug()
    update(loader, model_image(S3, seed=7))
    assert sequence(chip, SLOT_B) == 1


def test_second_try_after_an_interrupted_update_keeps_the_model_in_use(
    flashed: tuple[RomLoader, Chip],
) -> None:
    loader, chip = flashed
    before = bytes(chip.flash)
    loader.replug(Fault("lost_request", "data", 1, 99))  # the first block is there
    with pytest.raises(LinkError, match="not complete: model_1"):
        update(loader, model_image(S3, seed=7, d_model=96))
    assert chip.flash[SLOT_B:] != before[SLOT_B:]
    loader.replug()
    update(loader, model_image(S3, seed=8, d_model=96))
    assert chip.flash[:SLOT_B] == before[:SLOT_B]
    assert sequence(chip, SLOT_B) == sequence(chip, SLOT_A) + 1


def test_model_0lone_passes_secure_boot_but_not_encryption(
    flashed: tuple[RomLoader, Chip],
) -> None:
    loader, chip = flashed
    plan = esptool.plan_model(S3, loader.port, BAUD, model_image(S3))
    chip.security_flags = SECURE_BOOT
    loader.replug()
    found = esptool.probe(loader.port)
    esptool.check(found, S3, loader.port, model_only=True)
    with pytest.raises(DeviceError, match="flash encryption"):
        esptool.check(replace(found, flash_encryption=True), S3, loader.port, model_only=True)
    assert [part.offset for part in plan.parts] == [SLOT_B + 0x1000, SLOT_B]


def test_model_0lone_needs_a_flashed_board(tmp_path: Path) -> None:
    with (
        RomLoader(Chip(), tmp_path / "port") as loader,
        pytest.raises(DeviceError, match="no partition table; flash the board completely once"),
    ):
        update(loader, model_image(S3))


def test_model_larger_than_its_slot(tmp_path: Path) -> None:
    rows = [("model_0", 0x40, 0, 0x110000, 0x1000), ("model_1", 0x40, 0, 0x111000, 0x1000)]
    chip = Chip()
    table = partition_table(rows)
    chip.flash[0x8000 : 0x8000 + len(table)] = table
    with (
        RomLoader(chip, tmp_path / "port") as loader,
        pytest.raises(DeviceError, match="partition model_0 4,096"),
    ):
        update(loader, model_image(S3))


# --- builds that are refused ----------------------------------------------------------------


def test_no_build(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="holds no finished build of program server"):
        esp_project.read(S3, tmp_path, "server")


def test_missing_file_of_a_build(tmp_path: Path) -> None:
    write_build(tmp_path, S3)
    (tmp_path / "build" / "quads.bin").unlink()
    with pytest.raises(BuildError, match=r"quads\.bin: No such file"):
        esp_project.read(S3, tmp_path, "server")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"flash_files": {"x": "y"}}', "{"])
def test_damaged_flasher_args(text: str, tmp_path: Path) -> None:
    write_build(tmp_path, S3)
    (tmp_path / "build" / "flasher_args.json").write_text(text)
    with pytest.raises(BuildError, match=r"flasher_args\.json"):
        esp_project.read(S3, tmp_path, "server")


def test_application_larger_than_its_partition(tmp_path: Path) -> None:
    write_build(tmp_path, S3, app_bytes=0x100004)
    with pytest.raises(DeviceError, match=r"application .*does not fit partition factory"):
        esp_project.read(S3, tmp_path, "server")


def test_partitions_behind_the_flash(tmp_path: Path) -> None:
    rows = [("factory", 0, 0, APP_AT, 0x100000), ("model_0", 0x40, 0, SLOT_A, 8 << 20)]
    write_build(tmp_path, S3, rows=rows)
    with pytest.raises(DeviceError, match=r"partition model_0 ends at .*the flash of esp32s3"):
        esp_project.read(S3, tmp_path, "server")


def test_build_for_another_chip(tmp_path: Path) -> None:
    write_build(tmp_path, S3, chip="ESP32-C3")
    with pytest.raises(DeviceError, match="was built for ESP32-C3, not for ESP32-S3"):
        esp_project.read(S3, tmp_path, "server")


def test_build_for_more_flash(tmp_path: Path) -> None:
    write_build(tmp_path, boards.load("esp32s3-n16r8"))
    with pytest.raises(DeviceError, match="built for 16 MB of flash, esp32s3 has 8 MB"):
        esp_project.read(S3, tmp_path, "server")


def test_damaged_table_and_model(tmp_path: Path) -> None:
    write_build(tmp_path, S3)
    path = tmp_path / "build" / "partition_table" / "partition-table.bin"
    table = bytearray(path.read_bytes())
    table[5] ^= 1
    path.write_bytes(bytes(table))
    with pytest.raises(DeviceError, match="MD5 of the partition table is wrong"):
        esp_project.read(S3, tmp_path, "server")
    write_build(tmp_path, S3)
    model = bytearray((tmp_path / "model.bin").read_bytes())
    model[-40] ^= 1
    (tmp_path / "model.bin").write_bytes(bytes(model))
    with pytest.raises(DeviceError, match="model image is damaged"):
        esp_project.read(S3, tmp_path, "server")


def test_model_for_other_kernels(tmp_path: Path) -> None:
    write_build(tmp_path, S3)
    (tmp_path / "model.bin").write_bytes(model_image(boards.load("rp2350")))
    with pytest.raises(DeviceError, match=r"packed for dsp kernels .*esp32s3 has esp"):
        esp_project.read(S3, tmp_path, "server")


def test_model_named_by_the_build_system(tmp_path: Path) -> None:
    """ESP-IDF's esptool_py_flash_to_partition puts the image into flasher_args.json."""
    expected = write_build(tmp_path, S3)
    path = tmp_path / "build" / "flasher_args.json"
    tree = json.loads(path.read_text())
    (tmp_path / "build" / "model.bin").write_bytes(expected[SLOT_A])
    tree["flash_files"][hex(SLOT_A)] = "model.bin"
    path.write_text(json.dumps(tree))
    plan = esp_project.read(S3, tmp_path, "server")
    assert [part.what for part in plan.parts].count("model") == 1


# --- the command line -----------------------------------------------------------------------


def export(folder: Path, board: Board) -> dict[int, bytes]:
    """An exported project that was built."""
    folders.write(folder, {"README.md": ""}, {"board": board.name, "format": "esp-idf"})
    return write_build(folder, board)


def quads_mcu(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "quads_mcu.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_command_line_flashes(tmp_path: Path) -> None:
    project, chip = tmp_path / "project", Chip()
    expected = export(project, S3)
    with RomLoader(chip, tmp_path / "port") as loader:
        done = quads_mcu("flash", "--project-dir", str(project), "--port", loader.port)
    assert done.returncode == 0, done.stderr
    assert holds(chip, expected)
    total = sum(map(len, expected.values())) + 4096
    assert f"{total:,} bytes written and verified; the board starts" in done.stderr


def test_dry_run_names_every_byte_and_touches_nothing(tmp_path: Path) -> None:
    project, chip = tmp_path / "project", Chip()
    expected = export(project, S3)
    with RomLoader(chip, tmp_path / "port") as loader:
        done = quads_mcu("flash", "--project-dir", str(project), "--port", loader.port, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert not loader.log and untouched(chip)
    for offset, data in expected.items():
        line = next(
            line for line in done.stdout.splitlines() if hashlib.md5(data).hexdigest() in line
        )
        assert f"{offset:#010x}" in line and f"{offset + len(data) - 1:#010x}" in line
        assert f"{len(data):,}" in line
    assert f"--port {loader.port} --baud 460800 --chip esp32s3 write-flash 0x110000" in done.stdout


FAULTS = [
    ((Fault("pull", "data", 2),), Chip(), "stopped answering"),
    ((Fault("silent", "sync", 0, 999),), Chip(), "hold BOOT"),
    ((Fault("wrong_md5", "md5", 0),), Chip(), "reads back differently"),
    ((), Chip("esp32c3"), "needs an ESP32-S3"),
    ((), Chip(security_flags=SECURE_DOWNLOAD), "secure download mode"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("faults", "chip", "message"), FAULTS)
def test_faults_end_with_code_3_and_one_line(
    faults: tuple[Fault, ...], chip: Chip, message: str, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    export(project, S3)
    with RomLoader(chip, tmp_path / "port", *faults) as loader:
        done = quads_mcu("flash", "--project-dir", str(project), "--port", loader.port)
    assert done.returncode == 3
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_interrupted_by_the_user(tmp_path: Path) -> None:
    project, chip = tmp_path / "project", Chip()
    expected = export(project, S3)
    command = [sys.executable, "-m", "quads_mcu.cli", "flash", "--project-dir", str(project)]
    with RomLoader(chip, tmp_path / "port", Fault("silent", "data", 3, 99)) as loader:
        command += ["--port", loader.port]
        with subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            # What a shell starts in the background ignores Ctrl-C, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as run:  # fmt: skip
            while loader.log.count("data") < 4:
                time.sleep(0.05)
            run.send_signal(signal.SIGINT)
            _, told = run.communicate()
        assert run.returncode == 3
        assert b"interrupted at" in told and b"as before: partition table, bootloader" in told
        loader.replug()
        flash(S3, project, loader)
    assert holds(chip, expected)


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object, **options: object) -> None:
        raise serial.SerialException(errno.EACCES, "could not open port: Permission denied")

    write_build(tmp_path, S3)
    plan = esp_project.read(S3, tmp_path, "server")
    monkeypatch.setattr(serial, "serial_for_url", refused)
    with pytest.raises(LinkError, match=r"usermod -aG dialout \$USER.*udev rule"):
        esptool.flash(plan, S3, "/dev/ttyUSB0", BAUD, silent)


def test_command_line_refuses_what_cannot_be_flashed(tmp_path: Path) -> None:
    project = tmp_path / "project"
    export(project, S3)
    done = quads_mcu("flash", "--project-dir", str(project), "--port", "/dev/ttyNONE7")
    assert done.returncode == 3 and "no such port; found: " in done.stderr
    done = quads_mcu("flash", "--project-dir", str(project), "--target", "esp32c3")
    assert done.returncode == 1 and "exported for esp32s3, not for esp32c3" in done.stderr
    done = quads_mcu("flash", "--run", str(tmp_path), "--target", "esp32s3")
    assert done.returncode == 1 and "holds no project for esp32s3" in done.stderr
    done = quads_mcu("flash", "--run", "none", "--target", "host", "--dry-run")
    assert done.returncode == 2 and "host is not flashed, it is started" in done.stderr
