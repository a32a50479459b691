"""Integer features: near the float definition, and the C bytes equal the twin's on every build."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from c_build import compile_shared
from hypothesis import given, settings
from hypothesis import strategies as st
from test_frontend import (
    INCLUDES,
    SIGNALS,
    SIZES,
    SOURCES,
    WARNINGS,
    Stream,
    complete_frames,
    emulated_cortex_m,
    signal,
    speech,
)

from quads_mcu.audio.fixed_frontend import _log, fixed_tables
from quads_mcu.audio.frontend import FIXED, features, frames
from quads_mcu.audio.frontend_tables import tables
from quads_mcu.audio.logmel import log_mel
from quads_mcu.errors import AudioError
from quads_mcu.export.frontend_source import render

BUILDS = {
    "gcc -O0": ("gcc", ("-O0",)),
    "gcc -O2": ("gcc", ("-O2",)),
    # Shifts, signed products and sums that leave their type end the process.
    "gcc undefined": ("gcc", ("-O1", "-fsanitize=undefined", "-fno-sanitize-recover=all")),
    "clang -O3": ("clang", ("-O3",)),
}
# Thumb code of an M0+ has neither long multiplication nor count-leading-zeros.
CORES = {"cortex-m0plus": 80_000, "cortex-m3": 42_000}

Build = Callable[[str, int], Stream]


@pytest.fixture(scope="session")
def fixed_build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return a function that compiles a build of BUILDS for n_mels, once."""
    done: dict[tuple[str, int], Stream] = {}

    def compiled(name: str, n_mels: int) -> Stream:
        if (name, n_mels) not in done:
            folder = tmp_path_factory.mktemp("fixed_frontend")
            (folder / "frontend_tables.h").write_text(render(n_mels, FIXED))
            compiler, flags = BUILDS[name]
            options = (*WARNINGS, "-Wsign-conversion", *flags)
            library = compile_shared(SOURCES, (*INCLUDES, folder), folder, compiler, options)
            done[name, n_mels] = Stream(library, n_mels)
        return done[name, n_mels]

    return compiled


# --- the twin against definition and float ------------------------------------------------------


