"""Packing a trained student: the integer model against the simulation it was trained in."""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tiny_run import tiny_run

from quads_mcu import model_format
from quads_mcu.audio.frontend import features
from quads_mcu.config import QuantizationSection, TrainSection
from quads_mcu.errors import ExportError
from quads_mcu.export import pack
from quads_mcu.export.pack import Grid, PackedSource
from quads_mcu.export.reference import Reference
from quads_mcu.model.dimensions import Dimensions, dimensions
from quads_mcu.run_dir import RunDir
from quads_mcu.slots import Slot
from quads_mcu.training import evaluation, trainer
from quads_mcu.training.problem import Batch, Problem, Split

pytestmark = pytest.mark.usefixtures("one_thread")

SIZES = {
    "small": Dimensions(8, 20, 24, 3, 1, 5),
    "one token": Dimensions(8, 2, 8, 1, 1, 2),
    "deep": Dimensions(16, 30, 64, 2, 3, 7),
    "pools": Dimensions(8, 20, 24, 3, 1, 7, pools=(2, 5)),
}


def random_mel(dims: Dimensions, n: int, seed: int) -> np.ndarray[Any, np.dtype[np.int8]]:
    """Smooth in time and far from uniform, as speech is."""
    rng = np.random.default_rng(seed)
    shape = (n, dims.n_frames, dims.n_mels)
    mel = np.cumsum(rng.normal(0, 10, shape), axis=1) + rng.normal(-50, 30, (n, 1, dims.n_mels))
    return mel.clip(-128, 127).astype(np.int8)


