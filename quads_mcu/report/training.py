"""The report of one training: losses, accuracies and codebooks on one page, training.html."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from quads_mcu import __version__
from quads_mcu import config as project
from quads_mcu.config import Config
from quads_mcu.errors import TrainingError
from quads_mcu.report import page
from quads_mcu.run_dir import RunDir

if TYPE_CHECKING:
    from quads_mcu.training.train import TrainResult

# Sections of the project file that training does not read.
_OTHER_SECTIONS = ("rejection", "listen", "target", "thresholds")
_WIDTH, _HEIGHT = 860, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 10, 10, 34
_LEAST_LOSS = 1e-6
_HISTOGRAM_WIDTH, _HISTOGRAM_HEIGHT = 200, 64

History = list[dict[str, Any]]


def write(run: RunDir, config: Config, outcome: TrainResult) -> Path:
    """Write the report of a finished training and return its path.

    Args:
        run: holds student_quantized.safetensors.
        config: the settings it was trained with.
        outcome: of `training.train`.
    Raises:
        TrainingError: the quantized student cannot be read.
        StorageError: the page cannot be written.
    """
    history = outcome.history
    values = {
        "version": __version__,
        "project": config.project.name,
        "student": config.student.preset,
        "bits": "mixed" if config.quantization.budget_bytes else config.quantization.bits,
        "epochs": len(history),
        "wall_time": wall_time(sum(entry["duration_s"] for entry in history)),
        "accuracy": outcome.rows(),
        "teacher": outcome.teacher is not None,
        "loss": _loss_chart(history) if history else None,
        "valid": _accuracy_chart(history) if history else None,
        "cycles": cycles(history),
        "final": outcome.quantized_student,
        "reconstruction": next((e["reconstruction"] for e in history if "reconstruction" in e), {}),
        "codebooks": [_histogram(*codebook) for codebook in _codebooks(run.path)],
        "settings": _settings(config),
        "remarks": outcome.remarks,
    }
    page.write(run.training_report_path, "training.html.j2", values)
    return run.training_report_path


def wall_time(seconds: float) -> str:
    """Return a duration as h:mm:ss."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


def cycles(history: History) -> list[dict[str, Any]]:
    """Return one row per distillation phase, as accuracies (0 .. 1).

    fitted: by bits, of codebooks fitted at the phase's end. trained: at the end of the quantization
    phase of the same cycle, or None.
    """
    trained = {e["cycle"]: e["valid_quantized"] for e in history if e["phase"] == "quantization"}
    return [
        {
            "name": f"cycle {entry['cycle']}" if entry["cycle"] else "warm-up",
            "epoch": entry["epoch"] + 1,
            "float": entry["valid_float"],
            "fitted": entry["valid_by_bits"],
            "trained": trained.get(entry["cycle"]),
        }
        for entry in history
        if "valid_by_bits" in entry
    ]


def _codebooks(folder: Path) -> list[tuple[str, Any, Any, list[int]]]:
    """Return name, centroids, members of each and the matrix' shape, by matrix."""
    from quads_mcu.training import checkpoint
    from quads_mcu.training.evaluation import QUANTIZED_STUDENT

    path = folder / QUANTIZED_STUDENT
    tensors = checkpoint.part(checkpoint.read(path)[0], "codebook.")
    found = []
    for key, tensor in tensors.items():
        name, _, kind = key.rpartition(".")
        if kind != "centroids":
            continue
        indices = tensors.get(f"{name}.indices")
        centroids = tensor.numpy()
        if indices is None or int(indices.max()) >= len(centroids):
            raise TrainingError(f"{path}: damaged: {name}; train with --restart")
        members = np.bincount(indices.numpy().ravel(), minlength=len(centroids))
        found.append((name, centroids, members, list(indices.shape)))
    return found


def _histogram(name: str, centroids: Any, members: Any, shape: list[int]) -> dict[str, Any]:
    low, high = min(float(centroids.min()), 0.0), max(float(centroids.max()), 0.0)
    span = (high - low) or 1.0
    width = max(0.8, min(6.0, 56 / len(centroids)))
    tallest = max(1, int(members.max()))

    def x(value: float) -> float:
        return (value - low) / span * (_HISTOGRAM_WIDTH - width) + width / 2

    bars = []
    for at in np.argsort(centroids, kind="stable"):
        height = _HISTOGRAM_HEIGHT * int(members[at]) / tallest
        bars.append(
            {
                "x": x(float(centroids[at])) - width / 2,
                "y": _HISTOGRAM_HEIGHT - height,
                "height": height,
                "centroid": float(centroids[at]),
                "members": int(members[at]),
            }
        )
    return {
        "name": name,
        "shape": " × ".join(map(str, shape)),
        "bits": len(centroids).bit_length() - 1,
        "low": low,
        "high": high,
        "zero": x(0.0),
        "least": int(members.min()),
        "most": int(members.max()),
        "width": _HISTOGRAM_WIDTH,
        "bar_width": width,
        "bars": bars,
    }


