"""QUADS training on small problems: gradients, schedule, resuming, refusals, the whole command."""

from __future__ import annotations

import csv
import dataclasses
import errno
import json
import subprocess
import sys
import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from scipy.special import log_softmax
from silent import silent

from quads_mcu import config as project
from quads_mcu.audio.augment import Augmenter
from quads_mcu.config import QuantizationSection, TrainSection
from quads_mcu.errors import ConfigError, StorageError, TrainingError
from quads_mcu.model import codebook, dimensions, whisper
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Encoder, Student
from quads_mcu.run_dir import RunDir
from quads_mcu.slots import Slot
from quads_mcu.training import (
    activations,
    checkpoint,
    data,
    evaluation,
    losses,
    teacher,
    tensorboard,
    train,
    trainer,
)
from quads_mcu.training.activations import Grid
from quads_mcu.training.average import Average
from quads_mcu.training.bits import uniform
from quads_mcu.training.codebooks import Codebooks, latents, parameter_name
from quads_mcu.training.problem import Batch, Mel, Problem, Split, TeacherOutputs, real_mel
from quads_mcu.training.schedule import Epoch, rate_factor, schedule

pytestmark = pytest.mark.usefixtures("one_thread")

DIMS = Dimensions(8, 12, 16, 2, 1, 3)
LABELS = ("left", "right", "stop")
SLOTS = (Slot("intent", LABELS),)
SHORT = TrainSection(
    warmup_epochs=2,
    cycles=1,
    distill_epochs=2,
    quant_epochs=1,
    final_epochs=2,
    lr_encoder=5e-3,
    lr_head=5e-3,
    lr_quant=1e-3,
)
QUICK = dataclasses.replace(SHORT, cycles=0, final_epochs=1)


