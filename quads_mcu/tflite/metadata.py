"""What a `.tflite` file says of itself: one JSON document in the flatbuffer, named "quads-mcu"."""

from __future__ import annotations

import json
from typing import Any

import quads_mcu
from quads_mcu import slots
from quads_mcu.config import SAMPLE_RATE
from quads_mcu.errors import ModelFormatError
from quads_mcu.model_format import MEL_CLAMP_LSB, MEL_SCALE, MEL_ZERO_POINT, PackedModel
from quads_mcu.tflite.flatbuffer import Flatbuffer

NAME = "quads-mcu"
VERSION = 1
MAX_BYTES = 1 << 20
WINDOW_SAMPLES, HOP_SAMPLES = 400, 160


def describe(model: PackedModel) -> dict[str, Any]:
    """Return labels, frontend parameters, model hash and versions as plain values.

    `segments` names each slot and its labels, in the order of the logits.
    """
    labels = list(model.labels)
    return {
        "metadata_version": VERSION,
        "quads_mcu": quads_mcu.__version__,
        "model_hash": model.model_hash,
        "labels": labels,
        "segments": slots.to_json(model.slots),
        "frontend": {
            "kind": "log-mel",
            "sample_rate_hz": SAMPLE_RATE,
            "window_samples": WINDOW_SAMPLES,
            "hop_samples": HOP_SAMPLES,
            "window": "hann, periodic",
            "n_mels": model.dims.n_mels,
            "n_frames": model.dims.n_frames,
            "mel": "slaney, 0 .. 8000 Hz",
            "scale": MEL_SCALE,
            "zero_point": MEL_ZERO_POINT,
            "clamp_lsb": MEL_CLAMP_LSB,
        },
    }


def write(buffer: Flatbuffer, model: PackedModel) -> None:
    """Store the description in a model."""
    buffer.set_metadata(NAME, json.dumps(describe(model), ensure_ascii=False).encode())


def read(data: bytes) -> dict[str, Any]:
    """Return the description of a `.tflite` file.

    Raises:
        ModelFormatError: not a model of quads-mcu, or of another version.
    """
    stored = Flatbuffer(data).metadata(NAME)
    if stored is None:
        raise ModelFormatError("a TFLite model, but without quads-mcu's metadata")
    try:
        found = json.loads(stored) if len(stored) <= MAX_BYTES else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or found.get("metadata_version") != VERSION:
        raise ModelFormatError(f"its metadata is damaged or not of version {VERSION}")
    return found
