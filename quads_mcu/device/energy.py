"""Latency and energy estimated from executed instructions. Never a measurement."""

from __future__ import annotations

from typing import NamedTuple

from quads_mcu.device.boards import Board
from quads_mcu.errors import ConfigError


class Estimate(NamedTuple):
    """latency_ms and energy_uj of one run on the reference chip, and how they came about.

    energy_uj is None where the board file names no power.
    """

    latency_ms: float
    energy_uj: float | None
    method: str


def estimate(board: Board, instructions: float) -> Estimate:
    """Estimate what `instructions` cost on the board's reference chip.

    cycles = instructions * cycles per instruction; latency = cycles / clock;
    energy = latency * active power.

    Raises:
        ConfigError: the board file has no [energy] figures.
    """
    figures = board.energy
    if figures is None:
        raise ConfigError(
            f"board {board.name} has no [energy] figures to estimate with; "
            "use a board that has (`quads-mcu boards`)"
        )
    latency_s = instructions * figures.cycles_per_instruction / figures.clock_hz
    method = (
        f"estimate, not measured: counted instructions x {figures.cycles_per_instruction:g} cycles "
        f"({figures.cycles_source}) at {figures.clock_hz / 1e6:g} MHz"
    )
    if not figures.active_power_mw:
        return Estimate(latency_s * 1e3, None, f"{method} of a {figures.reference}")
    method += f" and {figures.active_power_mw:g} mW of a {figures.reference} ({figures.source})"
    return Estimate(latency_s * 1e3, latency_s * figures.active_power_mw * 1e3, method)
