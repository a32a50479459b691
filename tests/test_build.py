"""Building firmware: sizes, toolchains, failures, and the counter of the emulated board."""

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from c_build import FIRMWARE, require_tool
from firmware_build import DIMS, built, model, require, source_dir
from random_model import random_model

from quads_mcu import model_format
from quads_mcu.audio import frontend
from quads_mcu.device import boards, build, firmware_sizes, flash, memory
from quads_mcu.device.client import Client
from quads_mcu.device.elf import Elf
from quads_mcu.device.link import Link
from quads_mcu.errors import BuildError, ExportError
from quads_mcu.export import csource, planner, project
from quads_mcu.export.reference import Reference
from quads_mcu.slots import Slot

HOST = boards.load("host")
AN386 = boards.load("qemu-an386")
EMULATED = [board.name for board in boards.all_boards() if board.emulated]
CORTEX_M = [board.name for board in boards.all_boards() if board.port == "cmsdk"]


@pytest.mark.parametrize(
    ("board", "tool"), [("host", "size"), ("qemu-an386", "arm-none-eabi-size")]
)
def test_sizes_agree_with_binutils(board: str, tool: str) -> None:
    require_tool(tool)
    found = built(board)
    lines = subprocess.run([tool, str(found.elf)], capture_output=True, text=True, check=True)
    text, data, bss = map(int, lines.stdout.splitlines()[1].split()[:3])  # text with constants
    assert (found.text + found.rodata, found.data, found.bss) == (text, data, bss)
    assert found.flash_bytes == text + data
    assert found.ram_bytes == data + bss


@pytest.mark.parametrize("board", ["host", *EMULATED])
def test_linked_weights_are_those_of_the_model(board: str) -> None:
    kernels = boards.load(board).kernels
    packed = sum(tensor.nbytes for tensor in csource.packed_tensors(model(), kernels).values())
    assert built(board).weight_bytes == packed
    if kernels == "plain":
        assert packed == sum(model_format.weight_bytes(model()).values())


def kept_compiler(board: boards.Board) -> bool:
    """Whether the installed compiler is the one that the kept sizes are of."""
    return build.find_compiler(board)[1] == firmware_sizes.compiler(board)


@pytest.mark.parametrize("n_mels", firmware_sizes.N_MELS)
@pytest.mark.parametrize("board_name", EMULATED)
def test_memory_is_predicted_to_the_byte(tmp_path: Path, board_name: str, n_mels: int) -> None:
    """Another model than the kept sizes were measured with; `make sizes` when firmware changed."""
    board = boards.load(board_name)
    require(board)
    if not kept_compiler(board):
        pytest.skip(f"sizes are kept for {firmware_sizes.compiler(board)}, not installed here")
    dims = replace(DIMS, n_mels=n_mels, n_frames=30, d_model=24, n_heads=3, n_layers=1, n_classes=5)
    slots = (Slot("intent", ("on", "light on", "é" * 7)), Slot("room", ("none", "on")))
    other = replace(random_model(dims, bits=3, seed=8), slots=slots)
    csource.write_sources(other, tmp_path / "source", board.kernels)
    found = build.build(board, tmp_path / "source", tmp_path / "build")
    assert tuple(memory.place(board, project.predict(other, board).needs)) == found.regions


def test_every_emulated_board_has_kept_sizes() -> None:
    for name in EMULATED:
        board = boards.load(name)
        assert firmware_sizes.compiler(board)
        assert firmware_sizes.load(board, 40) != firmware_sizes.load(board, 80)
    assert firmware_sizes.load(HOST, 40) is None


def test_summary_is_stored_beside_the_elf() -> None:
    found = built("host")
    assert build.Build.read(found.elf.parent) == found


def test_no_summary(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="holds no build"):
        build.Build.read(tmp_path)
    (tmp_path / build.SUMMARY_NAME).write_text('{"text": 1}')
    with pytest.raises(BuildError, match="build again"):
        build.Build.read(tmp_path)