def split(n: int, seed: int) -> Split:
    """Classes differ in the band that is loud."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % len(LABELS)
    mel = rng.integers(-100, -40, (n, DIMS.n_frames, DIMS.n_mels))
    for row, label in enumerate(labels):
        mel[row, :, 2 * label : 2 * label + 2] += 60
    return Split(mel.astype(np.int8), labels.astype(np.int64)[:, None])


class KilledError(Exception):
    pass


def problem(stop_at: int | None = None, **changes: Any) -> Problem:
    data = split(48, 1)

    def batches(epoch: int, distills: bool, *, whole: bool = False) -> Iterator[Batch]:
        if epoch == stop_at:
            raise KilledError
        order = np.random.default_rng([5, epoch]).permutation(48)
        for rows in order.reshape(6, 8):
            yield Batch(rows, data.mel[rows])

    rng = np.random.default_rng(2)
    taught = TeacherOutputs(
        rng.normal(size=(48, 24)).astype(np.float32), np.zeros((48, 3), np.float32), 1.0, {}
    )
    whole = Problem(DIMS, SLOTS, data, split(30, 3), batches, 6, taught, fingerprint="data")
    return dataclasses.replace(whole, **changes)


def run(folder: Path, task: Problem, settings: TrainSection = SHORT) -> trainer.Trainer:
    loop = trainer.Trainer(task, settings, QuantizationSection(), 0, folder)
    loop.run(silent)
    return loop


def test_schedule_is_the_papers() -> None:
    settings = TrainSection(
        warmup_epochs=1, cycles=2, distill_epochs=2, quant_epochs=1, final_epochs=3
    )
    epochs = schedule(settings)
    assert [epoch.phase[0] for epoch in epochs] == list("wddqddqfff")
    assert [epoch.cycle for epoch in epochs] == [0, 1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert [epoch.number for epoch in epochs] == list(range(10))
    assert [epoch.number for epoch in epochs if epoch.chosen] == [4, 5, 7, 8, 9]
    distilling = [epoch for epoch in epochs if epoch.distills]
    assert [epoch.position for epoch in distilling] == [0, 1, 2, 3, 4]
    assert {epoch.length for epoch in distilling} == {5}
    only_final = TrainSection(warmup_epochs=0, cycles=0, final_epochs=4)
    assert [epoch.phase for epoch in schedule(only_final)] == ["final"] * 4


def test_cycles_may_differ_as_in_the_authors_code() -> None:
    """Distillation in epochs 1-3 and 7-12, quantization in 4-6 and 13-15."""
    recipes = Path(__file__).parent.parent / "examples" / "fsc"
    authors = schedule(project.load(recipes / "authors.toml").train)
    assert "".join(epoch.phase[0] for epoch in authors) == "dddqqqddddddfff"
    assert [epoch.cycle for epoch in authors] == [1] * 6 + [2] * 6 + [3] * 3
    paper = schedule(project.load(recipes / "paper.toml").train)
    assert "".join(epoch.phase[0] for epoch in paper) == 5 * "dddqqq" + "fff"


def test_quantization_by_sgd_with_assignments_that_stay(tmp_path: Path, float32: None) -> None:
    """Centroids move, no weight changes its cluster; killed between, it ends with the same bits."""
    settings = dataclasses.replace(
        SHORT, warmup_epochs=1, quant_epochs=2, quant_optimizer="sgd", reassign_steps=0
    )
    loop = trainer.Trainer(problem(), settings, QuantizationSection(), 0, tmp_path)
    steps: list[dict[str, torch.Tensor]] = []
    loss_of = loop._loss

    def watched(epoch: Epoch, batch: Batch) -> torch.Tensor:
        if epoch.phase == "quantization":
            assert loop.codebooks is not None
            indices = {n: value.clone() for n, value in loop.codebooks.indices.items()}
            steps.append(indices | {"centroids": loop.codebooks.centroids["head"].detach().clone()})
        return loss_of(epoch, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_loss", watched)
        loop.run(silent)
    assert isinstance(loop.quantization_optimizer, torch.optim.SGD)
    assert loop.quantization_optimizer.param_groups[0]["momentum"] == 0.9
    assert len(steps) == 12
    for later in steps[1:]:
        assert not torch.equal(later["centroids"], steps[0]["centroids"])
        assert all(torch.equal(later[n], steps[0][n]) for n in steps[0] if n != "centroids")
    for stop_at in (4, 6):  # In the cycle's quantization, in the final phase.
        with pytest.raises(KilledError):
            run(tmp_path / str(stop_at), problem(stop_at), settings)
        again = run(tmp_path / str(stop_at), problem(), settings)
        for name, tensor in loop.student.state_dict().items():
            assert torch.equal(tensor, again.student.state_dict()[name])


def test_learning_rate_rises_then_falls_over_all_distillation_epochs() -> None:
    settings = TrainSection(warmup_epochs=3, cycles=1, distill_epochs=2)
    distilling = [epoch for epoch in schedule(settings) if epoch.distills]
    curve = [rate_factor(epoch, step, 20) for epoch in distilling for step in range(20)]
    peak = curve.index(max(curve))
    assert max(curve) == pytest.approx(1.0) and peak <= 10
    assert curve[: peak + 1] == sorted(curve[: peak + 1])
    assert curve[peak:] == sorted(curve[peak:], reverse=True)
    assert 0 < curve[-1] < 0.05


def test_centroid_gradient_is_the_sum_over_the_cluster() -> None:
    """Eq. 4, spelled out as a loop over the weights."""
    torch.manual_seed(0)
    student = Student(DIMS)
    codebooks = Codebooks.fit(student, uniform(DIMS, 3))
    weights = codebooks.weights(student, int8=False)
    for name, weight in weights.items():
        weight.retain_grad()
        assert len(weight.unique()) <= 8, name
    mel = torch.randn(4, DIMS.n_frames, DIMS.n_mels)
    _, logits = torch.func.functional_call(student, weights, (mel,))
    logits.square().sum().backward()
    for name, latent in latents(student).items():
        gradient = weights[parameter_name(name)].grad
        assert gradient is not None and latent.grad is not None
        torch.testing.assert_close(latent.grad, gradient)
        expected = torch.zeros(8)
        for index, value in zip(
            codebooks.indices[name].flatten().tolist(), gradient.flatten(), strict=True
        ):
            expected[index] += value
        torch.testing.assert_close(codebooks.centroids[name].grad, expected, rtol=1e-4, atol=1e-5)


def test_reassign_and_snap() -> None:
    student = Student(DIMS)
    codebooks = Codebooks.fit(student, uniform(DIMS, 2))
    with torch.no_grad():
        codebooks.centroids["head"].copy_(torch.tensor([0.5, -0.5, 0.0, 0.1]))
        student.head.weight.fill_(0.07)
        student.head.weight[0, 0] = -9.0
    codebooks.reassign(student)
    assert codebooks.indices["head"][0, 0] == 1
    assert (codebooks.indices["head"].flatten()[1:] == 3).all()
    codebooks.snap(student)
    torch.testing.assert_close(student.head.weight.detach().unique(), torch.tensor([-0.5, 0.1]))


def test_int8_centroids_are_what_the_forward_pass_uses() -> None:
    student = Student(DIMS)
    codebooks = Codebooks.fit(student, uniform(DIMS, 4))
    for name in latents(student):
        weight = codebooks.weights(student, int8=True)[parameter_name(name)].detach()
        scale = codebooks.centroids[name].detach().abs().max() / 127
        steps = weight / scale
        assert (steps - steps.round()).abs().max() < 1e-4
        assert steps.abs().max() <= 127.001


def test_fake_quantization_rounds_to_the_grid_and_passes_gradients() -> None:
    values = torch.tensor([-100.0, -0.26, 0.0, 0.24, 0.26, 100.0], requires_grad=True)
    rounded = Grid(0.5, 10).fake_quantize(values)
    rounded.sum().backward()
    torch.testing.assert_close(rounded, torch.tensor([-69.0, -0.5, 0.0, 0.0, 0.5, 58.5]))
    assert values.grad is not None
    assert values.grad.tolist() == [0, 1, 1, 1, 1, 0]


@pytest.mark.parametrize(
    "grid", [Grid(0.037), Grid(1.3e-4, 0, -32768, 32767), Grid(0.02, -77), Grid(0.011, 127)]
)
def test_fake_quantization_is_torchs(grid: Grid) -> None:
    torch.manual_seed(0)
    values = torch.randn(4000) * 3
    values[:9] = grid.scale * torch.tensor([0.0, 0.5, -0.5, 1.5, 126.5, 127.4, 127.5, -128.5, -129])
    both = [values.clone().requires_grad_() for _ in range(2)]
    found = grid.fake_quantize(both[0])
    wanted = torch.fake_quantize_per_tensor_affine(
        both[1], grid.scale, grid.zero_point, grid.low, grid.high
    )
    assert torch.equal(found, wanted)
    for rounded in (found, wanted):
        (rounded * torch.arange(4000)).sum().backward()
    assert torch.equal(both[0].grad, both[1].grad)


@pytest.mark.parametrize("grid", [Grid(0.037), Grid(0.02, -77), Grid(0.011, 127), Grid(0.01, -128)])
def test_fake_quantization_in_bfloat16_is_at_most_one_step_off(grid: Grid) -> None:
    torch.manual_seed(0)
    values = (torch.randn(4000) * 3).bfloat16()
    both = [values.requires_grad_(), values.detach().float().requires_grad_()]
    found, wanted = (grid.fake_quantize(values) for values in both)
    steps = [(rounded.float() / grid.scale).round() for rounded in (found, wanted)]
    # bfloat16 has half steps from 64 on, whole ones from 128 on.
    assert (steps[0] - steps[1]).abs().max() <= 1
    small = steps[1].abs() < 32
    assert small.sum() > 300 and (steps[0] != steps[1])[small].float().mean() < 0.1
    for rounded in (found, wanted):
        rounded.sum().backward()
    assert (both[0].grad.float() != both[1].grad).float().mean() < 0.01
    assert 0 < both[1].grad.mean() < 1


def test_calibration_covers_every_site_and_ties_the_scales() -> None:
    torch.manual_seed(0)
    student = Student(DIMS)
    mel = real_mel(split(8, 0).mel)
    grids = activations.calibrate(lambda site: student(mel, site))
    used: set[str] = set()

    def site(name: str, values: torch.Tensor) -> torch.Tensor:
        used.add(name)
        rounded = grids[name].fake_quantize(values)
        assert (rounded - values).abs().mean() <= 0.02 * values.abs().max()
        return rounded

    student(mel, site)
    assert used == set(grids)
    ratio = grids["positions"].scale / grids["residual"].scale
    assert ratio == pytest.approx(round(ratio)) and ratio >= 1
    ratio = grids["layers.0.value"].scale / grids["layers.0.attention"].scale * 4096
    assert ratio == pytest.approx(round(ratio))
    scales = {"conv1": 1.0, "layers.0.output": 2.0, "head": 9.0}
    again = activations.calibrate(lambda site: student(mel, site), scales)
    assert again["conv1"].scale >= 2 / 80
    assert again["residual"].scale >= 2 * 2 * grids["layers.0.attention"].scale
    assert again["norm"] == grids["norm"]


def test_calibration_scale_has_least_error() -> None:
    """An outlier is worth clipping; compared with a fine search over the scale."""
    rng = np.random.default_rng(0)
    values = torch.from_numpy(np.r_[rng.normal(size=9999), 40.0]).float()
    grid = activations._grid("norm", values)
    errors = [
        float((Grid(s).fake_quantize(values) - values).square().mean())
        for s in np.linspace(0.01, 0.4, 400)
    ]
    found = float((grid.fake_quantize(values) - values).square().mean())
    assert found <= 1.05 * min(errors)


def test_learns_and_history_tells(tmp_path: Path) -> None:
    loop = run(tmp_path, problem(teacher=None))
    assert loop.selections["float"].kept >= 0.9
    assert loop.selections["quantized"].kept >= 0.9
    history = json.loads((tmp_path / "history.json").read_text())
    assert [entry["phase"] for entry in history] == [
        "warm-up",
        "warm-up",
        "distillation",
        "distillation",
        "quantization",
        "final",
        "final",
    ]
    assert history[-1]["loss"] < history[0]["loss"]
    assert {"epoch", "cycle", "valid_float", "valid_quantized", "duration_s"} <= set(history[0])
    valid, right = loop.problem.valid, loop.problem.valid.answers[:, 0]
    measured = (evaluation.float_logits(tmp_path, valid.mel).argmax(1) == right).mean()
    assert measured == loop.selections["float"].kept
    measured = (evaluation.quantized_logits(tmp_path, valid.mel).argmax(1) == right).mean()
    assert measured == loop.selections["quantized"].kept


def test_the_final_phase_follows_the_float_student(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, float32: None
) -> None:
    """0.2 times the labels', 0.8 the answers' and 10 times the tokens' distance, by scipy."""
    settings = dataclasses.replace(SHORT, warmup_epochs=1, cycles=0, final_epochs=1)
    loop = trainer.Trainer(problem(), settings, QuantizationSection(), 0, tmp_path)
    found: list[tuple[float, ...]] = []
    loss_of = loop._loss

    def checked(epoch: Epoch, batch: Batch) -> torch.Tensor:
        loss = loss_of(epoch, batch)
        if epoch.phase == "final":
            assert loop.float_student is not None
            mel = real_mel(batch.mel)
            own, target = loop._quantized(mel), loop.float_student(mel)
            tokens, logits = (value.detach().double().numpy() for value in own)
            goal, answers = (value.detach().double().numpy() for value in target)
            truth = problem().train.answers[batch.rows, 0]
            cross = -log_softmax(logits, axis=1)[np.arange(len(truth)), truth].mean()
            wanted, given = (log_softmax(x / 2, axis=1) for x in (answers, logits))
            divergence = 4 * (np.exp(wanted) * (wanted - given)).sum(axis=1).mean()
            tokens = ((tokens - goal) ** 2).sum() / (goal**2).sum()
            found.append((float(loss.detach()), 0.2 * cross, 0.8 * divergence, 10 * tokens))
        return loss

    monkeypatch.setattr(loop, "_loss", checked)
    loop.run(silent)
    assert len(found) == 6
    given, *parts = np.array(found).T
    np.testing.assert_allclose(given, sum(parts), atol=3e-6)
    assert min(part.max() for part in parts) > 3e-5


