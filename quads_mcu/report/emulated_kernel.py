"""One kernel on one emulated core: outputs and executed instructions of every call.

    with EmulatedKernels("m4", "dsp") as core:
        outcome = core.call("quads_gelu_s8", x, x.size, table)
        outcome.arrays[0], outcome.instructions

Every array of a call is copied to the core between guard bytes, and copied back afterwards: an
output is an array like any other. The instruction count is the emulator's, less what a call of an
empty function takes; it is exact to one instruction and the same on every machine.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.device.build import COMPILE_FLAGS, kernel_sources
from quads_mcu.errors import BuildError
from quads_mcu.export import csource
from quads_mcu.paths import data_dir

Array = NDArray[Any]
GUARD = b"\xa5" * 32
ARGUMENTS = 12
HEAP_BYTES = 3 << 20
TIMEOUT_S = 300
# Functions that a harness can call: the kernels of quads_kernels.h.
FUNCTIONS = (
    "quads_linear_s8",
    "quads_linear_add_s16",
    "quads_head",
    "quads_attention_head",
    "quads_gelu_s8",
    "quads_gelu_positions_s16",
    "quads_layer_norm",
    "quads_sum_rows",
    "quads_mean_pool",
    "quads_attention_pool",
)


@dataclass(frozen=True)
class Core:
    """An emulated core: machine, compiler flags, memory, and how its virtual time is read.

    ticks_per_instruction: of the counter, as the emulator is started. kernels: the variants that
    run on it.
    """

    machine: str
    flags: tuple[str, ...]
    code_start: int
    data_start: int
    counter: str
    counter_address: int
    ticks_per_instruction: Fraction
    kernels: tuple[str, ...]
    compiler: str = "arm-none-eabi-gcc"
    emulator: tuple[str, ...] = ("qemu-system-arm", "-icount", "shift=6")
    packages: str = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"

    @property
    def missing_tool(self) -> str | None:
        """The first program that is needed and not installed."""
        tools = (self.compiler, self.emulator[0])
        return next((tool for tool in tools if shutil.which(tool) is None), None)


def _cmsdk(machine: str, cpu: str, fpu: str, kernels: tuple[str, ...]) -> Core:
    flags = ("-mthumb", f"-mcpu={cpu}", *(("-mfloat-abi=hard", f"-mfpu={fpu}") if fpu else ()))
    return Core(
        machine, flags, 0x0000_0000, 0x2000_0000, "HARNESS_CMSDK_TIMER", 0x4000_0000,
        Fraction(8, 5), kernels,
    )  # fmt: skip


def _virt(*core: str) -> Core:
    flags = (*core, "-misa-spec=2.2", "-mcmodel=medany", "-msmall-data-limit=0",
             "--specs=picolibc.specs")  # fmt: skip
    return Core(
        "virt",
        flags,
        0x8000_0000,
        0x8100_0000,
        "HARNESS_MINSTRET",
        1,
        Fraction(1),
        ("plain",),
        compiler="riscv64-unknown-elf-gcc",
        emulator=("qemu-system-riscv32", "-bios", "none", "-icount", "shift=0"),
        packages="gcc-riscv64-unknown-elf picolibc-riscv64-unknown-elf qemu-system-misc",
    )


CORES = {
    # Thumb code for an M0+ on an M4: the same instructions, none of the others.
    "m0": _cmsdk("mps2-an386", "cortex-m0plus", "", ("plain",)),
    "m4": _cmsdk("mps2-an386", "cortex-m4", "fpv4-sp-d16", ("plain", "dsp")),
    "m7": _cmsdk("mps2-an500", "cortex-m7", "fpv5-sp-d16", ("plain", "dsp")),
    "m33": Core(
        "mps2-an505",
        ("-mthumb", "-mcpu=cortex-m33", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"),
        0x1000_0000,
        0x3800_0000,
        "HARNESS_CMSDK_TIMER",
        0x5000_0000,
        Fraction(32, 25),
        ("plain", "dsp"),
    ),
    "m55": Core(
        "mps3-an547",
        ("-mthumb", "-mcpu=cortex-m55", "-mfloat-abi=hard", "-mfpu=auto"),
        0x0000_0000,
        0x3100_0000,
        "HARNESS_SSE_COUNTER",
        0x5810_0000,
        Fraction(256, 125),
        ("plain", "helium"),
    ),
    "rv32imafc": _virt("-march=rv32imafc", "-mabi=ilp32f"),
    "rv32imc": _virt("-march=rv32imc", "-mabi=ilp32"),
}


@dataclass(frozen=True)
class Record:
    """A C struct argument: a `struct` format (with pad bytes) and its fields.

    An array among the fields (format `I`) becomes its address on the core.
    """

    format: str
    fields: tuple[int | Array, ...]


Argument = int | Array | Record | None


@dataclass(frozen=True)
class Call:
    """A function (one of the harness's) and its arguments, at most ARGUMENTS."""

    function: str
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Outcome:
    """What a call did.

    instructions: executed, without the call itself. value: what it returned, as uint32.
    arrays: the call's array arguments as it left them, in order (fields of records not among them).
    """

    instructions: int
    value: int
    arrays: tuple[Array, ...]


def linear(
    indices: Array, centroids: Array, bias: Array, multiplier: Array | None,
    n_out: int, n_in: int, bits: int,
) -> Record:  # fmt: skip
    """Return a quads_linear_t. `indices` is packed for the kernels that will read it."""
    per_channel = int(multiplier is not None and multiplier.size > 1)
    factor = 0 if multiplier is None else multiplier
    return Record("<IIIIHHBB2x", (indices, centroids, bias, factor, n_out, n_in, bits, per_channel))


def norm(gamma: Array, beta: Array, epsilon: int, shift: int) -> Record:
    """Return a quads_norm_t."""
    return Record("<IIIB3x", (gamma, beta, epsilon, shift))


class EmulatedKernels:
    """The kernels of one variant, built for one core; a context manager.

    Args:
        core: a key of CORES.
        variant: a folder of firmware/src/kernels.
        functions: more functions that calls may name, beside FUNCTIONS.
        sources: C or assembly files to add.
        includes: folders of headers to add.
    Raises:
        BuildError: no compiler, or code that does not compile.
    """

    def __init__(
        self,
        core: str,
        variant: str,
        functions: Sequence[str] = (),
        sources: Sequence[Path] = (),
        includes: Sequence[Path] = (),
    ) -> None:
        self.core = CORES[core]
        self.functions = ("harness_empty", *FUNCTIONS, *functions)
        self._folder = tempfile.TemporaryDirectory(prefix="quads-kernels-")
        self._work = Path(self._folder.name)
        try:
            self._build(variant, sources, includes)
        except BaseException:
            self._folder.cleanup()
            raise
        self._heap = _symbol(self._work / "kernels.elf", "harness_heap", self.core)

    def __enter__(self) -> EmulatedKernels:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._folder.cleanup()

    def call(self, function: str, *arguments: Argument) -> Outcome:
        """Call one function; see `run`."""
        return self.run([Call(function, arguments)])[0]

    def run(self, calls: Sequence[Call]) -> list[Outcome]:
        """Make the calls one after another in one emulator.

        Raises:
            BuildError: the emulator is not installed, the core faulted, or a call wrote outside its
                arrays.
        """
        empty = Call("harness_empty", ())
        images = [_Image(call, self._heap) for call in [empty, *calls]]
        words = b"".join(image.request(self.functions) for image in images)
        (self._work / "calls").write_bytes(words)
        self._emulate()
        answer = (self._work / "outcomes").read_bytes()
        outcomes = []
        at = base_ticks = 0
        for index, image in enumerate(images):
            size = 8 + len(image.data)
            if len(answer) < at + size:
                raise BuildError(f"the core stopped in {image.call.function}, call {index - 1}")
            ticks, value = struct.unpack_from("<II", answer, at)
            if index == 0:
                base_ticks = ticks
            instructions = round((ticks - base_ticks) / self.core.ticks_per_instruction)
            arrays = image.arrays(answer[at + 8 : at + size])
            outcomes.append(Outcome(instructions, value, arrays))
            at += size
        return outcomes[1:]

    def _build(self, variant: str, sources: Sequence[Path], includes: Sequence[Path]) -> None:
        firmware = data_dir("firmware")
        core, out = self.core, self._work
        (out / "quads_format.h").write_text(csource.render_format(), encoding="utf-8")
        declared = "".join(f"void {name}(void);\n" for name in self.functions)
        table = ", ".join(self.functions)
        (out / "functions.c").write_text(
            f"{declared}void harness_empty(void) {{}}\n"
            f"void (*const harness_functions[])(void) = {{{table}}};\n",
            encoding="utf-8",
        )
        harness = firmware / "harness"
        command = [
            core.compiler, *COMPILE_FLAGS, *core.flags,
            f"-D{core.counter}={core.counter_address:#x}u",
            f"-DQUADS_KERNELS=QUADS_KERNELS_{variant.upper()}",
            *(f"-I{path}" for path in (out, firmware / "include", firmware / "src", *includes)),
            *map(str, [*kernel_sources(variant), *sources]),
            str(harness / "kernel_harness.c"), str(out / "functions.c"),
            "-nostartfiles", "-Wl,--gc-sections", f"-T{harness / 'kernel_harness.ld'}",
            f"-Wl,--defsym,harness_code={core.code_start:#x}",
            f"-Wl,--defsym,harness_data={core.data_start:#x}",
            "-o", str(out / "kernels.elf"),
        ]  # fmt: skip
        done = _run(command, "compiles the kernels", core)
        if done.returncode:
            raise BuildError(f"the kernels do not compile for {core.machine}: {done.stderr}")

    def _emulate(self) -> None:
        command = [
            *self.core.emulator, "-M", self.core.machine, "-display", "none",
            "-monitor", "none", "-serial", "none", "-kernel", "kernels.elf",
            "-semihosting-config", "enable=on,target=native,arg=k,arg=calls,arg=outcomes",
        ]  # fmt: skip
        done = _run(command, "runs the kernels", self.core, cwd=self._work)
        if done.returncode:
            raise BuildError(
                f"{self.core.machine} ended with {done.returncode} (70: a fault): {done.stderr}"
            )


class _Image:
    """The memory of one call: its arrays and records between guard bytes, placed at `start`."""

    def __init__(self, call: Call, start: int) -> None:
        if len(call.arguments) > ARGUMENTS:
            raise ValueError(f"{call.function}: {len(call.arguments)} arguments")
        self.call = call
        self._start = start
        self._placed: dict[int, tuple[int, Array]] = {}
        self.data = bytearray(GUARD)
        self._words = [self._word(argument) for argument in call.arguments]
        self._words += [0] * (ARGUMENTS - len(self._words))
        if len(self.data) > HEAP_BYTES:
            raise ValueError(f"{call.function}: {len(self.data):,} bytes of arguments")

    def request(self, functions: Sequence[str]) -> bytes:
        index = functions.index(self.call.function)
        head = struct.pack(f"<{ARGUMENTS + 3}I", index, *self._words, self._start, len(self.data))
        return head + self.data

    def arrays(self, left: bytes) -> tuple[Array, ...]:
        """Return the array arguments as the core left them; nothing else may have changed."""
        expected = bytearray(left)
        found = []
        for argument in self.call.arguments:
            if isinstance(argument, np.ndarray):
                at, array = self._placed[id(argument)]
                found.append(
                    np.frombuffer(left, array.dtype, array.size, at).reshape(array.shape).copy()
                )
                expected[at : at + array.nbytes] = self.data[at : at + array.nbytes]
        if expected != self.data:
            where = next(
                i for i, (a, b) in enumerate(zip(expected, self.data, strict=True)) if a != b
            )
            raise BuildError(f"{self.call.function} wrote outside its arguments, byte {where}")
        return tuple(found)

    def _word(self, argument: Argument) -> int:
        if argument is None:
            return 0
        if isinstance(argument, Record):
            fields = [self._word(field) for field in argument.fields]
            return self._append(struct.pack(argument.format, *fields))
        if isinstance(argument, np.ndarray):
            if id(argument) not in self._placed:
                contiguous = np.ascontiguousarray(argument)
                at = self._append(contiguous.tobytes()) - self._start
                self._placed[id(argument)] = (at, argument)
            return self._start + self._placed[id(argument)][0]
        return int(argument) & 0xFFFF_FFFF

    def _append(self, content: bytes) -> int:
        """Return the address of `content`: a multiple of 8, guard bytes directly behind it."""
        at = len(self.data)
        self.data += content + GUARD
        self.data += b"\xa5" * (-len(self.data) % 8)
        return self._start + at


def _symbol(elf: Path, name: str, core: Core) -> int:
    nm = core.compiler.removesuffix("gcc") + "nm"
    done = _run([nm, str(elf)], "reads symbols", core)
    for line in done.stdout.splitlines():
        address, _, symbol = line.split()
        if symbol == name:
            return int(address, 16)
    raise BuildError(f"{elf.name} has no symbol {name}")


def _run(
    command: list[str], purpose: str, core: Core, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=cwd, timeout=TIMEOUT_S
        )
    except FileNotFoundError:
        raise BuildError(
            f"{command[0]} is not installed; it {purpose}. To get it: apt install {core.packages}"
        ) from None
    except subprocess.TimeoutExpired:
        raise BuildError(f"{command[0]} took more than {TIMEOUT_S} s") from None
