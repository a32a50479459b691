"""A model of the few ESP32-S3 instructions that firmware/src/kernels/esp/quads_pie_dot_4.S uses.

Written after "Processor Instruction Extensions" of the ESP32-S3 Technical Reference Manual: a load
with .128 ignores the lowest 4 bits of its address and one with .64 the lowest 3, then the address
register moves on; ACCX has 40 bits. Stricter than the chip: an address that needed rounding fails.
Addresses are byte offsets in one memory; a word of it that is not there fails, too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

ACCX_BITS = 40
STEPS = 1_000_000
_LINE = re.compile(r"^(?:(?P<label>[.\w]+):)?\s*(?:(?P<name>[a-z][.\w]*)\s*(?P<operands>.*))?$")
_DIRECTIVES = (".text", ".align", ".global", ".type", ".size")


def parse(source: str) -> tuple[list[tuple[str, list[str]]], dict[str, int]]:
    """Return instructions as (name, operands), and where each label points."""
    code: list[tuple[str, list[str]]] = []
    labels: dict[str, int] = {}
    text = re.sub(r"/\*.*?\*/", "", source, flags=re.DOTALL)
    for line in text.splitlines():
        line = line.split("//")[0].strip()
        if not line or line.startswith(("#", *_DIRECTIVES)):
            continue
        match = _LINE.match(line)
        assert match, line
        if match["label"]:
            labels[match["label"]] = len(code)
        if match["name"]:
            operands = [part.strip() for part in match["operands"].split(",") if part.strip()]
            code.append((match["name"].removesuffix(".n"), operands))
    return code, labels


@dataclass
class Core:
    """Registers and memory; `run` executes parsed code until it returns."""

    memory: bytearray
    registers: dict[str, int] = field(default_factory=dict)
    vectors: dict[str, bytearray] = field(default_factory=dict)
    accx: int = 0
    executed: int = 0
    touched: set[int] = field(default_factory=set)

    def load(self, address: int, n_bytes: int) -> bytes:
        assert address % n_bytes == 0, f"{n_bytes} bytes from {address}"
        assert address in range(len(self.memory) - n_bytes + 1), address
        self.touched.update(range(address, address + n_bytes))
        return bytes(self.memory[address : address + n_bytes])

    def run(self, source: str, entry: str) -> None:
        code, labels = parse(source)
        at, loop = labels[entry], None
        while True:
            name, operands = code[at]
            self.executed += 1
            assert self.executed < STEPS, "does not end"
            at += 1
            if name == "retw":
                return
            if name.startswith("loop"):
                count = self.registers[operands[0]]
                loop = [at, labels[operands[1]], count]
                if name == "loopgtz" and not 0 < count < 1 << 31:
                    at, loop = labels[operands[1]], None
            elif name == "bnez":
                at = labels[operands[1]] if self.registers[operands[0]] else at
            elif name == "bbci":
                clear = not self.registers[operands[0]] >> int(operands[1]) & 1
                at = labels[operands[2]] if clear else at
            else:
                getattr(self, "_" + name.replace(".", "_"))(*operands)
            if loop is not None and at == loop[1]:
                loop[2] -= 1
                at, loop = (loop[0], loop) if loop[2] else (at, None)

    def _set(self, register: str, value: int) -> None:
        self.registers[register] = value & 0xFFFF_FFFF

    def _entry(self, stack: str, frame: str) -> None:
        assert stack == "a1" and int(frame) % 8 == 0

    def _srli(self, to: str, of: str, bits: str) -> None:
        self._set(to, self.registers[of] >> int(bits))

    def _movi(self, to: str, value: str) -> None:
        self._set(to, int(value))

    def _mov(self, to: str, of: str) -> None:
        self._set(to, self.registers[of])

    def _add(self, to: str, a: str, b: str) -> None:
        self._set(to, self.registers[a] + self.registers[b])

    def _addi(self, to: str, a: str, value: str) -> None:
        self._set(to, self.registers[a] + int(value))

    def _l32i(self, to: str, base: str, offset: str) -> None:
        self._set(to, int.from_bytes(self.load(self.registers[base] + int(offset), 4), "little"))

    def _s32i(self, of: str, base: str, offset: str) -> None:
        address = self.registers[base] + int(offset)
        self.load(address, 4)
        self.memory[address : address + 4] = self.registers[of].to_bytes(4, "little")

    def _vector(self, name: str) -> bytearray:
        """q0 to q7; what they hold at first is no zero."""
        assert name in {f"q{i}" for i in range(8)}, name
        return self.vectors.setdefault(name, bytearray(range(0x71, 0x81)))

    def _ee_vld_128_ip(self, to: str, base: str, step: str) -> None:
        self._vector(to)[:] = self.load(self.registers[base], 16)
        self._addi(base, base, step)

    def _ee_vld_l_64_ip(self, to: str, base: str, step: str) -> None:
        self._vector(to)[:8] = self.load(self.registers[base], 8)
        self._addi(base, base, step)

    def _ee_vld_h_64_ip(self, to: str, base: str, step: str) -> None:
        self._vector(to)[8:] = self.load(self.registers[base], 8)
        self._addi(base, base, step)

    def _ee_zero_accx(self) -> None:
        self.accx = 0

    def _ee_vmulas_s8_accx(self, a: str, b: str) -> None:
        pairs = zip(self._vector(a), self._vector(b), strict=True)
        self.accx += sum(_signed(x, 8) * _signed(y, 8) for x, y in pairs)
        assert -(1 << (ACCX_BITS - 1)) <= self.accx < 1 << (ACCX_BITS - 1)

    def _ee_vmulas_s8_accx_ld_ip(self, to: str, base: str, step: str, a: str, b: str) -> None:
        self._ee_vmulas_s8_accx(a, b)
        self._ee_vld_128_ip(to, base, step)

    def _rur_accx_0(self, to: str) -> None:
        self._set(to, self.accx)


def _signed(value: int, bits: int) -> int:
    return value - (1 << bits) if value >> (bits - 1) else value
