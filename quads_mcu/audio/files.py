"""Sound files to int16 mono at SAMPLE_RATE, and cuts of such a clip: end points and windows."""

from __future__ import annotations

import math
import os
import wave
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from quads_mcu.config import SAMPLE_RATE
from quads_mcu.errors import AudioError

Pcm = npt.NDArray[np.int16]

FULL_SCALE = 32_768
SUFFIXES = (".wav", ".flac", ".ogg")
# Longest recording that is read. Checked against the header, so a lying one allocates nothing.
LIMIT_S = 600.0
_RATES_HZ = (1_000, 384_000)
_BLOCK_FRAMES = 1 << 16

# End points: one frame is 10 ms.
_FRAME = SAMPLE_RATE // 100
_LOUD_FRAMES = 20
_RUN_FRAMES = 8
_LEAD_FRAMES = 10
_TAIL_FRAMES = 15


def load(path: Path, *, limit_s: float = LIMIT_S) -> Pcm:
    """Read a WAV, FLAC or OGG file of any sample rate and channel count.

    Channels are averaged, other rates resampled (polyphase, exact rational ratio), and the result
    rounded half away from zero and saturated. Mono 16-bit files at SAMPLE_RATE come out unchanged.

    Args:
        path: the file.
        limit_s: longest duration accepted, s.
    Returns:
        int16, (n,), n >= 1. Mono, SAMPLE_RATE Hz.
    Raises:
        AudioError: missing, unreadable, truncated, too long, empty, or with samples that are not
            finite.
    """
    pcm = decode(path, limit_s=limit_s)
    if not len(pcm):
        raise AudioError(f"{path}: holds no samples; record it again or take it out")
    return pcm


def decode(path: Path, *, limit_s: float = LIMIT_S) -> Pcm:
    """Return what `load` returns, or an empty array for a file without samples.

    Raises:
        AudioError: as for `load`, but for empty files.
    """
    import soundfile

    if not is_regular(path):
        raise AudioError(f"{path}: no such file, or not a regular one")
    try:
        with soundfile.SoundFile(str(path)) as sound:
            _check_header(path, sound, limit_s)
            native = (sound.samplerate, sound.channels, sound.subtype) == (SAMPLE_RATE, 1, "PCM_16")
            samples = _read_mono(path, sound, "int16" if native else "float32")
            rate_hz = int(sound.samplerate)
    except (soundfile.LibsndfileError, TypeError, OSError) as problem:
        reason = getattr(problem, "error_string", str(problem)).strip()
        raise AudioError(f"{path}: not a readable sound file: {reason}") from None
    if native:
        return samples
    if not np.isfinite(samples).all():
        raise AudioError(f"{path}: holds samples that are not finite (NaN or infinity)")
    return to_int16(_resample(samples, rate_hz) * FULL_SCALE)


def duration(path: Path) -> int:
    """Return the length of a sound file, samples at SAMPLE_RATE, from its header.

    Raises:
        AudioError: no such file, or not a sound file.
    """
    import soundfile

    if not is_regular(path):
        raise AudioError(f"{path}: no such file, or not a regular one")
    try:
        info = soundfile.info(str(path))
    except (soundfile.LibsndfileError, TypeError, OSError) as problem:
        reason = getattr(problem, "error_string", str(problem)).strip()
        raise AudioError(f"{path}: not a readable sound file: {reason}") from None
    return int(info.frames * SAMPLE_RATE / info.samplerate + 0.5)


def is_regular(path: Path) -> bool:
    """Return whether `path` names a regular file; False too where it cannot name any."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def to_int16(samples: npt.NDArray[Any]) -> Pcm:
    """Round half away from zero and saturate to int16; 1.0 is one step, not full scale."""
    rounded: npt.NDArray[np.float64] = np.trunc(samples + np.copysign(0.5, samples))
    return rounded.clip(-FULL_SCALE, FULL_SCALE - 1).astype(np.int16)


def write_wav(path: Path, pcm: Pcm) -> None:
    """Write int16, (n,) as a mono 16-bit WAV at SAMPLE_RATE; the file appears whole or not at all.

    Raises:
        AudioError: the folder is missing or cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as stream, wave.open(stream, "wb") as sound:
            sound.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            sound.writeframes(pcm.astype("<i2").tobytes())
        part.replace(path)
    except OSError as problem:
        part.unlink(missing_ok=True)
        raise AudioError(f"{path}: cannot be written: {problem.strerror}") from None


