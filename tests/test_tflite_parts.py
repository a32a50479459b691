"""The parts of the TFLite conversion that need no trained student."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from random_model import random_model

# Importing onnx2tf lifts the recursion limit of the whole process.
if importlib.util.find_spec("onnx2tf") is None:
    pytest.skip("the tflite extra is not installed", allow_module_level=True)

from silent import silent

from quads_mcu.audio.frontend import features
from quads_mcu.errors import (
    ConfigError,
    ExportError,
    InstallationError,
    ModelFormatError,
)
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.slots import Slot
from quads_mcu.tflite import (
    bisect,
    calibration,
    compression,
    interpreters,
    metadata,
    onnx2tf,
    operators,
    source,
)
from quads_mcu.tflite.convert import _notes
from quads_mcu.tflite.flatbuffer import Flatbuffer

DIMS = Dimensions(n_mels=8, n_frames=6, d_model=16, n_heads=2, n_layers=1, n_classes=3)
REPOSITORY = Path(__file__).parent.parent


def one_operator(operator: str, domain: str = "", **attributes: object) -> bytes:
    """Return ONNX: relu, then `operator`, then the tensor of a point."""
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    nodes = [
        helper.make_node("Relu", ["mel"], ["conv1"]),
        helper.make_node(operator, ["conv1"], ["hidden"], name="/odd", domain=domain, **attributes),
        helper.make_node("Neg", ["hidden"], ["layers.0.feed_forward_1"]),
    ]
    graph = helper.make_graph(
        nodes, "test", [value("mel", TensorProto.FLOAT, [1, 4])],
        [value("layers.0.feed_forward_1", TensorProto.FLOAT, [1, 4])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    return bytes(onnx.ModelProto.SerializeToString(model))


POINTS = ("conv1", "layers.0.feed_forward_1")


@pytest.mark.parametrize(
    ("operator", "domain", "message"),
    [
        ("Erf", "", r"Erf \(layer layers\.0\.feed_forward_1\).*tanh form of GELU"),
        ("Mish", "my.domain", r"my\.domain\.Mish \(layer layers\.0\.feed_forward_1\)"),
        ("Celu", "", r"Celu \(layer layers\.0\.feed_forward_1\)"),
    ],
)
def test_onnx_operator_that_tflite_micro_lacks(
    tmp_path: Path, operator: str, domain: str, message: str
) -> None:
    path = tmp_path / "odd.onnx"
    path.write_bytes(one_operator(operator, domain))
    with pytest.raises(ExportError, match=message):
        operators.check_onnx(path, POINTS)


def test_onnx_operators_that_pass_and_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(one_operator("Tanh"))
    operators.check_onnx(path, POINTS)
    path.write_bytes(b"no model")
    with pytest.raises(ExportError, match="not a valid ONNX model"):
        operators.check_onnx(path, POINTS)


def tflite_of(builtin: str, custom: str | None = None) -> Flatbuffer:
    """Return a model with one operator between two named tensors."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    code = schema.OperatorCodeT()
    code.builtinCode = getattr(schema.BuiltinOperator, builtin)
    code.deprecatedBuiltinCode = min(code.builtinCode, 127)
    code.customCode = custom
    operator = schema.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    tensors = []
    for name in ("mel", "layers.0.feed_forward_1"):
        tensor = schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name, [1, 4], 0
        tensors.append(tensor)
    graph = schema.SubGraphT()
    graph.tensors, graph.operators, graph.inputs, graph.outputs = tensors, [operator], [0], [1]
    model = schema.ModelT()
    model.version, model.operatorCodes, model.subgraphs = 3, [code], [graph]
    model.buffers = [schema.BufferT()]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return Flatbuffer(bytes(builder.Output()))


