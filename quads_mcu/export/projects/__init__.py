"""Projects for the vendors' build systems: one module per format, one folder per export.

A format is a module with `files(project) -> Files`: relative path to content of everything the
folder shall hold.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from quads_mcu.config import Config
from quads_mcu.console import Progress
from quads_mcu.device.boards import Board
from quads_mcu.errors import ConfigError, ExportError
from quads_mcu.export.project import Cost, packed
from quads_mcu.export.projects import folder as folders
from quads_mcu.export.projects.project import WEIGHTS, Project
from quads_mcu.model_format import PackedModel
from quads_mcu.run_dir import RunDir

FORMATS = {
    "esp-idf": "quads_mcu.export.projects.esp_idf",
    "pico-sdk": "quads_mcu.export.projects.pico_sdk",
    "zephyr": "quads_mcu.export.projects.zephyr",
    "arduino": "quads_mcu.export.projects.arduino",
    "platformio": "quads_mcu.export.projects.platformio",
    "cmsis": "quads_mcu.export.projects.cmsis",
}


# Weights of more bytes are not compiled in as C, where a format has the choice.
HEADER_BYTES = 1 << 20


@dataclass(frozen=True)
class Export:
    """A project that was written: its folder, format, where the weights are, bytes by file."""

    folder: Path
    format: str
    weights: str
    files: Mapping[str, int]
    model: PackedModel
    cost: Cost


def export(
    run: RunDir,
    board: Board,
    *,
    fmt: str | None = None,
    weights: str | None = None,
    bits: int | None = None,
    out: Path | None = None,
    progress: Progress = lambda *_: None,
) -> Export:
    """Pack the run's student, check that it fits `board`, and write a project for it.

    Args:
        fmt: of board.formats; None: the first of them.
        weights: "header" or "bin"; None: `choose_weights`.
        bits: must be what the run was trained at; None: whatever that is.
        out: folder of the project; None: in the run's folder.

    Raises:
        ConfigError: the board has no such format, or the format no such weights.
        ExportError: other bits, a model that cannot be represented or does not fit, or a folder
            that holds something else.
        StorageError: the folder cannot be written.
    """
    chosen = _format(board, fmt)
    _check_weights(chosen, weights)
    model, cost = packed(run, board, bits, progress)
    where = weights or choose_weights(chosen, cost)
    folder = out or run.project_dir(board.name, chosen)
    files = write(chosen, model, board, cost, run.config(), folder, where)
    return Export(folder, chosen, where, files, model, cost)


def supported_weights(fmt: str) -> tuple[str, ...]:
    """Return the ways a format can hold weights, of WEIGHTS; its default for large ones last."""
    return tuple(getattr(importlib.import_module(FORMATS[fmt]), "WEIGHTS", WEIGHTS))


def choose_weights(fmt: str, cost: Cost) -> str:
    """Return "header" for small models, else "bin", as far as the format has it.

    An ESP-IDF project has a partition for the image, and uses it for every model.
    """
    supported = supported_weights(fmt)
    if "bin" not in supported or "header" not in supported:
        return supported[0]
    return "bin" if fmt == "esp-idf" or cost.weight_bytes > HEADER_BYTES else "header"


def _format(board: Board, fmt: str | None) -> str:
    if not board.formats:
        raise ConfigError(
            f"{board.name} is no chip: export writes C source for it, without --format and "
            "--weights"
        )
    if fmt is not None and fmt not in board.formats:
        raise ConfigError(
            f"--format {fmt}: {board.name} has {', '.join(board.formats)}; choose one of them"
        )
    return fmt or board.formats[0]


def _check_weights(fmt: str, weights: str | None) -> None:
    supported = supported_weights(fmt)
    if weights is not None and weights not in supported:
        raise ConfigError(
            f"--weights {weights}: format {fmt} has {' and '.join(supported)}; leave it out, or "
            "choose another --format"
        )


def write(
    fmt: str,
    model: PackedModel,
    board: Board,
    cost: Cost,
    config: Config,
    folder: Path,
    weights: str,
) -> dict[str, int]:
    """Write `model` for `board` as a project of format `fmt`; return the bytes of its files.

    The folder appears whole; one that an export wrote before is replaced, but for files that are
    not of that export.

    Raises:
        ExportError: format or weights are unknown, or the folder holds something else.
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
        StorageError: the folder cannot be written.
    """
    if fmt not in FORMATS or weights not in WEIGHTS:
        raise ExportError(
            f"format {fmt!r} with weights {weights!r} is unknown; there are "
            f"{', '.join(FORMATS)}, each with {' or '.join(WEIGHTS)}"
        )
    files = importlib.import_module(FORMATS[fmt]).files(
        Project(model, board, cost, config, weights)
    )
    facts = {
        "board": board.name,
        "format": fmt,
        "weights": weights,
        "model": model.model_hash,
        "cost": asdict(cost),
    }
    return folders.write(folder, files, facts)
