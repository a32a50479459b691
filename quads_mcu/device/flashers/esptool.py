"""Flash ESP chips with the real esptool, version 5, as a subprocess on any port it opens.

Before anything is written the chip, its flash, its PSRAM (where eFuses tell) and its security state
are read and compared with the board. esptool reads back the MD5 of every part after writing it.
"""

from __future__ import annotations

import importlib.util
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from quads_mcu import image_format
from quads_mcu.console import Progress
from quads_mcu.device import link, process
from quads_mcu.device.boards import Board
from quads_mcu.device.flashers import esp_project, partitions
from quads_mcu.device.flashers.partitions import Partition
from quads_mcu.device.flashers.plan import Part, Plan
from quads_mcu.errors import DeviceError, InstallationError, LinkError
from quads_mcu.protocol import decode_fields

BAUD = 460800
# ESP32 has no GET_SECURITY_INFO: EFUSE_BLK0_RDATA0 and 6 (ESP32 Technical Reference Manual, 20).
ESP32_CRYPT_COUNT, ESP32_CRYPT_MASK = 0x3FF5_A000, 0x7F << 20
ESP32_SECURE_BOOT, ESP32_SECURE_BOOT_MASK = 0x3FF5_A018, 3 << 4
AGAIN = "Plug the board in and run the same command again: it begins anew"
BUTTONS = (
    "hold BOOT, press and release EN (or RESET), release BOOT, and run the command again; is it "
    "powered, the cable one that carries data, and this its port?"
)


@dataclass(frozen=True)
class Chip:
    """What was read of the chip. flash_bytes, psram_bytes: None where the chip does not tell."""

    name: str
    description: str
    flash_bytes: int | None
    psram_bytes: int | None
    secure_boot: bool
    flash_encryption: bool
    secure_download: bool


def flash(plan: Plan, board: Board, port: str, baud: int, progress: Progress) -> Chip:
    """Check the chip at `port`, write `plan`, verify it and start the board.

    Raises:
        InstallationError: esptool 5 is not installed.
        LinkError: no such port, busy, no permission, no answer, or dropped.
        DeviceError: the chip is another one, is locked, or reads back something else.
    """
    progress("reading the chip", 0, 1)
    chip = probe(port, baud)
    check(chip, board, port, model_only=all(part.what.startswith("model") for part in plan.parts))
    progress("reading the chip", 1, 1)
    write(plan, board, port, baud, progress)
    return chip


# --- reading -------------------------------------------------------------------------------


def probe(port: str, baud: int = BAUD) -> Chip:
    """Read what chip is at `port`, without writing or running anything there.

    Raises:
        InstallationError: esptool 5 is not installed.
        LinkError: no such port, busy, no permission, no answer, or dropped.
    """
    require()
    link.check(port)
    text = _run(port, baud, ["--no-stub", "flash-id"], may_fail="Secure Download Mode")
    name = _found(r"^Connected to (\S+) on", text) or ""
    features = _found(r"^Features:\s*(.*)$", text) or ""
    flash = _found(r"^Detected flash size: (\d+[KM]B)", text)
    secure_download = "in Secure Download Mode" in text
    crypted = booted = False
    if not secure_download and name == "ESP32":
        crypted = _register(port, baud, ESP32_CRYPT_COUNT, ESP32_CRYPT_MASK).bit_count() % 2 == 1
        booted = _register(port, baud, ESP32_SECURE_BOOT, ESP32_SECURE_BOOT_MASK) != 0
    elif not secure_download:
        told = _run(port, baud, ["--no-stub", "get-security-info"])
        crypted = "Flash Encryption: Enabled" in told
        booted = "Secure Boot: Enabled" in told
    return Chip(
        name=name,
        description=_found(r"^Chip type:\s*(.*)$", text) or name,
        flash_bytes=_bytes(flash) if flash else None,
        psram_bytes=_psram(name, features),
        secure_boot=booted,
        flash_encryption=crypted,
        secure_download=secure_download,
    )


