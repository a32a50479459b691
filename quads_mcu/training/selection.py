"""Which epoch of a phase is kept."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass
class Selection:
    """Keeps the last epoch that is not clearly worse than the best of its phase.

    A phase ends with its least learning rate and loss, while the best accuracy of few utterances
    may be luck. Clearly worse is by more than one standard error (the rule of Breiman et al.
    1984, for epochs instead of trees), that of Agresti and Coull (1998), which is not zero where
    everything was right.

    utterances: of the validation split. best: the highest accuracy so far, 0 .. 1, or -1 before
    any. kept: that of the epoch that is kept.
    """

    utterances: int
    best: float = -1.0
    kept: float = -1.0

    def keeps(self, accuracy: float) -> bool:
        """Take an epoch's accuracy, 0 .. 1; return whether to keep its student."""
        self.best = max(self.best, accuracy)
        if accuracy < self.best - self._standard_error():
            return False
        self.kept = accuracy
        return True

    def _standard_error(self) -> float:
        n = self.utterances + 4
        share = (self.best * self.utterances + 2) / n
        return math.sqrt(share * (1 - share) / n)
