"""Slots: the questions a model answers about an utterance, each with its labels.

A model of plain intents has one slot, `intent`. The head is one matrix; each slot owns a segment of
its logits, in the order of the slots.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

INTENT = "intent"
# What a slot answers when the command does not fill it.
NONE = "none"
# The first slot's label for speech that is no command.
UNKNOWN = "unknown"
# In place of an answer's index: nobody labelled the utterance, or no label stands for its value.
NO_ANSWER = -1

_SHOWN = 10


@dataclass(frozen=True)
class Slot:
    """One question and its answers, in the order of their logits."""

    name: str
    labels: tuple[str, ...]


def sizes(slots: Sequence[Slot]) -> list[int]:
    """Return the number of labels of each slot."""
    return [len(slot.labels) for slot in slots]


def segments(slots: Sequence[Slot]) -> list[slice]:
    """Return where each slot's logits lie."""
    ends = np.cumsum([0, *sizes(slots)]).tolist()
    return [slice(first, last) for first, last in itertools.pairwise(ends)]


def unknown_class(slots: Sequence[Slot]) -> int:
    """Return the first slot's label for what is no command, -1 where it has none."""
    labels = slots[0].labels
    return labels.index(UNKNOWN) if UNKNOWN in labels else -1


def argmax(logits: NDArray[Any], slots: Sequence[Slot]) -> NDArray[np.int64]:
    """Return each slot's greatest logit but for the unknown label's, the lowest index on ties.

    Args:
        logits: (N, n_classes), float32 or int32.
    Returns:
        int64 (N, n_slots), indices into `Slot.labels`.
    """
    known = logits.astype(np.float64)
    if (unknown := unknown_class(slots)) >= 0:
        known[:, unknown] = -np.inf
    parts = [known[:, segment].argmax(axis=1) for segment in segments(slots)]
    found: NDArray[np.int64] = np.stack(parts, axis=1).astype(np.int64)
    return found


def some(labels: Sequence[str]) -> str:
    """Return the first ten as text, and how many there are more."""
    rest = f" and {len(labels) - _SHOWN} more" if len(labels) > _SHOWN else ""
    return ", ".join(labels[:_SHOWN]) + rest


def flat_labels(slots: Sequence[Slot]) -> tuple[str, ...]:
    """Return the label of every logit."""
    return tuple(label for slot in slots for label in slot.labels)


def to_json(slots: Sequence[Slot]) -> list[dict[str, Any]]:
    """Return plain values."""
    return [{"name": slot.name, "labels": list(slot.labels)} for slot in slots]


def of_student(scalars: dict[str, Any]) -> tuple[Slot, ...]:
    """Return the slots of a student file; older ones have one, and name its labels.

    Raises:
        KeyError, ValueError: there are none, or not of this form.
    """
    if "slots" in scalars:
        return from_json(scalars["slots"])
    return (Slot(INTENT, tuple(map(str, scalars["labels"]))),)


def from_json(value: Any) -> tuple[Slot, ...]:
    """Undo `to_json`.

    Raises:
        ValueError: not a list of names and labels.
    """
    if not isinstance(value, list) or not value:
        raise ValueError("slots are not a list of at least one")
    found = []
    for item in value:
        if not isinstance(item, dict) or set(item) != {"name", "labels"}:
            raise ValueError("a slot must hold exactly name and labels")
        name, labels = item["name"], item["labels"]
        if not isinstance(labels, list) or not all(isinstance(x, str) for x in [name, *labels]):
            raise ValueError("a slot's name or labels are not texts")
        found.append(Slot(name, tuple(labels)))
    return tuple(found)