def test_build_id_follows_source_and_options(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    shutil.copytree(source_dir(), copy)
    first = build.build(HOST, copy, tmp_path / "a").build_id
    assert first == build.build(HOST, copy, tmp_path / "b").build_id == built("host").build_id
    header = copy / "model.h"
    header.write_text(header.read_text() + "/* changed */\n")
    assert build.build(HOST, copy, tmp_path / "a").build_id != first


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_compilers_without_warnings(tmp_path: Path, compiler: str) -> None:
    require_tool(compiler)
    assert build.build(HOST, source_dir(), tmp_path, compiler=compiler).elf.is_file()


@pytest.mark.slow
def test_without_a_system_compiler(tmp_path: Path) -> None:
    """`pip install ziglang` is enough: the last candidate of the host board."""
    pytest.importorskip("ziglang")
    zig = HOST.toolchain.compilers[-1]
    assert zig == "python -m ziglang cc"
    found = build.build(HOST, source_dir(), tmp_path, compiler=zig)
    with flash.open_board(HOST, found.elf) as client:
        client.check(model().model_hash)


def test_a_model_exported_for_other_kernels_does_not_compile(tmp_path: Path) -> None:
    csource.write_sources(model(), tmp_path / "source", "dsp")
    with pytest.raises(BuildError, match="exported for the dsp kernels; export it again"):
        build.build(HOST, tmp_path / "source", tmp_path / "build")


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[float, float]] = []
    build.build(HOST, source_dir(), tmp_path, progress=lambda _, done, n: seen.append((done, n)))
    assert [done for done, _ in seen] == list(range(1, len(seen) + 1))
    assert seen[-1][0] == seen[-1][1]


PLAIN = {path.name: path for path in build.kernel_sources("plain")}


@pytest.mark.parametrize("variant", boards.KERNELS)
def test_kernels_are_the_variants_where_it_has_them_and_plain_elsewhere(variant: str) -> None:
    chosen = build.kernel_sources(variant)
    assert len({path.stem for path in chosen}) == len({path.name for path in chosen})
    own = {path.stem for path in (PLAIN["quads_linear_s8.c"].parents[1] / variant).glob("*.[cS]")}
    for path in chosen:
        assert path.parent.name == (variant if path.stem in own else "plain")
    assert {path.stem for path in PLAIN.values()} <= {path.stem for path in chosen}
    if variant == "dsp":
        assert {"quads_linear_s8", "quads_linear_add_s16", "quads_attention_head"} <= own


# --- failures -------------------------------------------------------------------------------


def test_missing_toolchain_names_it_and_the_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BuildError) as caught:
        build.find_compiler(AN386)
    message = str(caught.value)
    for part in ("arm-none-eabi-gcc", "qemu-an386", "apt install gcc-arm-none-eabi", "host"):
        assert part in message


def test_nothing_exported(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="quads-mcu export"):
        build.build(HOST, tmp_path, tmp_path / "out")


def test_sanitizers_are_for_the_host(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="host only"):
        build.build(AN386, source_dir(), tmp_path, sanitize=True)


