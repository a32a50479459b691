"""Bits per matrix under a byte budget, codebooks with channel scales, empty clusters."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from silent import counted, silent
from tiny_run import tiny_config

from quads_mcu import model_format
from quads_mcu.config import QuantizationSection
from quads_mcu.errors import TrainingError
from quads_mcu.export.pack import pack
from quads_mcu.model import codebook
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.model.encoder import Student
from quads_mcu.model_format import BITS, linear_shapes
from quads_mcu.run_dir import RunDir
from quads_mcu.training import bits, train
from quads_mcu.training.codebooks import Codebooks, latents, parameter_name

DIMS = Dimensions(8, 12, 16, 2, 1, 3)


def random_sensitivity(seed: int) -> dict[str, dict[int, float]]:
    """Falls fourfold or so per bit, by matrix more or less."""
    rng = np.random.default_rng(seed)
    return {
        name: {b: float(rng.uniform(0.5, 2) * scale * 4.0**-b) for b in BITS}
        for name, scale in zip(linear_shapes(DIMS), rng.lognormal(0, 2, 9), strict=True)
    }


@pytest.mark.parametrize("seed", range(4))
def test_allocation_is_near_the_best_of_all(seed: int) -> None:
    """Against every one of the 4**9 allocations."""
    table = random_sensitivity(seed)
    names = list(table)
    shapes = linear_shapes(DIMS)
    packed = {n: [shapes[n][0] * -(-shapes[n][1] * b // 8) + 2**b for b in BITS] for n in names}
    fixed = bits.packed_bytes(DIMS, dict.fromkeys(names, 2))
    fixed -= sum(packed[name][BITS.index(2)] for name in names)
    every = np.array(list(itertools.product(range(len(BITS)), repeat=len(names))))
    sizes = fixed + sum(np.array(packed[n])[every[:, i]] for i, n in enumerate(names))
    losses = sum(np.array([table[n][b] for b in BITS])[every[:, i]] for i, n in enumerate(names))
    for share in (0.2, 0.5, 0.8):
        budget = int(np.quantile(sizes, share))
        found = bits.allocate(DIMS, table, budget)
        assert bits.packed_bytes(DIMS, found) <= budget
        loss = sum(table[name][found[name]] for name in names)
        worst = sum(options[2] for options in table.values())
        best = losses[sizes <= budget].min()
        assert loss - best <= 0.02 * (worst - best)


def test_allocation_ends() -> None:
    table = random_sensitivity(0)
    least = bits.packed_bytes(DIMS, dict.fromkeys(table, 2))
    assert set(bits.allocate(DIMS, table, least).values()) == {2}
    assert set(bits.allocate(DIMS, table, 1 << 30).values()) == {8}
    with pytest.raises(TrainingError, match=rf"= {least - 1}: at 2 bits everywhere.*{least} bytes"):
        bits.allocate(DIMS, table, least - 1)


def test_sensitivity_finds_the_matrix_that_matters() -> None:
    """A matrix whose output is multiplied by zero afterwards may be as coarse as it likes."""
    torch.manual_seed(0)
    student = Student(DIMS)
    with torch.no_grad():
        student.encoder.layers[0].feed_forward_2.weight.zero_()
    mel = torch.randn(20, DIMS.n_frames, DIMS.n_mels)
    found = bits.sensitivity(student, mel, counted)
    assert set(found) == set(linear_shapes(DIMS))
    assert found["layers.0.feed_forward_1"][2] < 1e-9
    for name, options in found.items():
        if not name.startswith("layers.0.feed_forward"):
            assert options[2] > 4 * options[8] > 0, name
    chosen = bits.choose(student, mel, QuantizationSection(budget_bytes=3600), counted)
    assert chosen["layers.0.feed_forward_1"] == 2 < chosen["conv1"]


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("channel_scales", [False, True])
def test_the_packed_file_keeps_to_the_budget(channel_scales: bool, tmp_path: Path) -> None:
    budget = 60_000
    config = tiny_config(tmp_path)
    settings = QuantizationSection(budget_bytes=budget, channel_scales=channel_scales)
    short = dataclasses.replace(config.train, warmup_epochs=1, cycles=0)
    config = dataclasses.replace(config, train=short, quantization=settings)
    run = RunDir(tmp_path / "run")
    train.train(config, run, silent)
    model_format.write(pack(run.path), run.model_path)
    weighed = sum(value.nbytes for value in load_file(run.model_path).values())
    assert 0.97 * budget < weighed <= budget


def test_sensitivity_is_that_of_the_codebooks_that_are_trained() -> None:
    """Rows of very different size: what a scale per row mends must not count."""
    torch.manual_seed(0)
    student = Student(DIMS)
    with torch.no_grad():
        rows = torch.logspace(-2, 0, DIMS.d_ff)[:, None]
        student.encoder.layers[0].feed_forward_1.weight.mul_(rows)
    mel = torch.randn(20, DIMS.n_frames, DIMS.n_mels)
    alone, scaled = (
        bits.sensitivity(student, mel, counted, channel_scales=scales) for scales in (False, True)
    )
    name = "layers.0.feed_forward_1"
    assert scaled[name][2] < 0.7 * alone[name][2]
    assert scaled["head"] == alone["head"]


def test_codebook_with_channel_scales() -> None:
    """Rows of very different size: each has its own scale, and the error falls."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(24, 50)) * np.logspace(-2, 2, 24)[:, None]
    rows[5] = 0
    centroids, scales = codebook.fit_rows(rows, 3)
    assert (scales > 0).all() and centroids.shape == (8,) and scales.shape == (24,)
    decoded = centroids[codebook.assign(rows / scales[:, None], centroids)] * scales[:, None]
    relative = ((decoded - rows) ** 2).sum(1)[rows.any(1)] / (rows**2).sum(1)[rows.any(1)]
    alone = codebook.fit(rows, 3)
    without = ((alone[codebook.assign(rows, alone)] - rows) ** 2).sum(1) / (rows**2).sum(1).clip(
        1e-9
    )
    assert relative.max() < 0.15 < without.max()