@pytest.mark.parametrize(
    ("builtin", "custom", "named"),
    [("CUSTOM", "FlexErf", "custom:FlexErf"), ("CUSTOM", "Mine", "custom:Mine"),
     ("GELU", None, "GELU")],
)  # fmt: skip
def test_tflite_operator_that_tflite_micro_lacks(
    builtin: str, custom: str | None, named: str
) -> None:
    with pytest.raises(ExportError, match=rf"{named} \(layer layers\.0\.feed_forward_1\)"):
        operators.check_tflite(tflite_of(builtin, custom), POINTS)
    operators.check_tflite(tflite_of("TANH"), POINTS)


def test_resolver_methods_are_named_as_in_tflite_micro() -> None:
    # Names from tensorflow/lite/micro/micro_mutable_op_resolver.h.
    names = ["CONV_2D", "BATCH_MATMUL", "FULLY_CONNECTED", "SQUARED_DIFFERENCE", "RSQRT",
             "custom:TFLM_DECODE"]  # fmt: skip
    assert operators.resolver_methods(names) == [
        "AddBatchMatMul", "AddConv2D", "AddDecode", "AddFullyConnected", "AddRsqrt",
        "AddSquaredDifference",
    ]  # fmt: skip
    with pytest.raises(ExportError, match="GELU"):
        operators.resolver_methods(["GELU"])


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x00\x00\x00\x00TFL3", b"\xff" * 4 + b"TFL3" * 9])
def test_bytes_that_are_no_model(data: bytes) -> None:
    with pytest.raises(ModelFormatError):
        Flatbuffer(data)


def test_model_without_metadata() -> None:
    with pytest.raises(ModelFormatError, match="without quads-mcu's metadata"):
        metadata.read(tflite_of("TANH").to_bytes())


def test_high_bits_first_packing() -> None:
    # Bit strings 0001 0010 0011 and 001 010 011 100, filled up with zeros.
    indices = np.array([[1, 2, 3]], np.uint8)
    assert compression.pack_high_first(indices, 4).tobytes() == bytes.fromhex("1230")
    indices = np.array([[1, 2], [3, 4]], np.uint8)
    assert compression.pack_high_first(indices, 3).tobytes() == bytes.fromhex("29c0")


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_packing_is_tflite_micros(bits: int) -> None:
    from tflite_micro.tensorflow.lite.micro.compression.lut import pack_indices

    indices = np.random.default_rng(0).integers(0, 1 << bits, (7, 5), dtype=np.uint8)
    assert compression.pack_high_first(indices, bits).tobytes() == pack_indices(indices, bits)


def test_what_is_said_of_other_bits() -> None:
    assert "3-bit indices become one byte each" in _notes({3})[0]
    assert [note[:5] for note in _notes({2, 3, 4})] == ["2-bit", "3-bit"]
    assert "no lut.tflite" in _notes({4, 8})[0]
    assert not compression.compressible(random_model(DIMS, bits=8))
    with pytest.raises(ExportError, match="8 bits; lookup tables take 7"):
        compression.compress(tflite_of("TANH").to_bytes(), random_model(DIMS, bits=8))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((0, 6, 8), np.int8), "empty calibration set"),
        (np.zeros((2, 6, 9), np.int8), r"int8 \(6, 9\), the model takes int8 \(6, 8\)"),
        (np.zeros((2, 6, 8), np.float32), r"float32 \(6, 8\), the model takes"),
        (np.zeros((2, 0), np.int16), "the model takes"),
        (np.zeros((), np.int8), "empty calibration set"),
    ],
)
def test_calibration_file_that_does_not_fit(
    tmp_path: Path, values: np.ndarray, message: str
) -> None:
    np.save(tmp_path / "windows.npy", values)
    with pytest.raises(ConfigError, match=message):
        calibration.from_file(tmp_path / "windows.npy", DIMS, silent)