@pytest.mark.parametrize(("last", "kept"), [(0.97, 1), (0.5, 0)])
def test_the_last_epoch_is_kept_unless_it_is_clearly_worse(
    tmp_path: Path, last: float, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = dataclasses.replace(SHORT, warmup_epochs=1, cycles=1, final_epochs=2)
    loop = trainer.Trainer(problem(), settings, QuantizationSection(), 0, tmp_path)
    final = [epoch.number + 1 for epoch in loop.epochs if epoch.phase == "final"]
    accuracies = iter([0.5, 1.0, 0.5, last])  # In float and quantized, after each epoch.
    monkeypatch.setattr(loop, "_measure", lambda _: next(accuracies) if loop.grids else 0.5)
    loop.run(silent)
    scalars = trainer.checkpoint.read(tmp_path / trainer.QUANTIZED_STUDENT)[1]
    assert scalars["provenance"]["epoch"] == str(final[kept])
    assert loop.selections["quantized"].kept == (1.0, last)[kept]


@pytest.mark.parametrize("version", [{}, {"version": 0}])
def test_a_checkpoint_of_another_version_is_refused(
    tmp_path: Path, version: dict[str, int]
) -> None:
    run(tmp_path, problem(teacher=None))
    path = tmp_path / trainer.CHECKPOINT
    tensors, scalars = trainer.checkpoint.read(path)
    del scalars["version"]
    scalars |= version
    trainer.checkpoint.write(path, tensors, scalars)
    with pytest.raises(ConfigError, match=r"another version.*--restart"):
        run(tmp_path, problem(teacher=None))


def test_no_distillation_at_all(tmp_path: Path) -> None:
    settings = TrainSection(warmup_epochs=0, cycles=0, final_epochs=1)
    loop = run(tmp_path, problem(teacher=None), settings)
    assert len(loop.history) == 1
    assert 0 <= loop.selections["float"].kept <= 1
    assert evaluation.float_logits(tmp_path, loop.problem.valid.mel).shape == (30, 3)


@pytest.mark.parametrize("stop_at", range(1, 7))
def test_killed_and_resumed_is_bit_equal(tmp_path: Path, stop_at: int) -> None:
    whole = tmp_path / "whole"
    run(whole, problem())
    parts = tmp_path / "parts"
    with pytest.raises(KilledError):
        run(parts, problem(stop_at))
    assert len(json.loads((parts / "history.json").read_text())) == stop_at
    loop = run(parts, problem())
    assert len(loop.history) == 7
    for name in (trainer.CHECKPOINT, trainer.FLOAT_STUDENT, trainer.QUANTIZED_STUDENT):
        left, right = load_file(whole / name), load_file(parts / name)
        assert set(left) == set(right)
        for tensor in left:
            np.testing.assert_array_equal(left[tensor], right[tensor], err_msg=f"{name} {tensor}")


def test_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    run(tmp_path, problem())
    before = (tmp_path / trainer.QUANTIZED_STUDENT).read_bytes()
    run(tmp_path, problem(stop_at=0))
    assert (tmp_path / trainer.QUANTIZED_STUDENT).read_bytes() == before


def test_refuses_another_configuration_or_other_data(tmp_path: Path) -> None:
    run(tmp_path, problem())
    other = dataclasses.replace(SHORT, alpha=0.25, batch_size=7)
    with pytest.raises(ConfigError, match="alpha, batch_size"):
        run(tmp_path, problem(), other)
    with pytest.raises(ConfigError, match="other data"):
        run(tmp_path, problem(fingerprint="else"))
    run(tmp_path, problem(), dataclasses.replace(SHORT, threads=1))


def test_damaged_checkpoint(tmp_path: Path) -> None:
    run(tmp_path, problem())
    path = tmp_path / trainer.CHECKPOINT
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingError, match=r"damaged.*--restart"):
        run(tmp_path, problem())
    with pytest.raises(TrainingError, match="no such file"):
        evaluation.float_logits(tmp_path / "none", split(3, 0).mel)
    checkpoint.write(tmp_path / trainer.FLOAT_STUDENT, {}, {"dims": {}})
    with pytest.raises(TrainingError, match="damaged"):
        evaluation.float_logits(tmp_path, split(3, 0).mel)


