"""Everything that computes the same student, behind one interface."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.console import Progress
from quads_mcu.errors import ConfigError, ExportError
from quads_mcu.export.reference import Reference
from quads_mcu.model_format import MEL_SCALE, MEL_ZERO_POINT, PackedModel
from quads_mcu.run_dir import RunDir
from quads_mcu.tflite import convert, interpreters, metadata
from quads_mcu.tflite.flatbuffer import Flatbuffer
from quads_mcu.tflite.host_c import HostC
from quads_mcu.tflite.points import Values, names, onnx_points, rows

Mel = NDArray[np.int8]
TITLES = {
    "float": "float student",
    "torch": "codebook student",
    "onnx": "ONNX",
    "float32": "TFLite float32",
    "float16": "TFLite float16",
    "int8": "TFLite int8",
    "tflm": "TFLM int8",
    "lut": "TFLM LUT",
    "reference": "integer reference",
    "c": "C on this PC",
}
FILES = {"onnx": convert.ONNX, "tflm": "int8.tflite"} | {
    kind: f"{kind}.tflite" for kind in ("float32", "float16", "int8", "lut")
}


@dataclass(frozen=True)
class Runtime:
    """One way to compute the student.

    logits: real logits, float64 (N, n_classes), of int8 features (N, n_frames, n_mels).
    points: values by point (`quads_mcu.tflite.points`) of one window (n_frames, n_mels).
    arena_bytes: tensor arena, where there is one.
    """

    key: str
    logits: Callable[[Mel], NDArray[np.float64]]
    points: Callable[[Mel], Mapping[str, Values]]
    arena_bytes: int | None = None

    @property
    def title(self) -> str:
        """What a person calls it."""
        return TITLES[self.key]


def available(run: RunDir) -> list[str]:
    """Return the runtimes a converted run has, in order."""
    folder = convert.folder(run)
    return [key for key in TITLES if key not in FILES or (folder / FILES[key]).is_file()]


def open_runtime(
    key: str, run: RunDir, model: PackedModel, progress: Progress, *, arena_bytes: int | None = None
) -> Runtime:
    """Return a runtime by its key in TITLES.

    Raises:
        ConfigError: no such runtime, or the run is not converted.
        ExportError: files of another model, or a runtime that refuses its file.
    """
    if key not in TITLES:
        raise ConfigError(f"runtime {key!r}; there are {', '.join(TITLES)}")
    if key in ("float", "torch"):
        return _torch(key, run)
    if key == "reference":
        return _reference(model)
    if key == "c":
        return _host_c(model, progress)
    path = convert.folder(run) / FILES[key]
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; run `quads-mcu convert --run {run.path}` first")
    if key == "onnx":
        return _onnx(path, model)
    return of_file(key, path.read_bytes(), model, arena_bytes=arena_bytes)


def of_file(
    key: str, data: bytes, model: PackedModel, *, arena_bytes: int | None = None
) -> Runtime:
    """Return the runtime `key` ("int8", "tflm", ...) for the bytes of a `.tflite` file.

    Raises:
        ExportError: the file was made from another model than `model`.
    """
    made_from = metadata.read(data)["model_hash"]
    if made_from != model.model_hash:
        raise ExportError(
            f"the TFLite file was made from model {made_from[:12]}, the run holds "
            f"{model.model_hash[:12]}; run `quads-mcu convert` again"
        )
    if key in ("tflm", "lut"):
        return _tflm(key, data, model, arena_bytes)
    return _litert(key, data, model)


def _torch(key: str, run: RunDir) -> Runtime:
    from quads_mcu.training import onnx

    load = onnx.float_student if key == "float" else onnx.codebook_student
    student = load(run.path)

    def values(mel: Mel) -> dict[str, Values]:
        return {n: rows(n, v, student.dims) for n, v in onnx.points(student, mel).items()}

    return Runtime(key, lambda mel: onnx.logits(student, mel).astype(np.float64), values)


def _onnx(path: Path, model: PackedModel) -> Runtime:
    session = interpreters.onnx_session(path.read_bytes())

    def logits(mel: Mel) -> NDArray[np.float64]:
        found = np.empty((len(mel), model.dims.n_classes))
        for index, window in enumerate(convert.real_mel(mel)):
            found[index] = session.run(None, {"mel": window[None]})[0][0]
        return found

    def values(mel: Mel) -> dict[str, Values]:
        return onnx_points(path, convert.real_mel(mel), model.dims)

    return Runtime("onnx", logits, values)


def _input(mel: Mel, quantization: tuple[float, int]) -> NDArray[Any]:
    """Return one window as a model of this input quantization takes it."""
    scale, zero_point = quantization
    if not scale:
        return convert.real_mel(mel)
    steps = (mel.astype(np.float64) - MEL_ZERO_POINT) * (MEL_SCALE / scale) + zero_point
    found: Mel = np.clip(np.rint(steps), -128, 127).astype(np.int8)
    return found


def _litert(key: str, data: bytes, model: PackedModel) -> Runtime:
    interpreter = interpreters.litert(data)
    quantization = interpreter.get_input_details()[0]["quantization"]

    def logits(mel: Mel) -> NDArray[np.float64]:
        windows = (_input(window, quantization) for window in mel)
        return np.stack([interpreters.run_litert(interpreter, window) for window in windows])

    def values(mel: Mel) -> dict[str, Values]:
        tracing = interpreters.litert(data, keep_all=True)
        interpreters.run_litert(tracing, _input(mel, quantization))
        details = {detail["name"]: detail for detail in tracing.get_tensor_details()}
        return {
            name: rows(name, interpreters.dequantized(
                tracing.get_tensor(details[name]["index"]), details[name]["quantization"]
            ), model.dims)
            for name in names(model.dims)
        }  # fmt: skip

    return Runtime(key, logits, values)


def _tflm(key: str, data: bytes, model: PackedModel, arena_bytes: int | None) -> Runtime:
    interpreter = interpreters.tflm(data, arena_bytes)
    buffer = Flatbuffer(data)

    def grid(index: int) -> tuple[float, int]:
        scale, zero_point = buffer.quantization(index)
        return float(scale[0]), int(zero_point[0])

    source, result = grid(int(buffer.graph.inputs[0])), grid(int(buffer.graph.outputs[0]))

    def logits(mel: Mel) -> NDArray[np.float64]:
        windows = (_input(window, source) for window in mel)
        found = [interpreters.run_tflm(interpreter, window) for window in windows]
        return interpreters.dequantized(np.stack(found), result)

    def values(mel: Mel) -> dict[str, Values]:
        tracing = interpreters.tflm(data, keep_all=True)
        interpreters.run_tflm(tracing, _input(mel, source))
        found = {}
        for name in names(model.dims):
            index = buffer.index(name)
            assert index is not None
            real = interpreters.dequantized(tracing.GetTensor(index, 0)["tensor_data"], grid(index))
            found[name] = rows(name, real, model.dims)
        return found

    return Runtime(key, logits, values, interpreters.arena_use(interpreter))


def _reference(model: PackedModel) -> Runtime:
    reference = Reference(model)

    def logits(mel: Mel) -> NDArray[np.float64]:
        return reference.logits(mel) * model.logit_scale

    def values(mel: Mel) -> dict[str, Values]:
        traced: dict[str, Values] = {}
        reference.logits(mel[None], lambda n, v: traced.update({n: v[0].astype(np.float64)}))
        return integer_points(traced, model)

    return Runtime("reference", logits, values)


def _host_c(model: PackedModel, progress: Progress) -> Runtime:
    program = HostC(model, progress)

    def logits(mel: Mel) -> NDArray[np.float64]:
        return program.logits(mel) * model.logit_scale

    def values(mel: Mel) -> dict[str, Values]:
        found, residual, normalized = program.trace(mel)
        traced: dict[str, Values] = {"logits": found.astype(np.float64)}
        stream = ["positions"]
        for index in range(model.dims.n_layers):
            stream += [f"layers.{index}.output", f"layers.{index}.feed_forward_2"]
        for at, (norm, _) in enumerate(model.norms()):
            traced[stream[at]] = residual[at].astype(np.float64)
            traced[norm] = normalized[at].astype(np.float64)
        return integer_points(traced, model)

    return Runtime("c", logits, values)


def integer_points(traced: Mapping[str, Values], model: PackedModel) -> dict[str, Values]:
    """Return real values by point from the integers that the reference's trace names.

    The residual stream after each addition becomes what was added; points that were not traced are
    left out.
    """
    scales, zero_points = _grids(model)
    stream = {name for name in traced if name.split(".")[-1] in ("output", "feed_forward_2")}
    found: dict[str, Values] = {}
    before = traced.get("positions")
    for name in names(model.dims):
        if name not in traced:
            continue
        values = traced[name] - zero_points.get(name, 0)
        if name in stream:
            assert before is not None
            values, before = traced[name] - before, traced[name]
        found[name] = rows(name, values * scales[name], model.dims)
    return found


def _grids(model: PackedModel) -> tuple[dict[str, float], dict[str, int]]:
    """Return scale and zero point of every point in the packed model."""
    scales = {
        "conv1": model.conv2.input_scale,
        "conv2": model.residual_scale,
        "norm": model.norm.output_scale,
        "pooled": model.head.input_scale,
        "logits": model.logit_scale,
    }
    zero_points = {"conv1": model.conv1_gelu_zero_point}
    for index, layer in enumerate(model.layers):
        prefix = f"layers.{index}."
        scales |= {
            prefix + "attention_norm": layer.attention_norm.output_scale,
            prefix + "query": layer.query.output_scale * model.dims.d_head**-0.5,
            prefix + "key": layer.key.output_scale,
            prefix + "value": layer.value.output_scale,
            prefix + "attention": layer.output.input_scale,
            prefix + "output": model.residual_scale,
            prefix + "feed_forward_norm": layer.feed_forward_norm.output_scale,
            prefix + "feed_forward_1": layer.feed_forward_2.input_scale,
            prefix + "feed_forward_2": model.residual_scale,
        }
        zero_points[prefix + "feed_forward_1"] = layer.gelu_zero_point
    return scales, zero_points
