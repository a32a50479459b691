"""Codebooks learned block by block, before the whole student is (Li et al. 2021, BRECQ).

Codebooks of two bits, fitted, leave nothing of what the student knows, and its wrong answers say
little about what to mend. So each block (the convolutions, then layer after layer) first learns to
give what the float student's block gives, from what the quantized blocks before it give. The two
are compared behind the norm that follows: what attention and feed-forward layers look at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call

from quads_mcu.console import Progress
from quads_mcu.errors import TrainingError
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Encoder, Student
from quads_mcu.training import accelerator
from quads_mcu.training.codebooks import Codebooks, latents
from quads_mcu.training.losses import relative_error

# Peak rates: of weights, centroids and scales against their root mean square; of biases and norms.
_WEIGHT_RATE = 0.01
_CENTROID_RATE = 0.003
_SCALE_RATE = 0.003
_BIAS_RATE = 1e-4
_WARM_UP_STEPS = 10
_REASSIGN_STEPS = 5
_MOST_WINDOWS = 256
# Values of all windows' tokens, of which three copies are held.
_MOST_VALUES = 1 << 25


def most_windows(dims: Dimensions) -> int:
    """Return how many windows to learn from."""
    return min(_MOST_WINDOWS, max(1, _MOST_VALUES // (dims.n_tokens * dims.d_model)))


def run(
    student: Student,
    codebooks: Codebooks,
    target: Student,
    windows: Sequence[Tensor],
    passes: int,
    progress: Progress,
) -> dict[str, list[float]]:
    """Train latent weights, codebooks, biases and norms of all blocks, in place.

    The last norm and the head stay.

    Args:
        student: holds the latent weights.
        codebooks: its codebooks; scales are trained where they require a gradient.
        target: the float student.
        windows: batches, float32 (batch, n_frames, n_mels).
        passes: over all windows, for each block.
    Returns:
        By block, the squared error of its normed output against that output's power, over all
        windows: of fitted codebooks, and as learned.
    Raises:
        TrainingError: an error or its gradient is not finite.
    """
    blocks, wanted = list(_blocks(student.encoder)), list(_blocks(target.encoder))
    inputs, states = list(windows), list(windows)
    steps = len(windows) * passes
    errors = {}
    for at, (block, other) in enumerate(zip(blocks, wanted, strict=True)):
        norm = wanted[at + 1].norm if at + 1 < len(wanted) else target.encoder.norm
        with torch.no_grad():
            states = [other(x) for x in states]
            goals = [norm(x) for x in states]
        learner = _Learner(student, codebooks, block, norm, steps)
        _, fitted = learner.outputs(inputs, goals)
        for done in range(steps):
            learner.step(inputs[done % len(inputs)], goals[done % len(goals)])
            progress("reconstruction", at * steps + done + 1, len(blocks) * steps)
        codebooks.reassign(student, block.prefix)
        inputs, learned = learner.outputs(inputs, goals)
        errors[block.prefix.rstrip(".")] = [fitted, learned]
    return errors


class _Block(nn.Module):
    """A part of an encoder, under the encoder's names of parameters.

    prefix: what the names of its matrices start with. norm: what it applies to its input first;
    the convolutions have none.
    """

    def __init__(self, encoder: Encoder, prefix: str, part: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.encoder = encoder
        self.prefix = prefix
        self.part = part

    @property
    def norm(self) -> nn.Module:
        return self.encoder.get_submodule(self.prefix + "attention_norm")

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x)


def _blocks(encoder: Encoder) -> Iterator[_Block]:
    yield _Block(encoder, "conv", encoder.stem)
    for index, layer in enumerate(encoder.layers):
        # Its method, for the layer itself would become a module under a second name.
        yield _Block(encoder, f"layers.{index}.", layer.forward)


class _Learner:
    """One block, its optimizer and learning-rate curve."""

    def __init__(
        self, student: Student, codebooks: Codebooks, block: _Block, norm: nn.Module, steps: int
    ) -> None:
        self.block, self.norm = block, norm
        self.student, self.codebooks, self.prefix = student, codebooks, block.prefix
        self.steps = steps
        self.done = 0
        groups = []
        matrices = latents(student, block.prefix)
        for name, weight in matrices.items():
            groups.append(_relative(weight, _WEIGHT_RATE))
            if name in codebooks.centroids:
                groups.append(_relative(codebooks.centroids[name], _CENTROID_RATE))
            if name in codebooks.scales and codebooks.scales[name].requires_grad:
                groups.append(_relative(codebooks.scales[name], _SCALE_RATE))
        others = [
            parameter
            for name, parameter in block.encoder.named_parameters()
            if name.startswith(block.prefix) and name.removesuffix(".weight") not in matrices
        ]
        groups.append({"params": others, "peak": _BIAS_RATE})
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.0)

    def quantized(self, x: Tensor) -> Tensor:
        weights = self.codebooks.weights(self.student, int8=True, within=self.prefix)
        with accelerator.mixed_precision(x.device):
            return functional_call(self.block, weights, (x,))  # type: ignore[no-any-return]

    @torch.no_grad()
    def outputs(self, inputs: list[Tensor], goals: list[Tensor]) -> tuple[list[Tensor], float]:
        """Return the block's outputs and their mean error."""
        found = [self.quantized(x) for x in inputs]
        pairs = zip(found, goals, strict=True)
        errors = [float(relative_error(self.norm(x), goal)) for x, goal in pairs]
        return found, sum(errors) / len(errors)

    def step(self, x: Tensor, goal: Tensor) -> None:
        done = self.done
        factor = 0.5 + 0.5 * math.cos(math.pi * done / self.steps)
        factor *= min(1.0, (done + 1) / _WARM_UP_STEPS)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak"] * factor
        error = relative_error(self.norm(self.quantized(x)), goal)
        if not torch.isfinite(error):
            raise self._diverged(f"is {float(error.detach())}")
        self.optimizer.zero_grad()
        error.backward()  # type: ignore[no-untyped-call]
        learned = (p for group in self.optimizer.param_groups for p in group["params"])
        if not accelerator.finite(p.grad for p in learned if p.grad is not None):
            raise self._diverged("has a gradient that is not finite")
        self.optimizer.step()
        self.codebooks.bound_scales(self.student, self.prefix)
        self.done += 1
        if (done + 1) % _REASSIGN_STEPS == 0:
            self.codebooks.reassign(self.student, self.prefix)

    def _diverged(self, what: str) -> TrainingError:
        return TrainingError(
            f"the error of block {self.prefix.rstrip('.')} {what} in step {self.done + 1} of its "
            "reconstruction; choose more [quantization] bits, or set reconstruction_passes = 0, "
            "and train into another --run or with --restart"
        )


def _relative(parameter: Tensor, rate: float) -> dict[str, object]:
    size = float(parameter.detach().square().mean().sqrt())
    return {"params": [parameter], "peak": rate * max(size, 1e-8)}
