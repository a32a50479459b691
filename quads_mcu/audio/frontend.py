"""Device features: the numpy twin of firmware/src/frontend (docs/arithmetic.md, section 1).

float32 elementwise, operation by operation in the order of the C sources, so that the bytes are
equal. No dot product, sum or einsum: their order and fusing belong to numpy. The last axis of
every intermediate array runs over frames.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from quads_mcu.audio.fixed_frontend import levels as fixed_levels
from quads_mcu.audio.frontend_tables import (
    CLAMP_LEVELS,
    LEVEL_BIAS,
    N1,
    N2,
    Float32,
    FrontendTables,
    frame_samples,
    tables,
)
from quads_mcu.audio.logmel import HOP_SAMPLES, N_BINS, N_FFT
from quads_mcu.audio.prime_factor import Arithmetic, dft16, dft25
from quads_mcu.errors import AudioError

Int8 = NDArray[np.int8]

# Arithmetics, as model_format.FRONTENDS: a model says which it wants.
FRONTENDS = FLOAT, FIXED = ("float", "fixed")

# Frames worked on at a time: the intermediate arrays stay in a core's cache.
_BLOCK_FRAMES = 256

_QUARTER = np.float32(0.25)


def features(pcm: NDArray[np.int16], n_mels: int, n_frames: int, arithmetic: str = FLOAT) -> Int8:
    """Return the features of one window of `n_frames` per clip, clamped, as the device has them.

    Args:
        pcm: int16, (..., n_samples), mono, 16 kHz. Zeros precede it and follow it; samples beyond
            the window are ignored.
        n_mels: bands, 1 .. 128.
        n_frames: frames of the window.
        arithmetic: one of FRONTENDS.
    Returns:
        int8, (..., n_frames, n_mels), scale 1/80, zero point -8.
    Raises:
        AudioError: pcm is not int16, n_mels is out of range, or arithmetic is unknown.
    """
    return clamp(frames(pcm, n_mels, n_frames, arithmetic))


def clamp(mel: Int8) -> Int8:
    """Apply Whisper's clamp, 8 decades below the window's maximum: int8 (..., n_frames, n_mels)."""
    if not mel.size:
        return mel
    floor = mel.max(axis=(-2, -1), keepdims=True).astype(np.int16) - CLAMP_LEVELS
    clamped: Int8 = np.maximum(mel, np.maximum(floor, -LEVEL_BIAS).astype(np.int8))
    return clamped


def frames(pcm: NDArray[np.int16], n_mels: int, n_frames: int, arithmetic: str = FLOAT) -> Int8:
    """Return the first `n_frames` frames of each clip before the clamp.

    Frame f covers samples 160 f - 200 .. 160 f + 199. Arguments, result and errors are those of
    `features`.
    """
    pcm = np.asarray(pcm)
    if pcm.dtype != np.int16 or pcm.ndim == 0:
        raise AudioError(f"the frontend wants int16 samples, got {pcm.dtype} {pcm.shape}")
    if arithmetic not in FRONTENDS:
        raise AudioError(f"frontend {arithmetic!r} is unknown; there are {', '.join(FRONTENDS)}")
    constants = tables(n_mels)
    n_clips = math.prod(pcm.shape[:-1])
    out = np.empty((n_clips, n_frames, n_mels), np.int8)
    windows = _windows(pcm.reshape(n_clips, pcm.shape[-1]), n_frames)
    n_together = max(1, _BLOCK_FRAMES // max(1, n_frames))
    for clip in range(0, n_clips, n_together):
        for at in range(0, n_frames, _BLOCK_FRAMES):
            block = windows[:, clip : clip + n_together, at : at + _BLOCK_FRAMES]
            shape = (*block.shape[1:], n_mels)
            samples = block[constants.sample_order.T].reshape(N1, N2, -1)
            fixed = arithmetic == FIXED
            levels = fixed_levels(samples, n_mels) if fixed else _levels(samples, constants)
            out[clip : clip + n_together, at : at + _BLOCK_FRAMES] = levels.T.reshape(shape)
    return out.reshape(*pcm.shape[:-1], n_frames, n_mels)


def _windows(pcm: NDArray[np.int16], n_frames: int) -> NDArray[np.int16]:
    """Return a view int16 (400, n_clips, n_frames): sample n of frame f of each clip."""
    n_samples = min(pcm.shape[1], frame_samples(n_frames))
    left = N_FFT // 2
    padded = np.zeros((len(pcm), left + frame_samples(n_frames)), np.int16)
    padded[:, left : left + n_samples] = pcm[:, :n_samples]
    return np.lib.stride_tricks.as_strided(
        padded,
        (N_FFT, len(pcm), n_frames),
        (padded.strides[1], padded.strides[0], HOP_SAMPLES * padded.strides[1]),
        writeable=False,
    )


def _levels(samples: NDArray[np.int16], constants: FrontendTables) -> Int8:
    """Run the pipeline: int16 (16, 25, F) in prime-factor order -> int8 (n_mels, F)."""
    arithmetic = Arithmetic(
        scale=lambda a, factor: factor * a,
        quarter=lambda a: _QUARTER * a,
        scalars=constants.scalars,
        twiddles=constants.twiddles,
    )
    windowed = samples.astype(np.float32) * constants.window.T[:, :, None]
    rows = dft25(dft16(windowed, arithmetic), arithmetic)
    return _log(_mel(_power(rows, constants), constants), constants)


def _power(rows: Float32, constants: FrontendTables) -> Float32:
    """Squared magnitudes (201, F) of the transformed rows (2, 8, 25, F)."""
    re, im = rows
    n = rows.shape[-1]
    power = np.empty((N_BINS, n), np.float32)
    power[constants.bins] = re[1:] * re[1:] + im[1:] * im[1:]
    # Row 0 is the transform z of two real sequences: (z[k] +- conj z[-k]) / 2.
    place, mirror, bin_0, bin_8 = constants.real_bins.T
    for target, real, imaginary in (
        (bin_0, re[0, place] + re[0, mirror], im[0, place] - im[0, mirror]),
        (bin_8, im[0, place] + im[0, mirror], re[0, place] - re[0, mirror]),
    ):
        power[target] = _QUARTER * (real * real + imaginary * imaginary)
    return power


def _mel(power: Float32, constants: FrontendTables) -> Float32:
    """Sum the bands' nonzero weights in ascending frequency: (201, F) -> (n_mels, F)."""
    weights = constants.mel_weights
    nonzero = weights > 0
    start = nonzero.argmax(axis=1)
    length = nonzero.sum(axis=1)
    bands = np.arange(len(weights))
    energy: Float32 = weights[bands, start, None] * power[start]
    for step in range(1, int(length.max())):
        wide = bands[length > step]
        at = start[wide] + step
        energy[wide] += weights[wide, at, None] * power[at]
    return energy


def _log(energy: Float32, constants: FrontendTables) -> Int8:
    """Return 20 log10(energy) + 72, rounded half up and saturated, int8 of the same shape."""
    bits = energy.view(np.int32)
    exponent = (bits >> 23).astype(np.float32)
    mantissa = ((bits & 0x007FFFFF) | 0x3F800000).view(np.float32)
    polynomial = constants.log_polynomial
    level = np.full_like(mantissa, polynomial[-1])
    for coefficient in polynomial[-2::-1]:
        level = level * mantissa + coefficient
    level = level + exponent * constants.scalars["log_per_octave"]
    return (np.clip(level.astype(np.int32), 0, 255) - LEVEL_BIAS).astype(np.int8)
