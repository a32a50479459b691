"""What the training loop works on: arrays and callables, no files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quads_mcu import slots as slot_table
from quads_mcu.errors import TrainingError
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model_format import MEL_SCALE, MEL_ZERO_POINT
from quads_mcu.slots import Slot
from quads_mcu.training.losses import NO_ANSWER

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
    that do not distill, or with [train] token_share = 0).
    """

    rows: NDArray[np.int64]
    mel: Mel
    heard: Mel | None = None


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

    @property
    def sizes(self) -> list[int]:
        """Labels of each slot."""
        return slot_table.sizes(self.slots)

    def check(self) -> None:
        """Check that every class can be learned, and that there is something to measure with.

        Of several slots, rare labels may be missing in the validation split; an only slot's may
        not.

        Raises:
            TrainingError: names the split, the slot and the label.
        """
        for place, slot in enumerate(self.slots):
            of_slot = f" of slot {slot.name}" if len(self.slots) > 1 else ""
            if len(slot.labels) < 2:
                raise TrainingError(
                    f"the data has {len(slot.labels)} label(s){of_slot} "
                    f"({', '.join(slot.labels)}); a classifier needs at least two"
                )
            for name, split in (("train", self.train), ("valid", self.valid)):
                given = split.answers[:, place]
                counts = np.bincount(given[given != NO_ANSWER], minlength=len(slot.labels))
                pairs = zip(slot.labels, counts, strict=True)
                missing = [label for label, count in pairs if not count]
                if missing and (name == "train" or not of_slot):
                    raise TrainingError(
                        f"split {name} has no usable utterance of {', '.join(missing)}{of_slot}; "
                        "add some, or take the label out of the data"
                    )
        if not len(self.valid.mel):
            raise TrainingError("split valid has no usable utterance; add some")


def real_mel(mel: Mel) -> Tensor:
    """Return Whisper's normalized log-mel, float32, of int8 device features."""
    return (torch.from_numpy(mel).float() - MEL_ZERO_POINT) * MEL_SCALE
