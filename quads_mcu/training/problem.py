"""What the training loop works on: arrays and callables, no files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quads_mcu.errors import TrainingError
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model_format import MEL_SCALE, MEL_ZERO_POINT

Mel = NDArray[np.int8]
Batch = tuple[NDArray[np.int64], Mel]


@dataclass(frozen=True)
class Split:
    """mel: int8 (N, n_frames, n_mels), unaugmented; labels: int64 (N,)."""

    mel: Mel
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class TeacherOutputs:
    """What the teacher says about the unaugmented training utterances.

    features: float32 (N, width), pooled; logits: float32 (N, n_classes); valid_accuracy: 0 .. 1.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]
    valid_accuracy: float


@dataclass(frozen=True)
class Problem:
    """One student to train.

    batches: called with an epoch's number, yields (positions in `train`, augmented int8 features);
    the same number always gives the same batches. n_batches: how many.
    initial: encoder weights to start from, or None for random ones.
    fingerprint: of everything above; a run is only resumed on an equal one.
    """

    dims: Dimensions
    labels: tuple[str, ...]
    train: Split
    valid: Split
    batches: Callable[[int], Iterator[Batch]]
    n_batches: int
    teacher: TeacherOutputs | None = None
    initial: dict[str, NDArray[np.float32]] | None = None
    fingerprint: str = ""

    def check(self) -> None:
        """Check that every class can be learned and measured.

        Raises:
            TrainingError: names the split and the label.
        """
        if len(self.labels) < 2:
            raise TrainingError(
                f"the data has {len(self.labels)} label(s) ({', '.join(self.labels)}); "
                "a classifier needs at least two"
            )
        for name, split in (("train", self.train), ("valid", self.valid)):
            counts = np.bincount(split.labels, minlength=len(self.labels))
            missing = [label for label, count in zip(self.labels, counts, strict=True) if not count]
            if missing:
                raise TrainingError(
                    f"split {name} has no usable utterance of {', '.join(missing)}; add some, or "
                    "take the label out of the data"
                )


def real_mel(mel: Mel) -> Tensor:
    """Return Whisper's normalized log-mel, float32, of int8 device features."""
    return (torch.from_numpy(mel).float() - MEL_ZERO_POINT) * MEL_SCALE
