"""Windows that show the converter how large activations become: the user's own data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quads_mcu.console import Progress
from quads_mcu.errors import ConfigError
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.report import evaluation
from quads_mcu.run_dir import RunDir

MAX_FILE_BYTES = 1 << 30


def from_run(
    run: RunDir, labels: tuple[str, ...], dims: Dimensions, count: int, progress: Progress
) -> NDArray[np.int8]:
    """Return `count` windows spread over the training split, int8 (n, n_frames, n_mels).

    Raises:
        ConfigError: count below 1, or the split is empty.
    """
    if count < 1:
        raise ConfigError(f"calibration on {count} utterances; at least 1 is needed")
    clips = evaluation.load_clips(run.config(), labels, "train", progress)
    chosen = np.unique(np.linspace(0, len(clips.pcm) - 1, count).round().astype(int))
    return evaluation.mel_features(clips.pcm[chosen], dims, progress)


def from_file(path: Path, dims: Dimensions, progress: Progress) -> NDArray[np.int8]:
    """Read a .npy file: int16 PCM (n, samples) or int8 features (n, n_frames, n_mels).

    Raises:
        ConfigError: not such a file, empty, or of another shape than the model's.
    """
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(f"{path}: {path.stat().st_size:,} bytes, limit {MAX_FILE_BYTES:,}")
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as problem:
        raise ConfigError(f"{path}: not a readable .npy file: {problem}") from None
    if not isinstance(values, np.ndarray) or values.ndim == 0 or len(values) == 0:
        raise ConfigError(f"{path}: an empty calibration set; give at least one window")
    if values.dtype == np.int16 and values.ndim == 2 and values.shape[1]:
        samples = dims.n_frames * 160
        pcm = np.zeros((len(values), samples), np.int16)
        kept = min(samples, values.shape[1])
        pcm[:, :kept] = values[:, :kept]
        return evaluation.mel_features(pcm, dims, progress)
    wanted = (dims.n_frames, dims.n_mels)
    if values.dtype != np.int8 or values.shape[1:] != wanted:
        raise ConfigError(
            f"{path}: calibration windows are {values.dtype} {values.shape[1:]}, the model takes "
            f"int8 {wanted} (features) or int16 (samples,) (PCM at 16 kHz)"
        )
    return values
