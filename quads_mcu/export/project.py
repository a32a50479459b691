"""`quads-mcu export`: from a trained run to the packed model and the C source for one board."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from quads_mcu import model_format
from quads_mcu.device.boards import Board, fit
from quads_mcu.errors import ExportError
from quads_mcu.export import csource, pack, planner
from quads_mcu.run_dir import RunDir, write_json

COST_FILE = "cost.json"


@dataclass(frozen=True)
class Cost:
    """What a model takes on a board, bytes; computed before anything is compiled.

    weight_bytes: indices, codebooks, biases, multipliers, norms, tables and positions, exactly.
    flash_bytes: weights + runtime; the runtime's share is the board file's measured figure.
    ram_bytes: arena (exact) + stack reserve + the runtime's static data.
    """

    weight_bytes: int
    weight_bytes_by_kind: dict[str, int]
    flash_bytes: int
    arena_bytes: int
    stack_bytes: int
    ram_bytes: int

    @classmethod
    def read(cls, source_dir: Path) -> Cost:
        """Read what `export` wrote beside the C source.

        Raises:
            ExportError: no or damaged file.
        """
        path = source_dir / COST_FILE
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ExportError(
                f"{path}: no such file; run `quads-mcu export` for this board first"
            ) from None
        except (ValueError, TypeError) as problem:
            raise ExportError(f"{path}: {problem}; run `quads-mcu export` again") from None


def predict(model: model_format.PackedModel, board: Board) -> Cost:
    """Return what `model` will take on `board`, before compilation."""
    kinds = model_format.weight_bytes(model)
    weights = sum(kinds.values())
    arena = planner.plan(model.dims, board.kernels).arena_bytes
    return Cost(
        weight_bytes=weights,
        weight_bytes_by_kind=kinds,
        flash_bytes=weights + board.runtime_flash_bytes,
        arena_bytes=arena,
        stack_bytes=board.stack_bytes,
        ram_bytes=arena + board.stack_bytes + board.runtime_ram_bytes,
    )


def export(run: RunDir, board: Board, *, bits: int | None, out: Path | None) -> Cost:
    """Pack the run's student, check that it fits, and write its C source.

    Raises:
        ExportError: the run was trained at other bits, cannot be represented, or does not fit.
    """
    trained = run.config().quantization.bits
    if bits is not None and bits != trained:
        raise ExportError(
            f"{run.path} was trained at {trained} bits, asked for {bits}; set [quantization] "
            f"bits = {bits} in quads.toml and train again (QUADS fits the codebooks in training)"
        )
    model = pack.pack(run.path)
    cost = predict(model, board)
    fit(board, cost.flash_bytes, cost.ram_bytes)
    model_format.write(model, run.model_path)
    source_dir = out or run.source_dir(board.name)
    csource.write_sources(model, source_dir, board.kernels)
    write_json(source_dir / COST_FILE, asdict(cost))
    return cost
