"""A moving average of a student's weights, which generalizes better than the last ones.

Polyak and Juditsky 1992; the decay rises to its value over the first steps, as in Kingma and Ba.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """The average over the steps since `restart`; with a decay of 0 there is none.

    state: float32 tensors by parameter name, and `steps`, int64 (); empty without an average.
    """

    def __init__(self, student: nn.Module, decay: float) -> None:
        self._decay = decay
        self.state: dict[str, Tensor] = {}
        self.restart(student)

    def restart(self, student: nn.Module) -> None:
        """Forget what was averaged."""
        if self._decay:
            self.state = {name: p.detach().clone() for name, p in student.named_parameters()}
            self.state["steps"] = torch.zeros((), dtype=torch.int64)

    @torch.no_grad()
    def update(self, student: nn.Module) -> None:
        """Take the weights after a step into the average."""
        if not self._decay:
            return
        self.state["steps"] += 1
        steps = int(self.state["steps"])
        decay = min(self._decay, (steps - 1) / steps)
        for name, parameter in student.named_parameters():
            self.state[name].lerp_(parameter, 1 - decay)

    @contextmanager
    def shown(self, student: nn.Module | None) -> Iterator[None]:
        """Put the average into the student for the duration of a block; None: leave it alone."""
        if student is None or not self.state:
            yield
            return
        held = {name: p.detach().clone() for name, p in student.named_parameters()}
        student.load_state_dict({n: t for n, t in self.state.items() if n != "steps"}, strict=False)
        try:
            yield
        finally:
            student.load_state_dict(held, strict=False)
