"""The process in which onnx2tf and TensorFlow run; `quads_mcu.tflite.onnx2tf` starts it.

Usage: python -m quads_mcu.tflite._child STUDENT.onnx OUT_DIR CALIBRATION.npy INPUT
Leaves float32.tflite, float16.tflite and int8.tflite in OUT_DIR; reaches for no network.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

MARK = "quads-progress"


def step(description: str, completed: int, total: int) -> None:
    """Tell the parent how far this is."""
    print(f"{MARK}\t{description}\t{completed}\t{total}", flush=True)


def refuse_network() -> None:
    """Make every connection to another machine fail; onnx2tf would fetch calibration images."""

    def refuse(*_: Any) -> NoReturn:
        raise OSError("the conversion must not use the network")

    socket.socket.connect = refuse  # type: ignore[method-assign]
    socket.getaddrinfo = refuse  # type: ignore[assignment]


def convert(onnx_path: Path, out_dir: Path, calibration_path: Path, input_name: str) -> None:
    """Write the three models; calibration: float32 (n, n_frames, n_mels)."""
    import numpy as np

    calibration = np.load(calibration_path, allow_pickle=False)
    step("onnx2tf", 0, 1)
    import onnx2tf

    saved = out_dir / "saved_model"
    onnx2tf.convert(
        input_onnx_file_path=str(onnx_path),
        output_folder_path=str(saved),
        keep_shape_absolutely_input_names=[input_name],
        not_use_onnxsim=True,
        non_verbose=True,
        verbosity="error",
    )
    for kind in ("float32", "float16"):
        (saved / f"{onnx_path.stem}_{kind}.tflite").replace(out_dir / f"{kind}.tflite")
    step("onnx2tf", 1, 1)
    (out_dir / "int8.tflite").write_bytes(_int8(saved, calibration))


def _int8(saved: Path, calibration: Any) -> bytes:
    """Return the full-integer model: int8 weights, activations, input and output."""
    import tensorflow as tf

    def samples() -> Iterator[list[Any]]:
        for index, window in enumerate(calibration):
            step("calibration", index, len(calibration))
            yield [window[None]]
        step("calibration", len(calibration), len(calibration))

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    converted: bytes = converter.convert()
    return converted


if __name__ == "__main__":
    refuse_network()
    convert(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
