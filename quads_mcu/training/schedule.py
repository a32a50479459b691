"""The order of epochs in multi-stage combined training (paper, section 2.3), and learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from quads_mcu.config import TrainSection

Phase = Literal["warm-up", "distillation", "quantization", "final"]

_WARM_UP_STEPS = 50
_LEAST_FACTOR = 0.02


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data.

    number: from 0. position, length: this epoch among those that share a learning-rate curve
    (all distillation epochs are one; each quantization phase is its own). first, last: of its
    phase. chosen: `selection` keeps one of these epochs.
    """

    number: int
    phase: Phase
    cycle: int
    position: int
    length: int
    first: bool
    last: bool
    chosen: bool

    @property
    def distills(self) -> bool:
        """Whether gamma = 1 (Eq. 6)."""
        return self.phase in ("warm-up", "distillation")


def schedule(settings: TrainSection) -> list[Epoch]:
    """Return every epoch: warm-up, cycles of both phases, the final quantization phase."""
    phases: list[tuple[Phase, int, int]] = [("warm-up", 0, settings.warmup_epochs)]
    for cycle, (distill, quantize) in enumerate(settings.cycle_epochs(), 1):
        phases.append(("distillation", cycle, distill))
        phases.append(("quantization", cycle, quantize))
    phases.append(("final", settings.cycles + 1, settings.final_epochs))
    phases = [phase for phase in phases if phase[2]]
    distilling = [phase for phase in phases if phase[0] in ("warm-up", "distillation")]
    total = sum(length for _, _, length in distilling)
    chosen = [*distilling[-1:], *phases[-1:]]
    epochs: list[Epoch] = []
    distilled = 0
    for phase in phases:
        name, cycle, length = phase
        joint = phase in distilling
        for position in range(length):
            at, of = (distilled + position, total) if joint else (position, length)
            first, last = position == 0, position == length - 1
            epochs.append(Epoch(len(epochs), name, cycle, at, of, first, last, phase in chosen))
        distilled += length if joint else 0
    return epochs


def rate_factor(epoch: Epoch, step: int, steps: int) -> float:
    """Return the share of the peak learning rate: a linear warm-up, then half a cosine.

    Args:
        step: within the epoch, of `steps`.
    """
    done = epoch.position * steps + step
    total = epoch.length * steps
    warm = min(_WARM_UP_STEPS, max(1, total // 10))
    if done < warm:
        return (done + 1) / warm
    falling = 0.5 + 0.5 * math.cos(math.pi * (done - warm) / max(1, total - warm))
    return max(falling, _LEAST_FACTOR)
