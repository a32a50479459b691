"""Augmentation: measured levels, bounds, and that a seed decides everything."""

from __future__ import annotations

import dataclasses
import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quads_mcu.audio import augment
from quads_mcu.audio.augment import Augmenter, add_noise, spec_augment
from quads_mcu.config import AugmentSection
from quads_mcu.errors import ConfigError

OFF = AugmentSection(noise_probability=0, reverb_probability=0, gain_db=0, shift_s=0, speed=0)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def noise(n: int, level: float = 2000, seed: int = 7) -> np.ndarray:
    return (rng(seed).standard_normal(n) * level).astype(np.int16)


def window(n: int = 32_000, stop: int = 20_000) -> np.ndarray:
    pcm = np.zeros(n, np.int16)
    pcm[:stop] = noise(stop, 3000, 3)
    return pcm


def test_everything_off_changes_nothing() -> None:
    pcm = window()
    varied = Augmenter(OFF, [noise(999)])(pcm, rng())
    np.testing.assert_array_equal(varied, pcm)
    assert varied is not pcm


@pytest.mark.parametrize("n", [0, 1, 2, 100, 32_000])
def test_shape_and_type(n: int) -> None:
    everything = AugmentSection(noise_probability=1, reverb_probability=1, speed=0.5, shift_s=10)
    pcm = noise(n)
    original = pcm.copy()
    for seed in range(5):
        varied = Augmenter(everything, [noise(1000)])(pcm, rng(seed))
        assert (varied.shape, varied.dtype) == ((n,), np.int16)
    np.testing.assert_array_equal(pcm, original)


def test_a_pair_differs_by_the_noise_alone() -> None:
    settings = AugmentSection(noise_probability=1, reverb_probability=0, snr_db=[9.0, 9.0])
    pcm, augmenter = window(), Augmenter(settings, [noise(50_000)])
    clean, noisy = augmenter.pair(pcm, rng(4))
    np.testing.assert_array_equal(noisy, augmenter(pcm, rng(4)))
    assert (clean == 0).sum() > 8000 > (noisy == 0).sum()
    added = noisy.astype(float) - clean
    spoken = np.abs(clean[clean != 0].astype(float))
    louder = spoken[spoken >= np.median(spoken)]
    ratio_db = 10 * np.log10((louder**2).mean() / (added**2).mean())
    assert ratio_db == pytest.approx(9.0, abs=0.3)


def test_a_seed_decides_everything() -> None:
    augmenter = Augmenter(AugmentSection(reverb_probability=1), [noise(5000), noise(9999)])
    first = [augmenter(window(), generator) for generator in (rng(1), rng(1), rng(2))]
    np.testing.assert_array_equal(first[0], first[1])
    assert (first[0] != first[2]).any()


def test_silence_stays_silence() -> None:
    assert not Augmenter(AugmentSection(noise_probability=1), [])(
        np.zeros(99, np.int16), rng()
    ).any()


@pytest.mark.parametrize("snr_db", [-6.0, 0.0, 6.0, 24.0])
@pytest.mark.parametrize("padding", [0, 12_000, 28_000])
def test_snr_is_measured_against_the_louder_half(snr_db: float, padding: int) -> None:
    pcm = window(32_000, 32_000 - padding) // 8
    mixed = add_noise(pcm, noise(100_000), snr_db, rng())
    added = mixed.astype(float) - pcm
    magnitudes = np.abs(pcm[: 32_000 - padding].astype(float))
    louder = magnitudes[magnitudes > np.median(magnitudes)]
    measured_db = 10 * math.log10(np.mean(louder**2) / np.mean(added**2))
    # Integer rounding adds noise of 1/12 step^2.
    assert abs(measured_db - snr_db) < 0.15


def test_short_noise_wraps_around() -> None:
    pcm = np.tile(np.array([1000, -1000], np.int16), 500)
    mixed = add_noise(pcm, np.array([100], np.int16), 20.0, rng())
    np.testing.assert_array_equal(mixed - pcm, np.full(1000, 100))


def test_add_noise_saturates() -> None:
    pcm = np.full(1000, 32767, np.int16)
    mixed = add_noise(pcm, noise(1000), -20.0, rng())
    assert mixed.max() == 32767 and mixed.min() == -32768