def _register(port: str, baud: int, address: int, mask: int) -> int:
    text = _run(port, baud, ["--chip", "esp32", "--no-stub", "read-mem", f"{address:#x}"])
    value = _found(r"^0x[0-9a-f]+ = (0x[0-9a-f]+)$", text)
    if value is None:
        raise LinkError(f"{port}: eFuses cannot be read; {AGAIN}")
    return int(value, 16) & mask


def _psram(chip: str, features: str) -> int | None:
    """Return bytes of PSRAM in the package; only the S3's eFuses say so."""
    if chip != "ESP32-S3":
        return None
    size = _found(r"Embedded PSRAM (\d+MB)", features)
    return _bytes(size) if size else 0


def _found(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text, re.M)
    return found[1] if found else None


def _bytes(size: str) -> int:
    """Return the bytes of esptool's 256KB, 8MB."""
    return int(size[:-2]) << (20 if size.endswith("MB") else 10)


def read_flash(port: str, baud: int, chip: str, offset: int, n_bytes: int) -> bytes:
    """Return a range of flash, its MD5 checked by esptool.

    Raises:
        LinkError: as `probe`.
    """
    with tempfile.TemporaryDirectory(prefix="quads-flash-") as folder:
        path = Path(folder) / "read.bin"
        command = ["--chip", chip, "read-flash", f"{offset:#x}", str(n_bytes), str(path)]
        _run(port, baud, command)
        return path.read_bytes()


# --- checking ------------------------------------------------------------------------------


def check(chip: Chip, board: Board, port: str, *, model_only: bool = False) -> None:
    """Refuse a chip that is not the board's, or that will not start what would be written.

    model_only: weights alone, which secure boot does not cover.
    Raises:
        DeviceError: says what was found, what the board needs and what to do.
    """
    if chip.name != board.chip:
        raise DeviceError(
            f"{port} has an {chip.name} ({chip.description}), {board.name} needs an {board.chip}; "
            "nothing was written: check the cable, or export and build for that chip"
        )
    locks = [
        (chip.secure_download, "secure download mode: its flash cannot be read or checked"),
        (chip.flash_encryption, "flash encryption: it would read plain data as noise"),
        (chip.secure_boot and not model_only, "secure boot: it starts only what its owner signed"),
    ]
    for locked, what in locks:
        if locked:
            raise DeviceError(
                f"the {chip.name} at {port} has {what}; nothing was written. These eFuses cannot "
                "be undone: sign and flash with ESP-IDF's own tools, or take another chip"
            )
    if chip.flash_bytes is None:
        raise DeviceError(
            f"the {chip.name} at {port} does not tell the size of its flash; nothing was written: "
            "is a flash chip connected, the supply strong enough? `esptool flash-id` shows more"
        )
    if chip.flash_bytes < board.flash_bytes:
        raise DeviceError(
            f"the {chip.name} at {port} has {chip.flash_bytes >> 20} MB of flash, {board.name} "
            f"{board.flash_bytes >> 20} MB; nothing was written: export for a smaller variant "
            "(`quads-mcu boards`)"
        )
    if chip.psram_bytes is not None and chip.psram_bytes < board.psram_bytes:
        raise DeviceError(
            f"the {chip.name} at {port} has {chip.psram_bytes >> 20} MB of PSRAM, {board.name} "
            f"{board.psram_bytes >> 20} MB; nothing was written: export for a variant with less "
            "(`quads-mcu boards`)"
        )


# --- writing -------------------------------------------------------------------------------


def command(plan: Plan, board: Board, port: str, baud: int) -> list[str]:
    """Return the esptool command that writes `plan`, with the parts' own file names."""
    return _command(port, baud, _write_arguments(board, plan, [part.file for part in plan.parts]))


