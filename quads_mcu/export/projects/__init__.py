"""Projects for the vendors' build systems: one module per format, one folder per export.

A format is a module with `files(project) -> Files`: relative path to content of everything the
folder shall hold.
"""

from __future__ import annotations

import importlib
from dataclasses import asdict
from pathlib import Path

from quads_mcu.config import Config
from quads_mcu.device.boards import Board
from quads_mcu.errors import ExportError
from quads_mcu.export.project import Cost
from quads_mcu.export.projects import folder as folders
from quads_mcu.export.projects.project import WEIGHTS, Project
from quads_mcu.model_format import PackedModel

FORMATS = {
    "esp-idf": "quads_mcu.export.projects.esp_idf",
    "pico-sdk": "quads_mcu.export.projects.pico_sdk",
    "zephyr": "quads_mcu.export.projects.zephyr",
    "arduino": "quads_mcu.export.projects.arduino",
    "platformio": "quads_mcu.export.projects.platformio",
    "cmsis": "quads_mcu.export.projects.cmsis",
}


def write(
    fmt: str,
    model: PackedModel,
    board: Board,
    cost: Cost,
    config: Config,
    folder: Path,
    weights: str,
) -> list[str]:
    """Write `model` for `board` as a project of format `fmt`; return its files' names, sorted.

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
    folders.write(folder, files, facts)
    return sorted(files)
