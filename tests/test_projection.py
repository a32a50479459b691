"""The map from a student's features to its teacher's, and the teacher's head behind it."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from silent import silent
from torch import Tensor, nn

from quads_mcu.config import QuantizationSection, TrainSection
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Head, Student
from quads_mcu.slots import Slot
from quads_mcu.training import projection, trainer
from quads_mcu.training.problem import Batch, Problem, Split, TeacherOutputs, real_mel

pytestmark = pytest.mark.usefixtures("one_thread")

DIMS = Dimensions(8, 12, 16, 2, 1, 5)
CLIPS = 80
WIDTH = 24
SETTINGS = TrainSection(
    warmup_epochs=2,
    cycles=1,
    distill_epochs=1,
    quant_epochs=1,
    final_epochs=1,
    alpha=0.9,
    token_share=1.0,
)


def least_squares(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Weights, and the bias as the last row: (n_in + 1, n_out)."""
    return np.linalg.lstsq(np.hstack([x, np.ones((len(x), 1))]), y, rcond=None)[0]


def head_of(dims: Dimensions, seed: int) -> Head:
    torch.manual_seed(seed)
    head = Head(dims)
    for parameter in head.parameters():
        nn.init.normal_(parameter)
    return head.requires_grad_(False)


def test_fitted_to_features_it_is_the_least_squares() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 5, 16)) + 3
    y = x @ rng.normal(size=(16, WIDTH)) + rng.normal(size=(40, 5, WIDTH)) - 1
    linear = nn.Linear(16, WIDTH)
    tensors = (torch.from_numpy(values).float() for values in (x, y))
    projection.fit(linear, zip(*tensors, strict=True))
    wanted = least_squares(x.reshape(-1, 16), y.reshape(-1, WIDTH))
    found = np.vstack([linear.weight.detach().numpy().T, linear.bias.detach().numpy()])
    np.testing.assert_allclose(found, wanted, atol=5e-3)


def test_enough_features_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "_ROWS", 50)
    taken = []

    def pairs() -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(100):
            taken.append(20)
            yield torch.randn(4, 5, 8), torch.randn(4, 5, 16)

    projection.fit(nn.Linear(8, 16), pairs())
    assert len(taken) == 3


@pytest.mark.parametrize("pools", [(), (3, 2)])
@pytest.mark.parametrize("width", [16, WIDTH])
def test_a_folded_head_answers_as_the_teachers_behind_the_projection(
    pools: tuple[int, ...], width: int
) -> None:
    dims = dataclasses.replace(DIMS, pools=pools)
    head = head_of(dataclasses.replace(dims, d_model=width), 1)
    linear = projection.projection(dims.d_model, width)
    own = head_of(dims, 2)
    projection.fold(head, linear, own)
    tokens = 3 * torch.randn(7, 6, dims.d_model)
    # In float64: pools are sharp, scores large.
    with torch.no_grad():
        wanted = head.double()(linear.double()(tokens.double()))
        found = own.double()(tokens.double())
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-4)


def task(seed: int) -> tuple[Problem, Head]:
    """Two slots, a wider teacher that hears every token, a student that starts from something."""
    dims = dataclasses.replace(DIMS, pools=(3, 2))
    rng = np.random.default_rng(seed)
    mel = rng.integers(-100, 60, (CLIPS, dims.n_frames, dims.n_mels)).astype(np.int8)
    answers = np.stack([np.arange(CLIPS) % 3, np.arange(CLIPS) % 2], axis=1).astype(np.int64)
    torch.manual_seed(seed)
    wide = Student(dataclasses.replace(dims, d_model=WIDTH)).requires_grad_(False)
    wide.head.load_state_dict(head_of(wide.dims, seed).state_dict())
    tokens, logits = wide(real_mel(mel))
    weights = {f"head.{name}": value.numpy() for name, value in wide.head.state_dict().items()}
    own = Student(dims).encoder.state_dict()

    def batches(epoch: int, distills: bool, *, whole: bool = False) -> Iterator[Batch]:
        order = np.random.default_rng([seed, epoch]).permutation(CLIPS)
        for rows in order.reshape(5, 16):
            yield Batch(rows, mel[rows], mel[rows] if distills else None)

    data = Split(mel, answers)
    whole = Problem(
        dims,
        (Slot("drink", ("tea", "milk", "water")), Slot("size", ("small", "large"))),
        data,
        data,
        batches,
        5,
        TeacherOutputs(tokens.mean(dim=1).numpy(), logits.numpy(), 1.0, weights),
        lambda mel: wide.encoder(mel),
        {f"encoder.{name}": value.numpy() for name, value in own.items()},
        "data",
    )
    return whole, wide.head


