"""onnx2tf and TensorFlow's converter, in a process of their own: they print, exit and take 1 GB."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quads_mcu.console import Progress
from quads_mcu.errors import ExportError
from quads_mcu.tflite._child import MARK

LOG = "onnx2tf.log"
TIME_LIMIT_S = 3600
_QUIET = {
    "CUDA_VISIBLE_DEVICES": "",
    "TF_CPP_MIN_LOG_LEVEL": "2",
    "TF_ENABLE_ONEDNN_OPTS": "0",
    "PYTHONWARNINGS": "ignore",
    "HF_HUB_OFFLINE": "1",
}


def convert(
    onnx_path: Path, calibration: NDArray[np.float32], out_dir: Path, input_name: str,
    progress: Progress,
) -> dict[str, bytes]:  # fmt: skip
    """Convert an ONNX model to TFLite.

    Args:
        onnx_path: static shapes, one input.
        calibration: float32 (n, n_frames, n_mels), n at least 1.
        out_dir: gets intermediate files and onnx2tf.log, everything the converters said.
    Returns:
        The flatbuffers "float32", "float16" and "int8".
    Raises:
        ExportError: a converter failed; the message has its last words and the log's path.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    samples = out_dir / "calibration.npy"
    np.save(samples, calibration)
    command = [sys.executable, "-m", "quads_mcu.tflite._child"]
    command += [str(onnx_path.resolve()), str(out_dir.resolve()), str(samples.resolve())]
    code = _run([*command, input_name], out_dir, progress)
    found = {kind: out_dir / f"{kind}.tflite" for kind in ("float32", "float16", "int8")}
    if code or not all(path.is_file() for path in found.values()):
        log = out_dir / LOG
        raise ExportError(
            f"onnx2tf failed (exit code {code}): {_last_words(log)}; whole log: {log}"
        )
    return {kind: path.read_bytes() for kind, path in found.items()}


def _run(command: list[str], out_dir: Path, progress: Progress) -> int:
    package = str(Path(__file__).resolve().parents[2])
    paths = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH", "")]))
    environment = os.environ | _QUIET | {"PYTHONPATH": paths}
    with (
        (out_dir / LOG).open("w", encoding="utf-8", buffering=1) as log,
        subprocess.Popen(
            command, cwd=out_dir, env=environment, text=True, errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        ) as child,
    ):  # fmt: skip
        watchdog = threading.Timer(TIME_LIMIT_S, child.kill)
        watchdog.start()
        try:
            assert child.stdout is not None
            for line in child.stdout:
                if line.startswith(MARK):
                    _, description, completed, total = line.rstrip("\n").split("\t")
                    progress(description, int(completed), int(total))
                else:
                    log.write(line)
        except BaseException:
            child.kill()
            raise
        finally:
            watchdog.cancel()
    return child.returncode


def _last_words(log: Path) -> str:
    lines = log.read_text(encoding="utf-8").splitlines()
    telling = [line.strip() for line in lines if "error" in line.lower() and line.strip()]
    return (telling or [line.strip() for line in lines if line.strip()] or ["it said nothing"])[-1]