def test_silent_noise_or_signal_changes_nothing() -> None:
    pcm = window()
    np.testing.assert_array_equal(add_noise(pcm, np.zeros(10, np.int16), 6.0, rng()), pcm)
    assert not add_noise(np.zeros(50, np.int16), noise(10), 6.0, rng()).any()


def test_shift_keeps_all_but_50_ms_of_the_speech_inside() -> None:
    shifting = dataclasses.replace(OFF, shift_s=10.0)
    pcm = window(16_000, 8000)
    kept = [np.count_nonzero(Augmenter(shifting)(pcm, rng(seed))) for seed in range(50)]
    assert min(kept) >= np.count_nonzero(pcm) - 800 - 3
    assert max(kept) == np.count_nonzero(pcm)


def test_shift_moves_by_at_most_the_setting() -> None:
    shifting = dataclasses.replace(OFF, shift_s=0.1)
    pcm = np.zeros(16_000, np.int16)
    pcm[8000] = 99
    places = {int(np.argmax(Augmenter(shifting)(pcm, rng(seed)))) for seed in range(200)}
    assert 8000 - 1600 <= min(places) < 7000
    assert 9000 < max(places) <= 8000 + 1600


def test_speed_moves_a_tone() -> None:
    fast = dataclasses.replace(OFF, speed=0.2)
    pcm = (8000 * np.sin(2 * np.pi * 500 * np.arange(16_000) / 16_000)).astype(np.int16)
    for seed in range(10):
        factor = rng(seed).uniform(0.8, 1.2)
        varied = Augmenter(fast)(pcm, rng(seed)).astype(float)
        length = min(16_000, round(16_000 / factor))
        assert np.count_nonzero(varied) <= length
        spectrum = np.abs(np.fft.rfft(varied[:length] * np.hanning(length), 160_000))
        assert abs(spectrum.argmax() / 10 - 500 * factor) < 1.0


def test_at_speed_moves_a_tone_that_begins_where_it_did() -> None:
    tone = np.rint(9000 * np.sin(2 * np.pi * 1000 * np.arange(8000) / 16_000 + 0.3))
    pcm = np.zeros(16_000, np.int16)
    pcm[3000:11_000] = tone
    for factor, size in ((1.25, 6400), (0.8, 10_000), (1.0, 8000)):
        found = augment.at_speed(pcm, factor)
        assert augment.content(found) == (3000, 3000 + size)
        spectrum = np.abs(np.fft.rfft(found[3000 : 3000 + size].astype(float)))
        assert spectrum.argmax() * 16_000 / size == pytest.approx(1000 * factor, rel=0.01)
    np.testing.assert_array_equal(augment.at_speed(pcm, 1.0), pcm)
    # No room behind: begins earlier; longer than the window: loses its end.
    assert augment.content(augment.at_speed(np.roll(pcm, 5000), 0.8)) == (6000, 16_000)
    whole = augment.at_speed(np.resize(tone, 16_000).astype(np.int16), 0.8)
    assert augment.content(whole) == (0, 16_000)
    assert not augment.at_speed(np.zeros(99, np.int16), 0.8).any()


@pytest.mark.parametrize("gain_db", [6.0, 40.0])
def test_gain_stays_within_bounds_and_does_not_clip(gain_db: float) -> None:
    gaining = dataclasses.replace(OFF, gain_db=gain_db)
    pcm = window()
    for seed in range(20):
        drawn_db = rng(seed)  # speed and position are drawn before the gain
        varied = Augmenter(gaining)(pcm, drawn_db).astype(float)
        change_db = 20 * math.log10(np.abs(varied).max() / np.abs(pcm.astype(float)).max())
        assert -gain_db - 0.1 <= change_db <= gain_db + 0.1
        assert np.count_nonzero(np.abs(varied) >= 32767) <= 1


def test_a_narrow_band_ends_below_4_khz_and_leaves_the_rest() -> None:
    from scipy.signal import welch

    pcm = (3000 * rng(0).standard_normal(32_000)).astype(np.int16)
    narrow = dataclasses.replace(OFF, narrowband_probability=1)
    varied = Augmenter(narrow)(pcm, rng(1))
    frequencies, before = welch(pcm, 16_000, nperseg=1024)
    _, after = welch(varied, 16_000, nperseg=1024)
    gain_db = 10 * np.log10(after / before)
    assert np.abs(gain_db[frequencies < 3100]).max() < 1
    assert gain_db[frequencies > 4050].max() < -40
    assert np.array_equal(Augmenter(OFF)(pcm, rng(1)), pcm)


