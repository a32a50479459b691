"""Tensors of a Whisper checkpoint, from every container it is published in, without pickle's code.

FILE.npz            numpy arrays under openai-whisper's names
FILE.safetensors    either naming
FILE.pt             openai-whisper's download (`dims`, `model_state_dict`), weights only
DIRECTORY           transformers' save_pretrained: model.safetensors, shards with their index,
                    or pytorch_model.bin; a whole Whisper, its encoder, or its audio classifier
OWNER/NAME          a model of the Hugging Face hub, kept in its own cache
"""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.errors import InstallationError, TrainingError

MAX_FILE_BYTES = 8 << 30
_MAX_INDEX_BYTES = 16 << 20
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_HUB_FILES = ["model.safetensors", "model.safetensors.index.json", "model-*.safetensors"]
_INDEX = "model.safetensors.index.json"
_WHOLE_TORCH = "pytorch_model.bin"
# What transformers' WhisperForAudioClassification has besides the encoder.
_CLASSIFIER = ("projector.", "classifier.", "layer_weights")
_TORCH_SUFFIXES = (".pt", ".bin", ".pth")

Tensors = dict[str, NDArray[Any]]


def locate(setting: str, path: Path) -> Path:
    """Return the file or directory a setting means; a hub id is downloaded once.

    Args:
        setting: as written in quads.toml.
        path: the same, resolved against the project's folder.
    Raises:
        TrainingError: nothing there, or the hub does not give the model.
        InstallationError: a hub id, and huggingface_hub is not installed.
    """
    if path.exists():
        return path
    if not _HUB_ID.fullmatch(setting) or path.suffix in (".npz", ".safetensors", *_TORCH_SUFFIXES):
        raise TrainingError(
            f"{path}: no such file; set a Whisper encoder file, a transformers directory, a hub id "
            "(openai/whisper-tiny.en), or leave the setting empty"
        )
    try:
        from huggingface_hub import snapshot_download
    except ImportError:
        raise InstallationError(
            f"{setting} is neither a file nor a folder here; to take it from the Hugging Face hub: "
            "pip install huggingface_hub"
        ) from None
    try:
        folder = Path(snapshot_download(setting, allow_patterns=_HUB_FILES))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(setting, allow_patterns=[_WHOLE_TORCH]))
        return folder
    except (OSError, ValueError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise TrainingError(
            f"{setting}: the Hugging Face hub does not give it ({reason}); download the model "
            "elsewhere and name its folder"
        ) from None


def read(path: Path) -> Tensors:
    """Return the encoder's tensors under the names the file has; decoder tensors are left out.

    Raises:
        TrainingError: missing, too large or unreadable; the message does not name the file.
    """
    if path.is_dir():
        return _read_directory(path)
    if not path.is_file():
        raise TrainingError("no such file; set a Whisper encoder file or leave the setting empty")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise TrainingError(f"{path.stat().st_size} bytes, limit {MAX_FILE_BYTES}")
    if path.suffix == ".npz":
        return _read_npz(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in _TORCH_SUFFIXES:
        return _read_torch(path)
    raise TrainingError(
        f"suffix {path.suffix!r}; use .npz, .safetensors, .pt or a transformers directory"
    )


def _read_directory(folder: Path) -> Tensors:
    for name in ("model.safetensors", _WHOLE_TORCH):
        if (folder / name).is_file():
            return read(folder / name)
    if not (folder / _INDEX).is_file():
        raise TrainingError(f"no model.safetensors, {_INDEX} or {_WHOLE_TORCH} in this folder")
    found: Tensors = {}
    for shard in _shards(folder / _INDEX):
        found |= read(folder / shard)
    return found


def _shards(index: Path) -> list[str]:
    """Return the files that hold encoder tensors; names that leave the folder are refused."""
    try:
        if index.stat().st_size > _MAX_INDEX_BYTES:
            raise ValueError(f"{index.stat().st_size} bytes, limit {_MAX_INDEX_BYTES}")
        where = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted({str(shard) for name, shard in where.items() if _is_encoder(name)})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise TrainingError(f"{index.name} is damaged: {problem}") from None
    for shard in shards:
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise TrainingError(f"{index.name} names {shard!r}, not a .safetensors file beside it")
    return shards


def _read_npz(path: Path) -> Tensors:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(item.file_size for item in archive.infolist())
        if unpacked > MAX_FILE_BYTES:
            raise TrainingError(f"unpacks to {unpacked} bytes, limit {MAX_FILE_BYTES}")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if _is_encoder(name)}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as problem:
        raise TrainingError(f"not a readable .npz file: {problem}") from None


def _read_safetensors(path: Path) -> Tensors:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            names = [name for name in file.keys() if _is_encoder(name)]  # noqa: SIM118
            return {name: file.get_tensor(name) for name in names}
    except (OSError, SafetensorError, TypeError) as problem:
        raise TrainingError(
            f"not a readable .safetensors file of float32 or float16: {problem}"
        ) from None


def _read_torch(path: Path) -> Tensors:
    """Read with `weights_only`: tensors and plain containers, nothing that runs."""
    import pickle

    import torch

    try:
        found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, ValueError, EOFError, RuntimeError, pickle.UnpicklingError) as problem:
        reason = str(problem).strip().splitlines()[0]
        raise TrainingError(f"not a readable checkpoint of plain weights: {reason}") from None
    state = found.get("model_state_dict", found) if isinstance(found, dict) else None
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise TrainingError("holds no state dict of tensors")
    kept = {str(name): tensor for name, tensor in state.items() if _is_encoder(str(name))}
    if any(tensor.dtype == torch.bfloat16 for tensor in kept.values()):
        kept = {name: tensor.float() for name, tensor in kept.items()}
    return {name: tensor.numpy() for name, tensor in kept.items()}


def _is_encoder(name: str) -> bool:
    other = "decoder." in name or "proj_out" in name or name == "alignment_heads"
    return not other and not name.startswith(_CLASSIFIER)