def test_loss_that_is_not_finite_stops_with_the_last_checkpoint_kept(tmp_path: Path) -> None:
    task = problem()
    assert task.teacher is not None

    def batches(epoch: int, distills: bool, *, whole: bool = False) -> Iterator[Batch]:
        if epoch == 2:
            assert task.teacher is not None
            task.teacher.features[:] = np.nan
        yield from task.batches(epoch, distills, whole=whole)

    with pytest.raises(TrainingError, match=r"nan in epoch 3 \(distillation\), batch 1 of 6"):
        run(tmp_path, dataclasses.replace(task, batches=batches))
    tensors, scalars = checkpoint.read(tmp_path / trainer.CHECKPOINT)
    assert len(scalars["history"]) == 2
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def with_nan_gradient(loss: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
    """Return the same loss, whose gradient is NaN: that of a root at zero."""
    return loss + (parameter.sum() * 0).sqrt()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (0, r"nan in epoch 1 \(warm-up\).* with --restart; there is no checkpoint yet"),
        (1, r"nan in epoch 2 \(warm-up\).* epoch 1 is kept.* lr_encoder = 0.005 and lr_head = 0."),
        (
            2,
            r"nan in epoch 3 \(final\), batch 6 of 6; .* epoch 2 is kept.* lower lr_quant = 0.001 ",
        ),
    ],
)
def test_gradient_that_is_not_finite_stops_with_the_last_checkpoint_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int, message: str
) -> None:
    """In an epoch's last batch: nothing would be computed with those weights but the checkpoint."""
    real = trainer.Trainer._loss
    batches = 0

    def loss(self: trainer.Trainer, epoch: Epoch, batch: Batch) -> torch.Tensor:
        nonlocal batches
        batches += 1
        found = real(self, epoch, batch)
        assert found.isfinite()
        if batches == 6 * (broken + 1):
            found = with_nan_gradient(found, self.student.encoder.norm.weight)
        return found

    monkeypatch.setattr(trainer.Trainer, "_loss", loss)
    with pytest.raises(TrainingError, match="the gradient is " + message):
        run(tmp_path, problem(teacher=None), QUICK)
    if not broken:
        assert not (tmp_path / trainer.CHECKPOINT).exists()
        return
    tensors, scalars = checkpoint.read(tmp_path / trainer.CHECKPOINT)
    assert len(scalars["history"]) == broken
    assert all(tensor.isfinite().all() for tensor in tensors.values())


def test_weights_that_are_not_finite_are_never_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = torch.optim.AdamW.step
    steps = 0

    def step(self: torch.optim.AdamW) -> None:
        nonlocal steps
        steps += 1
        real(self)
        if steps == 18:
            with torch.no_grad():
                self.param_groups[0]["params"][0].view(-1)[0] = torch.inf

    monkeypatch.setattr(torch.optim.AdamW, "step", step)
    with pytest.raises(
        TrainingError, match=r"weight is not finite in epoch 3 \(final\), after its"
    ):
        run(tmp_path, problem(teacher=None), QUICK)
    tensors, scalars = checkpoint.read(tmp_path / trainer.CHECKPOINT)
    assert len(scalars["history"]) == 2
    assert all(tensor.isfinite().all() for tensor in tensors.values())
    assert not (tmp_path / trainer.QUANTIZED_STUDENT).exists()


def test_a_teacher_that_diverges_is_not_cached(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = corpus_config(corpus, fine_tune_epochs=2)
    real = losses.cross_entropy

    def loss(logits: torch.Tensor, truth: torch.Tensor, slots: list[int]) -> torch.Tensor:
        found = real(logits, truth, slots)
        kept = list((corpus / "cache").rglob("*unfinished*"))
        return with_nan_gradient(found, logits) if kept else found

    with monkeypatch.context() as patch:
        patch.setattr(teacher, "fit_head", lambda *_: None)
        patch.setattr(losses, "cross_entropy", loss)
        with pytest.raises(TrainingError, match=r"gradient is nan in epoch 2 .*fine_tune_lr = "):
            train.load_problem(config, silent)

    def broken(student: Student, *_: object) -> None:
        with torch.no_grad():
            student.head.bias[0] = torch.nan

    with monkeypatch.context() as patch:
        patch.setattr(teacher, "fit_head", broken)
        with pytest.raises(TrainingError, match=r"outputs are not finite .*weights = teacher\.npz"):
            train.load_problem(corpus_config(corpus), silent)
    assert not list((corpus / "cache").rglob("*.safetensors"))


def test_a_history_that_misses_the_last_epoch_is_written_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the last epoch's checkpoint and all that tells of it."""
    real = trainer.write_json

    def killed(path: Path, value: list[dict[str, Any]]) -> None:
        if len(value) == 3:
            raise KilledError
        real(path, value)

    with monkeypatch.context() as patch:
        patch.setattr(trainer, "write_json", killed)
        with pytest.raises(KilledError):
            run(tmp_path, problem(teacher=None), QUICK)
    assert len(json.loads((tmp_path / "history.json").read_text())) == 2
    history = run(tmp_path, problem(stop_at=0, teacher=None), QUICK).history
    assert len(history) == 3
    assert json.loads((tmp_path / "history.json").read_text()) == history
    assert logged(tmp_path) == expected_log(history)


def test_refuses_data_without_every_class(tmp_path: Path) -> None:
    data = split(9, 0)
    with pytest.raises(TrainingError, match="split valid has no usable utterance"):
        run(tmp_path, problem(valid=Split(data.mel[:0], data.answers[:0])))
    with pytest.raises(TrainingError, match="split train has no usable utterance of 2 of 3 labels"):
        run(tmp_path, problem(train=Split(data.mel[2:3], data.answers[2:3])))
    with pytest.raises(TrainingError, match="at least two"):
        run(tmp_path, problem(slots=(Slot("intent", ("left",)),)))


def test_teacher_head_separates_features() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(90, dtype=np.int64) % 3
    features = rng.normal(size=(90, 16)) * np.geomspace(0.01, 10, 16) + 5
    features[:, :3] += np.eye(3)[labels] * 0.2
    student = Student(DIMS)
    tensor = torch.from_numpy(features.astype(np.float32))
    teacher.train_head(student.head, tensor[:, None].clone(), labels[:, None], [3], 60, 0, silent)
    assert (student.head(tensor[:, None]).argmax(1).numpy() == labels).mean() > 0.97


def write_corpus(folder: Path) -> Path:
    """Three classes of tones in noise, 0.5 s each."""
    rng = np.random.default_rng(0)
    rows = []
    for number in range(36):
        label = number % 3
        time = np.arange(8000) / 16000
        tone = 8000 * np.sin(2 * np.pi * 400 * 2.0**label * time) + rng.normal(0, 300, 8000)
        name = f"{number}.wav"
        with wave.open(str(folder / name), "wb") as file:
            file.setparams((1, 2, 16000, 0, "NONE", ""))
            file.writeframes(tone.astype("<i2").tobytes())
        rows.append([name, LABELS[label], "valid" if number < 9 else "train"])
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])
    return folder / "manifest.csv"


def write_teacher(path: Path) -> None:
    """A random encoder of width 64 under openai-whisper's names."""
    rng = np.random.default_rng(0)
    d = 64
    shapes: dict[str, tuple[int, ...]] = {"conv1.weight": (d, 80, 3), "conv2.weight": (d, d, 3)}
    shapes |= {f"blocks.0.attn.{part}.weight": (d, d) for part in ("query", "key", "value", "out")}
    shapes |= {"blocks.0.mlp.0.weight": (4 * d, d), "blocks.0.mlp.2.weight": (d, 4 * d)}
    tensors = {name: rng.normal(size=shape) * 0.05 for name, shape in shapes.items()}
    biases = ["conv1", "conv2", "ln_post", "blocks.0.attn_ln", "blocks.0.mlp_ln", "blocks.0.mlp.2"]
    biases += [f"blocks.0.attn.{part}" for part in ("query", "value", "out")]
    tensors |= {f"{name}.bias": np.zeros(d) for name in biases}
    tensors["blocks.0.mlp.0.bias"] = np.zeros(4 * d)
    for name in ("ln_post", "blocks.0.attn_ln", "blocks.0.mlp_ln"):
        tensors[f"{name}.weight"] = np.ones(d)
    tensors["positional_embedding"] = rng.normal(size=(100, d)) * 0.1
    whole = {f"encoder.{name}": tensor.astype(np.float16) for name, tensor in tensors.items()}
    np.savez(path, **whole)


