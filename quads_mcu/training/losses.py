"""Losses and measures over the slots of a head: logits lie one slot after the other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from quads_mcu.slots import NO_ANSWER


def cross_entropy(logits: Tensor, answers: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the sum over slots of the batch's mean cross-entropy (Eq. 2).

    Args:
        logits: float32 (batch, sum of sizes). answers: int64 (batch, n_slots); rows of NO_ANSWER
            count for nothing.
        sizes: labels of each slot.
    """
    parts = torch.split(logits, list(sizes), dim=1)
    if not (answers != NO_ANSWER).any():
        return logits.sum() * 0
    losses = [
        F.cross_entropy(part, answers[:, slot], ignore_index=NO_ANSWER)
        for slot, part in enumerate(parts)
    ]
    return torch.stack(losses).sum()


def divergence(logits: Tensor, target: Tensor, sizes: Sequence[int], temperature: float) -> Tensor:
    """Return the sum over slots of KL(target || logits) at a temperature, scaled to its gradients.

    Hinton, Vinyals, Dean (2015), section 2.
    """
    parts = [torch.split(values, list(sizes), dim=1) for values in (logits, target)]
    losses = [
        F.kl_div(
            F.log_softmax(own / temperature, dim=1),
            F.log_softmax(other / temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        for own, other in zip(*parts, strict=True)
    ]
    return temperature * temperature * torch.stack(losses).sum()


def relative_error(found: Tensor, goal: Tensor) -> Tensor:
    """Return the squared error against the goal's power."""
    return (found - goal).square().mean() / goal.square().mean()


def exact_match(logits: Tensor, answers: Tensor, sizes: Sequence[int]) -> float:
    """Return the share (0 .. 1) of utterances with every slot right; NO_ANSWER never is."""
    parts = torch.split(logits, list(sizes), dim=1)
    found = torch.stack([part.argmax(1) for part in parts], dim=1)
    return float((found == answers).all(dim=1).double().mean())