def test_calibration_file_that_is_none_or_pickled(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no\.npy"):
        calibration.from_file(tmp_path / "no.npy", DIMS, silent)
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(ConfigError, match="not a readable"):
        calibration.from_file(tmp_path / "pickled.npy", DIMS, silent)


def test_calibration_on_pcm(tmp_path: Path) -> None:
    pcm = np.random.default_rng(0).integers(-9000, 9000, (2, 500)).astype(np.int16)
    np.save(tmp_path / "pcm.npy", pcm)
    found = calibration.from_file(tmp_path / "pcm.npy", DIMS, silent)
    np.testing.assert_array_equal(found, features(pcm, DIMS.n_mels, DIMS.n_frames))


def test_failure_of_onnx2tf_is_one_error_and_keeps_the_log(tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(ExportError, match=r"onnx2tf failed \(exit code \d+\): .*onnx2tf\.log"):
        onnx2tf.convert(
            tmp_path / "bad.onnx", np.zeros((1, 6, 8), np.float32), tmp_path / "out", "mel", silent
        )
    assert (tmp_path / "out" / onnx2tf.LOG).stat().st_size > 0


CONVERT_FOR_LONG = """
import sys
from pathlib import Path
from quads_mcu import cli
from quads_mcu.tflite import onnx2tf

child = "import os, time; print('quads-progress', 'pid', os.getpid(), 1, sep=chr(9), flush=True)"
progress = lambda description, completed, total: print(completed, flush=True)
cli.app = lambda: onnx2tf._run(
    [sys.executable, "-c", child + "; time.sleep(60)"], Path(sys.argv[1]), progress)
cli.main()
"""


def test_a_conversion_that_is_terminated_takes_its_process_along(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CONVERT_FOR_LONG, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=REPOSITORY) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        os.kill(pid, 0)
        parent.terminate()
        assert parent.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_conversion_cannot_use_the_network() -> None:
    code = (
        "import urllib.request\n"
        "from quads_mcu.tflite import _child\n"
        "_child.refuse_network()\n"
        "for url in ('http://127.0.0.1:9/', 'http://example.org/'):\n"
        "    try:\n        urllib.request.urlopen(url, timeout=5)\n"
        "    except OSError as problem:\n        print(problem)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY
    )
    assert done.stdout.count("must not use the network") == 2


def test_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InstallationError, match=r"onnx2tf.*pip install .*quads-mcu\[tflite\]"):
        interpreters.require()


def test_several_slots_are_segments_of_the_logits() -> None:
    slots = (Slot("intent", ("on", "off")), Slot("room", ("none", "kitchen")))
    model = random_model(dataclasses.replace(DIMS, n_classes=4))
    described = metadata.describe(dataclasses.replace(model, slots=slots))
    assert described["labels"] == ["on", "off", "none", "kitchen"]
    assert described["segments"] == [
        {"name": "intent", "labels": ["on", "off"]},
        {"name": "room", "labels": ["none", "kitchen"]},
    ]


def traces(scale: float = 1.0, offset: float = 0.0) -> list[tuple[dict, dict]]:
    """Return a point that agrees and one that differs by scale and offset."""
    a = np.random.default_rng(0).normal(0, 1, (5, 4))
    return [({"conv1": a, "conv2": a}, {"conv1": a + 0.01, "conv2": scale * a + offset})]


@pytest.mark.parametrize(
    ("scale", "offset", "reason"),
    [(1.5, 0.0, "times 1.500: a scale is wrong"), (1.0, 0.5, "a bias or a zero point"),
     (0.0, 1.0, "B is constant"),
     (-1.0, 0.0, "correlation -1.000"), (0.001, 0.0, "a scale is wrong"),
     (1.0, np.nan, "not finite")],
)  # fmt: skip
def test_bisection_names_point_and_reason(scale: float, offset: float, reason: str) -> None:
    found = bisect.Bisection("a", "b", 0.25, bisect.compare(traces(scale, offset)))
    assert found.parting is not None and found.parting.point == "conv2"
    assert reason in found.verdict()


def test_bisection_of_equal_runtimes() -> None:
    found = bisect.Bisection("a", "b", 0.25, bisect.compare(traces()))
    assert found.parting is None and "do not part" in found.verdict()
    assert bisect.Bisection("a", "b", 0.0, bisect.compare(traces())).parting is not None
    assert bisect.limit_for("tflm", "lut") == 0.0 == bisect.limit_for("c", "reference")
    assert bisect.limit_for("torch", "onnx") == 1e-3
    assert bisect.limit_for("onnx", "int8") == bisect.INT8_LIMIT


STUBS = {
    "tensorflow/lite/schema/schema_generated.h": """
#pragma once
namespace tflite { struct Model {}; inline const Model *GetModel(const void *p) {
  return static_cast<const Model *>(p); } }
""",
    "tensorflow/lite/micro/micro_mutable_op_resolver.h": """
#pragma once
enum TfLiteStatus { kTfLiteOk, kTfLiteError };
namespace tflite { template <unsigned n> struct MicroMutableOpResolver {
METHODS
  unsigned count = 0;
  TfLiteStatus add() { return ++count <= n ? kTfLiteOk : kTfLiteError; } }; }
""",
    "tensorflow/lite/micro/micro_interpreter.h": """
#pragma once
#include <cstddef>
#include <cstdint>
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
enum { kTfLiteInt8 };
struct TfLiteTensor { int type = kTfLiteInt8; size_t bytes = QUADS_TFLM_FRAMES * QUADS_TFLM_MELS;
  struct { int8_t *int8; } data; };
namespace tflite { struct MicroInterpreter {
  int8_t memory[QUADS_TFLM_FRAMES * QUADS_TFLM_MELS] = {};
  int8_t logits[QUADS_TFLM_CLASSES] = {0, 5, 5};
  TfLiteTensor in, out;
  template <class R> MicroInterpreter(const Model *, const R &, uint8_t *, size_t) {
    in.data.int8 = memory; out.data.int8 = logits; }
  TfLiteStatus AllocateTensors() { return kTfLiteOk; }
  TfLiteStatus Invoke() { return kTfLiteOk; }
  TfLiteTensor *input(int) { return &in; }
  TfLiteTensor *output(int) { return &out; } }; }
""",
}


@pytest.mark.parametrize("lut", [False, True])
def test_sources_build_and_put_the_frontend_in_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lut: bool
) -> None:
    """With stand-ins for tflite-micro's headers; `make bench` builds against the real ones."""
    for tool in ("make", "g++", "gcc"):
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed")
    monkeypatch.setattr(source, "_arena", lambda data: 4096)
    _exported(tmp_path, random_model(DIMS))
    methods = [*operators.resolver_methods(["TANH"]), "AddDecode"]
    for name, text in STUBS.items():
        path = tmp_path / "stubs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = "\n".join(f"  TfLiteStatus {method}() {{ return add(); }}" for method in methods)
        path.write_text(text.replace("METHODS", lines))
    command = [
        "make",
        "-C",
        str(tmp_path / "out"),
        f"INCLUDES=-I{tmp_path}/stubs",
        "LIB=",
        "CC=gcc",
    ]
    command += ["CXX=g++ -Wall -Wextra -Werror", *(["LUT=1"] if lut else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    program = str(tmp_path / "out" / "intent")
    pcm = np.random.default_rng(0).integers(-9000, 9000, 700).astype(np.int16)
    found = subprocess.run([program, "-f"], input=pcm.tobytes(), capture_output=True, check=True)
    expected = features(pcm, DIMS.n_mels, DIMS.n_frames)
    assert found.stdout == expected.tobytes()
    found = subprocess.run([program], input=pcm.tobytes(), capture_output=True, check=True)
    assert found.stdout.decode().splitlines() == ["intent 1", "0 5 5"]


def _exported(folder: Path, model: object) -> None:
    from quads_mcu.run_dir import RunDir
    from quads_mcu.tflite import convert

    buffer = tflite_of("TANH")
    metadata.write(buffer, model)  # type: ignore[arg-type]
    run = RunDir(folder / "run")
    convert.folder(run).mkdir(parents=True)
    for name in (convert.INT8, convert.LUT):
        (convert.folder(run) / name).write_bytes(buffer.to_bytes())
    source.export(run, folder / "out")
