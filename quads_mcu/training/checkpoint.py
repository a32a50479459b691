"""Checkpoints: one safetensors file with tensors and, as metadata, one JSON document.

Written atomically and read without pickle, so a killed run always finds its last whole epoch.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from quads_mcu import atomic
from quads_mcu.errors import TrainingError
from quads_mcu.paths import cache_dir

MAX_FILE_BYTES = 16 << 30
_KEY = "quads"

# A tensor of torch or an array of numpy.
_Value = TypeVar("_Value")


def write(path: Path, tensors: Mapping[str, Tensor], scalars: Mapping[str, Any]) -> None:
    """Write tensors and JSON values to `path`, atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    from safetensors.torch import save

    whole = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    data = save(whole, metadata={_KEY: json.dumps(scalars)})
    atomic.write(path, data)


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `write` wrote.

    Raises:
        TrainingError: missing, truncated, or not written by this program.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise TrainingError(f"{path}: {path.stat().st_size} bytes, limit {MAX_FILE_BYTES}")
        with safe_open(path, framework="pt") as file:
            scalars = json.loads((file.metadata() or {}).get(_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file; `quads-mcu train` writes it") from None
    except (OSError, ValueError, RecursionError, SafetensorError) as problem:
        raise TrainingError(f"{path}: damaged: {problem}; train again with --restart") from None
    if not isinstance(scalars, dict):
        raise TrainingError(f"{path}: not written by quads-mcu; train again with --restart")
    return tensors, scalars


def cached(
    folder: str, key: str, compute: Callable[[], dict[str, NDArray[np.float32]]]
) -> dict[str, NDArray[np.float32]]:
    """Return what `compute` returns, from `folder` of the cache where it was kept under `key`.

    Raises:
        TrainingError, StorageError: as `read` and `write`.
    """
    path = cache_dir() / folder / f"{key[:32]}.safetensors"
    if not path.exists():
        write(path, {name: torch.from_numpy(array) for name, array in compute().items()}, {})
    return {name: tensor.numpy() for name, tensor in read(path)[0].items()}


def part(tensors: Mapping[str, _Value], prefix: str) -> dict[str, _Value]:
    """Return the tensors whose names start with `prefix`, without it."""
    size = len(prefix)
    return {name[size:]: tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Undo `part`."""
    return {prefix + name: tensor for name, tensor in tensors.items()}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimizer's moments by parameter position."""
    state = optimizer.state_dict()["state"]
    return {f"{i}.{key}": value for i, slots in state.items() for key, value in slots.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Undo `optimizer_tensors`; the parameter groups stay as they are."""
    whole = optimizer.state_dict()
    whole["state"] = {}
    for name, tensor in tensors.items():
        position, _, key = name.partition(".")
        whole["state"].setdefault(int(position), {})[key] = tensor
    optimizer.load_state_dict(whole)
