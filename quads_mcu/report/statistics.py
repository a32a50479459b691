"""Figures from labels and predictions: accuracy with its interval, macro F1, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quads_mcu.slots import NO_ANSWER, Slot

Z_95 = 1.959963984540054


@dataclass(frozen=True)
class Accuracy:
    """Correct answers out of `total`; percentages carry the 95 % Wilson score interval."""

    correct: int
    total: int
    macro_f1: float

    @property
    def percent(self) -> float:
        """Accuracy, percent."""
        return 100.0 * self.correct / self.total if self.total else 0.0

    @property
    def interval_percent(self) -> tuple[float, float]:
        """95 % Wilson score interval, percent."""
        low, high = wilson_interval(self.correct, self.total)
        return 100.0 * low, 100.0 * high

    def text(self) -> str:
        """Return e.g. `98.6 % (96.7-99.4)`."""
        low, high = self.interval_percent
        return f"{self.percent:.1f} % ({low:.1f}-{high:.1f})"

    def to_json(self) -> dict[str, float | int | list[float]]:
        """Return all figures as plain values."""
        return {
            "correct": self.correct,
            "total": self.total,
            "percent": round(self.percent, 3),
            "interval_95_percent": [round(bound, 3) for bound in self.interval_percent],
            "macro_f1": round(self.macro_f1, 4),
        }


def wilson_interval(correct: int, total: int) -> tuple[float, float]:
    """Return the 95 % score interval of a share (Wilson 1927)."""
    if total == 0:
        return 0.0, 1.0
    share = correct / total
    spread = Z_95 * np.sqrt(share * (1 - share) / total + Z_95**2 / (4 * total**2))
    centre = share + Z_95**2 / (2 * total)
    scale = 1 + Z_95**2 / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def confusion(
    labels: NDArray[np.int64], predictions: NDArray[np.int64], n_classes: int
) -> NDArray[np.int64]:
    """Return int64 (n_classes, n_classes): rows are true classes, columns predictions.

    Utterances whose label is NO_ANSWER are in no row.
    """
    counts = np.zeros((n_classes, n_classes), np.int64)
    known = labels != NO_ANSWER
    np.add.at(counts, (labels[known], predictions[known]), 1)
    return counts


def accuracy(labels: NDArray[np.int64], predictions: NDArray[np.int64], n_classes: int) -> Accuracy:
    """Return accuracy and macro F1 (over classes that occur) of int64 (N,) predictions.

    A label that is NO_ANSWER, which no class stands for, makes every prediction wrong.
    """
    counts = confusion(labels, predictions, n_classes)
    hits, spoken = np.diag(counts), counts.sum(axis=1)
    found = np.bincount(predictions, minlength=n_classes) + spoken
    occurring = spoken > 0
    f1 = 2 * hits[occurring] / found[occurring]
    return Accuracy(int(hits.sum()), len(labels), float(f1.mean()) if f1.size else 0.0)


def per_slot(
    truth: NDArray[np.int64], answers: NDArray[np.int64], slots: Sequence[Slot]
) -> dict[str, Accuracy]:
    """Return each slot's accuracy and macro F1 of int64 (N, n_slots) answers, by slot name."""
    return {
        slot.name: accuracy(truth[:, at], answers[:, at], len(slot.labels))
        for at, slot in enumerate(slots)
    }


def whole_command(
    truth: NDArray[np.int64], answers: NDArray[np.int64], slots: Sequence[Slot]
) -> Accuracy:
    """Return how often every slot is right, and the mean of the slots' macro F1."""
    correct = int((truth == answers).all(axis=1).sum())
    f1 = [found.macro_f1 for found in per_slot(truth, answers, slots).values()]
    return Accuracy(correct, len(truth), float(np.mean(f1)))
