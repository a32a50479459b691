"""Conversion of codebooks of 2, 3 and 8 bits, and of those with a scale per channel."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from silent import silent
from tflite_run import converted_run

# Importing onnx2tf lifts the recursion limit of the whole process.
if importlib.util.find_spec("onnx2tf") is None:
    pytest.skip("the tflite extra is not installed", allow_module_level=True)

from quads_mcu import model_format
from quads_mcu.tflite import codebooks, convert, runtimes, validate
from quads_mcu.tflite.flatbuffer import Flatbuffer
from quads_mcu.training.codebooks import parameter_name
from quads_mcu.training.onnx import codebook_student


@pytest.mark.slow
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_other_bits(tmp_path: Path, bits: int) -> None:
    run, done = converted_run(tmp_path, bits)
    model = model_format.read(run.model_path)
    mel, _ = validate.utterances(run, model, "test", 4, silent)
    assert done.values_per_weight <= 1 << bits
    assert len(done.notes) == 1
    int8 = runtimes.open_runtime("tflm", run, model, silent).logits(mel)
    if bits == 8:
        assert not (convert.folder(run) / convert.LUT).exists()
        assert "lut" not in runtimes.available(run)
        return
    assert f"{bits}-bit indices become one byte each" in done.notes[0]
    assert done.weight_bytes[convert.LUT] < (bits / 8 + 0.1) * done.weight_bytes[convert.INT8]
    tables = runtimes.open_runtime("lut", run, model, silent).logits(mel)
    np.testing.assert_array_equal(tables, int8)


@pytest.mark.slow
def test_a_scale_per_channel(tmp_path: Path) -> None:
    run, done = converted_run(tmp_path, channel_scales=True)
    model = model_format.read(run.model_path)
    assert done.values_per_weight <= 16
    state = codebook_student(run.path).state_dict()
    buffer = Flatbuffer((convert.folder(run) / convert.INT8).read_bytes())
    for name, linear in model.linears():
        index = buffer.index(codebooks.weight_name(name))
        assert index is not None
        real = buffer.real(index)
        assert real is not None
        trained = state[parameter_name(name)].numpy().astype(np.float64)
        if trained.ndim == 3:  # of a convolution: channels before taps
            trained = trained.swapaxes(1, 2)
        factor = np.sqrt(model.dims.d_head) if name.endswith(".query") else 1.0
        expected = trained.reshape(linear.weights.shape)
        np.testing.assert_allclose(factor * real.reshape(expected.shape), expected, rtol=1e-5)
        assert len(buffer.quantization(index)[0]) == (1 if name == "head" else len(linear.bias))
    mel, _ = validate.utterances(run, model, "test", 4, silent)
    runtime = {key: runtimes.open_runtime(key, run, model, silent) for key in _COMPARED}
    logits = {key: found.logits(mel) for key, found in runtime.items()}
    np.testing.assert_array_equal(logits["lut"], logits["tflm"])
    size = np.abs(logits["torch"]).max()
    for key in ("float32", "int8", "tflm"):
        assert np.abs(logits[key] - logits["torch"]).max() < 0.2 * size, key


_COMPARED = ("torch", "float32", "int8", "tflm", "lut")
