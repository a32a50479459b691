"""Sound files: what comes out bit for bit, and that damaged or hostile ones are refused."""

from __future__ import annotations

import math
import struct
import wave
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from quads_mcu.audio import files
from quads_mcu.errors import AudioError


def speech(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(n) * 3000).astype(np.int16)


def wav_header(rate_hz: int = 16_000, channels: int = 1, bits: int = 16, data_bytes: int = 0):
    """Return a RIFF header written by hand (Microsoft's WAVE format)."""
    block = channels * bits // 8
    fmt = struct.pack("<HHIIHH", 1, channels, rate_hz, rate_hz * block & 0xFFFFFFFF, block, bits)
    riff = b"RIFF" + struct.pack("<I", 36 + data_bytes & 0xFFFFFFFF) + b"WAVE"
    return riff + b"fmt " + struct.pack("<I", 16) + fmt + b"data" + struct.pack("<I", data_bytes)


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("n", [1, 2, 159, 16_001])
def test_native_files_are_bit_identical(tmp_path: Path, suffix: str, n: int) -> None:
    pcm = speech(n)
    pcm[0] = -32768
    pcm[-1] = 32767
    path = tmp_path / f"clip{suffix}"
    soundfile.write(path, pcm, 16_000, subtype="PCM_16")
    loaded = files.load(path)
    assert loaded.dtype == np.int16
    np.testing.assert_array_equal(loaded, pcm)


def test_file_longer_than_a_read_block(tmp_path: Path) -> None:
    pcm = speech(200_001)
    soundfile.write(tmp_path / "long.flac", pcm, 16_000)
    np.testing.assert_array_equal(files.load(tmp_path / "long.flac"), pcm)


def test_written_wav_is_read_by_the_standard_library(tmp_path: Path) -> None:
    pcm = speech(1001)
    files.write_wav(tmp_path / "out.wav", pcm)
    with wave.open(str(tmp_path / "out.wav")) as sound:
        assert sound.getparams()[:4] == (1, 2, 16_000, 1001)
        assert sound.readframes(1001) == pcm.astype("<i2").tobytes()
    assert [path.name for path in tmp_path.iterdir()] == ["out.wav"]


def test_write_to_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="cannot be written"):
        files.write_wav(tmp_path / "no" / "out.wav", speech(3))


def test_stereo_is_averaged_and_halves_round_away_from_zero(tmp_path: Path) -> None:
    frames = np.array([[1, 2], [-1, -2], [100, -100], [32767, 32767], [-32768, -32768]], np.int16)
    soundfile.write(tmp_path / "stereo.wav", frames, 16_000)
    assert files.load(tmp_path / "stereo.wav").tolist() == [2, -2, 0, 32767, -32768]


def test_8_bit(tmp_path: Path) -> None:
    # Unsigned, 128 is zero; one step is 256 of 16 bit.
    (tmp_path / "u8.wav").write_bytes(wav_header(bits=8, data_bytes=4) + bytes([0, 127, 128, 255]))
    assert files.load(tmp_path / "u8.wav").tolist() == [-32768, -256, 0, 32512]


def test_24_bit_rounds_half_away(tmp_path: Path) -> None:
    values = [128, -128, 127, -127, 0x7FFFFF, -0x800000]
    data = b"".join(struct.pack("<i", value)[:3] for value in values)
    header = wav_header(bits=24, data_bytes=len(data))
    (tmp_path / "s24.wav").write_bytes(header + data)
    assert files.load(tmp_path / "s24.wav").tolist() == [1, -1, 0, 0, 32767, -32768]


def test_float_beyond_full_scale_saturates(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "f.wav", np.array([2.0, -2.0, 0.5]), 16_000, subtype="FLOAT")
    assert files.load(tmp_path / "f.wav").tolist() == [32767, -32768, 16384]


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_other_rates_keep_a_tone(tmp_path: Path, rate_hz: int, channels: int) -> None:
    seconds = np.arange(rate_hz) / rate_hz
    tone = np.tile(0.5 * np.sin(2 * np.pi * 1000 * seconds)[:, None], (1, channels))
    soundfile.write(tmp_path / "tone.wav", tone, rate_hz, subtype="PCM_24")
    loaded = files.load(tmp_path / "tone.wav")
    assert len(loaded) == 16_000
    expected = 16384 * np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000)
    # Away from the ends, where the filter sees zeros; 0.2 % of the amplitude.
    assert np.abs(loaded - expected)[500:-500].max() < 33