def corpus_config(folder: Path, fine_tune_epochs: int = 0) -> project.Config:
    tree = {
        "data": {"manifests": ["manifest.csv"]},
        "audio": {"window_s": 0.5},
        "student": {"preset": "d64x2"},
        "teacher": {"weights": "teacher.npz", "fine_tune_epochs": fine_tune_epochs},
        "train": {
            "warmup_epochs": 2,
            "cycles": 1,
            "distill_epochs": 1,
            "final_epochs": 1,
            "batch_size": 9,
            "threads": 1,
        },
    }
    return project.from_tree(tree, where="test", root=folder)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUADS_CACHE", str(tmp_path / "cache"))
    write_corpus(tmp_path)
    write_teacher(tmp_path / "teacher.npz")
    return tmp_path


@pytest.mark.parametrize("fine_tune_epochs", [0, 1])
def test_train_command(
    corpus: Path, fine_tune_epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = corpus_config(corpus, fine_tune_epochs)
    place = RunDir(corpus / "run")
    outcome = train.train(config, place, silent)
    assert outcome.slots == SLOTS
    assert outcome.teacher is not None and 0 <= outcome.teacher <= 1
    assert outcome.rows()[0][0] == "teacher"
    assert len(outcome.history) == 5
    mel = np.zeros((2, 50, 40), np.int8)
    assert evaluation.float_logits(place.path, mel).shape == (2, 3)
    quantized = (place.path / trainer.QUANTIZED_STUDENT).read_bytes()

    def never(*_: object) -> None:
        raise AssertionError("the teacher's outputs are cached")

    monkeypatch.setattr(teacher, "_compute", never)
    again = train.train(config, place, silent, resume=False)
    assert [e["loss"] for e in again.history] == [e["loss"] for e in outcome.history]
    assert (place.path / trainer.QUANTIZED_STUDENT).read_bytes() == quantized
    other = dataclasses.replace(config, train=dataclasses.replace(config.train, alpha=0.1))
    with pytest.raises(ConfigError, match=r"\[train\] alpha"):
        train.train(other, place, silent)
    # How many synthesized utterances an epoch has decides what a teacher becomes, not a frozen one.
    more = dataclasses.replace(config, train=dataclasses.replace(config.train, synth_ratio=3.0))
    if fine_tune_epochs:
        with pytest.raises(AssertionError, match="cached"):
            train.load_problem(more, silent)
    else:
        train.load_problem(more, silent)


def test_a_teacher_that_was_killed_goes_on_with_the_same_bits(
    corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = corpus_config(corpus, fine_tune_epochs=3)
    whole = train.load_problem(config, silent).teacher
    monkeypatch.setenv("QUADS_CACHE", str(corpus / "other"))
    steps: list[float] = []

    def killed(description: str, completed: float, total: float) -> None:
        silent(description, completed, total)
        if description.startswith("fine-tuning"):
            steps.append(completed)
            if completed > 2 * total / 3:
                raise KilledError

    with pytest.raises(KilledError):
        train.load_problem(config, killed)
    again: list[float] = []

    def counting(description: str, completed: float, total: float) -> None:
        assert description != "teacher features" or len(again) > 0, "the head is trained already"
        if description.startswith("fine-tuning"):
            again.append(completed)

    resumed = train.load_problem(config, counting).teacher
    assert again[0] == steps[-1] and len(steps) + len(again) == again[-1] + 1
    assert whole is not None and resumed is not None and whole.tuned and resumed.tuned
    for name, tensor in whole.tuned.items():
        np.testing.assert_array_equal(tensor, resumed.tuned[name], err_msg=name)
    np.testing.assert_array_equal(whole.logits, resumed.logits)
    assert not list((corpus / "other").glob("**/*unfinished*"))


@pytest.mark.parametrize("fine_tune_epochs", [0, 1])
def test_a_student_starts_from_what_the_teacher_became(
    corpus: Path, fine_tune_epochs: int, float32: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dimensions.PRESETS, "d64x1", dimensions.Preset(64, 1, 1))
    config = corpus_config(corpus, fine_tune_epochs)
    of_file = whisper.read_encoder(corpus / "teacher.npz")
    config = dataclasses.replace(
        config,
        audio=dataclasses.replace(config.audio, n_mels=80),
        student=project.StudentSection(preset="d64x1", init="teacher"),
    )
    for _ in range(2):  # The second time from the cache.
        problem = train.load_problem(config, silent)
        assert problem.teacher is not None and problem.initial is not None
        start = problem.initial["encoder.layers.0.query.weight"]
        unchanged = np.array_equal(start, of_file.tensors["layers.0.query.weight"])
        assert unchanged == (fine_tune_epochs == 0)
        student = Student(problem.dims)
        state = {name: torch.from_numpy(value) for name, value in problem.initial.items()}
        student.load_state_dict(state)
        with torch.no_grad():
            tokens, logits = student(real_mel(problem.train.mel))
        np.testing.assert_allclose(tokens.mean(dim=1), problem.teacher.features, atol=1e-4)
        np.testing.assert_allclose(logits, problem.teacher.logits, atol=1e-3)

    other = dataclasses.replace(config.train, seed=1)
    again = train.load_problem(dataclasses.replace(config, train=other), silent)
    assert again.fingerprint == problem.fingerprint
    orders = [
        np.concatenate([batch.rows for batch in p.batches(0, True)]) for p in (problem, again)
    ]
    assert not np.array_equal(*orders)
    section = dataclasses.replace(config.teacher, weights="")
    with pytest.raises(ConfigError, match=r"needs a teacher: set \[teacher\] weights"):
        train.load_problem(dataclasses.replace(config, teacher=section), silent)


@pytest.mark.parametrize("pooling", ["attention", "mean"])
def test_a_student_that_was_cut_begins_with_a_head_of_its_own(
    corpus: Path, pooling: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(dimensions.PRESETS, "d32x1", dimensions.Preset(32, 1, 1))
    config = corpus_config(corpus)
    config = dataclasses.replace(
        config,
        audio=dataclasses.replace(config.audio, n_mels=80),
        student=project.StudentSection(preset="d32x1", init="teacher.npz", pooling=pooling),
    )
    problem = train.load_problem(config, silent)
    assert problem.initial is not None
    assert problem.dims.pools == ((3,) if pooling == "attention" else ())
    student = Student(problem.dims)
    student.load_state_dict({n: torch.from_numpy(v) for n, v in problem.initial.items()})
    if pooling == "attention":
        assert student.head.query.shape == (1, 32) and student.head.query.abs().max() > 0
    with torch.no_grad():
        found = student(real_mel(problem.train.mel))[1].argmax(1).numpy()
    assert (found == problem.train.answers[:, 0]).mean() > 0.9

    def never(*_: object) -> None:
        raise AssertionError("the head is cached")

    monkeypatch.setattr(teacher, "fit_head", never)
    again = train.load_problem(config, silent)
    assert again.fingerprint == problem.fingerprint
    # Where every token is learned, the teacher's head answers.
    tokens = dataclasses.replace(config, train=dataclasses.replace(config.train, token_share=1.0))
    found_names = train.load_problem(tokens, silent).initial
    assert found_names and all(name.startswith("encoder.") for name in found_names)


def test_a_head_looks_at_as_many_clips_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    dims = dataclasses.replace(DIMS, pools=(3,))
    monkeypatch.setattr(teacher, "_HEAD_VALUES", 4 * dims.n_tokens * dims.d_model)
    seen: list[int] = []
    monkeypatch.setattr(teacher, "train_head", lambda head, tokens, *_: seen.append(len(tokens)))
    mel = np.zeros((9, dims.n_frames, dims.n_mels), np.int8)
    answers = np.array([[0]] * 6 + [[losses.NO_ANSWER]] * 3)
    teacher.fit_head(Student(dims), mel, answers, [3], 1, 0, silent)
    teacher.fit_head(Student(dims), mel[4:], answers[4:], [3], 1, 0, silent)
    teacher.fit_head(Student(DIMS), mel, answers, [3], 1, 0, silent)
    assert seen == [4, 2, 6]


def test_attention_pools_start_as_the_mean() -> None:
    torch.manual_seed(0)
    pooled = Student(dataclasses.replace(DIMS, pools=(2, 1)))
    plain = Student(DIMS)
    plain.load_state_dict({n: t for n, t in pooled.state_dict().items() if n != "head.query"})
    mel = torch.randn(4, DIMS.n_frames, DIMS.n_mels)
    for one, other in zip(pooled(mel), plain(mel), strict=True):
        torch.testing.assert_close(one, other)


def test_tokens_of_the_teacher_are_learned(corpus: Path) -> None:
    config = corpus_config(corpus)
    # The student has 40 mel bands, its teacher 80.
    config = dataclasses.replace(
        config,
        train=dataclasses.replace(
            config.train, token_share=1.0, alpha=1.0, warmup_epochs=8, cycles=0, final_epochs=0
        ),
        augment=project.AugmentSection(
            noise_probability=1, reverb_probability=0, gain_db=0, shift_s=0, speed=0
        ),
    )
    problem = train.load_problem(config, silent)
    assert problem.teacher_tokens is not None and problem.teacher is not None
    # What it hears varies as the student's window does, but has neither noise nor masks.
    n_frames, pcm = problem.dims.n_frames, data.load(config, silent).train.pcm
    clean = data.clean_features(pcm, 80, n_frames, silent)
    assert all(batch.heard is None for batch in problem.batches(3, False))
    for batch in problem.batches(3, True):
        np.testing.assert_array_equal(batch.heard, clean[batch.rows])
        assert (batch.mel != problem.train.mel[batch.rows]).mean() > 0.5
    whole = problem.teacher_tokens(real_mel(clean))
    assert whole.shape == (len(clean), problem.dims.n_tokens, 64) and not whole.requires_grad
    np.testing.assert_allclose(whole.mean(dim=1), problem.teacher.features, atol=1e-4)
    place = RunDir(corpus / "run")
    losses = [e["loss"] for e in train.train(config, place, silent).history]
    assert losses[-1] < 0.7 * losses[0]
    cropped = dataclasses.replace(config, train=dataclasses.replace(config.train, crop=True))
    shorter = [e["loss"] for e in train.train(cropped, RunDir(corpus / "cropped"), silent).history]
    assert shorter != losses and shorter[-1] < 0.7 * shorter[0]
    alone = dataclasses.replace(config, teacher=project.TeacherSection())
    with pytest.raises(ConfigError, match="token_share needs a teacher"):
        train.load_problem(alone, silent)


def test_cropped_windows_end_after_the_longest_utterance() -> None:
    rng = np.random.default_rng(0)
    n_frames, n_mels, samples = 300, 40, 48_000
    ends = rng.integers(4_000, samples, 203)
    pcm = rng.integers(-9_000, 9_000, (203, samples)).astype(np.int16)
    pcm[np.arange(samples) >= ends[:, None]] = 0
    no = np.zeros(203, bool)
    utterances = data.Utterances(pcm, np.zeros((203, 1), np.int64), no, no)
    config = project.Config(
        train=TrainSection(batch_size=4, crop=True),
        augment=project.AugmentSection(
            noise_probability=1, reverb_probability=0, shift_s=0, speed=0
        ),
    )
    batches = data.AugmentedBatches(utterances, config, [], n_mels, n_frames, 0, heard_mels=80)
    uncropped = list(batches(2, True, whole=True))
    whole: dict[int, tuple[Mel, Mel]] = {}
    for batch in uncropped:
        assert batch.heard is not None
        whole |= zip(batch.rows.tolist(), zip(batch.mel, batch.heard, strict=True), strict=True)
    assert sorted(whole) == list(range(203))
    assert {mel.shape for mel, _ in whole.values()} == {(n_frames, n_mels)}
    cropped = list(batches(2, True))
    assert len(cropped) == len(batches)
    rows = np.concatenate([batch.rows for batch in cropped])
    assert sorted(rows) == list(range(203)) and rows.tolist() != sorted(rows)
    for batch in cropped:
        # 160 samples per frame, 0.5 s after the end, whole tokens.
        end = min(300, 2 * int(np.ceil((ends[batch.rows].max() + 8_000) / 320)))
        assert batch.mel.shape == (len(batch.rows), end, n_mels)
        assert batch.heard is not None and batch.heard.shape[1:] == (end, 80)
        for row, mel, heard in zip(batch.rows.tolist(), batch.mel, batch.heard, strict=True):
            np.testing.assert_array_equal(mel, whole[row][0][:end])
            np.testing.assert_array_equal(heard, whole[row][1][:end])
    for batch, same in zip(batches(2, False), cropped, strict=True):
        np.testing.assert_array_equal(batch.mel, same.mel)
        assert batch.heard is None
    # Batches are filled by length: 2.3 s on average, where four taken at random need 2.8 s.
    assert np.mean([batch.mel.shape[1] for batch in cropped]) < 240


def test_cropped_windows_hold_what_variation_makes_of_an_utterance() -> None:
    """Slower, later, with reverberation: the varied window counts, not the recording's end."""
    pcm = np.zeros((40, 48_000), np.int16)
    pcm[:, 200:24_000] = np.random.default_rng(0).integers(-9_000, 9_000, (40, 23_800))
    no = np.zeros(40, bool)
    utterances = data.Utterances(pcm, np.zeros((40, 1), np.int64), no, no)
    varied = project.AugmentSection(reverb_probability=0.5, shift_s=0.2, speed=0.3)
    config = project.Config(train=TrainSection(batch_size=2, crop=True), augment=varied)
    batches = data.AugmentedBatches(utterances, config, [], 40, 300, 7, heard_mels=40)
    frames = set()
    for batch in batches(0, True):
        generators = [np.random.default_rng([7, 0, int(row)]) for row in batch.rows]
        augment = Augmenter(varied)
        clean = [augment.pair(pcm[r], g)[0] for r, g in zip(batch.rows, generators, strict=True)]
        last = max(int(np.flatnonzero(window)[-1]) for window in clean)
        end = min(300, 2 * int(np.ceil((last + 1 + 8_000) / 320)))
        assert batch.mel.shape[1] == end
        frames.add(end)
    assert len(frames) > 8 and max(frames) > 220


def test_an_encoder_takes_a_window_that_ends_earlier() -> None:
    short = dataclasses.replace(DIMS, n_frames=DIMS.n_frames - 8)
    torch.manual_seed(0)
    long_encoder, short_encoder = Encoder(DIMS), Encoder(short)
    state = long_encoder.state_dict() | {"positions": short_encoder.positions}
    short_encoder.load_state_dict(state)
    mel = torch.randn(2, short.n_frames, DIMS.n_mels)
    torch.testing.assert_close(long_encoder(mel), short_encoder(mel))


def test_unlabelled_speech_teaches_features_alone(corpus: Path) -> None:
    lines = (corpus / "manifest.csv").read_text().splitlines()
    # Half of the training rows lose their labels.
    bare = [line for line in lines[10::2] if line.endswith("train")]
    (corpus / "bare.csv").write_text("\n".join(["path,label,split", *bare]) + "\n")
    (corpus / "few.csv").write_text("\n".join(x for x in lines if x not in bare) + "\n")
    config = corpus_config(corpus)
    sources = project.DataSection(manifests=["few.csv"], unlabelled=["bare.csv"])
    config = dataclasses.replace(config, data=sources)
    problem = train.load_problem(config, silent)
    unanswered = (problem.train.answers == losses.NO_ANSWER).all(axis=1)
    assert unanswered.sum() == len(bare) == len(unanswered) - 13
    assert problem.teacher is not None and len(problem.teacher.features) == len(unanswered)
    seen = np.concatenate([batch.rows for batch in problem.batches(0, True)])
    assert unanswered[seen].sum() == 13 and len(seen) == 26
    outcome = train.train(config, RunDir(corpus / "run"), silent)
    assert all(np.isfinite(epoch["loss"]) for epoch in outcome.history)
    with pytest.raises(ConfigError, match="unlabelled needs a teacher"):
        train.load_problem(dataclasses.replace(config, teacher=project.TeacherSection()), silent)


def test_rows_without_an_answer_count_for_nothing() -> None:
    logits = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    answers = torch.tensor([[0, 1], [2, 0], [1, 1], [-1, -1], [-1, -1], [0, 0]])
    known = answers[:, 0] >= 0
    expected = losses.cross_entropy(logits[known], answers[known], [3, 2])
    assert torch.equal(losses.cross_entropy(logits, answers, [3, 2]), expected)
    assert losses.cross_entropy(logits[3:5], answers[3:5], [3, 2]) == 0


def test_train_command_refuses_an_unfit_whisper_file(corpus: Path) -> None:
    config = corpus_config(corpus)
    section = dataclasses.replace(config.student, init="teacher.npz")
    config = dataclasses.replace(config, student=section)
    with pytest.raises(TrainingError, match="80 mel bands, the student has 40"):
        train.train(config, RunDir(corpus / "run"), silent)
    section = dataclasses.replace(config.teacher, weights="none.npz")
    config = dataclasses.replace(config, student=project.StudentSection(), teacher=section)
    with pytest.raises(TrainingError, match=r"none\.npz: no such file"):
        train.train(config, RunDir(corpus / "run2"), silent)


@pytest.mark.parametrize(("wide", "narrow"), [(1280, 512), (384, 96), (384, 128), (64, 24), (8, 8)])
def test_dilated_pooling_is_the_authors(wide: int, narrow: int) -> None:
    """Spelled out: the largest of three features a dilation apart, every second one."""
    x = np.random.default_rng(0).normal(size=(2, 5, wide)).astype(np.float32)
    dilation = {1280: 128, 384: 96 if narrow == 96 else 64, 64: 8}.get(wide, 0)
    expected = x
    if wide != narrow:
        tops = np.maximum(x[..., : wide - 2 * dilation], x[..., dilation : wide - dilation])
        expected = np.maximum(tops, x[..., 2 * dilation :])[..., ::2]
    assert expected.shape[-1] == narrow
    found = teacher.dilated_pooling(torch.from_numpy(x), narrow)
    np.testing.assert_array_equal(found.numpy(), expected)


def test_dilated_pooling_refuses_less_than_half() -> None:
    with pytest.raises(TrainingError, match=r"384 features do not become 192.*\"linear\""):
        teacher.dilated_pooling(torch.zeros(1, 2, 384), 192)


def test_moving_average_is_the_mean_at_first_and_decays_later() -> None:
    student = Student(DIMS)
    average = Average(student, 0.75)
    values = [1.0, 3.0, 8.0, 2.0, 7.0, 4.0]
    expected = 0.0
    for step, value in enumerate(values, start=1):
        with torch.no_grad():
            student.head.bias.fill_(value)
        average.update(student)
        decay = min(0.75, (step - 1) / step)
        expected = decay * expected + (1 - decay) * value
        if step <= 4:
            assert expected == pytest.approx(np.mean(values[:step]))
    with average.shown(student):
        assert student.head.bias.tolist() == pytest.approx([expected] * 3)
    assert student.head.bias.tolist() == [4.0] * 3
    nothing = Average(student, 0.0)
    nothing.update(student)
    with nothing.shown(student):
        assert student.head.bias.tolist() == [4.0] * 3


def test_average_and_teachers_answers_survive_an_interruption(tmp_path: Path) -> None:
    settings = dataclasses.replace(SHORT, average=0.9, logit_share=0.5)
    whole = run(tmp_path / "whole", problem(), settings)
    with pytest.raises(KilledError):
        run(tmp_path / "killed", problem(stop_at=3), settings)
    again = run(tmp_path / "killed", problem(), settings)
    for name, tensor in whole.student.state_dict().items():
        assert torch.equal(tensor, again.student.state_dict()[name])
    for name, tensor in whole.average.state.items():
        assert torch.equal(tensor, again.average.state[name])
    floats = [
        trainer.read_student(tmp_path / f / trainer.FLOAT_STUDENT)[0] for f in ("whole", "killed")
    ]
    assert torch.equal(floats[0].head.weight, floats[1].head.weight)


def test_without_a_final_phase_codebooks_are_fitted_to_the_float_student(tmp_path: Path) -> None:
    loop = run(tmp_path, problem(), dataclasses.replace(SHORT, final_epochs=0))
    floating = trainer.read_student(tmp_path / trainer.FLOAT_STUDENT)[0]
    assert loop.codebooks is not None and loop.grids
    fitted = Codebooks.fit(floating, uniform(DIMS, 4))
    stored = load_file(tmp_path / trainer.QUANTIZED_STUDENT)
    np.testing.assert_array_equal(
        stored["codebook.conv2.centroids"], fitted.centroids["conv2"].detach().numpy()
    )
    again = run(tmp_path, problem(), dataclasses.replace(SHORT, final_epochs=0))
    assert again.selections == loop.selections


def test_accuracy_by_bits_is_that_of_fitted_codebooks(tmp_path: Path) -> None:
    """Each weight goes to the nearest centroid, spelled out on the student that was kept."""
    settings = dataclasses.replace(SHORT, distill_epochs=1)
    history = run(tmp_path, problem(), settings).history
    assert ["valid_by_bits" in entry for entry in history] == [0, 1, 1, 0, 0, 0]
    assert history[1]["valid_by_bits"]["4"] == history[1]["valid_quantized"]
    student = trainer.read_student(tmp_path / trainer.FLOAT_STUDENT)[0]
    weights = {name: latent.detach().clone() for name, latent in latents(student).items()}
    valid = split(30, 3)
    expected = {}
    for bits in (8, 4, 3, 2):
        for name, latent in latents(student).items():
            centroids = torch.from_numpy(codebook.fit(weights[name].numpy(), bits))
            nearest = (weights[name].flatten()[:, None] - centroids).abs().argmin(1)
            with torch.no_grad():
                latent.copy_(centroids[nearest].view(latent.shape))
        with torch.no_grad():
            answers = student(real_mel(valid.mel))[1].argmax(1).numpy()
        expected[str(bits)] = float((answers == valid.answers[:, 0]).mean())
    assert history[2]["valid_by_bits"] == pytest.approx(expected)


def logged(folder: Path) -> dict[str, dict[int, float]]:
    """Read a TensorBoard log back: tag -> step -> value; no step twice."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / trainer.TENSORBOARD))
    found.Reload()
    scalars = {tag: found.Scalars(tag) for tag in found.Tags()["scalars"]}
    values = {tag: {event.step: event.value for event in s} for tag, s in scalars.items()}
    assert all(len(values[tag]) == len(s) for tag, s in scalars.items())
    return values


def expected_log(history: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, float]] = {}
    for entry in history:
        for name in ("loss", "valid_float", "valid_quantized"):
            tag = f"{name}/{entry['phase']}"
            found.setdefault(tag, {})[entry["epoch"]] = float(np.float32(entry[name]))
        for bits, value in entry.get("valid_by_bits", {}).items():
            tag = f"valid_by_bits/{bits}"
            found.setdefault(tag, {})[entry["epoch"]] = float(np.float32(value))
    return found


def test_tensorboard_log_is_the_history(tmp_path: Path) -> None:
    loop = run(tmp_path, problem())
    found = logged(tmp_path)
    assert found == expected_log(loop.history)
    assert sorted(found["loss/distillation"]) == [2, 3]
    assert sorted(found["valid_by_bits/2"]) == [1, 3]
    files = sorted((tmp_path / trainer.TENSORBOARD).iterdir())
    run(tmp_path, problem())
    assert sorted((tmp_path / trainer.TENSORBOARD).iterdir()) == files


def test_tensorboard_log_of_interrupted_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed in an epoch, then between an epoch's checkpoint and its log."""
    with pytest.raises(KilledError):
        run(tmp_path, problem(stop_at=3))
    assert logged(tmp_path) == expected_log(json.loads((tmp_path / "history.json").read_text()))
    (first,) = (tmp_path / trainer.TENSORBOARD).iterdir()
    before = first.read_bytes()

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(tensorboard.Log, "_append", killed)
        patch.setattr(tensorboard, "warn", killed)
        with pytest.raises(KilledError):
            run(tmp_path, problem())
    assert 3 not in logged(tmp_path)["loss/distillation"]
    assert len(json.loads((tmp_path / "history.json").read_text())) == 4
    history = run(tmp_path, problem()).history
    assert logged(tmp_path) == expected_log(history)
    assert first.read_bytes() == before


def test_tensorboard_log_of_an_epoch_trained_again(tmp_path: Path) -> None:
    """The checkpoint was lost, as on a machine without power, and the epoch ends otherwise now."""
    entry = {"phase": "final", "valid_float": 0.5, "valid_quantized": 0.5}
    history = [entry | {"epoch": epoch, "loss": 2.0 - epoch} for epoch in range(4)]
    log = tensorboard.Log(tmp_path / trainer.TENSORBOARD)
    for n in (1, 2, 3):
        log.write(history[:n])
    history[2]["loss"] = 7.0
    log = tensorboard.Log(tmp_path / trainer.TENSORBOARD)
    for n in (2, 3, 4):
        log.write(history[:n])
    assert logged(tmp_path) == expected_log(history)
    files = sorted((tmp_path / trainer.TENSORBOARD).iterdir())
    assert len(files) == 2
    assert files[1].stat().st_size < files[0].stat().st_size, "what was logged is not again"


def test_without_tensorboard_nothing_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        for name in ("tensorboard", "tensorboard.compat.proto"):
            patch.setitem(sys.modules, name, None)
        with pytest.raises(KilledError):
            run(tmp_path, problem(stop_at=2))
    assert not (tmp_path / trainer.TENSORBOARD).exists()
    assert logged_after(tmp_path) == set(range(7))


def logged_after(folder: Path) -> set[int]:
    """Train to the end, with the package; return the steps that have a loss."""
    run(folder, problem())
    losses = [values for tag, values in logged(folder).items() if tag.startswith("loss/")]
    return {step for values in losses for step in values}


def test_tensorboard_log_that_cannot_be_written_does_not_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(tensorboard, "warn", warnings.append)
    place = tmp_path / trainer.TENSORBOARD
    place.write_text("a file in the folder's place")
    loop = run(tmp_path, problem(teacher=None), QUICK)
    assert len(loop.history) == 3
    assert len(warnings) == 1 and "TensorBoard's log cannot be written: " in warnings[0]
    place.unlink()
    run(tmp_path, problem(stop_at=0, teacher=None), QUICK)
    assert logged(tmp_path) == expected_log(loop.history)
    assert len(warnings) == 1


def test_tensorboard_log_on_a_disk_that_becomes_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    monkeypatch.setattr(tensorboard, "warn", warnings.append)
    real = tensorboard.Log._append
    sizes: list[int] = []

    def full(self: tensorboard.Log, data: bytes) -> None:
        sizes.append(len(data))
        if len(sizes) > 1:
            real(self, data[:-5])
            raise OSError(errno.ENOSPC, "No space left on device")
        real(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(tensorboard.Log, "_append", full)
        loop = run(tmp_path, problem(teacher=None), QUICK)
    assert len(loop.history) == 3
    assert len(sizes) == 2
    assert len(warnings) == 1 and "No space left" in warnings[0]
    assert set(logged(tmp_path)["loss/warm-up"]) == {0}
    run(tmp_path, problem(stop_at=0, teacher=None), QUICK)
    assert logged(tmp_path) == expected_log(loop.history)


def test_a_full_disk_is_told_of_whatever_the_log_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoint first: the log takes no space from it, and what fails is the checkpoint's."""

    real = checkpoint.write

    def full(path: Path, *rest: Any) -> None:
        if path.name == trainer.CHECKPOINT:
            raise StorageError(f"{path}: no space")
        real(path, *rest)

    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.raises(StorageError, match=r"checkpoint\.safetensors: no space"):
        run(tmp_path, problem(teacher=None), QUICK)
    assert not (tmp_path / trainer.TENSORBOARD).exists()


def test_tensorboard_log_does_without_tensorflow(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom quads_mcu.training.tensorboard import Log\n"
        "entry = dict(epoch=0, phase='final', loss=1.0, valid_float=1.0, valid_quantized=1.0)\n"
        "Log(Path(sys.argv[1])).write([entry])\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(list((tmp_path / "log").iterdir())) == 1
