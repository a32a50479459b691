"""What the training loop works on: arrays and callables, no files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quads_mcu import console
from quads_mcu import slots as slot_table
from quads_mcu.errors import TrainingError
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model_format import MEL_SCALE, MEL_ZERO_POINT
from quads_mcu.slots import INTENT, NO_ANSWER, UNKNOWN, Slot

Mel = NDArray[np.int8]


class Batches(Protocol):
    """The batches of an epoch, the same each time for the same arguments."""

    def __call__(self, epoch: int, distills: bool, *, whole: bool = False) -> Iterator[Batch]:
        """Yield them.

        Args:
            epoch: its number.
            distills: whether the teacher listens.
            whole: keep the whole window where [train] crop would end it earlier.
        """
        ...


class Batch(NamedTuple):
    """One step's utterances.

    rows: int64 (batch,), positions in the training split. mel: int8 (batch, n_frames, n_mels),
    varied, with fewer frames where [train] crop ends the window earlier. heard: the same variation
    without noise and masks, in the teacher's mel bands; None where no teacher listens (in epochs
    that do not distill, or with [train] token_share = 0). tokens: float32 (batch, n_tokens, width),
    what the teacher makes of that, once it has listened.
    """

    rows: NDArray[np.int64]
    mel: Mel
    heard: Mel | None = None
    tokens: Tensor | None = None


@dataclass(frozen=True)
class Split:
    """mel: int8 (N, n_frames, n_mels), unaugmented; answers: int64 (N, n_slots), or NO_ANSWER."""

    mel: Mel
    answers: NDArray[np.int64]


@dataclass(frozen=True)
class TeacherOutputs:
    """What the teacher says about the unaugmented training utterances, and what it became.

    features: float32 (N, width), pooled; logits: float32 (N, n_classes); valid_accuracy: 0 .. 1.
    head: its `head.weight`, `head.bias` and, with pools, `head.query`. tuned: its encoder's weights
    after fine-tuning, None where it stayed frozen.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    valid_accuracy: float
    head: dict[str, NDArray[np.float32]]
    tuned: dict[str, NDArray[np.float32]] | None = None


@dataclass(frozen=True)
class Problem:
    """One student to train.

    n_batches: of an epoch.
    teacher_tokens: the teacher's encoder, for [train] token_share: float32 (N, n_frames, its mel
    bands) to (N, n_tokens, width).
    initial: weights to start from, under the names of `Student`; what is missing is random.
    fingerprint: of everything above; a run is only resumed on an equal one.
    remarks: what is wrong with the data, for the report.
    """

    dims: Dimensions
    slots: tuple[Slot, ...]
    train: Split
    valid: Split
    batches: Batches
    n_batches: int
    teacher: TeacherOutputs | None = None
    teacher_tokens: Callable[[Tensor], Tensor] | None = None
    initial: dict[str, NDArray[np.float32]] | None = None
    fingerprint: str = ""
    remarks: str = ""

    @property
    def sizes(self) -> list[int]:
        """Labels of each slot."""
        return slot_table.sizes(self.slots)

    def check(self) -> None:
        """Check that every class can be learned, and that there is something to measure with.

        Labels that are missing in the validation split are warned of, once.

        Raises:
            TrainingError: names the split, the slot and the label.
        """
        check_trained(self.slots, {"train": self.train.answers, "valid": self.valid.answers})
        if not len(self.valid.mel):
            raise TrainingError("split valid has no usable utterance; add some")
        unknown = slot_table.unknown_class(self.slots)
        if unknown >= 0 and not (self.valid.answers[:, 0] == unknown).any():
            raise TrainingError(
                f"split valid has nothing of label {UNKNOWN}, which the threshold of rejection is "
                "set by; name recordings of split valid under [data] unknown"
            )
        for text in console.unsaid(self.unvalidated()):
            console.warn(text)

    def unvalidated(self) -> list[str]:
        """Return a line for each slot with labels that the validation split lacks."""
        found = []
        for place, slot in enumerate(self.slots):
            counts = _counts(self.valid.answers, place, slot)
            missing = [x for x, count in zip(slot.labels, counts, strict=True) if not count]
            if missing:
                found.append(
                    f"split valid has no usable utterance of {len(missing)} of {len(slot.labels)} "
                    f"labels{_of_slot(self.slots, slot)}, so that validation says nothing of "
                    f"them: {slot_table.some(missing)}"
                )
        return found


def check_trained(slots: tuple[Slot, ...], answers: Mapping[str, NDArray[np.int64]]) -> None:
    """Check that each slot has labels to tell apart, and each label a training utterance.

    Args:
        answers: int64 (N, n_slots) by split, "train" among them.
    Raises:
        TrainingError: names slot and labels, and how many utterances other splits have of them.
    """
    others = [name for name in answers if name != "train"]
    if not (answers["train"] != NO_ANSWER).any():
        counts = " and ".join(f"{len(answers[name])} of split {name}" for name in others)
        raise TrainingError(f"split train has no usable utterance, beside {counts}; add some")
    for place, slot in enumerate(slots):
        of_slot = _of_slot(slots, slot)
        if len(slot.labels) < 2:
            raise TrainingError(
                f"the data has {len(slot.labels)} label(s){of_slot} "
                f"({', '.join(slot.labels)}); a classifier needs at least two"
            )
        counts_of = {name: _counts(given, place, slot) for name, given in answers.items()}
        missing = np.flatnonzero(counts_of["train"] == 0)
        if not len(missing):
            continue
        named = []
        for at in missing:
            where = ", ".join(f"{counts_of[name][at]} in {name}" for name in others)
            named.append(f"{slot.labels[at]} ({where})")
        elsewhere = [name for name in others if counts_of[name][missing].any()]
        alone = ", only split test has them" if elsewhere == ["test"] else ""
        raise TrainingError(
            f"split train has no usable utterance of {len(missing)} of {len(slot.labels)} "
            f"labels{of_slot}{alone}: {slot_table.some(named)}; "
            f"{_way_out(slot, [slot.labels[at] for at in missing], of_slot)}"
        )


def _counts(answers: NDArray[np.int64], place: int, slot: Slot) -> NDArray[np.int64]:
    given = answers[:, place]
    return np.bincount(given[given != NO_ANSWER], minlength=len(slot.labels))


def _of_slot(slots: tuple[Slot, ...], slot: Slot) -> str:
    return f" of slot {slot.name}" if len(slots) > 1 or slot.name != INTENT else ""


def _way_out(slot: Slot, missing: list[str], of_slot: str) -> str:
    if UNKNOWN in missing:
        return "name recordings of split train under [data] unknown"
    if of_slot:
        return (
            f"add some, or give the slot a /pattern/ in [slots] {slot.name} that matches only "
            "other values"
        )
    return "add some, or leave the label out: list the others in [intents]"


def real_mel(mel: Mel) -> Tensor:
    """Return Whisper's normalized log-mel, float32, of int8 device features."""
    return (torch.from_numpy(mel).float() - MEL_ZERO_POINT) * MEL_SCALE
