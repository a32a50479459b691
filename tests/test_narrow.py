"""Students cut from a larger Whisper encoder: the parts against numpy, the whole on a task."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from silent import counted
from test_whisper_weights import openai, transformers

from quads_mcu.errors import TrainingError
from quads_mcu.model.dimensions import Dimensions, Preset
from quads_mcu.model.encoder import Encoder
from quads_mcu.model.whisper import Weights, WhisperEncoder, read_encoder
from quads_mcu.slots import Slot
from quads_mcu.training import narrow
from quads_mcu.training.problem import Batch, Problem, Split, real_mel

MELS, FRAMES = 8, 24
WIDE = Dimensions(MELS, FRAMES, 64, 2, 3, 2)
SMALL = Dimensions(MELS, FRAMES, 32, 1, 2, 2)


def whisper_like(seed: int = 0, dims: Dimensions = WIDE) -> WhisperEncoder:
    """A wide encoder whose stream has few strong directions, as a trained one has."""
    torch.manual_seed(seed)
    state = Encoder(dims).state_dict()
    d = dims.d_model
    strong = torch.linalg.qr(torch.randn(d, d)).Q * torch.logspace(1, -2, d)
    for name, tensor in state.items():
        if name.endswith(("output.weight", "feed_forward_2.weight")):
            state[name] = strong @ tensor
    preset = Preset(d, dims.n_heads, dims.n_layers)
    return WhisperEncoder(preset, dims.n_mels, {n: t.numpy() for n, t in state.items()})


def clips(n: int = 40, seed: int = 1) -> np.ndarray:
    """Smooth random spectra."""
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 12, (n, FRAMES, MELS)).cumsum(axis=1)
    return np.clip(steps - 40, -128, 127).astype(np.int8)


def tokens(state: dict[str, np.ndarray], dims: Dimensions, mel: np.ndarray) -> np.ndarray:
    encoder = Encoder(dims)
    encoder.load_state_dict({name: torch.from_numpy(value) for name, value in state.items()})
    with torch.no_grad():
        return encoder(real_mel(mel)).flatten(0, 1).numpy()


def predictable(inputs: np.ndarray, wanted: np.ndarray) -> float:
    """Share of the variance of `wanted` that a linear map of `inputs` gives, on unseen rows."""
    half = len(inputs) // 2
    x = np.hstack([inputs, np.ones((len(inputs), 1))])
    gram = x[:half].T @ x[:half]
    gram += 1e-3 * np.trace(gram) / len(gram) * np.eye(len(gram))
    found = x[half:] @ np.linalg.solve(gram, x[:half].T @ wanted[:half])
    rest = wanted[half:] - found
    return float(1 - rest.var(axis=0).sum() / wanted[half:].var(axis=0).sum())


def test_cut_keeps_what_the_wide_encoder_knows() -> None:
    whisper = whisper_like()
    mel, unseen = clips(), clips(240, 2)
    cut = narrow.narrowed(whisper, SMALL, mel, 0, counted)
    torch.manual_seed(3)
    random = {name: tensor.numpy() for name, tensor in Encoder(SMALL).state_dict().items()}
    wanted = tokens(whisper.state(WIDE.n_tokens), WIDE, unseen)
    kept = predictable(tokens(cut, SMALL, unseen), wanted)
    chance = predictable(tokens(random, SMALL, unseen), wanted)
    assert 1 - kept < 0.4 * (1 - chance)


def test_a_cut_depends_on_its_seed_alone() -> None:
    whisper, mel = whisper_like(), clips()
    first, again, other = (narrow.narrowed(whisper, SMALL, mel, s, counted) for s in (0, 0, 1))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["conv2.weight"], other["conv2.weight"])


def test_the_narrow_stream_has_no_mean() -> None:
    """LayerNorm takes the mean away: nothing may hide in it."""
    generator = torch.Generator().manual_seed(0)
    wide = Encoder(WIDE)
    wide.load_state_dict(
        {n: torch.from_numpy(t) for n, t in whisper_like().state(WIDE.n_tokens).items()}
    )
    cut = narrow._principal_cut(wide, real_mel(clips()), 32, generator)
    down = cut.down.detach().numpy()
    np.testing.assert_allclose(down.sum(axis=0), 0, atol=1e-5)
    singular = np.linalg.svd(down, compute_uv=False)
    np.testing.assert_allclose(singular[:31], 1, atol=1e-4)
    assert singular[31] < 1e-4


def test_narrow_products_are_the_best_of_their_rank() -> None:
    """Against numpy's truncated SVD of the matrix of all products (Eckart-Young)."""
    rng = np.random.default_rng(0)
    q = rng.normal(size=(1, 50, 8)) @ rng.normal(size=(8, 8))
    k = rng.normal(size=(1, 60, 8)) @ rng.normal(size=(8, 8))
    left, right = narrow._narrow_products(
        torch.from_numpy(q).float(), torch.from_numpy(k).float(), 5
    )
    centred = k[0] - k[0].mean(axis=0)
    found = (q[0] @ left.numpy().T) @ (centred @ right.numpy().T).T
    u, s, vh = np.linalg.svd(q[0] @ centred.T, full_matrices=False)
    np.testing.assert_allclose(found, (u[:, :5] * s[:5]) @ vh[:5], atol=1e-3 * s[0])