def with_deaf_teacher(problem: Problem) -> Problem:
    """Return a problem whose teacher fails; without a start, for nothing is fitted to it then."""

    def listen(mel: Tensor) -> Tensor:
        raise RuntimeError("deaf")

    return dataclasses.replace(problem, teacher_tokens=listen, initial=None)


def started(problem: Problem, folder: Path, **changes: Any) -> trainer.Trainer:
    settings = dataclasses.replace(SETTINGS, **changes)
    return trainer.Trainer(problem, settings, QuantizationSection(), 0, folder)


@pytest.mark.parametrize("tokens", [True, False])
def test_training_starts_from_a_fitted_projection(tmp_path: Path, tokens: bool) -> None:
    problem, _ = task(3)
    teacher = problem.teacher
    assert teacher is not None and problem.teacher_tokens is not None
    listen = problem.teacher_tokens
    if not tokens:
        problem = dataclasses.replace(problem, teacher_tokens=None)
    loop = started(problem, tmp_path)
    mel = real_mel(problem.train.mel)
    with torch.no_grad():
        own = loop.student.encoder(mel)
        x, y = (own, listen(mel)) if tokens else (own.mean(1), torch.from_numpy(teacher.features))
        left = (loop.projection(x) - y).square().mean()
    x, y = x.flatten(0, -2).double(), y.flatten(0, -2).double()
    best = torch.from_numpy(least_squares(x.numpy(), y.numpy()))
    least = (x @ best[:-1] + best[-1] - y).square().mean()
    spread = (y - y.mean(0)).square().mean()
    assert least <= left * 1.001 and left - least < 0.02 * spread


def test_a_student_without_knowledge_starts_from_a_random_projection(tmp_path: Path) -> None:
    problem, _ = task(3)
    loop = started(dataclasses.replace(problem, initial=None), tmp_path)
    assert isinstance(loop.projection, nn.Linear)
    assert loop.projection.weight.abs().max() <= DIMS.d_model**-0.5


def test_a_student_of_every_token_answers_through_the_teachers_head(tmp_path: Path) -> None:
    problem, head = task(4)
    loop = started(problem, tmp_path)
    mel = real_mel(problem.train.mel)
    weights = []

    def check(description: str, completed: float, total: float) -> None:
        if description != "training" or completed >= SETTINGS.warmup_epochs:
            return
        with torch.no_grad():
            tokens = loop.student.encoder(mel)
            wanted = head(loop.projection(tokens))
            torch.testing.assert_close(loop.student.head(tokens), wanted, atol=1e-4, rtol=1e-4)
        weights.append(loop.student.head.weight.detach().clone())

    loop.run(check)
    steps = SETTINGS.warmup_epochs * problem.n_batches
    assert len(weights) > steps and (weights[-1] - weights[0]).abs().max() > 1e-3


def test_the_teacher_listens_beside_the_student_with_half_of_the_threads(tmp_path: Path) -> None:
    problem, _ = task(6)
    listen = problem.teacher_tokens
    assert listen is not None
    threads: list[tuple[int, bool]] = []

    def listening(mel: Tensor) -> Tensor:
        beside = threading.current_thread() is not threading.main_thread()
        threads.append((torch.get_num_threads(), beside))
        return listen(mel)

    loop = started(dataclasses.replace(problem, teacher_tokens=listening), tmp_path)
    torch.set_num_threads(4)  # The fixture sets back what there was.
    distilling, quantizing = loop.epochs[0], loop.epochs[-1]
    threads.clear()
    batches = 0
    plain = problem.batches(distilling.number, True)
    for batch, other in zip(loop._batches(distilling), plain, strict=True):
        assert torch.get_num_threads() == 2
        assert other.heard is not None and batch.tokens is not None
        np.testing.assert_array_equal(batch.mel, other.mel)
        torch.testing.assert_close(batch.tokens, listen(real_mel(other.heard)))
        batches += 1
    assert batches == problem.n_batches and threads == batches * [(2, True)]
    assert torch.get_num_threads() == 4
    assert all(batch.tokens is None for batch in loop._batches(quantizing))
    with pytest.raises(RuntimeError, match="deaf"):
        for _ in started(with_deaf_teacher(problem), tmp_path / "deaf")._batches(distilling):
            pass
    assert torch.get_num_threads() == 4


