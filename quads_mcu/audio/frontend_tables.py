"""Constants of the log-mel frontend, shared by its numpy twin and the generated C header.

The spectrum is a prime-factor transform (Good 1958, Thomas 1963) of 400 = 16 x 25 real samples.
Sample n = (25 n1 + 16 n2) mod 400 goes to row n1, column n2. Real 16-point DFTs down the columns
give the spectra of 16 sequences of 25; since row 16 - k1 is the conjugate of row k1, eight complex
rows (ROWS) carry them all. 25-point DFTs along the rows, as 5 x 5 with twiddles, then give X[k] at
row k mod 16, column k mod 25: no twiddles between 16 and 25, no real-to-complex pass at the end.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quads_mcu.audio.logmel import (
    FULL_SCALE,
    HOP_SAMPLES,
    N_BINS,
    N_FFT,
    hann,
    mel_corners,
    mel_filterbank,
)
from quads_mcu.config import SAMPLE_RATE

Float32 = NDArray[np.float32]

N1, N2 = 16, 25

# k mod 16 of each complex row of the transform. Row 0 carries the two real sequences of 0 and 8 as
# its real and imaginary part; the others are chosen (k1 or 16 - k1) so that nothing is negated.
ROWS = (0, 12, 14, 6, 15, 7, 3, 11)

# Minimax fit of 20 log10(m) on 1 <= m < 2, lowest order first; the error is below 0.0006.
_LOG_MANTISSA = (
    -15.128886702749686,
    24.50437233063408,
    -12.767720025001852,
    3.8841366532300574,
    -0.4913749074813096,
)
_LOG_PER_OCTAVE = 6.020599913279624  # 20 log10(2)
LEVELS_PER_DECADE = 20
LEVEL_OF_ONE = 72
CLAMP_LEVELS = 8 * LEVELS_PER_DECADE  # Whisper's clamp, 8 decades below the maximum
ROUND_HALF_UP = 0.5
LEVEL_BIAS = 128
EXPONENT_BIAS = 127


@dataclass(frozen=True)
class FrontendTables:
    """Tables of one n_mels. Every float is the float32 that both implementations use."""

    n_mels: int
    sample_order: NDArray[np.uint16]  # (25, 16), n of row n1 in column n2 at [n2][n1]
    window: Float32  # (25, 16), Hann window / 32768 in that order
    twiddles: Float32  # (4, 4, 2), W25^(b k) as (re, im) at [b - 1][k - 1]
    bins: NDArray[np.uint8]  # (7, 25), FFT bin of each place in rows 1 .. 7
    real_bins: NDArray[np.uint8]  # (13, 4), place, its mirror, bin of k1 = 0 and of k1 = 8
    mel_weights: Float32  # (n_mels, 201), the filterbank
    mel_segments: NDArray[np.uint8]  # (n_mels + 1,), bins up to each band's center, then the rest
    mel_slopes: Float32  # (199, 2), per bin from 1: weight in the band that falls, that rises
    log_polynomial: Float32  # (5,), mantissa -> level, all offsets included
    scalars: dict[str, np.float32]


@functools.cache
def tables(n_mels: int) -> FrontendTables:
    """Return the tables for `n_mels` bands.

    Raises:
        AudioError: n_mels is not in 1 .. MAX_MELS.
    """
    weights = mel_filterbank(n_mels).astype(np.float32)
    order = (N2 * np.arange(N1) + N1 * np.arange(N2)[:, None]) % N_FFT
    segments, slopes = _mel_slopes(n_mels, weights)
    return FrontendTables(
        n_mels=n_mels,
        sample_order=order.astype(np.uint16),
        window=(hann() / FULL_SCALE)[order].astype(np.float32),
        twiddles=_twiddles(),
        bins=np.stack([_row_bins(k1) for k1 in ROWS[1:]]),
        real_bins=_real_bins(),
        mel_weights=weights,
        mel_segments=segments,
        mel_slopes=slopes,
        log_polynomial=_log_polynomial(),
        scalars=_scalars(),
    )


def _twiddles() -> Float32:
    steps = np.arange(1, 5)
    angle = 2 * np.pi * np.outer(steps, steps) / N2
    found: Float32 = np.stack([np.cos(angle), -np.sin(angle)], axis=-1).astype(np.float32)
    return found


def _places() -> NDArray[np.int64]:
    """Return k2 at each place of a row after the 5 x 5 transform, (25,)."""
    place = np.arange(N2)
    return place // 5 + 5 * (place % 5)


def _row_bins(k1: int) -> NDArray[np.uint8]:
    """Return the bin, k or 400 - k, at each place of row k1, uint8 (25,)."""
    k = np.arange(N_FFT)
    k = k[k % N1 == k1]
    by_column = np.empty(N2, np.int64)
    by_column[k % N2] = np.minimum(k, N_FFT - k)
    return by_column[_places()].astype(np.uint8)


def _real_bins() -> NDArray[np.uint8]:
    place = np.argsort(_places())  # place of each k2
    k2 = np.arange(N2 // 2 + 1)
    places = np.stack([place[k2], place[-k2 % N2]], axis=-1).astype(np.uint8)
    bins = np.stack([_row_bins(0), _row_bins(8)], axis=-1)
    return np.concatenate([places, bins[place[k2]]], axis=-1)


def _mel_slopes(n_mels: int, weights: Float32) -> tuple[NDArray[np.uint8], Float32]:
    """Lay the filterbank out by bin: each lies on the fall of one band and the rise of the next.

    The first and the last bin, 0 Hz and 8 kHz, have weight 0 in every band and are left out.
    """
    bins = np.arange(1, N_BINS - 1)
    centers = mel_corners(n_mels)[1:-1]
    segment = np.searchsorted(centers, bins * (SAMPLE_RATE / N_FFT))
    outside = np.zeros((1, N_BINS), np.float32)
    falling = np.concatenate([outside, weights])[segment, bins]
    rising = np.concatenate([weights, outside])[segment, bins]
    counts = np.bincount(segment, minlength=n_mels + 1).astype(np.uint8)
    return counts, np.stack([falling, rising], axis=-1)


def _log_polynomial() -> Float32:
    """Return the mantissa's polynomial, moved so that truncation rounds to level + 128."""
    coefficients = np.array(_LOG_MANTISSA)
    offset = LEVEL_OF_ONE + ROUND_HALF_UP + LEVEL_BIAS - EXPONENT_BIAS * _LOG_PER_OCTAVE
    coefficients[0] += offset
    return coefficients.astype(np.float32)


def _scalars() -> dict[str, np.float32]:
    """Return the constants of the 5-point and 16-point DFTs and of the logarithm, by name."""
    values = {
        "sin_72": np.sin(2 * np.pi / 5),
        "sin_144": np.sin(4 * np.pi / 5),
        "root5_4": np.sqrt(5) / 4,  # (cos 72 - cos 144) / 2; their mean is -1/4
        "cos_22": np.cos(np.pi / 8),
        "sin_22": np.sin(np.pi / 8),
        "cos_45": np.sqrt(0.5),
        "log_per_octave": _LOG_PER_OCTAVE,
    }
    return {name: np.float32(value) for name, value in values.items()}


def frame_samples(n_frames: int) -> int:
    """Return how many samples, from the first of a stream, `n_frames` frames need."""
    return (n_frames - 1) * HOP_SAMPLES + N_FFT // 2 if n_frames else 0
