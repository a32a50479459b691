"""`quads-mcu convert`: a trained student as ONNX and TFLite.

runs/NAME/tflite/
    student.onnx       float32, codebook weights, operators TFLite has
    float32.tflite     the same
    float16.tflite     weights in half precision
    int8.tflite        integers only; weights are the packed centroids
    lut.tflite         int8.tflite with 2, 3 or 4-bit indices and tables, for tflite-micro
    onnx2tf.log        what the converters said
    conversion.json    sizes and operators
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quads_mcu.console import Progress
from quads_mcu.errors import ExportError
from quads_mcu.export import pack
from quads_mcu.model_format import MEL_SCALE, MEL_ZERO_POINT, PackedModel
from quads_mcu.run_dir import RunDir, write_json
from quads_mcu.tflite import (
    calibration,
    codebooks,
    compression,
    interpreters,
    metadata,
    onnx2tf,
    operators,
    points,
)
from quads_mcu.tflite.flatbuffer import Flatbuffer

ONNX = "student.onnx"
SUMMARY = "conversion.json"
INT8, LUT = "int8.tflite", "lut.tflite"
CALIBRATION_COUNT = 128
_ONNX_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Conversion:
    """What came out.

    files: bytes by name; weight_bytes: of the matrices in int8.tflite and lut.tflite;
    values_per_weight: the most distinct int8 values in one weight tensor; operators: how often
    each occurs in int8.tflite; notes: what a person should know.
    """

    model_hash: str
    files: dict[str, int]
    weight_bytes: dict[str, int]
    values_per_weight: int
    operators: dict[str, int]
    calibration_windows: int
    seconds: float
    notes: list[str]

    def weights_text(self, file: str) -> str:
        """Return the bytes of the matrices in a file and what they are, as text."""
        if file not in self.weight_bytes:
            return ""
        share = self.weight_bytes[file] / self.weight_bytes[INT8]
        values = f", {self.values_per_weight} values" if file == INT8 else f", {share:.3f} of int8"
        return f"{self.weight_bytes[file]:,}{values}"


def folder(run: RunDir) -> Path:
    """Return where a run keeps its TFLite files."""
    return run.path / "tflite"


def convert(
    run: RunDir, progress: Progress, *, count: int = CALIBRATION_COUNT, data: Path | None = None
) -> Conversion:
    """Convert a run's codebook student; write the files above.

    Args:
        count: windows of the training split to calibrate on.
        data: calibrate on this .npy file instead.
    Raises:
        InstallationError: the `tflite` extra is missing.
        ConfigError: a calibration set that is empty or of another shape.
        ExportError: an operator tflite-micro lacks, a converter that failed, or weights that did
            not survive.
    """
    interpreters.require()
    started_s = time.monotonic()
    model = pack.pack(run.path)
    if data is not None:
        windows = calibration.from_file(data, model.dims, progress)
    else:
        windows = calibration.from_run(run, model.labels, model.dims, count, progress)
    out = folder(run)
    with _fresh_folder(out) as work:
        files = _files(run, model, windows, work, progress)
        summary = _summary(model, files, len(windows), time.monotonic() - started_s)
        for name, content in files.items():
            (work / name).write_bytes(content)
        write_json(work / SUMMARY, asdict(summary))
    return summary


def _files(
    run: RunDir, model: PackedModel, windows: NDArray[np.int8], work: Path, progress: Progress
) -> dict[str, bytes]:
    from quads_mcu.training import onnx

    names = points.names(model.dims)
    path = work / ONNX
    student = onnx.codebook_student(run.path)
    onnx.export(student, path)
    operators.check_onnx(path, names)
    real = real_mel(windows)
    wanted = points.onnx_points(path, real[0], model.dims)
    _check_same(onnx.points(student, windows[0])["logits"], wanted["logits"])
    converting = work / "converting"
    made = onnx2tf.convert(path, real, converting, onnx.INPUT, progress)
    (converting / onnx2tf.LOG).replace(work / onnx2tf.LOG)
    shutil.rmtree(converting)
    located = points.locate(made["float32"], real[0], wanted)
    files = {}
    for kind, data in made.items():
        files[f"{kind}.tflite"] = _finished(kind, data, model, located)
        progress("finishing", len(files), len(made) + 1)
    if compression.compressible(model):
        files[LUT] = compression.compress(files[INT8], model)
    progress("finishing", len(made) + 1, len(made) + 1)
    return files


def _finished(kind: str, data: bytes, model: PackedModel, located: dict[str, str]) -> bytes:
    """Return a converted model with packed weights (int8), names and metadata."""
    buffer = Flatbuffer(data)
    restore = codebooks.restore if kind == "int8" else codebooks.name_weights
    weights = restore(buffer, model)
    points.label(buffer, located, weights)
    metadata.write(buffer, model)
    operators.check_tflite(buffer, points.names(model.dims))
    buffer.drop_unused_buffers()
    return buffer.to_bytes()


def real_mel(mel: NDArray[np.int8]) -> NDArray[np.float32]:
    """Return Whisper's normalized log-mel, float32, of int8 device features."""
    return ((mel.astype(np.float32) - MEL_ZERO_POINT) * MEL_SCALE).astype(np.float32)


