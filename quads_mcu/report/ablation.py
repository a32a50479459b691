"""The paper's Table 2 on one's own data: initialisation, training strategy, bits, several seeds.

Every cell trains as many epochs:

    distillation    distillation alone; codebooks are fitted afterwards, not trained
    quantization    all distillation first, then all quantization
    mct             cycles of both, then the final phase (multi-stage combined training)

Cells of 8, 4, 3 and 2 bits are measured as packed integer models; 32 and 16 bits, which no device
runs, as float students.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from quads_mcu import model_format
from quads_mcu import slots as slot_table
from quads_mcu.audio import utterances
from quads_mcu.config import Config, TrainSection
from quads_mcu.console import Progress
from quads_mcu.errors import ConfigError
from quads_mcu.report.evaluation import load_clips, mel_features, reference_logits
from quads_mcu.report.statistics import Accuracy, whole_command
from quads_mcu.run_dir import RunDir, write_json, write_text

STRATEGIES = ("distillation", "quantization", "mct")
INITS = ("random", "pre-trained")
RESULT = "ablation.json"
TABLE = "ablation.md"
PLOT = "ablation.svg"


@dataclass(frozen=True)
class Cell:
    """One training: seed 0 is that of the project."""

    init: str
    strategy: str
    bits: int
    seed: int

    @property
    def name(self) -> str:
        """Folder of its run."""
        return f"{self.init}-{self.strategy}-{self.bits}bit-{self.seed}"


@dataclass(frozen=True)
class Row:
    """All seeds of one combination: accuracy (percent) and macro F1, mean and sample deviation."""

    init: str
    strategy: str
    bits: int
    model_bytes: int
    accuracies: tuple[Accuracy, ...]

    @property
    def percent(self) -> tuple[float, float]:
        """Mean and standard deviation of the accuracy, percent."""
        return _spread([found.percent for found in self.accuracies])

    @property
    def macro_f1(self) -> tuple[float, float]:
        """Mean and standard deviation of the macro F1."""
        return _spread([found.macro_f1 for found in self.accuracies])

    def text(self) -> tuple[str, ...]:
        """Return the table's columns."""
        percent, macro = self.percent, self.macro_f1
        return (
            self.init,
            self.strategy,
            str(self.bits),
            f"{self.model_bytes:,}",
            f"{percent[0]:.1f} ± {percent[1]:.1f} %",
            f"{macro[0]:.3f} ± {macro[1]:.3f}",
        )


COLUMNS = ("initialisation", "strategy", "bits", "model bytes", "accuracy", "macro F1")


def ablate(
    config: Config,
    folder: Path,
    bits: Sequence[int],
    seeds: int,
    split: str,
    progress: Progress,
) -> list[Row]:
    """Train and measure every cell; finished ones are not trained again.

    Args:
        config: [student] init names the pre-trained weights.
        folder: gets a run per cell, and table, JSON and plot.
        bits: of 32, 16, 8, 4, 3, 2.
        seeds: trainings per cell.
        split: what accuracy is measured on.
    Raises:
        ConfigError: no pre-trained weights, or bits that do not exist.
    """
    check(config, bits)
    cells = [
        Cell(init, strategy, width, seed)
        for init in INITS
        for strategy in STRATEGIES
        for width in bits
        for seed in range(seeds)
    ]
    found: dict[tuple[str, str, int], list[tuple[int, Accuracy]]] = {}
    for count, cell in enumerate(cells):
        progress(f"ablation: {cell.name}", count, len(cells))
        key = cell.init, cell.strategy, cell.bits
        found.setdefault(key, []).append(_measure(config, cell, folder, split, progress))
    rows = [
        Row(*key, results[0][0], tuple(accuracy for _, accuracy in results))
        for key, results in found.items()
    ]
    write_json(folder / RESULT, to_json(rows, split))
    write_text(folder / TABLE, markdown(rows))
    write_text(folder / PLOT, plot(rows))
    return rows


def check(config: Config, bits: Sequence[int]) -> None:
    """Check that the ablation can be made.

    Raises:
        ConfigError: says what to change.
    """
    if config.student.init == "random":
        raise ConfigError(
            'the ablation compares random with pre-trained weights: set [student] init = "FILE"'
        )
    known = (32, 16, *model_format.BITS)
    if unknown := [width for width in bits if width not in known]:
        raise ConfigError(f"--bits {unknown[0]}: one of {', '.join(map(str, known))}")