def test_channel_scales_decode_and_survive_a_checkpoint() -> None:
    torch.manual_seed(0)
    student = Student(DIMS)
    widths = bits.uniform(DIMS, 4)
    codebooks = Codebooks.fit(student, widths, channel_scales=True)
    assert set(codebooks.scales) == set(linear_shapes(DIMS)) - {"head"}
    again = Codebooks.from_state(codebooks.state(), widths)
    for name, weight in codebooks.weights(student, int8=True).items():
        assert torch.equal(weight, again.weights(student, int8=True)[name])
    conv = codebooks.weights(student, int8=False)["encoder.conv1.weight"].detach()
    ratios = conv / codebooks.scales["conv1"]
    assert len(ratios.flatten().round(decimals=4).unique()) <= 16
    largest = codebooks.scales["conv1"].max() * codebooks.centroids["conv1"].detach().abs().max()
    assert codebooks.int8_scales()["conv1"] == pytest.approx(float(largest / 127))


def test_half_precision_and_float_have_no_codebook() -> None:
    student = Student(DIMS)
    half = Codebooks.fit(student, bits.uniform(DIMS, 16))
    assert not half.centroids
    for name, latent in latents(student).items():
        weight = half.weights(student, int8=False)[parameter_name(name)].detach().numpy()
        np.testing.assert_array_equal(weight, latent.detach().numpy().astype(np.float16))
    assert not Codebooks.fit(student, bits.uniform(DIMS, 32)).weights(student, int8=False)


def test_an_empty_cluster_takes_the_upper_half_of_the_worst() -> None:
    student = Student(DIMS)
    codebooks = Codebooks.fit(student, {"head": 2})
    with torch.no_grad():
        values = torch.linspace(-1, 1, student.head.weight.numel())
        student.head.weight.copy_(values.view_as(student.head.weight))
        codebooks.centroids["head"].copy_(torch.tensor([-50.0, -0.5, 0.5, 50.0]))
    codebooks.reassign(student)
    assert codebooks.indices["head"].unique().tolist() == [0, 1, 2, 3]
    error = student.head.weight - codebooks.weights(student, int8=False)["head.weight"]
    assert float(error.detach().square().mean()) < 0.75 * (0.5**2 / 3)
