"""`quads-mcu export`: from a trained run to the packed model and the C source for one board."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from quads_mcu import model_format
from quads_mcu.console import Progress
from quads_mcu.device import firmware_sizes, memory
from quads_mcu.device.boards import Board
from quads_mcu.device.firmware_sizes import FirmwareSizes, padded, result_bytes
from quads_mcu.errors import ExportError, TargetError
from quads_mcu.export import csource, kernels, pack, planner, rejection
from quads_mcu.run_dir import RunDir, write_json

COST_FILE = "cost.json"


@dataclass(frozen=True)
class Cost:
    """What a model takes on a board, bytes; computed before anything is compiled.

    weight_bytes: indices, codebooks, biases, multipliers, norms, tables and positions.
    flash_bytes: code, tables, weights and the model's descriptions. ram_bytes: arena, stack and
    static data. needs: the same by content (boards.CONTENTS), what memory.place finds room for.
    All exact with the compiler of firmware_sizes.json; without figures there (the host), flash and
    RAM are the model's share alone.
    """

    weight_bytes: int
    weight_bytes_by_kind: dict[str, int]
    flash_bytes: int
    arena_bytes: int
    stack_bytes: int
    ram_bytes: int
    needs: dict[str, int]

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
    kinds = kernels.flash_by_kind(model, board.kernels)
    arena = planner.plan(model.dims, board.kernels).arena_bytes
    needs = _needs(model, board, kernels.tensor_bytes(model, board.kernels), arena)
    return Cost(
        weight_bytes=sum(kinds.values()),
        weight_bytes_by_kind=kinds,
        flash_bytes=needs["code"] + needs["constants"] + needs["weights"],
        arena_bytes=arena,
        stack_bytes=board.stack_bytes,
        ram_bytes=needs["data"] + needs["arena"],
        needs=needs,
    )


def _needs(
    model: model_format.PackedModel, board: Board, tensor_bytes: list[int], arena_bytes: int
) -> dict[str, int]:
    """Bytes by content, as compiler and linker script lay them out: everything is padded."""
    found = firmware_sizes.load(board, model.dims.n_mels)
    sizes = found or FirmwareSizes(0, 0, board.stack_bytes, 0, 0, 0, 0)
    texts = {*model.labels, *(slot.name for slot in model.slots)}
    text_bytes = sum(padded(len(text.encode()) + 1, 4) for text in texts)
    parts = [
        *tensor_bytes,
        sizes.layer * model.dims.n_layers,
        sizes.pointer * model.dims.n_classes,
        sizes.slot * len(model.slots),
        sizes.model,
        text_bytes if found else 0,
    ]
    return {
        "code": sizes.code,
        "constants": sizes.constants,
        "weights": sum(map(padded, parts)),
        "data": sizes.data + result_bytes(model),
        "arena": padded(arena_bytes),
    }


def export(
    run: RunDir,
    board: Board,
    *,
    bits: int | None,
    out: Path | None,
    progress: Progress = lambda *_: None,
) -> Cost:
    """Pack the run's student, check that it fits, and write its C source.

    Raises:
        ExportError: the run was trained at other bits, cannot be represented, or does not fit.
    """
    model, cost = packed(run, board, bits, progress)
    source_dir = out or run.source_dir(board.name)
    csource.write_sources(model, source_dir, board.kernels, run.config().listen)
    write_json(source_dir / COST_FILE, asdict(cost))
    return cost


def packed(
    run: RunDir, board: Board, bits: int | None, progress: Progress
) -> tuple[model_format.PackedModel, Cost]:
    """Pack the run's student for `board` if it fits, and keep it in the run's folder.

    With [data] unknown, the threshold of rejection is set on split valid.

    Raises:
        ExportError: bits that no board takes or the run was not trained at, a model that cannot be
            represented or does not fit.
    """
    config = run.config()
    _check_bits(run, board, config.quantization.bits, bits)
    model = replace(pack.pack(run.path), frontend=board.frontend)
    cost = predict(model, board)
    memory.place(board, cost.needs)
    if config.data.unknown:
        model = rejection.calibrated(model, config, progress)
    model_format.write(model, run.model_path)
    return model, cost


def _check_bits(run: RunDir, board: Board, trained: int, bits: int | None) -> None:
    wanted = trained if bits is None else bits
    if wanted not in model_format.BITS:
        raise TargetError(
            f"{wanted} bits per weight: {board.name} takes {', '.join(map(str, model_format.BITS))}"
            "; set [quantization] bits in quads.toml to one of them and train again"
        )
    if wanted != trained:
        raise TargetError(
            f"{run.path} was trained at {trained} bits, asked for {bits}; set [quantization] "
            f"bits = {bits} in quads.toml and train again (QUADS fits the codebooks in training)"
        )
