"""What firmware takes without its model: measured on every board, kept in firmware_sizes.json.

Code and tables do not depend on the model but for its mel bands. `make sizes` measures every board
anew; a test fails when the kept figures no longer hold. They are those of one compiler.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quads_mcu.device.boards import Board
from quads_mcu.device.elf import Elf
from quads_mcu.errors import InstallationError
from quads_mcu.model_format import STAGES, PackedModel

PATH = Path(__file__).with_suffix(".json")
# What [audio] n_mels can be; for others the nearest is taken, which is off by some bytes.
N_MELS = (40, 80)
ALIGNMENT = 8


@dataclass(frozen=True)
class FirmwareSizes:
    """Bytes of a board's firmware, each a multiple of ALIGNMENT, and of its model's C structs.

    code; constants: tables and initial values; data: stack and static data without arena and
    `result_bytes`. layer, slot, model, pointer: of quads_layer_t, quads_slot_t, quads_model_t and a
    pointer.
    """

    code: int
    constants: int
    data: int
    layer: int
    slot: int
    model: int
    pointer: int


def padded(n_bytes: int, alignment: int = ALIGNMENT) -> int:
    """Return the least multiple of `alignment` that is not below n_bytes."""
    return -(-n_bytes // alignment) * alignment


def result_bytes(model: PackedModel) -> int:
    """Return the bytes of an inference's logits, answers, and ticks by place and stage."""
    ticks = 8 * len(STAGES) * (model.dims.n_layers + 2)
    return padded(4 * model.dims.n_classes + 2 * len(model.slots)) + ticks


def measure(elf: Path, model: PackedModel) -> FirmwareSizes:
    """Return the sizes in a firmware built with `model`.

    Raises:
        BuildError: not an ELF file.
    """
    image = Elf(elf)
    objects = {symbol.name: symbol.size_bytes for symbol in image.objects()}
    n_classes, n_slots = model.dims.n_classes, len(model.slots)
    data = sum(image.section_bytes(name) for name in (".stack", ".data", ".bss"))
    return FirmwareSizes(
        code=image.section_bytes(".text"),
        constants=image.section_bytes(".rodata") + image.section_bytes(".data"),
        data=data - result_bytes(model),
        layer=objects["layers"] // model.dims.n_layers,
        slot=objects["slots"] // n_slots,
        model=objects["quads_model"],
        pointer=objects["labels"] // n_classes,
    )


def load(board: Board, n_mels: int) -> FirmwareSizes | None:
    """Return the kept sizes of a board, or of the nearest one; None where there are none (host).

    Raises:
        InstallationError: the file is missing or damaged.
    """
    kept = _kept().get(board.name) or _kept().get(board.nearest)
    if kept is None:
        return None
    nearest = min(N_MELS, key=lambda known: abs(known - n_mels))
    return FirmwareSizes(**kept["n_mels"][str(nearest)])


def compiler(board: Board) -> str:
    """Return the version line of the compiler that the kept sizes are of; "" if there are none."""
    kept = _kept().get(board.name) or _kept().get(board.nearest, {})
    return str(kept.get("compiler", ""))


def entry(compiler_version: str, sizes: Mapping[int, FirmwareSizes]) -> dict[str, Any]:
    """Return what the file keeps of a board; `sizes` by n_mels."""
    return {
        "compiler": compiler_version,
        "n_mels": {str(n_mels): vars(found) for n_mels, found in sizes.items()},
    }


@functools.cache
def _kept() -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
        return found
    except (OSError, ValueError) as problem:
        raise InstallationError(f"{PATH}: {problem}; install quads-mcu again") from None