def cell_config(config: Config, cell: Cell) -> Config:
    """Return the project's settings changed to those of a cell."""
    init = "random" if cell.init == "random" else config.student.init
    return dataclasses.replace(
        config,
        student=dataclasses.replace(config.student, init=init),
        train=strategy(
            dataclasses.replace(config.train, seed=config.train.seed + cell.seed), cell.strategy
        ),
        quantization=dataclasses.replace(config.quantization, bits=cell.bits, budget_bytes=0),
    )


def strategy(settings: TrainSection, name: str) -> TrainSection:
    """Return the schedule of a strategy; all have as many epochs."""
    if name == "mct":
        return settings
    cycles = settings.cycle_epochs()
    distilling = settings.warmup_epochs + sum(distill for distill, _ in cycles)
    quantizing = settings.final_epochs + sum(quantize for _, quantize in cycles)
    if name == "distillation":
        distilling, quantizing = distilling + quantizing, 0
    return dataclasses.replace(
        settings,
        warmup_epochs=distilling,
        cycles=0,
        distill_epochs=0,
        quant_epochs=0,
        final_epochs=quantizing,
    )


def _measure(
    config: Config, cell: Cell, folder: Path, split: str, progress: Progress
) -> tuple[int, Accuracy]:
    from quads_mcu.export.pack import pack
    from quads_mcu.training import train as training
    from quads_mcu.training.evaluation import FLOAT_STUDENT, quantized_logits, read_student

    run = RunDir(folder / cell.name)
    settings = cell_config(config, cell)
    training.train(settings, run, progress)
    student, slots = read_student(run.path / FLOAT_STUDENT)
    clips = load_clips(settings, slot_table.flat_labels(slots), split, progress)
    utterances.warn(clips.problems)
    mel = mel_features(clips.pcm, student.dims, progress)
    if cell.bits in model_format.BITS:
        model = pack(run.path)
        model_format.write(model, run.model_path)
        logits: Any = reference_logits(model, mel, progress)
        size = run.model_path.stat().st_size
    else:
        logits = quantized_logits(run.path, mel)
        size = sum(parameter.numel() for parameter in student.parameters()) * cell.bits // 8
    answers = slot_table.argmax(logits, slots)
    return size, whole_command(clips.answers, answers, slots)


def to_json(rows: Sequence[Row], split: str) -> dict[str, Any]:
    """Return everything as plain values."""
    return {
        "split": split,
        "rows": [
            {
                "init": row.init,
                "strategy": row.strategy,
                "bits": row.bits,
                "model_bytes": row.model_bytes,
                "accuracy_percent": [round(value, 3) for value in row.percent],
                "macro_f1": [round(value, 4) for value in row.macro_f1],
                "seeds": [accuracy.to_json() for accuracy in row.accuracies],
            }
            for row in rows
        ],
    }


def markdown(rows: Sequence[Row]) -> str:
    """Return the table for a document."""
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + " --- |" * len(COLUMNS)]
    lines += ["| " + " | ".join(row.text()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def plot(rows: Sequence[Row]) -> str:
    """Return an SVG: accuracy of every combination, with its deviation."""
    width, step, left = 720, 26, 270
    height = step * len(rows) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    scale = (width - left - 90) / 100
    for at, row in enumerate(rows):
        y = 20 + at * step
        mean, deviation = row.percent
        colour = "#2a6f97" if row.init == "pre-trained" else "#a9a9a9"
        first, last = (left + scale * min(max(mean + s * deviation, 0), 100) for s in (-1, 1))
        parts += [
            f'<text x="{left - 10}" y="{y + 13}" text-anchor="end">'
            f"{row.init}, {row.strategy}, {row.bits} bit</text>",
            f'<rect x="{left}" y="{y}" width="{scale * mean:.1f}" height="18" fill="{colour}"/>',
            f'<line x1="{first:.1f}" x2="{last:.1f}" y1="{y + 9}" y2="{y + 9}" stroke="black"/>',
            f'<text x="{left + scale * 100 + 8}" y="{y + 13}">{row.text()[4]}</text>',
        ]
    parts.append(f'<text x="{left}" y="{height - 8}">accuracy, percent</text></svg>')
    return "\n".join(parts) + "\n"


def _spread(values: Sequence[float]) -> tuple[float, float]:
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
    return float(np.mean(values)), deviation
