"""Conversion of codebooks of 2, 3 and 8 bits."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from tflite_run import converted_run, silent

# Importing onnx2tf lifts the recursion limit of the whole process.
if importlib.util.find_spec("onnx2tf") is None:
    pytest.skip("the tflite extra is not installed", allow_module_level=True)

from quads_mcu import model_format
from quads_mcu.tflite import convert, runtimes, validate


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