@pytest.mark.parametrize("logit_share", [0.0, 1.0])
def test_the_answers_teach_encoder_and_projection_through_the_teachers_head(
    tmp_path: Path, float32: None, logit_share: float
) -> None:
    problem, head = task(6)
    loop = started(problem, tmp_path, alpha=0.0, logit_share=logit_share)
    batch = next(loop._batches(loop.epochs[0]))
    loop._loss(loop.epochs[0], batch).backward()  # type: ignore[no-untyped-call]
    encoder, linear = copy.deepcopy((loop.student.encoder, loop.projection))
    for parameter in (*encoder.parameters(), *linear.parameters()):
        parameter.grad = None
    scores = head(linear(encoder(real_mel(batch.mel))))
    wanted = torch.zeros(())
    answers, taught = torch.from_numpy(problem.train.answers[batch.rows]), problem.teacher
    assert taught is not None
    told = torch.from_numpy(taught.logits[batch.rows])
    for slot, columns in enumerate((slice(0, 3), slice(3, 5))):
        own = torch.log_softmax(scores[:, columns] / (2 if logit_share else 1), dim=1)
        if logit_share:
            other = torch.softmax(told[:, columns] / 2, dim=1)
            wanted = wanted + 4 * (other * (other.log() - own)).sum(dim=1).mean()
        else:
            wanted = wanted - own[torch.arange(len(own)), answers[:, slot]].mean()
    wanted.backward()  # type: ignore[no-untyped-call]
    pairs = [*zip(loop.student.encoder.parameters(), encoder.parameters(), strict=True)]
    pairs += zip(loop.projection.parameters(), linear.parameters(), strict=True)
    for found, right in pairs:
        assert found.grad is not None and right.grad is not None and right.grad.abs().max() > 0
        torch.testing.assert_close(found.grad, right.grad, atol=1e-4, rtol=1e-3)


def test_a_student_as_wide_as_its_teacher_keeps_the_teachers_head(tmp_path: Path) -> None:
    problem, _ = task(7)
    wide = Student(dataclasses.replace(problem.dims, d_model=WIDTH))
    names = {f"encoder.{name}": value.numpy() for name, value in wide.encoder.state_dict().items()}
    loop = started(dataclasses.replace(problem, dims=wide.dims, initial=names), tmp_path, cycles=0)
    assert problem.teacher is not None
    given = torch.from_numpy(problem.teacher.head["head.weight"])
    torch.testing.assert_close(loop.student.head.weight.detach(), given, atol=0, rtol=0)
    seen = []
    loop.run(lambda *_: seen.append(loop.student.head.weight.detach().clone()))
    assert torch.equal(seen[2], given) and not torch.equal(seen[-1], given)


def test_too_few_clips_leave_the_projection_random(tmp_path: Path) -> None:
    problem, _ = task(3)

    def few(epoch: int, distills: bool, *, whole: bool = False) -> Iterator[Batch]:
        yield next(iter(problem.batches(epoch, distills, whole=whole)))

    fewer = dataclasses.replace(problem, batches=few, n_batches=1, teacher_tokens=None)
    loop = started(fewer, tmp_path)
    assert isinstance(loop.projection, nn.Linear)
    assert loop.projection.weight.abs().max() <= DIMS.d_model**-0.5


def test_an_interrupted_run_goes_on_behind_the_teachers_head(tmp_path: Path) -> None:
    problem, _ = task(5)
    whole = started(problem, tmp_path / "whole")
    whole.run(silent)

    class KilledError(Exception):
        pass

    def stopping(epoch: int, distills: bool, *, whole: bool = False) -> Iterator[Batch]:
        if epoch == 2:
            raise KilledError
        return problem.batches(epoch, distills, whole=whole)

    with pytest.raises(KilledError):
        started(dataclasses.replace(problem, batches=stopping), tmp_path / "cut").run(silent)
    again = started(problem, tmp_path / "cut")
    assert len(again.history) == 2
    again.run(silent)
    for name, value in whole.student.state_dict().items():
        assert torch.equal(again.student.state_dict()[name], value), name
