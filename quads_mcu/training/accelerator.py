"""Where training computes, and where bfloat16 may do instead of float32."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor

from quads_mcu.errors import TrainingError


def choose(setting: str) -> torch.device:
    """Return the device of [train] device.

    Raises:
        TrainingError: "cuda" without a usable GPU.
    """
    present = torch.cuda.is_available()
    if setting == "cuda" and not present:
        raise TrainingError(
            '[train] device = "cuda", but PyTorch finds no GPU here; install a CUDA build of '
            'PyTorch, or set device = "auto"'
        )
    return torch.device("cuda" if present and setting != "cpu" else "cpu")


def mixed_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context in which matrix products take bfloat16 where that is faster.

    That is a GPU, or a CPU with AVX512-BF16, whose products then take a third of the time; on
    other CPUs PyTorch imitates bfloat16, and float32 is faster.
    """
    if device.type == "cpu" and not _cpu_has_bfloat16():
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def finite(tensors: Iterable[Tensor]) -> bool:
    """Return whether no value of any tensor is NaN or infinite."""
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


def _cpu_has_bfloat16() -> bool:
    # Newer than the oldest PyTorch that may be installed.
    found: bool = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    return found