def test_resampling_removes_what_would_alias(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 15_000 * np.arange(48_000) / 48_000)
    soundfile.write(tmp_path / "high.wav", tone, 48_000)
    assert np.abs(files.load(tmp_path / "high.wav")[500:-500]).max() < 100


def test_odd_rate_resamples_by_the_exact_ratio(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "odd.wav", speech(12_347), 12_347)
    assert len(files.load(tmp_path / "odd.wav")) == 16_000


def test_ogg(tmp_path: Path) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(32_000) / 32_000)
    soundfile.write(tmp_path / "tone.ogg", tone, 32_000)
    loaded = files.load(tmp_path / "tone.ogg").astype(float)
    assert len(loaded) == 16_000
    assert math.isclose(float(np.sqrt(np.mean(loaded**2))), 16384 / math.sqrt(2), rel_tol=0.05)


def damaged_flac(path: Path) -> None:
    soundfile.write(path, speech(16_000), 16_000, format="FLAC")


def test_truncated_flac(tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    damaged_flac(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(AudioError, match=r"cut\.flac: (truncated|not a readable)"):
        files.load(path)


def test_flac_header_claims_terabytes(tmp_path: Path) -> None:
    path = tmp_path / "huge.flac"
    damaged_flac(path)
    content = bytearray(path.read_bytes())
    # STREAMINFO: 36 bits of total samples end at byte 26 of the file.
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    with pytest.raises(AudioError, match="the limit is 600 s"):
        files.load(path)


def test_wav_header_claims_more_than_the_file_holds(tmp_path: Path) -> None:
    # Streaming writers leave 0xFFFFFFFF in the header; the samples there are good.
    pcm = speech(100)
    header = wav_header(data_bytes=0xFFFFFFF0)
    (tmp_path / "open.wav").write_bytes(header + pcm.tobytes())
    np.testing.assert_array_equal(files.load(tmp_path / "open.wav"), pcm)


@pytest.mark.parametrize("rate_hz", [1, 999, 384_001, 0x7FFFFFFF])
def test_absurd_rates(tmp_path: Path, rate_hz: int) -> None:
    pcm = speech(100)
    (tmp_path / "rate.wav").write_bytes(wav_header(rate_hz, data_bytes=200) + pcm.tobytes())
    with pytest.raises(AudioError, match=f"{rate_hz} Hz; allowed: 1000 .. 384000"):
        files.load(tmp_path / "rate.wav")


def test_longer_than_the_limit(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(32_001, np.int16), 16_000)
    assert len(files.load(tmp_path / "long.flac", limit_s=2.1)) == 32_001
    with pytest.raises(AudioError, match="2 s; the limit is 2 s; split it"):
        files.load(tmp_path / "long.flac", limit_s=2.0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_samples_that_are_not_finite(tmp_path: Path, value: float) -> None:
    samples = np.array([0.0, value, 0.5], np.float32)
    soundfile.write(tmp_path / "nan.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(AudioError, match="not finite"):
        files.load(tmp_path / "nan.wav")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("zero.wav", b""),
        ("text.wav", b"these are not samples\n" * 9),
        ("half_header.wav", wav_header()[:20]),
        ("channels.wav", wav_header(channels=0, data_bytes=4) + b"1234"),
        ("text.raw", b"1234"),
        ("zero.flac", b"fLaC"),
        ("ogg.ogg", b"OggS" + b"\xff" * 60),
    ],
)
def test_no_sound_file(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(AudioError, match=f"{name}: not a readable sound file: .+"):
        files.load(tmp_path / name)


def test_empty_file_has_its_own_message(tmp_path: Path) -> None:
    (tmp_path / "empty.wav").write_bytes(wav_header())
    assert files.decode(tmp_path / "empty.wav").shape == (0,)
    with pytest.raises(AudioError, match="holds no samples"):
        files.load(tmp_path / "empty.wav")


@pytest.mark.parametrize("name", ["missing.wav", ".", "nul\0.wav", "x" * 300])
def test_no_regular_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(AudioError, match="no such file, or not a regular one"):
        files.load(tmp_path / name)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400), seed=st.integers(0, 99))
def test_garbage_raises_nothing_but_audio_errors(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, seed: int
) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "fuzz.wav"
    content = bytearray(wav_header(data_bytes=200) + speech(100).tobytes())
    at = seed % len(content)
    content[at : at + len(data)] = data
    path.write_bytes(content)
    try:
        assert files.decode(path).dtype == np.int16
    except AudioError as problem:
        assert "\n" not in str(problem)


def test_to_int16_rounds_half_away_and_saturates() -> None:
    samples = np.array([0.5, -0.5, 1.5, 0.49, -0.49, 32767.4, 40000, -32768.6, -1e9])
    expected = [1, -1, 2, 0, 0, 32767, 32767, -32768, -32768]
    assert files.to_int16(samples).tolist() == expected


def burst(silence_before: int, loud: int, silence_after: int, floor: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(1)
    clip = rng.standard_normal(silence_before + loud + silence_after) * floor
    clip[silence_before : silence_before + loud] += rng.standard_normal(loud) * 4000
    return clip.astype(np.int16)


@pytest.mark.parametrize("floor", [0, 30, 300])
def test_trim_keeps_100_ms_before_and_150_ms_after(floor: float) -> None:
    # Speech from 1.0 s to 2.0 s of 5 s.
    clip = burst(16_000, 16_000, 48_000, floor)
    trimmed = files.trim(clip)
    assert len(trimmed) == 16_000 + 1600 + 2400
    np.testing.assert_array_equal(trimmed, clip[16_000 - 1600 : 32_000 + 2400])


def test_trim_keeps_pauses_and_ignores_clicks() -> None:
    pause = np.concatenate([burst(16_000, 8000, 16_000), burst(0, 8000, 32_000)])
    pause[100:160] = 30_000
    pause[-400:-300] = -30_000
    assert len(files.trim(pause)) == 8000 + 16_000 + 8000 + 1600 + 2400


@pytest.mark.parametrize("n", [0, 1, 159, 160, 1279, 1280, 5000])
def test_trim_returns_silence_and_short_clips_whole(n: int) -> None:
    assert len(files.trim(np.zeros(n, np.int16))) == n
    assert len(files.trim(speech(n))) == n


def test_trim_of_steady_noise_returns_it_whole() -> None:
    assert len(files.trim(speech(48_000))) == 48_000


def test_trim_takes_the_extremes() -> None:
    clip = np.full(48_000, -32768, np.int16)
    clip[:16_000] = 0
    assert len(files.trim(clip)) == 32_000 + 1600


@pytest.mark.parametrize("n", [0, 1, 99, 100])
def test_fit_window_pads_at_the_end(n: int) -> None:
    window, cropped = files.fit_window(np.full(n, 7, np.int16), 100)
    assert (window.tolist(), cropped) == ([7] * n + [0] * (100 - n), False)


@pytest.mark.parametrize("position", [0, 1, 450, 900])
def test_fit_window_keeps_the_loudest_stretch(position: int) -> None:
    clip = np.ones(1000, np.int16)
    clip[position : position + 100] = -32768
    window, cropped = files.fit_window(clip, 100)
    assert cropped
    assert window.tolist() == [-32768] * 100


def test_fit_window_takes_the_first_of_equals() -> None:
    window, cropped = files.fit_window(np.array([5, 5, 5], np.int16), 2)
    assert (window.tolist(), cropped) == ([5, 5], True)


@pytest.mark.parametrize(
    ("samples", "share"),
    [([], 0), ([0, 32766, -32767], 0), ([32767, -32768, 0, 0], 0.5), ([32767], 1)],
)
def test_clipped_share(samples: list[int], share: float) -> None:
    assert files.clipped_share(np.array(samples, np.int16)) == share


@pytest.mark.parametrize("pause_ms", [0, 30, 400])
def test_longest_pause(pause_ms: int) -> None:
    tone = np.full(4800, 5000, np.int16)
    pause = np.zeros(16 * pause_ms, np.int16)
    silence = np.zeros(8000, np.int16)
    clip = np.concatenate([silence, tone, pause, tone, silence])
    assert files.longest_pause_s(clip) == pytest.approx(pause_ms / 1000)
    assert files.longest_pause_s(np.zeros(100, np.int16)) == 0.0
    assert files.longest_pause_s(np.zeros(16000, np.int16)) == 0.0
