"""A simulated ESP chip in download mode, on a pseudo terminal: ROM loader and flasher stub.

What esptool expects was taken from its documentation of the serial protocol and from how version 5
behaves: SLIP frames, the ROM's commands, a stub that is uploaded to RAM and greets with OHAI. Flash
behaves as flash: erasing sets a sector's bits, programming only clears bits. So data that was
written without an erase, twice, or in part shows in `Chip.flash`.

    with RomLoader(Chip("esp32s3"), tmp_path / "port") as board:
        subprocess.run([sys.executable, "-m", "esptool", "--port", board.port, ...])

The port is a symbolic link to the pseudo terminal, so that it stays when a cable is pulled and put
back. Closing the port resets the chip, as esptool's hard reset does on a board.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pty
import select
import struct
import threading
import time
import tty
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SECTOR = 4096
END, ESCAPE = b"\xc0", b"\xdb"
SECURE_BOOT, SECURE_DOWNLOAD = 1 << 0, 1 << 2  # flags of GET_SECURITY_INFO
ROM_INVALID, ROM_CHECKSUM, ROM_FAILED = 0x05, 0x07, 0x06
STUB_CHECKSUM, STUB_INFLATE, STUB_NOT_FLASHING = 0xC1, 0xC7, 0xC6
STAGES = ("sync", "detect", "stub", "begin", "data", "end", "md5")

(FLASH_BEGIN, FLASH_DATA, FLASH_END, MEM_BEGIN, MEM_END, MEM_DATA, SYNC, WRITE_REG, READ_REG,
 SPI_SET_PARAMS) = range(0x02, 0x0C)  # fmt: skip
SPI_ATTACH, READ_SLOW, CHANGE_BAUD = 0x0D, 0x0E, 0x0F
DEFLATE_BEGIN, DEFLATE_DATA, DEFLATE_END, MD5, SECURITY_INFO = 0x10, 0x11, 0x12, 0x13, 0x14
READ_FLASH = 0xD2
STAGE_OF = {
    SYNC: "sync", SECURITY_INFO: "detect", READ_REG: "detect", MEM_BEGIN: "stub", MEM_DATA: "stub",
    MEM_END: "stub", FLASH_BEGIN: "begin", DEFLATE_BEGIN: "begin", FLASH_DATA: "data",
    DEFLATE_DATA: "data", FLASH_END: "end", DEFLATE_END: "end", MD5: "md5",
}  # fmt: skip
# What the ROM still does in secure download mode.
SECURE_COMMANDS = {SYNC, SECURITY_INFO, FLASH_BEGIN, FLASH_DATA, FLASH_END, DEFLATE_BEGIN,
                   DEFLATE_DATA, DEFLATE_END, SPI_ATTACH, SPI_SET_PARAMS, CHANGE_BAUD}  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """Facts of one chip: SPI controller, eFuses and how it is told from others."""

    chip_id: int | None  # None: the ROM has no GET_SECURITY_INFO
    magic: int
    spi: int
    usr: int
    usr2: int
    w0: int
    registers: dict[int, int]


KINDS = {
    "esp32s3": Kind(9, 0, 0x6000_2000, 0x18, 0x20, 0x58, {
        0x6000_7050: 2 << 18,  # revision v0.2
    }),
    "esp32c3": Kind(5, 0, 0x6000_2000, 0x18, 0x20, 0x58, {
        0x6000_8850: 4 << 18,  # revision v0.4
    }),
    "esp32": Kind(None, 0x00F0_1D83, 0x3FF4_2000, 0x1C, 0x24, 0x80, {
        0x3FF4_0014: 347,  # UART divider: a crystal of 40 MHz at 115200 baud
        0x3FF5_A00C: 1 << 15 | 1 << 9,  # ESP32-D0WD-V3
        0x3FF5_A010: 128,  # trim of the 8 MHz oscillator
        0x3FF5_A014: 1 << 20,
        0x3FF5_F06C: 800 << 7,  # with the trim: 40 MHz
        0x3FF6_607C: 1 << 31,
    }),
}  # fmt: skip


@dataclass(frozen=True)
class Fault:
    """What goes wrong: at the `index`-th command of `stage` (and the `times` - 1 after it).

    kind: pull (the cable), silent (no answer), lost_request, lost_answer (bytes in the middle are
    gone), wrong_md5 (flash holds something else than was sent).
    """

    kind: str
    stage: str
    index: int = 0
    times: int = 1


@dataclass
class Chip:
    """One chip with its flash, which outlives unplugging."""

    kind: str = "esp32s3"
    flash_bytes: int = 8 << 20
    psram_mib: int = 0
    security_flags: int = 0
    crypt_count: int = 0
    flash: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self.flash = bytearray(b"\xff") * self.flash_bytes

    @property
    def facts(self) -> Kind:
        return KINDS[self.kind]

    def registers(self) -> dict[int, int]:
        """eFuses and others as they are after reset."""
        found = {0x4000_1000: self.facts.magic} | self.facts.registers
        if self.kind == "esp32s3":
            capacity = {0: 0, 8: 1, 2: 2, 16: 3, 4: 4}[self.psram_mib]
            found[0x6000_7054] = (capacity & 3) << 3 | 1 << 7  # 3.3 V, AP Memory
            found[0x6000_7058] = (capacity >> 2) << 19
            found[0x6000_7038] = (self.security_flags & SECURE_BOOT) << 20
            found[0x6000_7034] = self.crypt_count << 18
        if self.kind == "esp32c3":
            found[0x6000_8838] = (self.security_flags & SECURE_BOOT) << 20
            found[0x6000_8834] = self.crypt_count << 18
        if self.kind == "esp32":
            found[0x3FF5_A000] = self.crypt_count << 20
            found[0x3FF5_A018] = (self.security_flags & SECURE_BOOT) << 4
        return found

    def erase(self, offset: int, n_bytes: int) -> None:
        first, end = offset // SECTOR * SECTOR, -(-(offset + n_bytes) // SECTOR) * SECTOR
        end = min(end, len(self.flash))
        self.flash[first:end] = b"\xff" * (end - first)

    def program(self, offset: int, data: bytes) -> None:
        old = int.from_bytes(self.flash[offset : offset + len(data)], "little")
        new = (old & int.from_bytes(data, "little")).to_bytes(len(data), "little")
        self.flash[offset : offset + len(data)] = new


class _PulledError(Exception):
    """The cable was pulled."""


@dataclass
class _Write:
    """A write in progress."""

    offset: int
    end: int
    erased: int  # up to here
    inflate: zlib._Decompress | None


class RomLoader:
    """The chip on a pseudo terminal, served by a thread.

    faults: happen in this order of commands, each for its number of times.
    log: the names of the stages that commands belonged to, in order; resets as "reset".
    """

    def __init__(self, chip: Chip, port: Path, *faults: Fault, replug_s: float | None = None):
        self.chip = chip
        self.port = str(port)
        self.faults = list(faults)
        self.log: list[str] = []
        self.commands: list[int] = []
        self.ram: dict[int, bytes] = {}
        self.problems: list[BaseException] = []
        self._replug_s = replug_s
        self._path = port
        self._counts = dict.fromkeys(STAGES, 0)
        self._stop = threading.Event()
        self._master = -1
        self._reset()

    def __enter__(self) -> RomLoader:
        self.plug()
        return self

    def __exit__(self, *exception: object) -> None:
        self.unplug()
        assert not self.problems, self.problems

    def plug(self) -> None:
        """Connect: the port appears."""
        self._stop.clear()
        self._reset()
        self._open()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def unplug(self) -> None:
        """Disconnect: the port goes away."""
        self._stop.set()
        self._thread.join(10)

    def replug(self, *faults: Fault) -> None:
        """Pull the cable and put it back, with other faults or none."""
        self.unplug()
        self.faults = list(faults)
        self._counts = dict.fromkeys(STAGES, 0)
        self.plug()

    # --- the port --------------------------------------------------------------------------

    def _open(self) -> None:
        self._master, slave = pty.openpty()
        tty.setraw(slave)
        name = os.ttyname(slave)
        os.close(slave)
        temporary = self._path.with_suffix(".link")
        temporary.symlink_to(name)
        temporary.replace(self._path)

    def _close(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._master)
        self._master = -1

    def _serve(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    for packet in self._packets():
                        self._handle(packet)
                except _PulledError:
                    self._close()
                    self._reset()
                    if self._replug_s is None:
                        return
                    time.sleep(self._replug_s)
                    self._open()
        except BaseException as problem:
            self.problems.append(problem)
        finally:
            if self._master >= 0:
                self._close()

    def _packets(self) -> Iterator[bytes]:
        """Yield what comes in, frame by frame; a closed port resets the chip."""
        received = b""
        opened = False
        while not self._stop.is_set():
            ready = select.select([self._master], [], [], 0.02)[0]
            try:
                data = os.read(self._master, 65536) if ready else b""
                opened = opened or bool(data)
            except OSError:  # nobody has the port open
                if opened:
                    self._reset()
                    self.log.append("reset")
                opened, received = False, b""
                time.sleep(0.005)
                continue
            received += data
            while received.count(END) >= 2:
                start = received.index(END)
                stop = received.index(END, start + 1)
                frame, received = received[start + 1 : stop], received[stop + 1 :]
                if not frame:  # two frames touch, or one began in the middle
                    received = END + received
                    continue
                yield frame.replace(b"\xdb\xdc", END).replace(b"\xdb\xdd", ESCAPE)

    def _send(self, packet: bytes) -> None:
        escaped = packet.replace(ESCAPE, b"\xdb\xdd").replace(END, b"\xdb\xdc")
        with contextlib.suppress(OSError):  # the port was closed meanwhile
            os.write(self._master, END + escaped + END)

    # --- the loader ------------------------------------------------------------------------

    def _reset(self) -> None:
        self._stub = False
        self._registers = self.chip.registers()
        self._write: _Write | None = None
        self._memory: tuple[int, int] | None = None  # address, bytes to come
        self._reading = b""
        self.ram = {}

    def _handle(self, packet: bytes) -> None:
        if self._reading:  # acknowledgements of READ_FLASH
            self._acknowledge(packet)
            return
        if len(packet) < 8:
            return
        _, command, length, checksum = struct.unpack_from("<BBHI", packet)
        data = packet[8:]
        self.commands.append(command)
        stage = STAGE_OF.get(command, "")
        if stage:
            self.log.append(stage)
        kind = self._fault(stage)
        if kind == "pull":
            raise _PulledError
        if kind == "silent":
            return
        if kind == "lost_request":
            data = data[: len(data) // 2] + data[len(data) // 2 + 7 :]
        if length != len(data):
            self._answer(command, error=STUB_CHECKSUM if self._stub else ROM_INVALID)
            return
        self._damaged = kind == "wrong_md5"
        if kind == "lost_answer":
            saved, self._send = self._send, lambda packet: None  # type: ignore[method-assign]
            try:
                self._run(command, data, checksum)
            finally:
                self._send = saved  # type: ignore[method-assign]
            return
        self._run(command, data, checksum)

    def _fault(self, stage: str) -> str:
        if not stage:
            return ""
        index = self._counts[stage]
        self._counts[stage] += 1
        for fault in self.faults:
            if fault.stage == stage and fault.index <= index < fault.index + fault.times:
                return fault.kind
        return ""

    def _answer(self, command: int, value: int = 0, data: bytes = b"", error: int = 0) -> None:
        status = bytes([error, 0]) if self._stub else bytes([1 if error else 0, error, 0, 0])
        if error:
            data = b""
        body = data + status
        self._send(struct.pack("<BBHI", 1, command, len(body), value) + body)

    def _unknown(self, command: int) -> None:
        """The ROM repeats its complaint, under no command's name."""
        for _ in range(8):
            body = bytes([1, ROM_INVALID, 0, 0])
            self._send(struct.pack("<BBHI", 1, 0, len(body), 0) + body)

    def _run(self, command: int, data: bytes, checksum: int) -> None:
        secure = self.chip.security_flags & SECURE_DOWNLOAD
        if secure and command not in SECURE_COMMANDS:
            self._unknown(command)
            return
        if command == SYNC:
            for _ in range(8):
                self._answer(command, value=0 if self._stub else 0x2012_0707)
        elif command == SECURITY_INFO:
            self._security_info()
        elif command == READ_REG:
            (address,) = struct.unpack("<I", data)
            self._answer(command, value=self._registers.get(address, 0))
        elif command == WRITE_REG:
            for entry in struct.iter_unpack("<IIII", data):
                self._set_register(*entry[:3])
            self._answer(command)
        elif command in (SPI_ATTACH, SPI_SET_PARAMS, CHANGE_BAUD):
            self._answer(command)
        elif command in (MEM_BEGIN, MEM_DATA, MEM_END):
            self._memory_command(command, data, checksum)
        elif command in (FLASH_BEGIN, DEFLATE_BEGIN):
            self._begin(command, data)
        elif command in (FLASH_DATA, DEFLATE_DATA):
            self._data(command, data, checksum)
        elif command in (FLASH_END, DEFLATE_END):
            self._write = None
            self._answer(command)
        elif command == MD5:
            self._md5(data)
        elif command == READ_FLASH and self._stub:
            offset, length = struct.unpack_from("<II", data)
            self._answer(command)
            self._reading = bytes(self.chip.flash[offset : offset + length])
            self._sent = 0
            self._send_flash()
        elif command == READ_SLOW and not self._stub:
            offset, length = struct.unpack_from("<II", data)
            part = bytes(self.chip.flash[offset : offset + length])
            self._answer(command, data=part.ljust(64, b"\0"))
        else:
            self._unknown(command)

    def _security_info(self) -> None:
        if self.chip.facts.chip_id is None:
            self._unknown(SECURITY_INFO)
            return
        info = struct.pack("<IB7xII", self.chip.security_flags, self.chip.crypt_count,
                           self.chip.facts.chip_id, 0)  # fmt: skip
        self._answer(SECURITY_INFO, data=info)

    def _set_register(self, address: int, value: int, mask: int) -> None:
        facts = self.chip.facts
        old = self._registers.get(address, 0)
        self._registers[address] = old & ~mask | value & mask
        if address != facts.spi or not value & 1 << 18:
            return
        self._registers[address] = 0  # done at once
        operation = self._registers.get(facts.spi + facts.usr2, 0) & 0xFF
        if operation == 0x9F:  # read id: Winbond, and the size as a power of two
            capacity = self.chip.flash_bytes.bit_length() - 1
            self._registers[facts.spi + facts.w0] = capacity << 16 | 0x40 << 8 | 0xEF
        elif operation == 0x5A:  # read the table of parameters: its signature
            self._registers[facts.spi + facts.w0] = int.from_bytes(b"SFDP", "little")

    def _memory_command(self, command: int, data: bytes, checksum: int) -> None:
        if command == MEM_BEGIN:
            total, _, _, address = struct.unpack("<IIII", data)
            self._memory = (address, total)
            self.ram[address] = b""
            self._answer(command)
        elif command == MEM_DATA:
            body = data[16:]
            if self._memory is None or _checksum(body) != checksum:
                self._answer(command, error=ROM_CHECKSUM)
                return
            self.ram[self._memory[0]] += body
            self._answer(command)
        else:
            stay, entry = struct.unpack("<II", data)
            self._answer(command)
            if not stay and any(a <= entry < a + len(code) for a, code in self.ram.items()):
                self._stub = True
                self._send(b"OHAI")

    def _begin(self, command: int, data: bytes) -> None:
        size, _, _, offset = struct.unpack_from("<IIII", data)
        inflate = zlib.decompressobj() if command == DEFLATE_BEGIN else None
        if offset + size > len(self.chip.flash):
            self._answer(command, error=STUB_NOT_FLASHING if self._stub else ROM_FAILED)
            return
        self._write = _Write(offset, offset + size, offset // SECTOR * SECTOR, inflate)
        if not self._stub:  # the ROM erases everything first, the stub as it goes
            self.chip.erase(offset, size)
            self._write.erased = offset + size
        self._answer(command)

    def _data(self, command: int, data: bytes, checksum: int) -> None:
        body = data[16:]
        write = self._write
        if write is None:
            self._answer(command, error=STUB_NOT_FLASHING if self._stub else ROM_FAILED)
            return
        if len(body) != struct.unpack_from("<I", data)[0] or _checksum(body) != checksum:
            self._answer(command, error=STUB_CHECKSUM if self._stub else ROM_CHECKSUM)
            return
        if write.inflate:
            try:
                body = write.inflate.decompress(body)
            except zlib.error:
                self._answer(command, error=STUB_INFLATE if self._stub else 0x0B)
                return
        body = body[: write.end - write.offset]
        end = write.offset + len(body)
        if end > write.erased:
            self.chip.erase(write.erased, end - write.erased)
            write.erased = -(-end // SECTOR) * SECTOR
        self.chip.program(write.offset, body)
        write.offset = end
        self._answer(command)

    def _md5(self, data: bytes) -> None:
        offset, length = struct.unpack_from("<II", data)
        if self._damaged:
            self.chip.flash[offset] ^= 0x10
        digest = hashlib.md5(self.chip.flash[offset : offset + length])
        self._answer(MD5, data=digest.digest() if self._stub else digest.hexdigest().encode())

    def _send_flash(self) -> None:
        part = self._reading[self._sent : self._sent + SECTOR]
        self._sent += len(part)
        self._send(part)

    def _acknowledge(self, packet: bytes) -> None:
        if struct.unpack("<I", packet)[0] < len(self._reading):
            self._send_flash()
            return
        self._send(hashlib.md5(self._reading).digest())
        self._reading = b""


def _checksum(data: bytes) -> int:
    state = 0xEF
    for byte in data:
        state ^= byte
    return state