def test_least_squares() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 6)).astype(np.float32), rng.normal(size=(200, 3))
    weight, bias = narrow._least_squares(torch.from_numpy(x), torch.from_numpy(y))
    design = np.hstack([x, np.ones((200, 1))])
    expected = np.linalg.lstsq(design, y, rcond=None)[0]
    np.testing.assert_allclose(weight.numpy(), expected[:-1].T, atol=1e-3)
    np.testing.assert_allclose(bias.numpy(), expected[-1], atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 96, "n_heads": 3}, "d_model = 96 is above the Whisper file's 64"),
        ({"n_layers": 4}, "n_layers = 4 is above the Whisper file's 3"),
        ({"d_model": 64, "n_heads": 4}, "n_heads = 4 is above the Whisper file's 2"),
    ],
)
def test_refuses_what_is_larger(changes: dict[str, int], message: str) -> None:
    dims = dataclasses.replace(SMALL, **changes)
    with pytest.raises(TrainingError, match=message):
        narrow.narrowed(whisper_like(), dims, clips(4), 0, counted)


def problem(dims: Dimensions, mel: np.ndarray) -> Problem:
    def batches(epoch: int, distills: bool, *, whole: bool = False) -> Iterator[Batch]:
        raise AssertionError(epoch)

    split = Split(mel, np.zeros((len(mel), 1), np.int64))
    return Problem(dims, (Slot("intent", ("a", "b")),), split, split, batches, 1)


def whisper_file(path: Path, n_mels: int, d: int, layers: int, positions: int = 20) -> None:
    """An encoder file in transformers' names, weights of deviation 0.1."""
    sizes = {"n_mels": n_mels, "d": d, "layers": layers, "positions": positions}
    tensors = transformers(openai(np.float32, **sizes))
    save_file({name: tensor / np.float32(10) for name, tensor in tensors.items()}, path)


def test_initial_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUADS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "w.safetensors"
    whisper_file(path, 80, 128, 2)
    rng = np.random.default_rng(0)
    mel = rng.integers(-128, 128, (6, 20, 80)).astype(np.int8)
    equal = Dimensions(80, 20, 128, 2, 2, 3)

    def start(task: Problem) -> Weights:
        return narrow.initial_state(read_encoder(path), path.name, task, 0, counted)

    state = start(problem(equal, mel))
    assert state["positions"].shape == (10, 128) and not (tmp_path / "cache").exists()

    smaller = Dimensions(80, 20, 64, 1, 1, 3)
    cut = start(problem(smaller, mel))
    assert cut["positions"].shape == (10, 64) and "layers.1.query.weight" not in cut

    def never(*arguments: object) -> None:
        raise AssertionError("cut a second time")

    monkeypatch.setattr(narrow, "narrowed", never)
    again = start(problem(smaller, mel))
    assert all(np.array_equal(cut[name], again[name]) for name in cut)
    with pytest.raises(AssertionError, match="a second time"):
        start(problem(smaller, mel[:5]))
    with pytest.raises(TrainingError, match="was trained on 80 mel bands, the student has 40"):
        start(problem(Dimensions(40, 20, 64, 1, 1, 3), mel))
    with pytest.raises(TrainingError, match="100 encoder positions, the Whisper file 20"):
        start(problem(dataclasses.replace(equal, n_frames=200), mel))
