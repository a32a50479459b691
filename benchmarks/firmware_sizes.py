"""Measure what firmware takes without its model on every emulated board; `make sizes`.

Writes quads_mcu/device/firmware_sizes.json. Boards without an installed compiler keep their entry.
A chip whose core is no emulated board's has an entry of its own, measured on its stand-in.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import replace
from pathlib import Path

from random_model import random_model  # of tests/

from quads_mcu.device import boards, build, firmware_sizes
from quads_mcu.errors import BuildError
from quads_mcu.export import csource
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model_format import PackedModel
from quads_mcu.report import kernel_counts
from quads_mcu.run_dir import write_text


def any_model(n_mels: int) -> PackedModel:
    """A model; which one makes no difference."""
    dims = Dimensions(n_mels=n_mels, n_frames=50, d_model=32, n_heads=2, n_layers=2, n_classes=6)
    return random_model(dims, seed=0)


def measure(board: boards.Board, folder: Path) -> dict[str, object]:
    """Build firmware for every n_mels; return the board's entry."""
    sizes = {}
    version = ""
    for n_mels in firmware_sizes.N_MELS:
        source = folder / "source"
        model = replace(any_model(n_mels), frontend=board.frontend)
        csource.write_sources(model, source, board.kernels)
        built = build.build(board, source, folder / "build")
        sizes[n_mels] = firmware_sizes.measure(built.elf, model)
        version = built.compiler
    return firmware_sizes.entry(version, sizes)


def main() -> None:
    """Measure all and write the file."""
    path = firmware_sizes.PATH
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    found = {}
    for board in boards.all_boards():
        machine = kernel_counts.stand_in(board)
        if not machine.emulated or (board.nearest and machine == boards.load(machine.name)):
            continue
        try:
            build.find_compiler(machine)
        except BuildError as problem:
            print(f"{board.name}: kept as it was: {problem}")
            found |= {board.name: kept[board.name]} if board.name in kept else {}
            continue
        with tempfile.TemporaryDirectory() as folder:
            found[board.name] = measure(machine, Path(folder))
        print(f"{board.name}: {'same' if found[board.name] == kept.get(board.name) else 'changed'}")
    write_text(path, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