def train(folder: Path, dims: Dimensions, quantization: QuantizationSection) -> None:
    data = random_mel(dims, 40, 0)
    sizes = dims.pools or (dims.n_classes,)
    answers = np.stack([np.arange(40) // place % size for place, size in enumerate(sizes, 1)], 1)

    def batches(epoch: int, distills: bool, *, whole: bool = False) -> Iterator[Batch]:
        for rows in np.arange(40).reshape(4, 10):
            yield Batch(rows, data[rows])

    slots = tuple(
        Slot(f"slot {place}", tuple(f"intent {index}" for index in range(size)))
        for place, size in enumerate(sizes)
    )
    split = Split(data, answers.astype(np.int64))
    settings = TrainSection(warmup_epochs=2, cycles=0, final_epochs=2, lr_quant=1e-3)
    problem = Problem(dims, slots, split, split, batches, 4, fingerprint="abc")
    trainer.Trainer(problem, settings, quantization, 0, folder).run(lambda *_: None)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    train(folder, SIZES["small"], QuantizationSection())
    return folder


@pytest.mark.parametrize(
    ("size", "bits", "channel_scales"),
    [
        ("small", 2, False),
        ("small", 3, True),
        ("small", 4, False),
        ("small", 8, False),
        ("one token", 4, False),
        ("deep", 4, False),
        ("deep", 4, True),
        ("pools", 4, False),
        ("pools", 3, True),
    ],
)
def test_integers_agree_with_the_simulation(
    tmp_path: Path, size: str, bits: int, channel_scales: bool
) -> None:
    dims = SIZES[size]
    train(tmp_path, dims, QuantizationSection(bits=bits, channel_scales=channel_scales))
    model = pack.pack(tmp_path)
    assert model.dims == dims
    assert {linear.bits for _, linear in model.linears()} == {bits}
    for name, linear in model.linears():
        if name != "head":
            assert len(linear.multiplier) == (len(linear.bias) if channel_scales else 1)
    mel = random_mel(dims, 200, 1)
    simulated = evaluation.quantized_logits(tmp_path, mel)
    integers = Reference(model).logits(mel) * model.logit_scale
    spread = simulated.std()
    assert np.abs(integers - simulated).mean() < 0.02 * spread
    for part in np.split(np.arange(dims.n_classes), np.cumsum(dims.pools)[:-1].astype(int)):
        agree = integers[:, part].argmax(1) == simulated[:, part].argmax(1)
        assert agree.mean() >= 0.97
    model_format.write(model, tmp_path / "model.safetensors")
    assert model_format.read(tmp_path / "model.safetensors").model_hash == model.model_hash


def test_weights_and_biases_are_the_trained_ones(run_dir: Path) -> None:
    model = pack.pack(run_dir)
    stored = load_file(run_dir / trainer.QUANTIZED_STUDENT)
    weights = stored["codebook.conv1.centroids"][stored["codebook.conv1.indices"]]
    expected = np.stack([weights[:, :, tap] for tap in range(3)], axis=1).reshape(24, 24)
    np.testing.assert_allclose(
        model.conv1.weights * model.conv1.weight_scale,
        expected,
        atol=0.51 * model.conv1.weight_scale,
    )
    for name, linear in model.linears():
        if name.endswith(".key"):
            bias = np.zeros(len(linear.bias))
        else:
            prefix = "student." if name == "head" else "student.encoder."
            bias = stored[f"{prefix}{name}.bias"]
        scale = linear.weight_scale * linear.input_scale
        zero_points = {
            "conv1": -8,
            "conv2": model.conv1_gelu_zero_point,
            "layers.0.feed_forward_2": model.layers[0].gelu_zero_point,
        }
        sums = linear.weights.astype(np.int64).sum(1)
        unfolded = linear.bias + zero_points.get(name, 0) * sums
        np.testing.assert_allclose(unfolded * scale, bias, atol=0.51 * scale)


def test_labels_and_provenance(run_dir: Path) -> None:
    model = pack.pack(run_dir)
    assert model.labels == tuple(f"intent {index}" for index in range(5))
    assert model.provenance["data"] == "abc"
    assert {"epoch", "valid_accuracy", "quads_mcu"} <= set(model.provenance)


def test_gelu_tables(run_dir: Path) -> None:
    model = pack.pack(run_dir)
    layer = model.layers[0]
    pre = layer.feed_forward_1.output_scale
    post, zero_point = layer.feed_forward_2.input_scale, layer.gelu_zero_point
    for p in (-128, -3, 0, 1, 127):
        x = p * pre
        real = 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
        expected = min(127, max(-128, round(real / post + zero_point)))
        assert abs(int(layer.gelu[p + 128]) - expected) <= 1
    assert layer.gelu[128] == zero_point
    assert model.conv2_gelu.dtype == np.int16 and model.conv2_gelu[128] == 0


def changed(source: PackedSource, kind: str) -> PackedSource:
    grids = dict(source.grids)
    tensors = dict(source.tensors)
    centroids = dict(source.centroids)
    indices = dict(source.indices)
    if kind == "bits":
        return dataclasses.replace(source, bits=dict.fromkeys(source.bits, 5))
    if kind == "distinct":
        indices["conv2"] = indices["conv2"] | np.uint8(16)
    elif kind == "codebook":
        centroids["head"] = np.arange(17.0)
    elif kind == "nan weight":
        centroids["conv2"] = np.where(centroids["conv2"] > 0, np.nan, 0.0)
    elif kind == "inf bias":
        tensors["layers.0.query.bias"] = tensors["layers.0.query.bias"] + np.inf
    elif kind == "huge bias":
        tensors["layers.0.query.bias"] = tensors["layers.0.query.bias"] + 1e9
    elif kind == "shape":
        tensors["norm.weight"] = tensors["norm.weight"][:-1]
    elif kind == "missing tensor":
        del tensors["positions"]
    elif kind == "missing grid":
        del grids["layers.0.gelu"]
    elif kind == "zero scale":
        grids["pooled"] = Grid(0.0)
    elif kind == "zero point":
        grids["conv1_gelu"] = dataclasses.replace(grids["conv1_gelu"], zero_point=200)
    elif kind == "factor":
        grids["layers.0.key"] = Grid(1e-9)
    elif kind == "gamma":
        tensors["norm.weight"] = tensors["norm.weight"] * 1e9
    elif kind == "labels":
        return dataclasses.replace(source, slots=(Slot("intent", ("yes", "no")),))
    return dataclasses.replace(
        source, grids=grids, tensors=tensors, centroids=centroids, indices=indices
    )


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("bits", "conv1 was trained at 5 bits.*the packed format has 8, 4, 3, 2"),
        ("distinct", "conv2 uses 32 different weights, 4 bits hold 16"),
        ("codebook", "head uses 17 different weights, 4 bits hold 16"),
        ("nan weight", "conv2.centroids holds values that are not finite"),
        ("inf bias", "layers.0.query.bias holds values that are not finite"),
        ("huge bias", "layers.0.query: bias 1e[+]09 is too large"),
        ("shape", r"norm.weight has shape \(23,\), expected \(24,\)"),
        ("missing tensor", "tensor 'positions' is missing"),
        ("missing grid", "the scale of activation 'layers.0.gelu' is missing"),
        ("zero scale", "the scale of activation 'pooled'"),
        ("zero point", "the scale of activation 'conv1_gelu'"),
        ("factor", "layers.0.key: requantization factor .* limit 0.5"),
        ("gamma", "norm: gamma reaches"),
        ("labels", "2 labels for 5 classes"),
    ],
)
def test_refuses(run_dir: Path, kind: str, message: str) -> None:
    source = pack.load_packed_source(run_dir)
    with pytest.raises(ExportError, match=message):
        pack.pack_source(changed(source, kind))


