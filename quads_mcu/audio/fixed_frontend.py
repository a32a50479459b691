"""Device features on cores without floating point: the numpy twin of frontend/fixed_*.c.

The transform, the mel bands and the level scale are those of `frontend`; the numbers are integers
(docs/arithmetic.md, section 1). Results are mostly the same bytes: docs/frontend.md says how far
they differ. The last axis of every intermediate array runs over frames.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quads_mcu.audio.frontend_tables import (
    LEVEL_BIAS,
    LEVEL_OF_ONE,
    LEVELS_PER_DECADE,
    ROUND_HALF_UP,
    FrontendTables,
    tables,
)
from quads_mcu.audio.logmel import FULL_SCALE, N_BINS, hann, mel_corners
from quads_mcu.audio.prime_factor import Arithmetic, dft16, dft25

Int = NDArray[np.int64]

SCALE_BITS = 15  # of window, twiddles and the constants of the short transforms
SAMPLE_BITS = 7  # below one unit of the PCM, in the spectrum
AMPLITUDE_BITS = 15  # of what is squared
AMPLITUDE_STEP = 5  # bits dropped at a time until that many are left
MAX_STEPS = 3
SLOPE_BITS = 16
LEVEL_BITS = 16  # below one level
LOG_STEPS = 32  # linear pieces of the logarithm per octave


@dataclass(frozen=True)
class FixedTables:
    """Tables of one n_mels, beside those of FrontendTables that hold no floats."""

    n_mels: int
    window: NDArray[np.uint16]  # (25, 16), Hann window * 2^15, prime-factor order
    twiddles: NDArray[np.int16]  # (4, 4, 2), as FrontendTables, * 2^15
    slopes: NDArray[np.uint16]  # (199,), per bin from 1: share in the band that rises, * 2^16
    offsets: NDArray[np.int32]  # (n_mels,), level + 128.5 of energy 1 in each band, * 2^16
    log_steps: NDArray[np.uint32]  # (33,), 20 log10(1 + i / 32) * 2^16
    per_octave: int  # 20 log10(2) * 2^16
    scalars: dict[str, int]


@functools.cache
def fixed_tables(n_mels: int) -> FixedTables:
    """Return the integer tables for `n_mels` bands.

    Raises:
        AudioError: n_mels is not in 1 .. MAX_MELS.
    """
    exact = tables(n_mels)
    corners = mel_corners(n_mels)
    level = LEVELS_PER_DECADE * np.log10(2 / (corners[2:] - corners[:-2]) / FULL_SCALE**2)
    level += LEVEL_OF_ONE + LEVEL_BIAS + ROUND_HALF_UP
    level -= LEVELS_PER_DECADE * np.log10(2.0) * 2 * SAMPLE_BITS
    steps = LEVELS_PER_DECADE * np.log10(1 + np.arange(LOG_STEPS + 1) / LOG_STEPS)
    per_octave = LEVELS_PER_DECADE * np.log10(2.0) * (1 << LEVEL_BITS)
    names = ("sin_72", "sin_144", "root5_4", "cos_22", "sin_22", "cos_45")
    return FixedTables(
        n_mels=n_mels,
        window=np.round(hann()[exact.sample_order] * (1 << SCALE_BITS)).astype(np.uint16),
        twiddles=_scaled(exact.twiddles).astype(np.int16),
        slopes=_slopes(n_mels),
        offsets=np.round(level * (1 << LEVEL_BITS)).astype(np.int32),
        log_steps=np.round(steps * (1 << LEVEL_BITS)).astype(np.uint32),
        per_octave=round(per_octave),
        scalars={name: int(_scaled(exact.scalars[name])) for name in names},
    )


def _scaled(values: NDArray[np.float32] | np.float32) -> Int:
    scaled: Int = np.round(np.asarray(values, np.float64) * (1 << SCALE_BITS)).astype(np.int64)
    return np.minimum(scaled, (1 << SCALE_BITS) - 1)


def _slopes(n_mels: int) -> NDArray[np.uint16]:
    """Return how far each bin is on its way from one band's center to the next."""
    bins = np.arange(1, N_BINS - 1) * (8000 / (N_BINS - 1))
    corners = mel_corners(n_mels)
    segment = np.searchsorted(corners[1:-1], bins)
    share = (bins - corners[segment]) / (corners[segment + 1] - corners[segment])
    scaled = np.round(share * (1 << SLOPE_BITS))
    slopes: NDArray[np.uint16] = np.clip(scaled, 0, (1 << SLOPE_BITS) - 1).astype(np.uint16)
    return slopes


