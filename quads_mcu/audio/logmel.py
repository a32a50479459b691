"""Whisper's log-mel spectrogram as published: the reference that the device's frontend follows.

Definition: openai/whisper, `audio.py` (window, hop, clamp and scale) and `assets/mel_filters.npz`
(librosa's Slaney filterbank), here from its formula.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.config import SAMPLE_RATE
from quads_mcu.errors import AudioError

N_FFT = 400
HOP_SAMPLES = 160
N_BINS = N_FFT // 2 + 1
MAX_MELS = 128
FULL_SCALE = 32768
FLOOR = 1e-10

_BLOCK_FRAMES = 256

# Slaney's mel scale: linear up to 1 kHz, 15 mel; above, 27 mel per factor 6.4.
_LINEAR_HZ_PER_MEL = 200 / 3
_BREAK_HZ = 1000.0
_BREAK_MEL = _BREAK_HZ / _LINEAR_HZ_PER_MEL
_LOG_STEP = np.log(6.4) / 27

Pcm = NDArray[np.int16]


def log_mel(pcm: Pcm, n_mels: int) -> NDArray[np.float32]:
    """Return Whisper's normalized log-mel spectrogram, computed in float64.

    Periodic Hann window, hop 160, the clip reflected at both ends, power spectrum, Slaney mel
    bands, log10 floored at -10, clamped to 8 decades below the clip's maximum, (x + 4) / 4.

    Args:
        pcm: int16, (..., n_samples), mono, SAMPLE_RATE Hz; n_samples > N_FFT / 2.
        n_mels: bands; Whisper has 80, large-v3 128.
    Returns:
        float32, (..., n_samples // HOP_SAMPLES, n_mels). The last, partial frame is dropped.
    Raises:
        AudioError: pcm is not int16 or too short to reflect, or n_mels is out of range.
    """
    pcm = np.asarray(pcm)
    if pcm.dtype != np.int16 or pcm.ndim == 0:
        raise AudioError(f"log_mel wants int16 samples, got {pcm.dtype} {pcm.shape}")
    n_samples = pcm.shape[-1]
    if n_samples <= N_FFT // 2:
        raise AudioError(f"a clip of {n_samples} samples is too short; at least {N_FFT // 2 + 1}")
    filters = mel_filterbank(n_mels).T
    n_frames = n_samples // HOP_SAMPLES
    out = np.empty((*pcm.shape[:-1], n_frames, n_mels), np.float32)
    for index in np.ndindex(pcm.shape[:-1]):
        out[index] = _clip_log_mel(pcm[index], filters, n_frames)
    return out


def _clip_log_mel(pcm: Pcm, filters: NDArray[np.float64], n_frames: int) -> NDArray[np.float64]:
    """Return float64 (n_frames, n_mels) of one clip; `filters` is (N_BINS, n_mels)."""
    padded = np.pad(pcm, N_FFT // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, N_FFT)[::HOP_SAMPLES][:n_frames]
    window = hann() / FULL_SCALE
    decades = np.empty((n_frames, filters.shape[1]))
    for at in range(0, n_frames, _BLOCK_FRAMES):
        spectrum = np.fft.rfft(frames[at : at + _BLOCK_FRAMES] * window)
        power = spectrum.real**2 + spectrum.imag**2
        decades[at : at + _BLOCK_FRAMES] = np.log10(np.maximum(power @ filters, FLOOR))
    clamped: NDArray[np.float64] = np.maximum(decades, decades.max() - 8.0)
    return (clamped + 4.0) / 4.0


def hann() -> NDArray[np.float64]:
    """Return the periodic Hann window, float64 (N_FFT,)."""
    window: NDArray[np.float64] = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(N_FFT) / N_FFT)
    return window


def mel_corners(n_mels: int) -> NDArray[np.float64]:
    """Return lower edge, centers and upper edge of the bands, float64 (n_mels + 2,), Hz.

    Equally spaced on Slaney's mel scale from 0 Hz to SAMPLE_RATE / 2; band m rises from corner m
    to m + 1 and falls to m + 2.

    Raises:
        AudioError: n_mels is not in 1 .. MAX_MELS.
    """
    if not 1 <= n_mels <= MAX_MELS:
        raise AudioError(f"n_mels = {n_mels} is outside 1 .. {MAX_MELS}")
    top = _BREAK_MEL + np.log(SAMPLE_RATE / 2 / _BREAK_HZ) / _LOG_STEP
    mel = np.linspace(0.0, top, n_mels + 2)
    above = _BREAK_HZ * np.exp(_LOG_STEP * (mel - _BREAK_MEL))
    return np.where(mel < _BREAK_MEL, _LINEAR_HZ_PER_MEL * mel, above)


@functools.cache
def mel_filterbank(n_mels: int) -> NDArray[np.float64]:
    """Return the Slaney filterbank: triangles of unit area (per Hz) over the FFT bins.

    Equals librosa.filters.mel(sr=16000, n_fft=400, n_mels=n_mels).

    Returns:
        float64, (n_mels, N_BINS), read-only.
    Raises:
        AudioError: n_mels is not in 1 .. MAX_MELS.
    """
    corners: NDArray[Any] = mel_corners(n_mels)[:, None]
    lower, center, upper = corners[:-2], corners[1:-1], corners[2:]
    bins = np.arange(N_BINS) * (SAMPLE_RATE / N_FFT)
    rising = (bins - lower) / (center - lower)
    falling = (upper - bins) / (upper - center)
    filters: NDArray[np.float64] = np.maximum(0.0, np.minimum(rising, falling))
    filters *= 2.0 / (upper - lower)
    filters.setflags(write=False)
    return filters
