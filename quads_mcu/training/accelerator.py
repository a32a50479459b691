"""Where training computes: the CPU in float32, or one GPU with bfloat16 where rounding may do."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

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
    """Return a context in which matrix products take bfloat16 on a GPU, float32 on the CPU."""
    if device.type == "cpu":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