def test_refuses_files(tmp_path: Path, run_dir: Path) -> None:
    def refused(message: str) -> None:
        with pytest.raises(ExportError, match=message):
            pack.pack(tmp_path)

    refused("no such file; `quads-mcu train`")
    path = tmp_path / pack.QUANTIZED_STUDENT
    whole = (run_dir / trainer.QUANTIZED_STUDENT).read_bytes()
    path.write_bytes(whole[:3000])
    refused("damaged")
    tensors = load_file(run_dir / trainer.QUANTIZED_STUDENT)
    save_file(tensors, path)
    refused("not a quantized student")
    save_file(tensors, path, metadata={"quads": json.dumps({"dims": {"n_mels": 8}})})
    refused("damaged")
    size = int.from_bytes(whole[:8], "little")
    scalars = json.loads(json.loads(whole[8 : 8 + size])["__metadata__"]["quads"])
    scalars["dims"]["d_model"] = 23
    save_file(tensors, path, metadata={"quads": json.dumps(scalars)})
    refused("not a multiple of n_heads")
    scalars["dims"]["d_model"] = 24
    del tensors["codebook.head.indices"]
    save_file(tensors, path, metadata={"quads": json.dumps(scalars)})
    refused("codebook.head.indices' is missing")


def test_way_out_of_a_factor_out_of_range(run_dir: Path) -> None:
    source = pack.load_packed_source(run_dir)
    with pytest.raises(ExportError) as caught:
        pack.pack_source(changed(source, "factor"))
    assert "train again with --restart and a lower [train] lr_quant" in str(caught.value)


@pytest.mark.parametrize(("factor", "fits"), [(0.499, True), (0.5, False), (0.501, False)])
def test_requantization_factor_at_its_limit(run_dir: Path, factor: float, fits: bool) -> None:
    source = pack.load_packed_source(run_dir)
    packed = pack.pack_source(source).conv1
    grids = dict(source.grids)
    grids["conv1"] = Grid(packed.weight_scale * packed.input_scale / factor)
    source = dataclasses.replace(source, grids=grids)
    if fits:
        assert pack.pack_source(source).conv1.multiplier.tolist() == [round(factor * 2**32)]
        return
    with pytest.raises(ExportError, match=r"conv1: requantization factor 0\.5.*, limit 0\.5"):
        pack.pack_source(source)


# A run of the whole training command, on sound.


@pytest.fixture(scope="module")
def sound_run(tmp_path_factory: pytest.TempPathFactory) -> RunDir:
    return tiny_run(tmp_path_factory.mktemp("tones"))


def utterances(run: RunDir) -> np.ndarray[Any, np.dtype[np.int8]]:
    """Features of the run's own recordings, and each of them at lower levels."""
    config = run.config()
    dims = dimensions("d64x2", n_mels=40, window_s=config.audio.window_s, n_classes=3)
    paths = sorted(config.root.glob("*.wav"), key=lambda path: int(path.stem))
    pcm = np.stack([np.frombuffer(path.read_bytes()[44:], "<i2") for path in paths])
    levels = np.concatenate([pcm, pcm // 10, pcm // 100]).astype(np.int16)
    return features(levels, dims.n_mels, dims.n_frames)


def test_trained_on_sound_integers_agree_with_the_simulation(sound_run: RunDir) -> None:
    mel = utterances(sound_run)
    assert len(mel) == 144
    simulated = evaluation.quantized_logits(sound_run.path, mel)
    assert len(np.unique(simulated.argmax(1))) == 3
    integers = Reference(pack.pack(sound_run.path)).logits(mel)
    assert (integers.argmax(1) == simulated.argmax(1)).mean() >= 0.97
    for found, expected in zip(integers.T, simulated.T, strict=True):
        assert np.corrcoef(found, expected)[0, 1] > 0.99


@pytest.mark.parametrize("bits", [8, 4, 3, 2])
def test_matrices_hold_no_more_weights_than_the_bits_allow(tmp_path: Path, bits: int) -> None:
    train(tmp_path, SIZES["small"], QuantizationSection(bits=bits))
    for name, linear in pack.pack(tmp_path).linears():
        assert linear.centroids.shape == (2**bits,)
        assert 2 <= len(np.unique(linear.weights)) <= 2**bits, name


def test_same_run_same_model(sound_run: RunDir) -> None:
    first, second = pack.pack(sound_run.path), pack.pack(sound_run.path)
    assert first.model_hash == second.model_hash
    assert first.provenance == second.provenance


def test_packing_needs_no_torch(sound_run: RunDir) -> None:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from quads_mcu.export import pack\n"
        "print(pack.pack(Path(sys.argv[1])).model_hash)\n"
        "assert 'torch' not in sys.modules\n"
    )
    command = [sys.executable, "-c", code, str(sound_run.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == pack.pack(sound_run.path).model_hash


@pytest.mark.parametrize("bits", [16, 32])
def test_float_students_are_not_packed(tmp_path: Path, bits: int) -> None:
    train(tmp_path, SIZES["small"], QuantizationSection(bits=bits))
    mel = random_mel(SIZES["small"], 8, 1)
    assert np.isfinite(evaluation.quantized_logits(tmp_path, mel)).all()
    with pytest.raises(ExportError, match=rf"conv1 was trained at {bits} bits.*8, 4, 3, 2"):
        pack.pack(tmp_path)
