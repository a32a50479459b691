"""A trained student converted to TFLite: what the files hold and what every runtime computes."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from silent import silent
from tflite_run import converted_run
from typer.testing import CliRunner

# Importing onnx2tf lifts the recursion limit of the whole process.
if importlib.util.find_spec("onnx2tf") is None:
    pytest.skip("the tflite extra is not installed", allow_module_level=True)

from quads_mcu import model_format
from quads_mcu.cli import app
from quads_mcu.errors import ConfigError, ExportError
from quads_mcu.model_format import PackedModel, pack_indices
from quads_mcu.run_dir import RunDir
from quads_mcu.tflite import bisect, codebooks, compression, convert, metadata, runtimes, validate
from quads_mcu.tflite.convert import Conversion
from quads_mcu.tflite.flatbuffer import Flatbuffer


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunDir, Conversion]]:
    yield converted_run(tmp_path_factory.mktemp("tflite"))


@pytest.fixture(scope="module")
def run(converted: tuple[RunDir, Conversion]) -> RunDir:
    return converted[0]


@pytest.fixture(scope="module")
def model(run: RunDir) -> PackedModel:
    return model_format.read(run.model_path)


@pytest.fixture(scope="module")
def mel(run: RunDir, model: PackedModel) -> np.ndarray:
    return validate.utterances(run, model, "test", 0, silent)[0]


def file(run: RunDir, name: str) -> bytes:
    return (convert.folder(run) / name).read_bytes()


def test_every_file_is_written(converted: tuple[RunDir, Conversion]) -> None:
    run, done = converted
    for name, size in done.files.items():
        assert (convert.folder(run) / name).stat().st_size == size
    assert {path.name for path in convert.folder(run).iterdir()} == {
        "student.onnx", "float32.tflite", "float16.tflite", "int8.tflite", "lut.tflite",
        "onnx2tf.log", "conversion.json",
    }  # fmt: skip
    assert done.files["float16.tflite"] < 0.6 * done.files["float32.tflite"]


def test_weights_are_the_packed_centroids(run: RunDir, model: PackedModel) -> None:
    buffer = Flatbuffer(file(run, "int8.tflite"))
    for name, linear in model.linears():
        index = buffer.index(codebooks.weight_name(name))
        assert index is not None, name
        values = buffer.constant(index)
        assert values is not None and values.dtype == np.int8
        np.testing.assert_array_equal(values.reshape(linear.weights.shape), linear.weights, name)
        assert len(np.unique(values)) <= 1 << linear.bits
        expected = linear.weight_scale
        if name.endswith(".query"):
            expected /= np.sqrt(model.dims.d_head)
        scale, zero_point = buffer.quantization(index)
        np.testing.assert_allclose(scale, [expected], rtol=1e-6)
        assert zero_point.tolist() == [0]


def test_biases_mean_the_same_in_torch_and_int8(run: RunDir, model: PackedModel) -> None:
    from quads_mcu.training.onnx import codebook_student

    student = codebook_student(run.path)
    state = {k.removeprefix("encoder."): v.numpy() for k, v in student.state_dict().items()}
    buffer = Flatbuffer(file(run, "int8.tflite"))
    compared = 0
    for name, _ in model.linears():
        index = buffer.index(codebooks.bias_name(name))
        if index is None:
            continue
        real, factor = buffer.real(index), 1.0
        if name.endswith(".query"):
            factor = float(np.sqrt(model.dims.d_head))
        assert real is not None
        step = float(buffer.quantization(index)[0][0]) * factor
        packed_step = dict(model.linears())[name]
        rounding = step + packed_step.input_scale * packed_step.weight_scale
        np.testing.assert_allclose(real * factor, state[f"{name}.bias"], atol=rounding)
        compared += 1
    assert compared == len(list(model.linears())) - model.dims.n_layers  # keys have none


def test_input_takes_the_frontends_bytes(run: RunDir) -> None:
    buffer = Flatbuffer(file(run, "int8.tflite"))
    scale, zero_point = buffer.quantization(int(buffer.graph.inputs[0]))
    assert (np.float32(scale[0]), zero_point[0]) == (np.float32(1 / 80), -8)


def test_index_bytes_are_those_of_the_c_source_with_nibbles_swapped(
    run: RunDir, model: PackedModel
) -> None:
    buffer = Flatbuffer(file(run, "lut.tflite"))
    decoders = {
        buffer.name(int(op.inputs[at])): int(op.inputs[at + 1])
        for op in buffer.graph.operators if buffer.operator_name(op) == compression.DECODE
        for at in range(0, len(op.inputs), 2)
    }  # fmt: skip
    for name, linear in model.linears():
        encoded = buffer.index(codebooks.weight_name(name))
        assert encoded is not None
        high_first, table = (
            buffer.constant(encoded),
            buffer.constant(decoders[codebooks.weight_name(name)]),
        )
        assert high_first is not None and table is not None
        in_c = pack_indices(linear.indices, 4).ravel()
        np.testing.assert_array_equal(high_first, (in_c >> 4) | (in_c << 4).astype(np.uint8))
        np.testing.assert_array_equal(table[16:].view(np.int8), linear.centroids)


def test_lookup_tables_halve_the_weights_and_change_no_bit(
    run: RunDir, model: PackedModel, mel: np.ndarray, converted: tuple[RunDir, Conversion]
) -> None:
    weights = converted[1].weight_bytes
    assert weights["int8.tflite"] == sum(linear.weights.size for _, linear in model.linears())
    assert weights["lut.tflite"] <= 0.60 * weights["int8.tflite"]
    plain = runtimes.open_runtime("tflm", run, model, silent)
    tables = runtimes.open_runtime("lut", run, model, silent)
    np.testing.assert_array_equal(plain.logits(mel), tables.logits(mel))
    for name, values in plain.points(mel[0]).items():
        np.testing.assert_array_equal(values, tables.points(mel[0])[name], name)


def test_metadata(run: RunDir, model: PackedModel) -> None:
    for name in ("float32.tflite", "float16.tflite", "int8.tflite", "lut.tflite"):
        found = metadata.read(file(run, name))
        assert found["labels"] == list(model.labels)
        assert found["model_hash"] == model.model_hash
        assert found["frontend"]["n_mels"] == model.dims.n_mels
        assert (found["frontend"]["scale"], found["frontend"]["zero_point"]) == (1 / 80, -8)
        assert [head["labels"] for head in found["segments"]] == [list(model.labels)]


def test_runtimes_agree_and_equal_ones_are_equal(run: RunDir, mel: np.ndarray) -> None:
    result = validate.validate(run, "test", silent)
    assert [row.key for row in result.rows] == list(runtimes.TITLES)
    assert result.logits_equal == {"tflm = lut": True, "reference = c": True}
    assert result.utterances == len(mel)
    errors = {row.key: row.worst_logit_error for row in result.rows}
    # The graph's GELU is clamped: a few 1e-4 away from torch.
    assert errors["onnx"] < 2e-3 and errors["float32"] < 2e-3 and errors["float16"] < 0.05
    by_key = {row.key: row for row in result.rows}
    assert by_key["int8"].agreement >= 0.9 and by_key["tflm"].agreement >= 0.9
    assert by_key["tflm"].arena_bytes and by_key["lut"].arena_bytes
    stored = json.loads((convert.folder(run) / validate.REPORT).read_text())
    assert [row["key"] for row in stored["rows"]] == list(runtimes.TITLES)


@pytest.mark.parametrize(
    "pair",
    [("torch", "onnx"), ("onnx", "float32"), ("reference", "c"), ("tflm", "lut"),
     ("float32", "int8"), ("reference", "int8"), ("int8", "tflm")],
)  # fmt: skip
def test_whole_models_do_not_part(
    run: RunDir, model: PackedModel, mel: np.ndarray, pair: tuple[str, str]
) -> None:
    first, second = (runtimes.open_runtime(key, run, model, silent) for key in pair)
    found = bisect.bisect(first, second, mel[:2])
    assert found.parting is None, found.verdict()


@pytest.mark.parametrize(
    "layer", ["conv2", "layers.0.query", "layers.0.feed_forward_2", "layers.1.key", "head"]
)
@pytest.mark.parametrize("against", ["float32", "reference"])
def test_bisect_finds_a_broken_scale(
    run: RunDir, model: PackedModel, mel: np.ndarray, layer: str, against: str
) -> None:
    broken = Flatbuffer(file(run, "int8.tflite"))
    for name in (codebooks.weight_name(layer), codebooks.bias_name(layer)):
        index = broken.index(name)
        if index is not None:
            broken.set_quantization(index, 2 * float(broken.quantization(index)[0][0]))
    good = runtimes.open_runtime(against, run, model, silent)
    bad = runtimes.of_file("int8", broken.to_bytes(), model)
    found = bisect.bisect(good, bad, mel[:2])
    assert found.parting is not None
    assert found.parting.point == {"head": "logits"}.get(layer, layer), found.verdict()


def test_arena_too_small_says_how_much(run: RunDir, model: PackedModel) -> None:
    needed = runtimes.open_runtime("tflm", run, model, silent).arena_bytes
    with pytest.raises(ExportError, match=rf"arena of 9,000 bytes is too small.* {needed:,} bytes"):
        runtimes.open_runtime("tflm", run, model, silent, arena_bytes=9000)


def test_file_of_another_model_is_refused(run: RunDir, model: PackedModel) -> None:
    from dataclasses import replace

    other = replace(model, logit_scale=2 * model.logit_scale)
    with pytest.raises(ExportError, match=r"made from model .*convert"):
        runtimes.of_file("int8", file(run, "int8.tflite"), other)


def test_six_lines_of_the_readme_run(run: RunDir, tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text()
    lines = text.split("<!-- six lines -->")[1].split("```")[1].removeprefix("python\n")
    assert len(lines.strip().splitlines()) == 6
    shutil.copytree(convert.folder(run), tmp_path / "runs/demo/tflite")
    wav = next(path for path in sorted(run.path.parent.glob("*.wav")))
    shutil.copy(wav, tmp_path / "word.wav")
    done = subprocess.run(
        [sys.executable, "-c", lines], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={"PYTHONPATH": str(Path(__file__).parent.parent), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() in ("high", "low", "middle")


def test_command_line(run: RunDir) -> None:
    result = CliRunner().invoke(app, ["validate", "--run", str(run.path), "--limit", "2", "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["utterances"] == 2
    arguments = ["validate", "--run", str(run.path), "--bisect", "tflm", "lut", "--limit", "1"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "do not part" in result.stdout


def test_unknown_runtime_and_unconverted_run(run: RunDir, model: PackedModel) -> None:
    with pytest.raises(ConfigError, match=r"runtime 'tfl'; there are float, torch"):
        runtimes.open_runtime("tfl", run, model, silent)
    with pytest.raises(ConfigError, match="quads-mcu convert"):
        runtimes.open_runtime("int8", RunDir(run.path / "nowhere"), model, silent)
