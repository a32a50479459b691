"""Bare projects: they link, lie where the chip has memory, and one runs in an emulated STM32F4."""

from __future__ import annotations

import shutil
import struct
from pathlib import Path

import pytest
from c_build import require_tool
from firmware_build import DIMS
from project_files import (
    LISTEN,
    exported_model,
    inferences_of_the_references,
    project_files,
    run,
    write_project,
)

from quads_mcu.device import boards
from quads_mcu.device.client import Client
from quads_mcu.device.elf import Elf
from quads_mcu.device.flash import Session
from quads_mcu.device.link import Link
from quads_mcu.errors import ExportError
from quads_mcu.export.projects import cmsis
from quads_mcu.export.projects.project import Project

# From the vendors' CMSIS device headers: number of interrupt lines up to the last one with a name,
# UART, microphone.
INTERRUPTS = {
    "stm32f411": (86, 38, None),
    "stm32h743": (150, 39, None),
    "nrf52840": (48, 2, 29),
    "nrf5340": (69, 8, 38),
}
PROGRAMS = [
    (board, program)
    for board, (_, _, microphone) in INTERRUPTS.items()
    for program in (("server", "demo") if microphone else ("server",))
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return folders of the projects by board; each is made when it is first asked for."""

    class Made(dict[str, Path]):
        def __missing__(self, board: str) -> Path:
            folder = tmp_path_factory.mktemp(board)
            write_project("cmsis", board, folder)
            programs = [program for name, program in PROGRAMS if name == board]
            targets = ["demo"] if "demo" in programs else []
            done = run([require_tool("make"), "-C", str(folder), "-j2", "all", *targets])
            assert "warning:" not in done
            self[board] = folder
            return folder

    require_tool("arm-none-eabi-gcc")
    return Made()


def symbols(elf: Path) -> dict[str, int]:
    lines = run([require_tool("arm-none-eabi-nm"), str(elf)]).splitlines()
    return {line.split()[-1]: int(line.split()[0], 16) for line in lines if len(line.split()) == 3}


def test_every_board_with_this_format_has_a_chip() -> None:
    assert set(cmsis.CHIPS) == set(INTERRUPTS)
    assert {board.name for board in boards.all_boards() if "cmsis" in board.formats} == set(
        INTERRUPTS
    )


@pytest.mark.parametrize(("board_name", "program"), PROGRAMS)
def test_links_into_the_memory_of_the_chip(
    made: dict[str, Path], board_name: str, program: str
) -> None:
    board = boards.load(board_name)
    path = made[board_name] / "build" / f"{program}.elf"
    elf, code = Elf(path), board.region("code")
    used = {one.name: elf.end_of(one.start, one.size_bytes) - one.start for one in board.memory}
    assert all(used[one.name] <= one.size_bytes for one in board.memory)
    sizes = elf.sizes()
    # All that takes memory lies in one of the regions, but for gaps of alignment.
    assert sum(used.values()) - sum(vars(sizes).values()) in range(-sizes.data, 2048)
    flat = path.with_suffix(".bin").read_bytes()
    assert len(flat) == used[code.name]


@pytest.mark.parametrize(("board_name", "program"), PROGRAMS)
def test_vectors(made: dict[str, Path], board_name: str, program: str) -> None:
    path = made[board_name] / "build" / f"{program}.elf"
    n_interrupts, uart, microphone = INTERRUPTS[board_name]
    found = symbols(path)
    table = struct.unpack_from(f"<{16 + n_interrupts}I", path.with_suffix(".bin").read_bytes())
    code = boards.load(board_name).region("code")
    assert found["vectors"] == code.start
    assert table[0] == found["quads_stack_end"] and table[0] % 8 == 0
    assert table[1] == found["quads_reset"] | 1
    assert table[16 + uart] == found["chip_uart_interrupt"] | 1
    handlers = {place for place, entry in enumerate(table) if entry and place > 15}
    assert handlers == {16 + uart} | ({16 + microphone} if microphone else set())
    if microphone and program == "demo":
        assert table[16 + microphone] == found["chip_microphone_interrupt"] | 1
    faults = {table[place] for place in (2, 3, 4, 5, 6, 7, 11, 14, 15)}
    assert faults == {found["fault"] | 1}


def test_server_computes_what_the_reference_does(made: dict[str, Path], tmp_path: Path) -> None:
    """On QEMU's STM32F405, whose RCC answers nothing: the clock stays on the slow oscillator."""
    qemu = require_tool("qemu-system-arm")
    board, packed = boards.load("stm32f411"), exported_model("stm32f411")
    elf = shutil.copy(made["stm32f411"] / "build" / "server.elf", tmp_path)
    command = [qemu, "-M", "netduinoplus2", "-kernel", elf, "-display", "none", "-monitor", "none"]
    command += ["-serial", "null", "-serial", "pty"]
    with Session(board, command) as session, Link(session.url) as link:
        client = Client(link)
        hello = client.check(packed.model_hash)
        assert hello.board == "stm32f411" and hello.stack_bytes == board.stack_bytes
        assert any(not one.rejected for one in inferences_of_the_references(client, packed))
        stats = client.stats()
        assert 0 < stats.stack_used_bytes < board.stack_bytes
        assert stats.arena_used_bytes == hello.arena_bytes


def test_other_chips_are_refused_by_name() -> None:
    packed, board = exported_model("esp32"), boards.load("esp32")
    project = Project(packed, board, None, None, "header")  # type: ignore[arg-type]
    with pytest.raises(ExportError, match="no bare project for esp32; chips that have one: stm32f"):
        cmsis.files(project)


def test_readme_says_what_listening_takes(made: dict[str, Path]) -> None:
    """The demo has this more of zeroed memory than the server, less what only the server keeps."""
    folder = made["nrf52840"] / "build"
    ring = DIMS.n_mels * (2 * DIMS.n_frames + LISTEN.lead_ms // 10) + DIMS.n_frames
    lines = run([require_tool("arm-none-eabi-nm"), "-S", str(folder / "demo.elf")]).splitlines()
    rings = [int(line.split()[1], 16) for line in lines if line.endswith(" b ring")]
    assert ring in rings
    readme = str(project_files("cmsis", "nrf52840")["README.md"])
    assert f"what listens takes {-(-ring // 1024)} KB of RAM more" in readme


@pytest.mark.parametrize("board_name", INTERRUPTS)
def test_readme_names_what_was_never_run(board_name: str) -> None:
    readme = str(project_files("cmsis", board_name)["README.md"])
    assert "## Never run on silicon" in readme
    assert f"quads-mcu test --run RUN --target {board_name} --port" in readme