def _check_same(torch_logits: NDArray[np.float32], onnx_logits: NDArray[np.float64]) -> None:
    error = float(np.abs(torch_logits.reshape(-1) - onnx_logits.reshape(-1)).max())
    limit = _ONNX_TOLERANCE * max(1.0, float(np.abs(torch_logits).max()))
    if error > limit:
        raise ExportError(
            f"torch and ONNX logits differ by {error:.3g}, limit {limit:.3g}; find the layer with "
            "`quads-mcu validate --bisect torch onnx`"
        )


def _summary(
    model: PackedModel, files: dict[str, bytes], windows: int, seconds: float
) -> Conversion:
    int8 = Flatbuffer(files[INT8])
    weights = {n: compression.weight_bytes(f) for n, f in files.items() if n in _INTEGER}
    return Conversion(
        model_hash=model.model_hash,
        files={name: len(content) for name, content in files.items()},
        weight_bytes=weights,
        values_per_weight=max(values_per_weight(int8, model).values()),
        operators=dict(operators.count(int8).most_common()),
        calibration_windows=windows,
        seconds=round(seconds, 1),
        notes=_notes({linear.bits for _, linear in model.linears()}),
    )


_INTEGER = (INT8, LUT)


def values_per_weight(buffer: Flatbuffer, model: PackedModel) -> dict[str, int]:
    """Return how many distinct int8 values each matrix of an int8 model has."""
    found = {}
    for name, _ in model.linears():
        index = buffer.index(codebooks.weight_name(name))
        assert index is not None
        values = buffer.constant(index)
        assert values is not None
        found[name] = len(np.unique(values))
    return found


def _notes(widths: set[int]) -> list[str]:
    if 8 in widths:
        return ["8-bit codebooks: no lut.tflite, lookup tables hold at most 7 bits"]
    return [
        f"{bits}-bit indices become one byte each in int8.tflite; lut.tflite keeps {bits}"
        for bits in sorted(widths)
        if bits < 4
    ]


@contextmanager
def _fresh_folder(out: Path) -> Iterator[Path]:
    """Yield a new folder that takes `out`'s place when all went well; else keep the log."""
    out.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        yield work
        work.chmod(0o755)
        old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-old-"))
        if out.exists():
            out.replace(old)
        work.replace(out)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        _keep_log(work, out)
        shutil.rmtree(work, ignore_errors=True)
        raise


def _keep_log(work: Path, out: Path) -> None:
    logs = sorted(work.rglob(onnx2tf.LOG))
    if logs:
        out.mkdir(parents=True, exist_ok=True)
        logs[0].replace(out / onnx2tf.LOG)