def write(plan: Plan, board: Board, port: str, baud: int, progress: Progress) -> None:
    """Write and verify every part of `plan`, in its order, and reset the board.

    Raises:
        DeviceError: what was written reads back differently.
        LinkError: no answer, dropped or interrupted; says which parts are there.
    """
    with tempfile.TemporaryDirectory(prefix="quads-flash-") as folder:
        files = []
        for index, part in enumerate(plan.parts):
            path = Path(folder) / f"{index}-{re.sub('[^a-z]+', '-', part.what)}.bin"
            path.write_bytes(part.data)
            files.append(str(path))
        written = _Written(plan, progress)
        try:
            _run(port, baud, _write_arguments(board, plan, files), written, written.state)
        except KeyboardInterrupt:
            raise LinkError(f"interrupted at {port}; {written.state()}. {AGAIN}") from None
    if written.verified != len(plan.parts):
        raise DeviceError(
            f"{port}: esptool verified {written.verified} of {len(plan.parts)} parts; "
            f"{written.state()}; flash again"
        )


def _write_arguments(board: Board, plan: Plan, files: Sequence[str]) -> list[str]:
    assert board.flasher is not None
    places = [
        text
        for part, file in zip(plan.parts, files, strict=True)
        for text in (f"{part.offset:#x}", file)
    ]
    return ["--chip", board.flasher.target, "write-flash", *places]


# --- the model alone -----------------------------------------------------------------------


def plan_model(board: Board, port: str, baud: int, image: bytes) -> Plan:
    """Return a plan that writes `image` into the model slot of the board that is not in use.

    The board's own partition table and the headers in its slots are read. The image gets the next
    sequence number, so that the firmware takes it after the reset; the other slot stays. The sector
    with the header is written last: until then the slot keeps its old number, and what was
    interrupted is not taken for the model in use.

    Raises:
        DeviceError: the board has no slots, or the image does not fit.
        LinkError: as `probe`.
    """
    assert board.flasher is not None
    require()
    link.check(port)
    check(probe(port, baud), board, port, model_only=True)
    target = board.flasher.target
    table = read_flash(port, baud, target, esp_project.TABLE_OFFSET, partitions.TABLE_BYTES)
    slots = partitions.model_slots(partitions.parse(table, f"{board.name} at {port}"))
    if not slots:
        raise DeviceError(
            f"the firmware at {port} has no partition for a model; flash it completely once, with "
            "an export of --weights bin"
        )
    numbers = [_sequence(read_flash(port, baud, target, slot.offset, image_format.HEADER_BYTES),
                         slot) for slot in slots]  # fmt: skip
    if max(numbers) >= image_format.MAX_SEQUENCE:
        raise DeviceError(
            "the model on the board has the last sequence number: no other can follow it; flash "
            "the board completely"
        )
    free = min(range(len(slots)), key=lambda index: numbers[index])
    slot, data = slots[free], image_format.with_sequence(image, max(numbers) + 1)
    if len(data) > slot.size_bytes:
        raise DeviceError(
            f"the model image has {len(data):,} bytes, partition {slot.name} {slot.size_bytes:,}; "
            "export, build and flash completely: the export makes the partition larger"
        )
    return Plan(board.name, _header_last(slot, data))


def _header_last(slot: Partition, image: bytes) -> tuple[Part, ...]:
    cut = min(esp_project.SECTOR_BYTES, len(image))
    parts = (
        Part(slot.name, slot.offset + cut, image[cut:], f"{esp_project.MODEL}[{cut}:]"),
        Part(f"{slot.name} header", slot.offset, image[:cut], f"{esp_project.MODEL}[:{cut}]"),
    )
    return tuple(part for part in parts if part.data)


def _sequence(header: bytes, slot: Partition) -> int:
    """Return the sequence number of the image in a slot; -1: there is none to keep."""
    values = decode_fields(image_format.HEADER, header)
    length, sequence = values["length_bytes"], values["sequence"]
    assert isinstance(length, int) and isinstance(sequence, int)
    if values["magic"] != image_format.MAGIC or length > slot.size_bytes:
        return -1
    return sequence


