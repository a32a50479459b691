"""P of Eq. 1, from a student's features to its teacher's, and the teacher's head behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Head
from quads_mcu.training import checkpoint, narrow

# Tokens, or pooled utterances, that it is fitted to: at most, and at least for each feature.
_ROWS = 1 << 15
_ROWS_PER_FEATURE = 4


def projection(width: int, teacher_width: int | None) -> nn.Linear | nn.Identity:
    """Return a random P; the identity where the widths are equal, or there is no teacher."""
    if teacher_width is None or width == teacher_width:
        return nn.Identity()
    return nn.Linear(width, teacher_width)


def fit(linear: nn.Linear, pairs: Iterator[tuple[Tensor, Tensor]]) -> None:
    """Set P to the least squares from a student's features to the teacher's.

    From a random P the first epochs would turn the features of a pre-trained student to where P
    looks for them, and what it knows would be lost on the way. From fewer than four pairs for each
    feature of the student it would learn their noise, and stays as it is.

    Args:
        pairs: of features, float32 (..., width) and (..., teacher's width); enough are taken.
    """
    own: list[Tensor] = []
    told: list[Tensor] = []
    for x, y in pairs:
        own.append(x.flatten(0, -2))
        told.append(y.flatten(0, -2))
        if sum(map(len, own)) >= _ROWS:
            break
    if sum(map(len, own)) >= _ROWS_PER_FEATURE * linear.in_features:
        narrow.fit_linear(linear, torch.cat(own), torch.cat(told))


def teacher_head(weights: dict[str, NDArray[np.float32]], width: int, dims: Dimensions) -> Head:
    """Return the teacher's head, frozen.

    Args:
        weights: under the names of `Student`. width: the teacher's. dims: the student's.
    """
    head = Head(replace(dims, d_model=width))
    state = checkpoint.part(weights, "head.")
    head.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    return head.requires_grad_(False)


@torch.no_grad()
def fold(head: Head, linear: nn.Linear | nn.Identity, into: Head) -> None:
    """Make `into` answer to a student's tokens y what `head` answers to P y.

    Scores of a pool gain the same constant everywhere from P's bias, which its softmax ignores;
    each pool's shares sum to one, so the bias passes through it.
    """
    if isinstance(linear, nn.Identity):
        into.load_state_dict(head.state_dict())
        return
    into.weight.copy_(head.weight @ linear.weight)
    into.bias.copy_(head.bias + head.weight @ linear.bias)
    if head.pools:
        scale = (linear.in_features / linear.out_features) ** 0.5
        into.query.copy_(scale * head.query @ linear.weight)