@pytest.mark.parametrize("n_mels", [1, 40, 80, 128])
@pytest.mark.parametrize("kind", [kind for kind in SIGNALS if "impulse" not in kind])
def test_twin_is_near_the_definition(kind: str, n_mels: int) -> None:
    pcm = signal(kind)
    exact = log_mel(pcm, n_mels).astype(np.float64) * 80 - 8
    reference = np.floor(np.clip(exact, -128, 127) + 0.5)
    inner = slice(2, (len(pcm) - 200) // 160 + 1)
    found = frames(pcm, n_mels, len(exact), FIXED)[inner].astype(int)
    floor = max(reference[inner].max(), found.max(), exact.max()) - 160
    difference = np.abs(np.maximum(found, floor) - np.maximum(reference[inner], floor))
    # Factors of 15 bits err some 90 dB below a full-scale tone, which shows at the floor of 80 dB.
    assert difference.max() <= (3 if kind == "alternating" else 1)
    assert np.mean(difference > 1) < 0.03


@pytest.mark.parametrize("n_mels", [40, 80])
def test_almost_all_bytes_are_those_of_the_float_frontend(n_mels: int) -> None:
    shares = []
    for pcm in speech(40):
        n_frames = complete_frames(len(pcm))
        fixed = features(pcm, n_mels, n_frames, FIXED).astype(int)
        difference = np.abs(fixed - features(pcm, n_mels, n_frames))
        assert difference.max() <= 1
        shares.append(np.mean(difference > 0))
    assert np.mean(shares) < 0.008


def test_levels_round_half_up_within_a_hundredth() -> None:
    constants = fixed_tables(80)
    # offset + 20 log10(e) = level + 128.5 before rounding down
    octaves = np.arange(1, 62, 0.37)
    energy = np.floor(2**octaves).astype(np.int64)
    exact = 20 * np.log10(energy.astype(float)) + constants.offsets[3] / 65536
    found = _log(np.repeat(energy[None], 80, axis=0), constants)[3].astype(int) + 128
    assert np.all((found <= exact + 0.01) & (found >= exact - 1.01) | (exact < 0) | (exact > 255))
    assert (_log(np.zeros((80, 1), np.int64), constants) == -128).all()


def test_slopes_are_the_triangles_of_the_filterbank() -> None:
    exact, shares = tables(80), fixed_tables(80).slopes / 65536
    segment = np.repeat(np.arange(81), exact.mel_segments)
    falling, rising = np.zeros((2, 82, 201))
    bins = np.arange(1, 200)
    rising[segment + 1, bins], falling[segment, bins] = shares, 1 - shares
    triangles = (rising + falling)[1:-1]
    area = exact.mel_weights.sum(axis=1) / triangles.sum(axis=1)  # 2 / bandwidth, in 1 / Hz
    np.testing.assert_allclose(triangles * area[:, None], exact.mel_weights, atol=2e-6)


def test_unknown_arithmetic_is_refused() -> None:
    with pytest.raises(AudioError, match="double"):
        features(np.zeros(400, np.int16), 80, 2, "double")


def test_golden_features() -> None:
    """The bytes of these features are a promise; the signal is made of integers alone."""
    noise = np.cumsum(np.arange(16_000, dtype=np.int64) ** 2 % 257 - 128) % 20_001 - 10_000
    mel = features(noise.astype(np.int16), 80, 100, FIXED)
    assert hashlib.sha256(mel.tobytes()).hexdigest() == GOLDEN_FEATURES
    assert hashlib.sha256(render(80, FIXED).encode()).hexdigest() == GOLDEN_TABLES


GOLDEN_FEATURES = "a2ed1df09698294f41f0739248f8b3c34d7b3ba92b157209ecb57f3e828c64f7"
GOLDEN_TABLES = "ac1ba665187c8d7ceeeb65a598d41cd3a1c20ec3f547253a09ef159c433296ab"


# --- C against the twin --------------------------------------------------------------------------


@pytest.mark.parametrize("n_mels", [1, 40, 80, 128])
@pytest.mark.parametrize("name", BUILDS)
def test_c_equals_twin(fixed_build: Build, name: str, n_mels: int) -> None:
    stream = fixed_build(name, n_mels)
    for kind in SIGNALS:
        pcm = signal(kind)
        expected = frames(pcm, n_mels, complete_frames(len(pcm)), FIXED)
        assert np.array_equal(stream.frames([pcm]), expected), kind


def test_c_equals_twin_on_speech(fixed_build: Build) -> None:
    stream = fixed_build("gcc undefined", 80)
    for pcm in speech(50):
        expected = frames(pcm, 80, complete_frames(len(pcm)), FIXED)
        assert np.array_equal(stream.frames([pcm]), expected)


def test_greatest_spectrum_stays_within_32_bits(fixed_build: Build) -> None:
    """Full-scale signs of each bin's cosine and sine make its largest amplitude."""
    stream = fixed_build("gcc undefined", 80)
    n = np.arange(2000)
    for bin_index in range(201):
        for phase in (0.0, 0.25):
            wave = np.cos(2 * np.pi * (bin_index * n / 400 + phase)) + 1e-9
            pcm = np.where(wave > 0, 32767, -32768).astype(np.int16)
            expected = frames(pcm, 80, complete_frames(len(pcm)), FIXED)
            assert np.array_equal(stream.frames([pcm]), expected), bin_index


@settings(deadline=None, max_examples=40)
@given(sizes=st.lists(SIZES | st.integers(0, 1000), max_size=12), seed=st.integers(0, 99))
def test_chunking_does_not_matter(fixed_build: Build, sizes: list[int], seed: int) -> None:
    stream = fixed_build("gcc -O2", 40)
    pcm = np.random.default_rng(seed).integers(-32768, 32768, sum(sizes)).astype(np.int16)
    chunks = np.split(pcm, np.cumsum(sizes)[:-1]) if sizes else []
    expected = frames(pcm, 40, complete_frames(len(pcm)), FIXED)
    assert np.array_equal(stream.frames(chunks), expected)


@pytest.mark.parametrize("cpu", CORES)
def test_emulated_cores_without_fpu_equal_twin(cpu: str, tmp_path: Path) -> None:
    pcm = np.concatenate([signal(kind, 4000) for kind in SIGNALS])
    mel, instructions = emulated_cortex_m(tmp_path, pcm, ("-O2", f"-mcpu={cpu}"), FIXED)

    expected = frames(pcm, 80, complete_frames(len(pcm)), FIXED)
    assert mel == expected.tobytes()
    per_frame = instructions / len(expected)
    print(f"instructions per frame: {per_frame.round().astype(int)} (all, power, mel, log)")
    assert per_frame[0] <= CORES[cpu]
