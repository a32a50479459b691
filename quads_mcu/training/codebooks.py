"""Codebook weights in the training loop (paper, section 2.2).

Every matrix of the student is `centroids[indices]`. Gradients of the weights are summed per cluster
and move the centroids (Eq. 4); the same gradients move latent float weights straight through, and
every few steps each weight is assigned anew to the centroid nearest to its latent value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from quads_mcu.model import codebook
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Student
from quads_mcu.model_format import linear_shapes


def parameter_name(linear: str) -> str:
    """Return the name in `Student` of the weight of a matrix of `model_format.linear_shapes`."""
    return f"{'' if linear == 'head' else 'encoder.'}{linear}.weight"


class _Lookup(torch.autograd.Function):
    """centroids[indices], with the gradient of Eq. 4 and, straight through, the latent's."""

    @staticmethod
    def forward(ctx: Any, latent: Tensor, centroids: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.size = len(centroids)
        return centroids[indices]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        (gradient,) = gradients
        (indices,) = ctx.saved_tensors
        summed = torch.bincount(indices.flatten(), gradient.flatten(), minlength=ctx.size)
        return gradient, summed.to(gradient.dtype), None


class Codebooks:
    """Codebooks of all matrices of one student.

    centroids: float32 (2**bits,), trained; indices: int64, shaped as the weight. Keys are names of
    `model_format.linear_shapes`.
    """

    def __init__(self, centroids: dict[str, Tensor], indices: dict[str, Tensor]) -> None:
        self.centroids = centroids
        self.indices = indices

    @classmethod
    def fit(cls, student: Student, bits: int) -> Codebooks:
        """Fit k-means to the student's weights."""
        centroids: dict[str, Tensor] = {}
        indices: dict[str, Tensor] = {}
        for name, weight in latents(student).items():
            values = weight.detach().numpy()
            fitted = codebook.fit(values, bits)
            centroids[name] = torch.from_numpy(fitted).requires_grad_()
            indices[name] = torch.from_numpy(codebook.assign(values, fitted).astype(np.int64))
        return cls(centroids, indices)

    def weights(self, student: Student, *, int8: bool) -> dict[str, Tensor]:
        """Return the quantized weights by parameter name, for `torch.func.functional_call`.

        Args:
            student: holds the latent weights.
            int8: round centroids to int8 times a scale, as the packed model stores them.
        """
        found = {}
        for name, latent in latents(student).items():
            centroids = self.centroids[name]
            centroids = _snap(centroids) if int8 else centroids
            weight = _Lookup.apply(latent, centroids, self.indices[name])  # type: ignore[no-untyped-call]
            found[parameter_name(name)] = weight
        return found

    @torch.no_grad()
    def reassign(self, student: Student) -> None:
        """Assign every weight to the centroid nearest to its latent value."""
        for name, latent in latents(student).items():
            order = self.centroids[name].argsort()
            ordered = self.centroids[name][order]
            nearest = torch.bucketize(latent, (ordered[1:] + ordered[:-1]) / 2)
            self.indices[name] = order[nearest]

    @torch.no_grad()
    def snap(self, student: Student) -> None:
        """Replace the student's latent weights by the quantized ones."""
        for name, latent in latents(student).items():
            latent.copy_(self.centroids[name][self.indices[name]])

    def int8_scales(self) -> dict[str, float]:
        """Return the scale of each codebook's int8 centroids."""
        return {name: float(_int8_scale(value)) for name, value in self.centroids.items()}

    def state(self) -> dict[str, Tensor]:
        """Return tensors for a checkpoint; indices as uint8."""
        found = {f"{name}.centroids": value.detach() for name, value in self.centroids.items()}
        return found | {f"{n}.indices": value.to(torch.uint8) for n, value in self.indices.items()}

    @classmethod
    def from_state(cls, state: dict[str, Tensor], dims: Dimensions) -> Codebooks:
        """Undo `state`."""
        names = linear_shapes(dims)
        centroids = {name: state[f"{name}.centroids"].clone().requires_grad_() for name in names}
        return cls(centroids, {name: state[f"{name}.indices"].long() for name in names})


def latents(student: Student) -> dict[str, Tensor]:
    """Return the student's matrices by name of `model_format.linear_shapes`."""
    parameters = dict(student.named_parameters())
    return {name: parameters[parameter_name(name)] for name in linear_shapes(student.dims)}


def _snap(centroids: Tensor) -> Tensor:
    """Round to int8 steps of the greatest magnitude / 127, straight through."""
    scale = _int8_scale(centroids)
    rounded = (centroids.detach() / scale).round() * scale
    return centroids + (rounded - centroids).detach()


def _int8_scale(centroids: Tensor) -> Tensor:
    return centroids.detach().abs().max().clamp_min(1e-12) / codebook.INT8_MAX
