"""Encoder weights of Whisper under this project's names, every tensor checked.

Names of openai-whisper and of transformers are understood; sizes follow from the tensors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.errors import TrainingError
from quads_mcu.model import whisper_files
from quads_mcu.model.dimensions import CONV_KERNEL, WHISPER, Dimensions, Preset

# Positions of a published Whisper encoder: 30 s.
WHISPER_TOKENS = 1500
_HEAD_WIDTH = 64

_OPENAI = {
    "attn_ln": "attention_norm",
    "attn.query": "query",
    "attn.key": "key",
    "attn.value": "value",
    "attn.out": "output",
    "mlp_ln": "feed_forward_norm",
    "mlp.0": "feed_forward_1",
    "mlp.2": "feed_forward_2",
}
_TRANSFORMERS = {
    "self_attn_layer_norm": "attention_norm",
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.out_proj": "output",
    "final_layer_norm": "feed_forward_norm",
    "fc1": "feed_forward_1",
    "fc2": "feed_forward_2",
}
_OUTER = {
    "conv1": "conv1",
    "conv2": "conv2",
    "ln_post": "norm",
    "layer_norm": "norm",
    "positional_embedding": "positions",
    "embed_positions.weight": "positions",
}

Weights = dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class WhisperEncoder:
    """Weights of one encoder under the names of `quads_mcu.model.encoder.Encoder`.

    tensors: float32; positions (n_positions, d_model).
    """

    preset: Preset
    n_mels: int
    tensors: Weights

    def dimensions(self, n_frames: int, n_classes: int) -> Dimensions:
        """Return this encoder's sizes with an utterance-length window and a head."""
        size = self.preset
        return Dimensions(
            self.n_mels, n_frames, size.d_model, size.n_heads, size.n_layers, n_classes
        )

    def state(self, n_tokens: int) -> Weights:
        """Return the tensors with the first `n_tokens` positions.

        Raises:
            TrainingError: the file has fewer positions.
        """
        available = len(self.tensors["positions"])
        if n_tokens > available:
            raise TrainingError(
                f"the window has {n_tokens} encoder positions, the Whisper file {available}; "
                "shorten [audio] window_s"
            )
        return self.tensors | {"positions": self.tensors["positions"][:n_tokens]}


def read_encoder(path: Path) -> WhisperEncoder:
    """Read the encoder of a Whisper checkpoint (`whisper_files` lists the containers).

    Raises:
        TrainingError: missing, unreadable or not a Whisper encoder; the message names the file
            and the tensor.
    """
    try:
        tensors = _rename(whisper_files.read(path))
        encoder = WhisperEncoder(_preset(tensors), _n_mels(tensors), tensors)
        _check(encoder)
    except TrainingError as problem:
        raise TrainingError(f"{path}: {problem}") from None
    return encoder


def _rename(raw: Mapping[str, NDArray[Any]]) -> Weights:
    tensors: Weights = {}
    for name, tensor in raw.items():
        ours = _our_name(name)
        if ours is None:
            raise TrainingError(f"tensor {name!r} is not part of a Whisper encoder")
        if tensor.dtype not in (np.float16, np.float32):
            raise TrainingError(f"tensor {name!r} is {tensor.dtype}, expected float32 or float16")
        if not np.isfinite(tensor).all():
            raise TrainingError(f"tensor {name!r} holds values that are not finite")
        tensors[ours] = np.ascontiguousarray(tensor, dtype=np.float32)
    return tensors


def _our_name(name: str) -> str | None:
    name = name.removeprefix("model.").removeprefix("encoder.")
    match = re.fullmatch(r"(?:blocks|layers)\.(\d+)\.(.+?)\.(weight|bias)", name)
    if match:
        index, part, kind = match.groups()
        ours = _OPENAI.get(part) or _TRANSFORMERS.get(part)
        return f"layers.{index}.{ours}.{kind}" if ours else None
    if name in _OUTER:
        return _OUTER[name]
    part, _, kind = name.rpartition(".")
    return f"{_OUTER[part]}.{kind}" if part in _OUTER and kind in ("weight", "bias") else None


def _preset(tensors: Weights) -> Preset:
    conv1 = tensors.get("conv1.weight")
    if conv1 is None or conv1.ndim != 3:
        raise TrainingError("holds no Whisper encoder: conv1.weight is missing")
    d_model = conv1.shape[0]
    n_layers = len({name.split(".")[1] for name in tensors if name.startswith("layers.")})
    for preset in WHISPER.values():
        if preset.d_model == d_model:
            return Preset(d_model, preset.n_heads, n_layers)
    return Preset(d_model, max(1, d_model // _HEAD_WIDTH), n_layers)


def _n_mels(tensors: Weights) -> int:
    return int(tensors["conv1.weight"].shape[1])


def _check(encoder: WhisperEncoder) -> None:
    dims = encoder.dimensions(n_frames=2, n_classes=2)
    if problem := dims.problem():
        raise TrainingError(f"not a Whisper encoder this tool can hold: {problem}")
    wanted = _shapes(dims)
    if surplus := sorted(set(encoder.tensors) - set(wanted) - {"positions"}):
        raise TrainingError(f"unexpected tensor {surplus[0]!r}")
    for name, shape in wanted.items():
        tensor = encoder.tensors.get(name)
        if tensor is None:
            raise TrainingError(f"tensor {name!r} is missing")
        if tensor.shape != shape:
            raise TrainingError(f"tensor {name!r} has shape {tensor.shape}, expected {shape}")
    positions = encoder.tensors.get("positions")
    if positions is None or positions.ndim != 2 or positions.shape[1] != dims.d_model:
        found = "missing" if positions is None else f"of shape {positions.shape}"
        raise TrainingError(f"positions are {found}, expected (n, {dims.d_model})")


def _shapes(dims: Dimensions) -> dict[str, tuple[int, ...]]:
    d = dims.d_model
    shapes: dict[str, tuple[int, ...]] = {
        "conv1.weight": (d, dims.n_mels, CONV_KERNEL),
        "conv1.bias": (d,),
        "conv2.weight": (d, d, CONV_KERNEL),
        "conv2.bias": (d,),
        "norm.weight": (d,),
        "norm.bias": (d,),
    }
    for index in range(dims.n_layers):
        prefix = f"layers.{index}."
        for part in ("query", "key", "value", "output"):
            shapes[f"{prefix}{part}.weight"] = (d, d)
        for part in ("query", "value", "output", "feed_forward_2"):
            shapes[f"{prefix}{part}.bias"] = (d,)
        shapes[f"{prefix}feed_forward_1.weight"] = (dims.d_ff, d)
        shapes[f"{prefix}feed_forward_1.bias"] = (dims.d_ff,)
        shapes[f"{prefix}feed_forward_2.weight"] = (d, dims.d_ff)
        for part in ("attention_norm", "feed_forward_norm"):
            shapes[f"{prefix}{part}.weight"] = (d,)
            shapes[f"{prefix}{part}.bias"] = (d,)
    return shapes
