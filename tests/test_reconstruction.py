"""Codebooks learned block by block, measured by hooks on the whole student."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from silent import silent
from torch import Tensor
from torch.func import functional_call

from quads_mcu.config import QuantizationSection, TrainSection
from quads_mcu.errors import TrainingError
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Student
from quads_mcu.slots import Slot
from quads_mcu.training import reconstruction, trainer
from quads_mcu.training.bits import uniform
from quads_mcu.training.codebooks import Codebooks, latents
from quads_mcu.training.problem import Batch, Problem, Split

pytestmark = pytest.mark.usefixtures("one_thread")

DIMS = Dimensions(8, 24, 32, 2, 2, 3)
NORMS = ("layers.0.attention_norm", "layers.1.attention_norm", "norm")


def start(bits: int, train_scales: bool = True) -> tuple[Student, Student, Codebooks]:
    """A float student whose rows differ in size, its copy, and codebooks of the copy."""
    torch.manual_seed(3)
    target = Student(DIMS).requires_grad_(False)
    for weight in latents(target).values():
        weight *= torch.linspace(0.5, 2, len(weight)).view(-1, *[1] * (weight.dim() - 1))
    student = copy.deepcopy(target).requires_grad_(True)
    codebooks = Codebooks.fit(student, uniform(DIMS, bits), channel_scales=True)
    for scale in codebooks.scales.values():
        scale.requires_grad_(train_scales)
    return target, student, codebooks


def windows(n: int, seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(8, DIMS.n_frames, DIMS.n_mels, generator=generator) for _ in range(n)]


def normed_outputs(student: Student, weights: dict[str, Tensor], mel: Tensor) -> list[Tensor]:
    """What each block gives, as the norm behind it has it."""
    found: list[Tensor] = []
    hooks = [
        student.encoder.get_submodule(name).register_forward_hook(lambda *a: found.append(a[2]))
        for name in NORMS
    ]
    with torch.no_grad():
        functional_call(student, weights, (mel,))
    for hook in hooks:
        hook.remove()
    return found


def errors(target: Student, student: Student, codebooks: Codebooks) -> list[float]:
    mel = windows(1, seed=99)[0]
    wanted = normed_outputs(target, {}, mel)
    found = normed_outputs(student, codebooks.weights(student, int8=True), mel)
    pairs = zip(found, wanted, strict=True)
    return [float((a - b).square().sum() / b.square().sum()) for a, b in pairs]


@pytest.mark.parametrize("bits", [3, 2])
def test_every_block_comes_nearer_to_the_float_one(bits: int) -> None:
    target, student, codebooks = start(bits)
    before = errors(target, student, codebooks)
    told = reconstruction.run(student, codebooks, target, windows(4, 1), 15, silent)
    # Of windows that were not learned from. What the convolutions lose is little from the start.
    after = errors(target, student, codebooks)
    pairs = zip(after[1:], before[1:], strict=True)
    assert all(new < 0.4 * old for new, old in pairs), (before, after)
    assert list(told) == ["conv", "layers.0", "layers.1"]
    assert all(0 < learned < fitted for fitted, learned in list(told.values())[1:])


def test_what_learns_and_what_stays() -> None:
    for train_scales in (True, False):
        target, student, codebooks = start(2, train_scales)
        held = copy.deepcopy(target.state_dict())
        scales = {name: scale.detach().clone() for name, scale in codebooks.scales.items()}
        reconstruction.run(student, codebooks, target, windows(2, 1), 3, silent)
        for name, value in target.state_dict().items():
            assert torch.equal(value, held[name])
        for name, value in student.head.state_dict().items():
            assert torch.equal(value, held["head." + name])
        for name, scale in codebooks.scales.items():
            assert torch.equal(scale, scales[name]) != train_scales
        for name, latent in latents(student, "layers.").items():
            relative = (latent / codebooks.scales[name]).detach()
            distance = (relative[..., None] - codebooks.centroids[name].detach()).abs()
            chosen = distance.gather(-1, codebooks.indices[name][..., None])[..., 0]
            torch.testing.assert_close(chosen, distance.min(-1).values)


def test_gradient_of_a_scale_is_that_of_a_learned_step_size() -> None:
    _, student, codebooks = start(2)
    name = "layers.0.query"
    weight = codebooks.weights(student, int8=False, within=name)[f"encoder.{name}.weight"]
    upstream = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    weight.backward(upstream)
    scale, latent = codebooks.scales[name], latents(student)[name]
    assert scale.grad is not None and latent.grad is not None
    torch.testing.assert_close(latent.grad, upstream)
    # Esser et al. (2020), Eq. 3: v_quantized - v within the range, beyond it the outermost level,
    # which v_quantized is there.
    levels = codebooks.centroids[name].detach().numpy()
    v = (latent / scale).detach().numpy()
    beyond = (v < levels.min()) | (v > levels.max())
    assert 0.02 < beyond.mean() < 0.5
    chosen = levels[codebooks.indices[name].numpy()]
    expected = (upstream.numpy() * (chosen - np.where(beyond, 0, v))).sum(1, keepdims=True)
    np.testing.assert_allclose(scale.grad.numpy(), expected, atol=1e-5, rtol=1e-4)


def test_a_scale_does_not_cross_zero() -> None:
    _, student, codebooks = start(2)
    name = "layers.1.value"
    rows = latents(student)[name].detach().square().mean(1).sqrt()
    with torch.no_grad():
        codebooks.scales[name][3] = -0.5
    kept = codebooks.scales[name].detach().clone()
    codebooks.bound_scales(student)
    found = codebooks.scales[name].detach()
    assert float(found[3]) == pytest.approx(0.1 * float(rows[3]))
    others = [row for row in range(DIMS.d_model) if row != 3]
    assert torch.equal(found[others], kept[others])


def test_an_error_that_is_not_finite_names_the_block() -> None:
    target, student, codebooks = start(2)
    with torch.no_grad():
        student.encoder.layers[0].output.bias[0] = torch.nan
    with pytest.raises(TrainingError, match=r"block layers\.0 is nan in step 1 of its .*bits"):
        reconstruction.run(student, codebooks, target, windows(1, 1), 1, silent)


def test_a_gradient_that_is_not_finite_names_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    target, student, codebooks = start(2)
    real = reconstruction.relative_error
    monkeypatch.setattr(
        reconstruction, "relative_error", lambda x, goal: real(x, goal) + (x.sum() * 0).sqrt()
    )
    before = copy.deepcopy(student.state_dict())
    with pytest.raises(
        TrainingError, match=r"block conv has a gradient .* in step 1 of its .*bits"
    ):
        reconstruction.run(student, codebooks, target, windows(1, 1), 1, silent)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


def test_windows_are_as_many_as_memory_allows() -> None:
    assert reconstruction.most_windows(DIMS) == 256
    long = dataclasses.replace(DIMS, n_frames=3000, d_model=1280)
    assert reconstruction.most_windows(long) == 17


def refuse(description: str, completed: float, total: float) -> None:
    assert description != "reconstruction"


def problem(stop_at: int | None = None) -> Problem:
    rng = np.random.default_rng(0)
    mel = rng.integers(-100, 0, (36, DIMS.n_frames, DIMS.n_mels)).astype(np.int8)
    answers = np.arange(36)[:, None] % 3
    mel[np.arange(36), :, answers[:, 0]] += 60
    data = Split(mel, answers)

    def batches(epoch: int, distills: bool, *, whole: bool = False) -> Iterator[Batch]:
        if epoch == stop_at:
            raise KeyboardInterrupt
        for rows in np.random.default_rng([5, epoch]).permutation(36).reshape(6, 6):
            yield Batch(rows, mel[rows])

    return Problem(DIMS, (Slot("intent", ("a", "b", "c")),), data, data, batches, 6)


def test_training_begins_the_final_phase_with_it_and_resumes(tmp_path: Path) -> None:
    settings = TrainSection(
        warmup_epochs=2, cycles=0, final_epochs=2, lr_encoder=5e-3, lr_head=5e-3, lr_quant=1e-3
    )
    plain = QuantizationSection(bits=2, channel_scales=True)
    full = dataclasses.replace(plain, train_scales=True, reconstruction_passes=4)

    def train(folder: Path, quantization: QuantizationSection, stop_at: int | None = None) -> float:
        loop = trainer.Trainer(problem(stop_at), settings, quantization, 0, folder)
        loop.run(silent)
        assert ("reconstruction" in loop.history[2]) == (quantization == full)
        return float(loop.history[2]["loss"])

    assert train(tmp_path / "whole", full) != train(tmp_path / "plain", plain)
    scaled = dataclasses.replace(plain, train_scales=True)
    assert train(tmp_path / "scaled", scaled) != train(tmp_path / "plain2", plain)
    fixed, moved = (load_file(tmp_path / n / trainer.CHECKPOINT) for n in ("plain", "scaled"))
    scales = [name for name in fixed if name.endswith(".scales")]
    assert len(scales) == 2 + 6 * DIMS.n_layers
    assert all((fixed[name] != moved[name]).any() for name in scales)
    # Codebooks that are only fitted stay so, and float students have none.
    fitted = dataclasses.replace(settings, final_epochs=0)
    for bits, epochs in ((2, fitted), (32, settings)):
        folder = tmp_path / f"{bits} bits"
        quantization = dataclasses.replace(full, bits=bits)
        trainer.Trainer(problem(), epochs, quantization, 0, folder).run(refuse)
    for stop_at in (2, 3):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / f"{stop_at}", full, stop_at)
        train(tmp_path / f"{stop_at}", full)
        for name in (trainer.CHECKPOINT, trainer.QUANTIZED_STUDENT):
            left = load_file(tmp_path / "whole" / name)
            right = load_file(tmp_path / f"{stop_at}" / name)
            assert set(left) == set(right)
            for tensor in left:
                np.testing.assert_array_equal(left[tensor], right[tensor], err_msg=tensor)
