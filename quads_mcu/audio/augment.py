"""Augmentation of utterance windows: speed, shift, band, room, noise, gain; SpecAugment masks.

Everything random comes from the `numpy.random.Generator` given, in a fixed order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from quads_mcu.audio.files import FULL_SCALE, Pcm, to_int16
from quads_mcu.config import SAMPLE_RATE, AugmentSection
from quads_mcu.errors import ConfigError

Samples = npt.NDArray[np.float32]

# A shift may cut this much of the speech at either edge of the window.
_CUT = SAMPLE_RATE // 20
_RT60_S = (0.15, 0.6)
_RESPONSE_S = 0.4
_DIRECT_RATIO_DB = (0.0, 12.0)
_NARROWBAND_HZ = (3400.0, 4000.0)
_ROLL_OFF_HZ = 200.0
_FIRST_REFLECTION = SAMPLE_RATE // 500


class Augmenter:
    """Draws one variation of an utterance window per call.

    Order: speed, shift, band, room response, noise, gain. A window of zeros comes back unchanged.

    Args:
        settings: [augment] of quads.toml.
        noises: int16, (m,) each, recorded noise. Without any, white and pink noise are generated.
    Raises:
        ConfigError: snr_db is not [lowest, highest].
    """

    def __init__(self, settings: AugmentSection, noises: Sequence[Pcm] = ()) -> None:
        snr_db = settings.snr_db
        if len(snr_db) != 2 or not -60.0 <= snr_db[0] <= snr_db[1] <= 120.0:
            raise ConfigError(
                f"[augment] snr_db = {snr_db} must be [lowest, highest] within -60 .. 120"
            )
        self._settings = settings
        self._noises = [noise for noise in noises if noise.any()] or _generated_noises()

    def __call__(self, pcm: Pcm, rng: np.random.Generator) -> Pcm:
        """Return a variation of int16, (n_samples,) with the same shape."""
        return self.pair(pcm, rng)[1]

    def pair(self, pcm: Pcm, rng: np.random.Generator) -> tuple[Pcm, Pcm]:
        """Return the variation that a call draws, without its noise and with it."""
        start, stop = content(pcm)
        if start == stop:
            return pcm.copy(), pcm.copy()
        settings = self._settings
        factor = rng.uniform(1.0 - settings.speed, 1.0 + settings.speed)
        speech = _change_speed(pcm[start:stop].astype(np.float32), factor)
        window = _place(speech, start, len(pcm), round(settings.shift_s * SAMPLE_RATE), rng)
        if settings.narrowband_probability and rng.random() < settings.narrowband_probability:
            window = _cut_band(window, rng.uniform(*_NARROWBAND_HZ))
        if rng.random() < settings.reverb_probability:
            window = _reverberate(window, rng)
        noisy = window
        if rng.random() < settings.noise_probability:
            noise = self._noises[int(rng.integers(len(self._noises)))]
            low_db, high_db = settings.snr_db
            noisy = _mix(window, noise, rng.uniform(low_db, high_db), rng)
        gain = _gain(noisy, settings.gain_db, rng)
        return to_int16(window * gain), to_int16(noisy * gain)


def add_noise(pcm: Pcm, noise: Pcm, snr_db: float, rng: np.random.Generator) -> Pcm:
    """Add a random stretch of noise at a signal-to-noise ratio.

    The signal's power is that of its louder half: the samples whose magnitude is at least the
    median, zeros before and after the speech not counted. The noise's power is the mean over the
    stretch, which wraps around when the recording is shorter than the window.

    Args:
        pcm: int16, (n_samples,).
        noise: int16, (m,), m >= 1.
        snr_db: signal-to-noise ratio, dB.
    Returns:
        int16, (n_samples,), saturated. A silent signal or stretch leaves `pcm` as it is.
    """
    return to_int16(_mix(pcm.astype(np.float32), noise, snr_db, rng))


def spec_augment(
    mel: npt.NDArray[np.int8],
    rng: np.random.Generator,
    time_masks: int,
    frequency_masks: int,
) -> npt.NDArray[np.int8]:
    """Mask random stretches of frames and bands with the mean (SpecAugment, arXiv:1904.08779).

    A time mask covers up to a tenth of the frames, a frequency mask up to an eighth of the bands.

    Args:
        mel: int8, (frames, mels).
    Returns:
        int8, (frames, mels), a copy.
    """
    masked = mel.copy()
    if not mel.size:
        return masked
    fill = np.int8(np.rint(mel.mean(dtype=np.float64)))
    n_frames, n_mels = mel.shape
    for _ in range(time_masks):
        masked[_stretch(n_frames, n_frames // 10, rng)] = fill
    for _ in range(frequency_masks):
        masked[:, _stretch(n_mels, n_mels // 8, rng)] = fill
    return masked


def _stretch(size: int, longest: int, rng: np.random.Generator) -> slice:
    width = int(rng.integers(longest + 1))
    start = int(rng.integers(size - width + 1))
    return slice(start, start + width)


def content(pcm: npt.NDArray[np.generic]) -> tuple[int, int]:
    """Return where the samples between leading and trailing zeros start and stop."""
    nonzero = pcm != 0
    if not nonzero.any():
        return 0, 0
    return int(nonzero.argmax()), len(pcm) - int(nonzero[::-1].argmax())


def at_speed(pcm: Pcm, factor: float) -> Pcm:
    """Return a window, int16 (n_samples,), whose speech is spoken `factor` times as fast.

    Its pitch moves along. It begins where it did, or as much earlier as it needs; what is longer
    than the window loses its end.
    """
    start, stop = content(pcm)
    if start == stop:
        return pcm.copy()
    speech = _change_speed(pcm[start:stop].astype(np.float32), factor)
    position = min(start, max(len(pcm) - len(speech), 0))
    return to_int16(_window(speech, position, len(pcm)))


def _change_speed(speech: Samples, factor: float) -> Samples:
    size = max(1, round(len(speech) / factor))
    if size == len(speech):
        return speech
    # Linear interpolation by hand: np.interp would work in float64 and search for each sample.
    position = np.arange(size, dtype=np.float64) * (max(len(speech) - 1, 0) / max(size - 1, 1))
    left = position.astype(np.int64)
    right = np.minimum(left + 1, len(speech) - 1)
    fraction = (position - left).astype(np.float32)
    found: Samples = speech[left] + fraction * (speech[right] - speech[left])
    return found


def _place(
    speech: Samples, start: int, n_samples: int, shift: int, rng: np.random.Generator
) -> Samples:
    """Return a window with the speech at `start` +- `shift`, cut by at most _CUT at an edge."""
    surplus = max(len(speech) - n_samples, 0)
    speech = speech[surplus // 2 : surplus // 2 + n_samples]
    room = n_samples - len(speech)
    home = min(start, room)
    position = int(rng.integers(max(home - shift, -_CUT), min(home + shift, room + _CUT) + 1))
    return _window(speech, position, n_samples)


def _window(speech: Samples, position: int, n_samples: int) -> Samples:
    """Return a window with the speech from `position` on; what lies outside is cut."""
    window = np.zeros(n_samples, np.float32)
    first, last = max(position, 0), min(position + len(speech), n_samples)
    if last > first:
        window[first:last] = speech[first - position : last - position]
    return window


def _cut_band(window: Samples, cutoff_hz: float) -> Samples:
    """Take out what lies above `cutoff_hz`, with a raised-cosine edge of _ROLL_OFF_HZ below it."""
    n_fft = _fft_size(len(window) + SAMPLE_RATE // 50)
    frequencies = np.fft.rfftfreq(n_fft, 1 / SAMPLE_RATE)
    above = np.clip((frequencies - cutoff_hz) / _ROLL_OFF_HZ + 1, 0, 1)
    spectrum = np.fft.rfft(window, n_fft) * (0.5 + 0.5 * np.cos(np.pi * above))
    return np.fft.irfft(spectrum, n_fft)[: len(window)].astype(np.float32)


def _reverberate(window: Samples, rng: np.random.Generator) -> Samples:
    """Convolve with a direct path and exponentially decaying noise; the power stays the same."""
    rt60_s = rng.uniform(*_RT60_S)
    ratio_db = rng.uniform(*_DIRECT_RATIO_DB)
    size = round(min(rt60_s, _RESPONSE_S) * SAMPLE_RATE)
    # 60 dB in rt60_s: the amplitude falls as exp(-ln(1000) t / rt60_s).
    decay = np.exp(np.arange(size, dtype=np.float32) * (-np.log(1000.0) / (rt60_s * SAMPLE_RATE)))
    response = rng.standard_normal(size, dtype=np.float32) * decay.astype(np.float32)
    response[:_FIRST_REFLECTION] = 0
    response *= np.sqrt(10.0 ** (-ratio_db / 10.0) / np.square(response).sum())
    response[0] = 1
    n_fft = _fft_size(len(window) + size)
    spectrum = np.fft.rfft(window, n_fft) * np.fft.rfft(response, n_fft)
    wet = np.fft.irfft(spectrum, n_fft)[: len(window)].astype(np.float32)
    before, after = _power(window), _power(wet)
    return wet * np.float32(np.sqrt(before / after)) if after > 0 else window


def _mix(window: Samples, noise: Pcm, snr_db: float, rng: np.random.Generator) -> Samples:
    offset = int(rng.integers(len(noise)))
    stretch = noise[offset : offset + len(window)]
    if len(stretch) < len(window):
        stretch = np.take(noise, np.arange(offset, offset + len(window)), mode="wrap")
    added = stretch.astype(np.float32)
    signal, disturbance = _speech_power(window), _power(added)
    if not signal or not disturbance:
        return window
    return window + added * np.float32(np.sqrt(signal / disturbance * 10.0 ** (-snr_db / 10.0)))


def _gain(window: Samples, largest_db: float, rng: np.random.Generator) -> np.float32:
    """Draw a gain of +- `largest_db`; amplification ends where the peak reaches full scale."""
    factor = 10.0 ** (rng.uniform(-largest_db, largest_db) / 20.0)
    peak = float(np.abs(window).max())
    headroom = (FULL_SCALE - 1) / peak if peak else 1.0
    return np.float32(min(factor, max(headroom, 1.0)))


def _power(samples: Samples) -> float:
    return float(np.mean(np.square(samples), dtype=np.float64)) if len(samples) else 0.0


def _speech_power(window: Samples) -> float:
    """Return the power of the louder half: samples whose magnitude is at least the median."""
    start, stop = content(window)
    if start == stop:
        return 0.0
    squares = np.square(window[start:stop])
    half = len(squares) // 2
    return float(np.mean(np.partition(squares, half)[half:], dtype=np.float64))


def _fft_size(least: int) -> int:
    """Return the smallest 2**a, 3 * 2**a or 5 * 2**a that is at least `least`."""
    sizes = [factor << (-(-least // factor) - 1).bit_length() for factor in (1, 3, 5)]
    return min(sizes)


def _generated_noises() -> list[Pcm]:
    rng = np.random.default_rng(0)
    size = 8 * SAMPLE_RATE
    white = rng.standard_normal(size)
    spectrum = np.fft.rfft(rng.standard_normal(size))
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 8)), size)
    return [to_int16(noise * (3000.0 / noise.std())) for noise in (white, pink)]
