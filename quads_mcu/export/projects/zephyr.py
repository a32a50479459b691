"""A Zephyr module with a sample: test server, and a demo where the board has a microphone."""

from __future__ import annotations

from dataclasses import dataclass

from quads_mcu.export.projects import firmware
from quads_mcu.export.projects.project import Files, Project

WEIGHTS = ("header",)
TEMPLATES = {
    "zephyr/module.yml": "module.yml.j2",
    "CMakeLists.txt": "CMakeLists.txt.j2",
    "Kconfig": "Kconfig.j2",
    "README.md": "README.md.j2",
    "sample/CMakeLists.txt": "sample.CMakeLists.txt.j2",
    "sample/prj.conf": "prj.conf.j2",
    "sample/demo.conf": "demo.conf.j2",
    "sample/src/main.c": "main.c.j2",
}
# Files that a program needs beside the runtime: the link of both, the microphone of the demo.
LINK = {"quads/ports/zephyr/zephyr.c", "quads/ports/chips/receive_ring.c",
        "quads/ports/chips/no_storage.c", "quads/ports/chips/no_stack.c"}  # fmt: skip
MICROPHONE = {"quads/ports/zephyr/dmic.c", "quads/ports/chips/microphone.c"}
ON_BOARD = "The microphone is on the board."
WIRED = (
    "A PDM microphone (MP34DT06 and the like), select pin to ground: CLK to P0.{:02d}, DOUT to "
    "P0.{:02d}; `sample/boards/` has the overlay."
)


@dataclass(frozen=True)
class _Board:
    """Where the console is; microphone pins (clock, data) of P0, or that it is on the board."""

    console: str
    pins: tuple[int, int] | None = None
    microphone_on_board: bool = False


BOARDS = {
    "rp2040": _Board("UART 0 (GP0 TX, GP1 RX), not USB"),
    "rp2350": _Board("UART 0 (GP0 TX, GP1 RX), not USB"),
    "stm32f411": _Board("the debugger's virtual serial port"),
    "stm32h743": _Board("the debugger's virtual serial port"),
    "nrf52840": _Board("the debugger's virtual serial port", (30, 31)),
    "nrf5340": _Board("the debugger's first virtual serial port", (25, 26)),
    "arduino-nano33ble": _Board("UART 0 (TX, RX), not USB", microphone_on_board=True),
}


def files(project: Project) -> Files:
    """Return module and sample.

    Raises:
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
    """
    found = firmware.rename_mains(firmware.sources(project, "zephyr"))
    programs = firmware.Programs.of(found)
    board = BOARDS.get(project.board.name, _Board("see the board's documentation"))
    values = {
        **programs.to_values(),
        "runtime": [name for name in programs.shared if name not in LINK | MICROPHONE],
        "link": sorted(LINK),
        "microphone": sorted(MICROPHONE),
        "fpu": project.board.frontend == "float",
        "where": board.console,
        "port": "/dev/ttyACM0" if "debugger" in board.console else "/dev/ttyUSB0",
        "has_microphone": board.microphone_on_board or board.pins is not None,
        "microphone_text": WIRED.format(*board.pins) if board.pins else ON_BOARD,
    }
    for name, template in TEMPLATES.items():
        found[name] = project.render(f"zephyr/{template}", **values)
    if board.pins:
        name = project.board.project["zephyr_board"].replace("/", "_")
        clock, data = board.pins
        found[f"sample/boards/{name}.overlay"] = project.render(
            "zephyr/overlay.j2", clock_pin=clock, data_pin=data
        )
    return found