def test_first_errors_are_shown_and_the_old_firmware_stays(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    shutil.copytree(source_dir(), copy)
    old = build.build(HOST, copy, tmp_path / "out")
    content = old.elf.read_bytes()
    (copy / "broken.c").write_text("int x = nonsense;\n")
    with pytest.raises(BuildError, match=r"broken\.c does not compile: .*nonsense"):
        build.build(HOST, copy, tmp_path / "out")
    assert old.elf.read_bytes() == content
    assert not list((tmp_path / "out").glob("link-*"))


def test_a_model_of_another_format_does_not_compile(tmp_path: Path) -> None:
    copy = tmp_path / "source"
    shutil.copytree(source_dir(), copy)
    header = copy / "quads_format.h"
    text = header.read_text()
    header.write_text(re.sub(r"(#define QUADS_FORMAT_VERSION) \d+", r"\1 999", text))
    with pytest.raises(BuildError, match="export the model again"):
        build.build(HOST, copy, tmp_path / "out")


def shrunk(board: boards.Board, **sizes: int) -> boards.Board:
    """The board with other region sizes; what the sizes leave out is no longer there."""
    memory = [replace(r, size_bytes=sizes[r.name]) for r in board.memory if r.name in sizes]
    return replace(board, memory=tuple(memory))


@pytest.mark.parametrize(
    ("sizes", "region", "holds", "way"),
    [
        ({"flash": 24_576, "ram": 65536}, "flash", "code, constants, weights", "fewer bits"),
        ({"flash": 1 << 20, "ram": 8192}, "ram", "data, arena", "a shorter window"),
        ({"flash": 8192, "ram": 65536, "psram": 65536}, "flash", "code, constants", "more flash"),
    ],
)
def test_overflow_names_the_region(
    tmp_path: Path, sizes: dict[str, int], region: str, holds: str, way: str
) -> None:
    require(AN386)
    small = shrunk(AN386, **sizes)
    with pytest.raises(BuildError) as caught:
        build.build(small, source_dir(AN386.kernels), tmp_path)
    with pytest.raises(ExportError) as predicted:
        memory.place(small, project.predict(model(), small).needs)
    found = re.match(
        rf"{region} of qemu-an386 \({holds}\): ([\d,]+) bytes needed, {sizes[region]:,} available, "
        r"([\d,]+) too many; use ",
        str(caught.value),
    )
    assert found and way in str(caught.value)
    needed, over = (int(number.replace(",", "")) for number in found.groups())
    assert needed - over == sizes[region]
    if kept_compiler(AN386):
        assert str(predicted.value) == str(caught.value)
    assert not (tmp_path / build.FIRMWARE_NAME).exists()


ENDLESS = """
#include "quads_port.h"

static uint32_t deeper(volatile uint32_t *above) {
  volatile uint32_t here[64] = {*above};
  return deeper(here) + here[0];
}

int main(void) {
  volatile uint32_t seed = 1;
  quads_port_exit((int)deeper(&seed));
}
"""


def test_stack_overflow_ends_the_riscv_board(tmp_path: Path) -> None:
    board = boards.load("qemu-riscv32")
    require(board)
    (tmp_path / "main.c").write_text(ENDLESS)
    sources = [tmp_path / "main.c", *build.port_sources(board)]
    board = replace(
        board,
        toolchain=replace(
            board.toolchain, flags=(*board.toolchain.flags, "-Wno-infinite-recursion")
        ),
    )
    found = build.compile_and_link(board, sources, [FIRMWARE / "ports"], tmp_path / "out")
    with flash.start(board, found.elf) as session:
        assert session.wait() == 70  # BARE_METAL_EXIT_FAULT


@pytest.mark.parametrize("board", CORTEX_M)
def test_parts_move_to_the_large_region_and_still_run(tmp_path: Path, board: str) -> None:
    """The model that fits everywhere, on a board whose first regions are too small for it."""
    full = boards.load(board)
    require(full)
    first, ram, *_, large = (region.name for region in full.memory)
    sizes = {first: 26_624, ram: 8192, large: 65536}
    found = build.build(shrunk(full, **sizes), source_dir(full.kernels), tmp_path)
    assert {usage.region: usage.contents for usage in found.regions} == {
        first: ("code", "constants"),
        ram: ("data",),
        large: ("weights", "arena"),
    }
    rng = np.random.default_rng(7)
    mel = rng.integers(-128, 128, (DIMS.n_frames, DIMS.n_mels)).astype(np.int8)
    with flash.open_board(full, found.elf) as client:
        client.send_features(mel)
        np.testing.assert_array_equal(
            client.infer().logits, Reference(model()).logits(mel[None])[0]
        )
        assert client.stats().arena_used_bytes == planner.plan(DIMS, full.kernels).arena_bytes


@pytest.mark.parametrize(
    "content", [b"", b"\x7fELF", b"MZ" + bytes(100), b"\x7fELF\x01\x01" + b"\xff" * 90]
)
def test_what_is_no_elf_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    with pytest.raises(BuildError):
        Elf(path).sizes()


# --- cores without FPU ----------------------------------------------------------------------


@pytest.mark.parametrize("arithmetic", model_format.FRONTENDS)
def test_a_core_without_fpu_computes_the_same(tmp_path: Path, arithmetic: str) -> None:
    """RV32IMAC: float operations are calls of the compiler's library, in IEEE arithmetic."""
    board = boards.load("qemu-riscv32")
    require(board)
    flags = [flag.replace("rv32imafc", "rv32imac").replace("ilp32f", "ilp32")
             for flag in board.toolchain.flags]  # fmt: skip
    assert "-march=rv32imac" in flags and "-mabi=ilp32" in flags
    board = replace(board, toolchain=replace(board.toolchain, flags=tuple(flags)))
    asked = replace(model(), frontend=arithmetic)
    csource.write_sources(asked, tmp_path / "source", board.kernels)
    found = build.build(board, tmp_path / "source", tmp_path / "build")
    pcm = (np.random.default_rng(2).normal(size=160 * DIMS.n_frames) * 3000).astype(np.int16)
    mel = frontend.features(pcm, DIMS.n_mels, DIMS.n_frames, arithmetic)
    with flash.open_board(board, found.elf) as client:
        client.check(asked.model_hash)
        client.send_pcm(pcm)
        np.testing.assert_array_equal(client.features(), mel)
        inference = client.infer()
        np.testing.assert_array_equal(inference.logits, Reference(asked).logits(mel[None])[0])
    print(f"{arithmetic} frontend: {inference.work[0] / DIMS.n_frames:.0f} instructions per frame")


# --- the emulated board's counter -----------------------------------------------------------

COUNTED = """
#include "quads_link.h"
#include "quads_port.h"

static void write_link(void *context, const uint8_t *bytes, size_t n_bytes) {
  (void)context;
  quads_port_write(bytes, n_bytes);
}

#if defined(__riscv)
#define TURN "1: addi %0, %0, -1\\n\\tbnez %0, 1b"
#else
#define TURN "1: subs %0, %0, #1\\n\\tbne 1b"
#endif

/* Two instructions per turn. Echoes the ticks of `payload` turns. */
static void count(void *context, const quads_request_t *request, quads_sender_t *answer) {
  uint32_t turns = quads_read_u32(request->payload);
  const uint32_t start = quads_port_ticks();
  __asm__ volatile(TURN : "+r"(turns) : : "cc");
  const uint32_t ticks = quads_port_ticks() - start;
  (void)context;
  quads_send_u8(answer, QUADS_LINK_OK);
  quads_send_u32(answer, ticks);
}

int main(void) {
  static uint8_t frame[64];
  static quads_link_t device_link;
  static const quads_handler_t handlers[QUADS_MESSAGES] = {[QUADS_MESSAGE_ECHO] = count};
  quads_port_init(0, NULL);
  quads_link_init(&device_link, frame, sizeof frame, handlers, NULL, write_link);
  for (;;) {
    uint8_t byte;
    if (quads_port_read(&byte, 1) == 0) {
      quads_port_idle();
    } else {
      quads_link_feed(&device_link, &byte, 1);
    }
  }
}
"""


@pytest.mark.parametrize("board_name", EMULATED)
def test_ticks_are_instructions(tmp_path: Path, board_name: str) -> None:
    board = boards.load(board_name)
    require(board)
    main = tmp_path / "main.c"
    main.write_text(COUNTED)
    sources = [main, FIRMWARE / "src" / "protocol.c", *build.port_sources(board)]
    includes = [source_dir(), FIRMWARE / "include", FIRMWARE / "ports"]
    found = build.compile_and_link(board, sources, includes, tmp_path / "out")

    def instructions(client: Client, turns: int) -> float:
        ticks = int.from_bytes(client.echo(turns.to_bytes(4, "little")), "little")
        defines = board.defines
        return ticks * defines["QUADS_TICK_NUMERATOR"] / defines["QUADS_TICK_DENOMINATOR"]

    with flash.start(board, found.elf) as session, Link(session.url) as link:
        client = Client(link)
        short, long = instructions(client, 1_000), instructions(client, 1_001_000)
        assert long - short == pytest.approx(2_000_000, abs=2)
        assert instructions(client, 1_001_000) == pytest.approx(long, abs=1)