def levels(samples: NDArray[np.int16], n_mels: int) -> NDArray[np.int8]:
    """Run the pipeline: int16 (16, 25, F) in prime-factor order -> int8 (n_mels, F)."""
    constants, places = fixed_tables(n_mels), tables(n_mels)
    arithmetic = Arithmetic(
        scale=lambda a, factor: a * factor >> SCALE_BITS,
        quarter=lambda a: a >> 2,
        scalars=constants.scalars,
        twiddles=constants.twiddles.astype(np.int64),
    )
    windowed = samples.astype(np.int64) * constants.window.T[:, :, None].astype(np.int64)
    rows = dft16(windowed >> (SCALE_BITS - SAMPLE_BITS), arithmetic)
    power, shift = _power(dft25(rows, arithmetic), places)
    return _log(_mel(power, shift, constants, places), constants)


def _power(rows: Int, places: FrontendTables) -> tuple[Int, Int]:
    """Squares and their shifts, (201, F) each, of the transformed rows (2, 8, 25, F)."""
    re, im = rows
    n = rows.shape[-1]
    spectrum = np.empty((2, N_BINS, n), np.int64)
    spectrum[:, places.bins] = re[1:], im[1:]
    place, mirror, bin_0, bin_8 = places.real_bins.T
    spectrum[0, bin_0] = (re[0, place] + re[0, mirror]) >> 1
    spectrum[1, bin_0] = (im[0, place] - im[0, mirror]) >> 1
    spectrum[0, bin_8] = (im[0, place] + im[0, mirror]) >> 1
    spectrum[1, bin_8] = (re[0, place] - re[0, mirror]) >> 1
    return _square(spectrum)


def _square(spectrum: Int) -> tuple[Int, Int]:
    """Return squared magnitudes m and shifts s, whose power is m << s."""
    size = (spectrum ^ (spectrum >> 63)).max(axis=0)
    steps = np.zeros_like(size)
    for step in range(MAX_STEPS):
        steps += size >> (AMPLITUDE_BITS + AMPLITUDE_STEP * step) > 0
    re, im = spectrum >> AMPLITUDE_STEP * steps
    return (re * re + im * im) & ~3, 2 * AMPLITUDE_STEP * steps


def _mel(power: Int, shift: Int, constants: FixedTables, places: FrontendTables) -> Int:
    """Share every bin between two bands: (201, F) -> (n_mels, F)."""
    rises = power[1:-1] * constants.slopes[:, None].astype(np.int64) >> SLOPE_BITS
    falls = power[1:-1] - rises << shift[1:-1]
    rises = rises << shift[1:-1]
    segment = np.repeat(np.arange(constants.n_mels + 1), places.mel_segments)
    bands = np.zeros((constants.n_mels + 2, power.shape[1]), np.int64)
    np.add.at(bands, segment, falls)
    np.add.at(bands, segment + 1, rises)
    return bands[1:-1]


def _log(energy: Int, constants: FixedTables) -> NDArray[np.int8]:
    """Return 20 log10(energy) with all offsets, rounded half up and saturated, same shape."""
    exponent = np.zeros_like(energy)  # floor(log2)
    for bits in (32, 16, 8, 4, 2, 1):
        exponent += np.where(energy >> (exponent + bits) > 0, bits, 0)
    left = energy << np.maximum(31 - exponent, 0)
    mantissa = np.where(exponent > 31, energy >> np.maximum(exponent - 31, 0), left)
    steps = constants.log_steps.astype(np.int64)
    index, rest = mantissa >> 26 & 31, mantissa >> 16 & 1023
    level = steps[index] + ((steps[index + 1] - steps[index]) * rest >> 10)
    level += exponent * constants.per_octave + constants.offsets[:, None]
    biased = np.where(energy > 0, np.clip(level >> LEVEL_BITS, 0, 255), 0)
    return (biased - LEVEL_BIAS).astype(np.int8)
