"""Codebook weights in the training loop (paper, section 2.2).

Every matrix of the student is `centroids[indices]`. Gradients of the weights are summed per cluster
and move the centroids (Eq. 4); the same gradients move latent float weights straight through, and
every few steps each weight is assigned anew to the centroid nearest to its latent value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from quads_mcu.model import codebook
from quads_mcu.model.encoder import Student
from quads_mcu.model_format import BITS, linear_shapes

HALF_BITS = 16
# Of a row's root mean square: below it a scale is of no use, and training may not cross zero.
_LEAST_SCALE = 0.1


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

    centroids: float32 (2**bits,), trained; indices: int64, shaped as the weight; scales: float32
    (N, 1, ...), one per output channel, for the matrices that have them, trained where they require
    a gradient, which is that of a learned step size (Esser et al. 2020). Keys are names of
    `model_format.linear_shapes`. A matrix of 16 bits has no codebook, its weights are rounded to
    half precision; one of 32 bits stays as it is.
    """

    def __init__(self, bits: Mapping[str, int]) -> None:
        self.centroids: dict[str, Tensor] = {}
        self.indices: dict[str, Tensor] = {}
        self.scales: dict[str, Tensor] = {}
        self._halves = {name for name, width in bits.items() if width == HALF_BITS}

    @classmethod
    def fit(
        cls, student: Student, bits: Mapping[str, int], *, channel_scales: bool = False
    ) -> Codebooks:
        """Fit k-means to the student's weights.

        Args:
            student: its matrices are fitted.
            bits: by matrix; what is not named stays in float.
            channel_scales: one scale per output channel besides the codebook; the head, whose
                sums are the logits, has none.
        """
        found = cls(bits)
        for name, weight in latents(student).items():
            if bits.get(name, HALF_BITS) not in BITS:
                continue
            values = weight.detach().cpu().numpy()
            if channel_scales and name != "head":
                fitted, rows = codebook.fit_rows(values, bits[name])
                shape = (-1,) + (1,) * (values.ndim - 1)
                found.scales[name] = torch.from_numpy(rows).view(shape).to(weight.device)
            else:
                fitted = codebook.fit(values, bits[name])
            centroids = torch.from_numpy(fitted).to(weight.device)
            found.centroids[name] = centroids.requires_grad_()
        found.reassign(student)
        return found

    def weights(self, student: Student, *, int8: bool, within: str = "") -> dict[str, Tensor]:
        """Return the quantized weights by parameter name, for `torch.func.functional_call`.

        Args:
            student: holds the latent weights.
            int8: round centroids to int8 times a scale, as the packed model stores them.
            within: only of matrices whose names start so.
        """
        found = {}
        for name, latent in latents(student, within).items():
            if name in self._halves:
                found[parameter_name(name)] = latent + (latent.half().float() - latent).detach()
            if name not in self.centroids:
                continue
            centroids = self.centroids[name]
            centroids = _snap(centroids) if int8 else centroids
            scale = self.scales.get(name)
            relative = latent if scale is None else self._relative(name, latent, scale)
            weight = _Lookup.apply(relative, centroids, self.indices[name])  # type: ignore[no-untyped-call]
            found[parameter_name(name)] = weight if scale is None else weight * scale
        return found

    def _relative(self, name: str, latent: Tensor, scale: Tensor) -> Tensor:
        """Return latent / scale; for the scale's gradient no further out than the centroids are."""
        if not scale.requires_grad:
            return latent / scale
        centroids = self.centroids[name].detach()
        bounded = (latent.detach() / scale).clamp(centroids.min(), centroids.max())
        return latent / scale.detach() + (bounded - bounded.detach())

    @torch.no_grad()
    def bound_scales(self, student: Student, within: str = "") -> None:
        """Keep trained scales above a tenth of their row's root mean square; after every step."""
        for name, latent in latents(student, within).items():
            scale = self.scales.get(name)
            if scale is not None and scale.requires_grad:
                size = latent.flatten(1).square().mean(dim=1).sqrt().view_as(scale)
                scale.copy_(torch.maximum(scale, _LEAST_SCALE * size))

    @torch.no_grad()
    def reassign(self, student: Student, within: str = "") -> None:
        """Assign every weight to the centroid nearest to its latent value; `within` as above."""
        for name, latent in latents(student, within).items():
            if name not in self.centroids:
                continue
            scale = self.scales.get(name)
            order = self.centroids[name].argsort()
            ordered = self.centroids[name][order]
            relative = latent if scale is None else latent / scale
            nearest = torch.bucketize(relative, (ordered[1:] + ordered[:-1]) / 2)
            self.indices[name] = order[nearest]
            self._fill(name, relative)

    def _fill(self, name: str, values: Tensor) -> None:
        """Give every centroid without members the upper half of the cluster that errs most."""
        centroids, indices = self.centroids[name], self.indices[name]
        for _ in range(len(centroids)):
            empty = torch.bincount(indices.flatten(), minlength=len(centroids)) == 0
            if not empty.any():
                return
            error = (values - centroids[indices]).square().flatten()
            worst = torch.bincount(indices.flatten(), error, minlength=len(centroids)).argmax()
            upper = (indices == worst) & (values > centroids[worst])
            lower = (indices == worst) & ~upper
            if not (upper.any() and lower.any()):
                return
            fresh = empty.nonzero()[0, 0]
            centroids[fresh], centroids[worst] = values[upper].mean(), values[lower].mean()
            indices[upper] = fresh

    @torch.no_grad()
    def snap(self, student: Student) -> None:
        """Replace the student's latent weights by the quantized ones."""
        quantized = self.weights(student, int8=False)
        for name, latent in latents(student).items():
            if parameter_name(name) in quantized:
                latent.copy_(quantized[parameter_name(name)])

    def int8_scales(self) -> dict[str, float]:
        """Return the scale of each matrix' int8 centroids, of its largest channel."""
        found = {name: float(_int8_scale(value)) for name, value in self.centroids.items()}
        return found | {
            n: found[n] * float(scale.detach().max()) for n, scale in self.scales.items()
        }

    def state(self) -> dict[str, Tensor]:
        """Return tensors for a checkpoint; indices as uint8."""
        found = {f"{name}.centroids": value.detach() for name, value in self.centroids.items()}
        found |= {f"{name}.scales": value.detach().flatten() for name, value in self.scales.items()}
        return found | {f"{n}.indices": value.to(torch.uint8) for n, value in self.indices.items()}

    @classmethod
    def from_state(
        cls,
        state: dict[str, Tensor],
        bits: Mapping[str, int],
        device: torch.device | None = None,
    ) -> Codebooks:
        """Undo `state`."""
        state = {name: tensor.to(device=device) for name, tensor in state.items()}
        found = cls(bits)
        for name, width in bits.items():
            if width not in BITS:
                continue
            found.centroids[name] = state[f"{name}.centroids"].clone().requires_grad_()
            indices = found.indices[name] = state[f"{name}.indices"].long()
            if (rows := state.get(f"{name}.scales")) is not None:
                found.scales[name] = rows.view((-1,) + (1,) * (indices.ndim - 1))
        return found


def latents(student: Student, within: str = "") -> dict[str, Tensor]:
    """Return the student's matrices by name of `model_format.linear_shapes`.

    Args:
        within: what the names start with.
    """
    parameters = dict(student.named_parameters())
    names = [name for name in linear_shapes(student.dims) if name.startswith(within)]
    return {name: parameters[parameter_name(name)] for name in names}


def _snap(centroids: Tensor) -> Tensor:
    """Round to int8 steps of the greatest magnitude / 127, straight through."""
    scale = _int8_scale(centroids)
    rounded = (centroids.detach() / scale).round() * scale
    return centroids + (rounded - centroids).detach()


def _int8_scale(centroids: Tensor) -> Tensor:
    return centroids.detach().abs().max().clamp_min(1e-12) / codebook.INT8_MAX