def test_reverberation_decays_and_keeps_the_power() -> None:
    pcm = np.zeros(32_000, np.float32)
    pcm[1000] = 10_000
    for seed in range(10):
        wet = augment._reverberate(pcm, rng(seed))
        assert math.isclose(np.sum(wet**2), np.sum(pcm**2), rel_tol=1e-3)
        assert np.abs(wet[:1000]).max() < 1
        assert wet.argmax() == 1000
        early, late = np.sum(wet[1032:2600] ** 2), np.sum(wet[4200:5800] ** 2)
        assert early > 4 * late


def test_reverberation_equals_direct_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(augment, "_RESPONSE_S", 0.01)
    pcm = noise(700).astype(np.float32)
    generator = rng(5)
    rt60_s, ratio_db = generator.uniform(0.15, 0.6), generator.uniform(0, 12)
    response = generator.standard_normal(160, dtype=np.float32).astype(float)
    response *= 10.0 ** (-3 * np.arange(160) / 16_000 / rt60_s)
    response[:32] = 0
    response *= math.sqrt(10 ** (-ratio_db / 10) / np.sum(response**2))
    response[0] = 1
    expected = np.convolve(pcm.astype(float), response)[:700]
    expected *= math.sqrt(np.mean(pcm.astype(float) ** 2) / np.mean(expected**2))
    np.testing.assert_allclose(augment._reverberate(pcm, rng(5)), expected, atol=0.5)


@pytest.mark.parametrize("least", [1, 2, 3, 4, 5, 6, 7, 1000, 38_400, 65_537])
def test_fft_size(least: int) -> None:
    size = augment._fft_size(least)
    sizes = sorted(factor * 2**power for factor in (1, 3, 5) for power in range(20))
    assert size == next(candidate for candidate in sizes if candidate >= least)


@pytest.mark.parametrize("snr_db", [[], [6.0], [24.0, 6.0], [0.0, math.nan], [-1e9, 0.0]])
def test_wrong_snr(snr_db: list[float]) -> None:
    with pytest.raises(ConfigError, match=r"snr_db .* must be \[lowest, highest\]"):
        Augmenter(AugmentSection(snr_db=snr_db))


def test_without_recordings_noise_is_generated() -> None:
    noisy = dataclasses.replace(OFF, noise_probability=1.0, snr_db=[6.0, 6.0])
    pcm = window() // 8
    varied = Augmenter(noisy, [np.zeros(5, np.int16)])(pcm, rng())
    assert np.count_nonzero(varied[20_000:]) > 11_000


def test_speed_of_the_default_settings() -> None:
    recordings = [noise(800_000, seed=seed) for seed in range(3)]
    augmenter, pcm, generator = Augmenter(AugmentSection(), recordings), window(), rng()
    augmenter(pcm, generator)
    started = time.process_time()
    for _ in range(100):
        augmenter(pcm, generator)
    assert 100 / (time.process_time() - started) >= 300


@settings(max_examples=50, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 60), st.integers(0, 48)),
    masks=st.tuples(st.integers(0, 5), st.integers(0, 5)),
    seed=st.integers(0, 99),
)
def test_spec_augment(shape: tuple[int, int], masks: tuple[int, int], seed: int) -> None:
    mel = rng(seed).integers(-128, 128, shape).astype(np.int8)
    original = mel.copy()
    masked = spec_augment(mel, rng(seed), *masks)
    np.testing.assert_array_equal(mel, original)
    assert (masked.shape, masked.dtype) == (shape, np.int8)
    changed = masked != mel
    if not changed.any():
        return
    assert set(masked[changed].tolist()) == {round(float(original.mean()))}
    # Bands fully changed are frequency masks; what remains lies in few frames.
    most = masks[0] * (shape[0] // 10) * shape[1] + masks[1] * (shape[1] // 8) * shape[0]
    assert changed.sum() <= most


def test_spec_augment_without_masks_changes_nothing() -> None:
    mel = rng().integers(-128, 128, (20, 40)).astype(np.int8)
    np.testing.assert_array_equal(spec_augment(mel, rng(), 0, 0), mel)