# --- running esptool -----------------------------------------------------------------------


def require() -> str:
    """Return esptool's version.

    Raises:
        InstallationError: it is missing, or another than 5.
    """
    how = "pip install 'quads-mcu[flash]'"
    if importlib.util.find_spec("esptool") is None:
        raise InstallationError(f"esptool is not installed; it flashes ESP chips. To get it: {how}")
    version = metadata.version("esptool")
    if version.split(".")[0] != "5":
        raise InstallationError(f"esptool {version} is installed, version 5 is needed: {how}")
    return version


def _command(port: str, baud: int, arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "esptool", "--port", port, "--baud", str(baud), *arguments]


def _run(
    port: str,
    baud: int,
    arguments: Sequence[str],
    follow: Callable[[str], None] = lambda line: None,
    state: Callable[[], str] = lambda: "nothing was written",
    may_fail: str | None = None,
) -> str:
    """Return what esptool printed; `may_fail`: an error with these words is an answer as well."""
    code, text = process.run(_command(port, baud, arguments), follow)
    if code and not (may_fail and may_fail in text):
        raise _problem(port, text, state())
    return text


class _Written:
    """Follows a write: tells progress and knows which parts are there."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self._plan = plan
        self._progress = progress
        self._begun = 0
        self.verified = 0

    def __call__(self, line: str) -> None:
        if line.startswith(("Compressed ", "Flash will be erased")):
            self._begun = self.verified + 1
        elif line.startswith("Hash of data verified"):
            self.verified += 1
            self._tell(0.0)
        elif self._begun and (found := re.match(r"Writing at 0x[0-9a-f]+ .* ([0-9.]+)% ", line)):
            self._tell(float(found[1]) / 100)

    def _tell(self, share: float) -> None:
        """Report bytes: whole parts, and a share of the next one."""
        sizes = [len(part.data) for part in self._plan.parts]
        done = sum(sizes[: self.verified])
        current = self._plan.parts[min(self.verified, len(sizes) - 1)]
        if self.verified < len(sizes):
            done += round(share * sizes[self.verified])
        self._progress(f"writing {current.what}", done, self._plan.n_bytes)

    def state(self) -> str:
        """Say what is in flash now."""
        names = [part.what for part in self._plan.parts]
        if not self._begun:
            return "nothing was written"
        parts = [
            ("written and verified", names[: self.verified]),
            ("not complete", names[self.verified : self._begun]),
            ("as before", names[max(self.verified, self._begun) :]),
        ]
        return "; ".join(f"{what}: {', '.join(which)}" for what, which in parts if which)


def _problem(port: str, text: str, state: str) -> DeviceError:
    """Return what esptool's last words mean for the user."""
    said = re.split(r"(?:A fatal error|A serial exception error) occurred: ", text)[-1].strip()
    said = re.sub(r"\s*(?:For troubleshooting|Note: This error|\(Errno).*", "", said, flags=re.S)
    line = " ".join(said.split("\n")[:2]).strip().rstrip(".") or "no reason given"
    if re.search(r"MD5 of file does not match|written flash region is empty", text):
        return DeviceError(
            f"{port}: what was written reads back differently ({line}); {state}. Flash again, "
            "with --baud 115200, a shorter cable or another supply; else the flash chip is worn"
        )
    if "Could not open" in text:
        return LinkError(f"{line}; {state}")
    if re.search(r"^Connected to ", text, re.M):
        return LinkError(f"{port}: the chip stopped answering ({line}); {state}. {AGAIN}")
    if re.search(r"serial exception|Input/output|SerialException|Errno", text):
        return LinkError(f"{port} was dropped while connecting ({line}); {state}. {AGAIN}")
    if re.search(r"Failed to connect|No serial data|boot mode|Unexpected chip", text):
        return LinkError(f"no ESP chip answers at {port} ({line}); {state}: {BUTTONS}")
    return DeviceError(f"esptool at {port}: {line}; {state}")