def trim(pcm: Pcm) -> Pcm:
    """Cut silence before and after the speech, by the energy of 10 ms frames (integers only).

    A frame is active when its energy exceeds 1/512 (-27 dB) of the loud level, the energy of the
    20th loudest frame. Where the noise floor (10th percentile of the frames) is high, the
    threshold is 12 dB above the floor instead, but never closer than 12 dB to the loud level.
    Speech reaches from the first to the last run of 80 ms active frames; 100 ms before and
    150 ms after are kept. A clip in which no such run is found is returned whole.

    Args:
        pcm: int16, (n,).
    Returns:
        int16, (m,), m <= n: a view of `pcm`.
    """
    n_frames = len(pcm) // _FRAME
    if n_frames < _RUN_FRAMES:
        return pcm
    frames = pcm[: n_frames * _FRAME].reshape(n_frames, _FRAME).astype(np.int64)
    energy = (frames * frames).sum(axis=1)
    ordered = np.sort(energy)
    loud = int(ordered[max(n_frames // 2, n_frames - _LOUD_FRAMES)])
    floor = int(ordered[n_frames // 10])
    threshold = max(loud >> 9, min(floor << 4, loud >> 4))
    active = np.concatenate(([0], np.cumsum(energy > threshold)))
    runs = np.flatnonzero(active[_RUN_FRAMES:] - active[:-_RUN_FRAMES] == _RUN_FRAMES)
    if not len(runs):
        return pcm
    first = max(0, int(runs[0]) - _LEAD_FRAMES) * _FRAME
    last = (int(runs[-1]) + _RUN_FRAMES + _TAIL_FRAMES) * _FRAME
    return pcm[first:last]


def fit_window(pcm: Pcm, n_samples: int) -> tuple[Pcm, bool]:
    """Place a clip in a window of fixed length.

    Args:
        pcm: int16, (n,).
        n_samples: length of the window.
    Returns:
        int16, (n_samples,): the clip with zeros after it, or, of a longer clip, the stretch of
        most energy (the first of equals); and whether the clip was cropped.
    """
    if len(pcm) <= n_samples:
        window = np.zeros(n_samples, np.int16)
        window[: len(pcm)] = pcm
        return window, False
    squares = pcm.astype(np.int64) ** 2
    total = np.concatenate(([0], np.cumsum(squares)))
    start = int(np.argmax(total[n_samples:] - total[:-n_samples] if n_samples else total))
    return pcm[start : start + n_samples].copy(), True


def clipped_share(pcm: Pcm) -> float:
    """Return the share (0..1) of samples at full scale, -32768 or 32767."""
    if not len(pcm):
        return 0.0
    at_limit = (pcm == FULL_SCALE - 1) | (pcm == -FULL_SCALE)
    return float(np.count_nonzero(at_limit) / len(pcm))


def _check_header(path: Path, sound: Any, limit_s: float) -> None:
    low, high = _RATES_HZ
    if not low <= sound.samplerate <= high:
        raise AudioError(
            f"{path}: the header says {sound.samplerate} Hz; allowed: {low} .. {high} Hz"
        )
    duration_s = sound.frames / sound.samplerate
    if duration_s > limit_s:
        raise AudioError(
            f"{path}: the header says {duration_s:.0f} s; the limit is {limit_s:.0f} s; split it"
        )


def _read_mono(path: Path, sound: Any, dtype: str) -> npt.NDArray[Any]:
    """Return (n,) of `dtype`, or float64 where channels were averaged."""
    blocks = [np.zeros(0, dtype)]
    missing = int(sound.frames)
    while missing > 0:
        block = sound.read(min(missing, _BLOCK_FRAMES), dtype=dtype, always_2d=True)
        if not len(block):
            raise AudioError(
                f"{path}: truncated: the header says {sound.frames} frames, "
                f"{sound.frames - missing} are there"
            )
        missing -= len(block)
        blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float64))
    return np.concatenate(blocks)


def _resample(samples: npt.NDArray[Any], rate_hz: int) -> npt.NDArray[np.float64]:
    wide = samples.astype(np.float64)
    if rate_hz == SAMPLE_RATE or not len(wide):
        return wide
    from scipy.signal import resample_poly

    common = math.gcd(SAMPLE_RATE, rate_hz)
    resampled: npt.NDArray[np.float64] = resample_poly(
        wide, SAMPLE_RATE // common, rate_hz // common
    )
    return resampled
