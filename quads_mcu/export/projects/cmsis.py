"""A bare project for STM32 and nRF chips: Makefile, linker script, registers by address."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from quads_mcu.device import build, memory
from quads_mcu.errors import ExportError
from quads_mcu.export.projects import firmware
from quads_mcu.export.projects.project import Files, Project

WEIGHTS = ("header",)
TEMPLATES = ("Makefile", "README.md")


@dataclass(frozen=True)
class _Chip:
    """Folder of firmware/ports, and what its README says of the pins in the chip's header."""

    family: str
    uart: str
    leds: str
    microphone_clock: str = ""
    microphone_data: str = ""
    unproven: tuple[str, ...] = ()


_STM32 = ("clock tree and wait states: written after the reference manual, never measured",)
_NRF = ("the PDM microphone", "byte-wise EasyDMA of the UART under load")
CHIPS = {
    "stm32f411": _Chip("stm32", "USART2 (PA2, PA3)", "PA5 (LD2)", unproven=_STM32),
    "stm32h743": _Chip(
        "stm32", "USART3 (PD8, PD9)", "PB0 (LD1), PB14 (LD3)",
        unproven=(*_STM32, "caches, LDO supply, overdrive; boards of revision Y run at 400 MHz "
                  "at most and need other factors in `stm32h743.c`"),
    ),
    "nrf52840": _Chip("nrf", "P0.06 TX, P0.08 RX", "P0.13-P0.16 (LED1-LED4)", "P0.30 (A4)",
                      "P0.31 (A5)", _NRF),
    "nrf5340": _Chip("nrf", "P0.20 TX, P0.22 RX", "P0.28-P0.31 (LED1-LED4)", "P0.25 (A4)",
                     "P0.26 (A5)", _NRF),
}  # fmt: skip


def files(project: Project) -> Files:
    """Return the project: program `server`, and `demo` where the port has a microphone.

    Raises:
        ExportError: no port for this chip, or the model fits nowhere.
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
    """
    board = project.board
    chip = CHIPS.get(board.name)
    if chip is None:
        raise ExportError(
            f"there is no bare project for {board.name}; chips that have one: {', '.join(CHIPS)}"
        )
    found = _of_this_chip(
        firmware.sources(project, "bare_metal", "cortex_m", chip.family), chip.family, board.name
    )
    programs = firmware.Programs.of(found)
    values = {
        "includes": firmware.INCLUDES,
        **programs.to_values(),
        **vars(chip),
        "clock_file": f"quads/ports/{chip.family}/{board.name}.c",
    }
    rendered = {name: project.render(f"cmsis/{name}.j2", **values) for name in TEMPLATES}
    script = build.render_linker_script(board, _placement(project))
    return found | rendered | {"quads.ld": script}


def _of_this_chip(found: Files, family: str, name: str) -> Files:
    """Drop files of other chips, semihosting, and a demo that has no microphone."""
    folder = f"quads/ports/{family}"
    others = {f"{folder}/{other}{end}" for other in CHIPS for end in (".c", ".h") if other != name}
    header = found[f"{folder}/{name}.h"]
    dropped = {*others, f"{folder}/{name}.h", "quads/ports/bare_metal/semihosting.c"}
    dropped |= {"quads/ports/chips/no_stack.c"}
    if family == "stm32":
        dropped |= {path for path in found if PurePosixPath(path).parts[1] == "demo"}
        dropped |= {"quads/ports/chips/microphone.c"}
    kept = {path: text for path, text in found.items() if path not in dropped}
    return kept | {f"{folder}/chip.h": header}


def _placement(project: Project) -> memory.Placement:
    """Return the first placement with room for the model.

    Raises:
        ExportError: there is none.
    """
    board, needs = project.board, project.cost.needs
    memory.place(board, needs)
    return next(
        choice
        for choice in memory.choices(board)
        if memory.overflow_bytes(memory.usage(board, choice, needs)) == 0
    )
