"""The three interpreters: onnxruntime, LiteRT without delegates, tflite-micro."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.errors import ExportError, InstallationError

THREADS = 2
ARENA_BYTES = (1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28)
_PACKAGES = {
    "ai_edge_litert": "ai-edge-litert",
    "onnx": "onnx",
    "onnx2tf": "onnx2tf",
    "onnxruntime": "onnxruntime",
    "tensorflow": "tensorflow",
    "tflite_micro": "tflite-micro",
}


def require() -> None:
    """Check that everything conversion and validation need is installed.

    Raises:
        InstallationError: names what is missing and how to get it.
    """
    from importlib.util import find_spec

    missing = [package for module, package in _PACKAGES.items() if find_spec(module) is None]
    if missing:
        raise InstallationError(
            f"{', '.join(missing)}: not installed; pip install --pre 'quads-mcu[tflite]' "
            "(versions that go together: .ci/constraints.txt)"
        )


def onnx_session(model: bytes) -> Any:
    """Return an onnxruntime session on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def litert(data: bytes, *, keep_all: bool = False) -> Any:
    """Return a LiteRT interpreter with reference-compatible kernels, no delegate.

    Args:
        data: a `.tflite` file.
        keep_all: every tensor can be read after a run.
    Raises:
        ExportError: LiteRT refuses the model.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        interpreter = Interpreter(
            model_content=data, num_threads=THREADS, experimental_preserve_all_tensors=keep_all,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )  # fmt: skip
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError) as problem:
        raise ExportError(f"LiteRT refuses the model: {problem}") from None
    return interpreter


def run_litert(interpreter: Any, window: NDArray[Any]) -> NDArray[np.float64]:
    """Return real logits, float64 (n_classes,), for one input (n_frames, n_mels)."""
    source, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    interpreter.set_tensor(source["index"], window[None].astype(source["dtype"]))
    interpreter.invoke()
    logits = interpreter.get_tensor(result["index"])[0]
    return dequantized(logits, result["quantization"])


def dequantized(values: NDArray[Any], quantization: tuple[float, int]) -> NDArray[np.float64]:
    """Return float64 values; a scale of 0 means they are real already."""
    scale, zero_point = quantization
    real = values.astype(np.float64)
    return (real - zero_point) * scale if scale else real


def tflm(data: bytes, arena_bytes: int | None = None, *, keep_all: bool = False) -> Any:
    """Return a tflite-micro interpreter.

    Args:
        arena_bytes: of the arena; None: as much as it takes.
        keep_all: every tensor can be read after a run (and the arena is not recorded).
    Raises:
        ExportError: the arena is too small (says what is needed), or an operator is missing.
    """
    from tflite_micro import runtime

    configs = runtime.InterpreterConfig
    config = configs.kPreserveAllTensors if keep_all else configs.kAllocationRecording
    said = ""
    for size in (arena_bytes,) if arena_bytes else ARENA_BYTES:
        made: list[Any] = []

        def make(size: int = size, made: list[Any] = made) -> None:
            made.append(
                runtime.Interpreter.from_bytes(data, arena_size=size, intrepreter_config=config)
            )

        said, failed = _captured(make)
        if not failed:
            return made[0]
        if "arena" not in said and "memory" not in said.lower() and "allocat" not in said.lower():
            break
    if arena_bytes:
        needed = arena_use(tflm(data))
        raise ExportError(
            f"tflite-micro arena of {arena_bytes:,} bytes is too small; this model needs "
            f"{needed:,} bytes (on this 64-bit PC, with the recording of allocations)"
        )
    raise ExportError(f"tflite-micro refuses the model: {said.strip() or 'no reason given'}")


def arena_use(interpreter: Any) -> int:
    """Return the bytes of arena a tflite-micro interpreter uses on this PC."""
    said, _ = _captured(interpreter.print_allocations)
    found = re.search(r"Arena allocation total (\d+) bytes", said)
    if found is None:
        raise ExportError(f"tflite-micro did not say how much arena it uses: {said[:200]!r}")
    return int(found[1])


def run_tflm(interpreter: Any, window: NDArray[np.int8]) -> NDArray[np.int8]:
    """Return int8 logits (n_classes,) for one int8 input (n_frames, n_mels)."""
    interpreter.set_input(window[None], 0)
    interpreter.invoke()
    logits: NDArray[np.int8] = interpreter.get_output(0)[0].copy()
    return logits


def _captured(work: Callable[[], object]) -> tuple[str, bool]:
    """Run `work`; return what its C++ wrote to stderr and whether it raised."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            work()
            failed, words = False, ""
        except RuntimeError as problem:
            failed, words = True, str(problem)
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        said.seek(0)
        return said.read(1 << 16).decode(errors="replace") + words, failed