def _loss_chart(history: History) -> dict[str, Any]:
    """One line per phase, on a logarithmic axis: losses of two phases differ in what they sum."""
    losses = [max(entry["loss"], _LEAST_LOSS) for entry in history]
    low, high = math.log10(min(losses)), math.log10(max(losses))
    margin = max(0.2, 0.05 * (high - low))  # 0.4 decades always hold a 1, 2 or 5
    low, high = low - margin, high + margin

    def y(loss: float) -> float:
        return _y((math.log10(max(loss, _LEAST_LOSS)) - low) / (high - low))

    chart = _frame(history)
    chart["label"] = "loss per phase over epochs"
    chart["y_ticks"] = [{"y": y(v), "text": f"{v:g}"} for v in _log_ticks(low, high)]
    for band, entries in zip(chart["bands"], _stretches(history), strict=True):
        points = [(_x(e["epoch"], len(history)), y(e["loss"])) for e in entries]
        texts = [f"epoch {e['epoch'] + 1}, {e['phase']}: {e['loss']:.4g}" for e in entries]
        chart["lines"].append(_line(band["phase"], points, texts))
    return chart


def _accuracy_chart(history: History) -> dict[str, Any]:
    kinds = {"float": "valid_float", "quantized": "valid_quantized"}
    floor = min(entry[key] for entry in history for key in kinds.values())
    low = max(0, min(9, math.floor(10 * floor))) * 10
    step = 20 if low < 40 else 10

    def y(percent: float) -> float:
        return _y((percent - low) / (100 - low))

    chart = _frame(history)
    chart["label"] = "validation accuracy over epochs, percent"
    chart["y_ticks"] = [{"y": y(v), "text": str(v)} for v in range(100, low - 1, -step)]
    for name, key in kinds.items():
        points = [(_x(e["epoch"], len(history)), y(100 * e[key])) for e in history]
        texts = [f"epoch {e['epoch'] + 1}, {name}: {100 * e[key]:.1f} %" for e in history]
        chart["lines"].append(_line(name, points, texts))
    return chart


def _frame(history: History) -> dict[str, Any]:
    """Return a chart without lines: its size, epochs below, a band behind each phase."""
    total = len(history)
    step = next(s * 10**p for p in range(9) for s in (1, 2, 5) if s * 10**p * 16 >= total)
    shown = sorted({1, *range(step, total + 1, step)})
    half = (_WIDTH - _LEFT - _RIGHT) / total / 2
    bands = []
    for entries in _stretches(history):
        first, last = (_x(entries[at]["epoch"], total) for at in (0, -1))
        name = entries[0]["phase"]
        bands.append({"phase": name, "x": first - half, "width": last - first + 2 * half})
    return {
        "width": _WIDTH,
        "height": _HEIGHT,
        "left": _LEFT,
        "right": _WIDTH - _RIGHT,
        "top": _TOP,
        "bottom": _HEIGHT - _BOTTOM,
        "x_ticks": [{"x": _x(epoch - 1, total), "text": str(epoch)} for epoch in shown],
        "bands": bands,
        "lines": [],
    }


def _line(name: str, points: list[tuple[float, float]], texts: list[str]) -> dict[str, Any]:
    return {
        "name": name,
        "points": " ".join(f"{x:.1f},{y:.1f}" for x, y in points),
        "marks": [
            {"x": x, "y": y, "text": text} for (x, y), text in zip(points, texts, strict=True)
        ],
    }


def _stretches(history: History) -> list[History]:
    """Split into phases: epochs of equal name and cycle."""
    return [list(part) for _, part in groupby(history, lambda e: (e["phase"], e["cycle"]))]


def _x(epoch: int, total: int) -> float:
    return _LEFT + (epoch + 0.5) / total * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _log_ticks(low: float, high: float) -> Iterable[float]:
    """Return round values within 10**low .. 10**high; fewer per decade where there are many."""
    digits = (1, 2, 5) if high - low < 3 else (1,)
    powers = range(math.floor(low), math.ceil(high) + 1)
    values = [digit * 10.0**power for power in powers for digit in digits]
    return [value for value in values if low <= math.log10(value) <= high]


def _settings(config: Config) -> dict[str, list[dict[str, Any]]]:
    """Return by section every setting as text, and whether it is not the default."""
    defaults = project.to_tree(Config())
    return {
        section: [
            {
                "name": name,
                "value": json.dumps(value, ensure_ascii=False),
                "changed": value != defaults[section].get(name),
            }
            for name, value in values.items()
        ]
        for section, values in project.to_tree(config).items()
        if values and section not in _OTHER_SECTIONS
    }
