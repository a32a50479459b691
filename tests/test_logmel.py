"""The training reference equals Whisper's features as transformers computes them."""

from __future__ import annotations

import numpy as np
import pytest
from shared_data import SHARED

from quads_mcu.audio import files
from quads_mcu.audio.logmel import log_mel, mel_filterbank
from quads_mcu.errors import AudioError


def real_speech() -> np.ndarray:
    paths = sorted((SHARED / "wakewords").rglob("*.flac"))
    if not paths:
        pytest.skip(f"no recordings below {SHARED / 'wakewords'}; set QUADS_SHARED_DATA")
    return files.load(paths[0])


def clip(kind: str) -> np.ndarray:
    rng = np.random.default_rng(1)
    n = 32_000
    if kind == "speech":
        return real_speech()
    if kind == "sine":
        return np.round(20_000 * np.sin(2 * np.pi * 440 / 16_000 * np.arange(n))).astype(np.int16)
    if kind == "full scale":
        return rng.choice(np.array([-32768, 32767], np.int16), n)
    if kind == "faint":
        return rng.integers(-1, 2, n).astype(np.int16)
    return (rng.standard_normal(n) * 3000).astype(np.int16)


@pytest.mark.parametrize("n_mels", [40, 80, 128])
@pytest.mark.parametrize("kind", ["noise", "sine", "full scale", "faint", "speech"])
def test_equals_whisper_feature_extractor(kind: str, n_mels: int) -> None:
    whisper = pytest.importorskip("transformers.models.whisper.feature_extraction_whisper")
    pcm = clip(kind)
    pcm = pcm[: len(pcm) // 16_000 * 16_000]
    extractor = whisper.WhisperFeatureExtractor(
        feature_size=n_mels, hop_length=160, n_fft=400, chunk_length=len(pcm) // 16_000
    )
    samples = pcm.astype(np.float64) / 32768
    expected = extractor._np_extract_fbank_features(samples[None], "cpu")[0].T
    actual = log_mel(pcm, n_mels)
    assert actual.dtype == np.float32
    assert actual.shape == expected.shape == (len(pcm) // 160, n_mels)
    assert np.abs(actual - expected).max() < 1e-5


@pytest.mark.parametrize("n_mels", [1, 8, 40, 80, 127, 128])
def test_filterbank_equals_transformers(n_mels: int) -> None:
    audio_utils = pytest.importorskip("transformers.audio_utils")
    expected = audio_utils.mel_filter_bank(
        201, n_mels, 0.0, 8000.0, 16_000, norm="slaney", mel_scale="slaney"
    ).T
    assert np.abs(mel_filterbank(n_mels) - expected).max() < 1e-12


def test_batch_equals_clip_by_clip() -> None:
    rng = np.random.default_rng(2)
    pcm = rng.integers(-9000, 9000, (2, 3, 1000)).astype(np.int16)
    batch = log_mel(pcm, 40)
    assert batch.shape == (2, 3, 6, 40)
    assert np.array_equal(batch[1, 2], log_mel(pcm[1, 2], 40))


def test_shortest_clip_and_silence() -> None:
    assert np.all(log_mel(np.zeros(201, np.int16), 80) == np.float32(-1.5))


@pytest.mark.parametrize(
    ("pcm", "n_mels", "message"),
    [
        (np.zeros(200, np.int16), 80, "200 samples is too short"),
        (np.zeros(0, np.int16), 80, "0 samples is too short"),
        (np.zeros(400), 80, "wants int16 samples, got float64"),
        (np.int16(3), 80, "wants int16"),
        (np.zeros(400, np.int16), 0, "n_mels = 0"),
        (np.zeros(400, np.int16), 129, "n_mels = 129"),
    ],
)
def test_refusals(pcm: np.ndarray, n_mels: int, message: str) -> None:
    with pytest.raises(AudioError, match=message):
        log_mel(pcm, n_mels)
