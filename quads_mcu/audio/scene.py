"""A long recording made of short ones: speech with pauses, in noise, and where each clip lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from quads_mcu.audio.files import Pcm, to_int16, trim
from quads_mcu.config import SAMPLE_RATE

# The noise's level; clips are scaled to it. The loudest stays below full scale at 20 dB.
NOISE_RMS = 100.0
NOISE_PIECE_S = (30.0, 60.0)
LEAD_S = 3.0


@dataclass(frozen=True)
class Clip:
    """A recording, int16 (n,); label: the command it is, or None for other speech."""

    pcm: Pcm
    label: int | None


@dataclass(frozen=True)
class Segment:
    """Where a clip lies: samples [start, end), its end points trimmed."""

    start: int
    end: int
    label: int | None


@dataclass(frozen=True)
class Scene:
    """int16 (n,) at 16 kHz, and its clips in order."""

    pcm: Pcm
    segments: tuple[Segment, ...]


def compose(
    commands: Sequence[Clip],
    others: Sequence[Clip],
    noises: Sequence[Pcm],
    seconds: float,
    seed: int,
    *,
    snr_db: tuple[float, float] = (10.0, 20.0),
    pause_s: tuple[float, float] = (1.0, 2.5),
    command_share: float = 0.75,
) -> Scene:
    """Return a scene of random clips and pauses over noise that never stops.

    The noise is random stretches of `noises`, all at one level; each clip is trimmed and scaled to
    its own signal-to-noise ratio (against the louder half of its samples).
    """
    rng = np.random.default_rng(seed)
    n_samples = round(seconds * SAMPLE_RATE)
    mixture = _noise(noises, n_samples, rng)
    segments: list[Segment] = []
    at = round(LEAD_S * SAMPLE_RATE)
    while True:
        pool = commands if not others or rng.random() < command_share else others
        clip = pool[int(rng.integers(len(pool)))]
        speech = trim(clip.pcm).astype(np.float32)
        pause = round(rng.uniform(*pause_s) * SAMPLE_RATE)
        if at + len(speech) + SAMPLE_RATE > n_samples:
            return Scene(to_int16(mixture), tuple(segments))
        gain = NOISE_RMS * 10 ** (rng.uniform(*snr_db) / 20) / _loud_rms(speech)
        mixture[at : at + len(speech)] += gain * speech
        segments.append(Segment(at, at + len(speech), clip.label))
        at += len(speech) + pause


def _noise(noises: Sequence[Pcm], n_samples: int, rng: np.random.Generator) -> NDArray[np.float32]:
    out = np.zeros(n_samples, np.float32)
    at = 0
    while at < n_samples and noises:
        noise = noises[int(rng.integers(len(noises)))].astype(np.float32)
        n = min(round(rng.uniform(*NOISE_PIECE_S) * SAMPLE_RATE), n_samples - at)
        start = int(rng.integers(len(noise)))
        rms = float(np.sqrt(np.mean(noise * noise, dtype=np.float64)))
        piece = np.take(noise, np.arange(start, start + n), mode="wrap")
        out[at : at + n] = piece * (NOISE_RMS / max(rms, 1e-3))
        at += n
    return out


def _loud_rms(speech: NDArray[np.float32]) -> float:
    magnitude = np.abs(speech)
    loud = speech[magnitude >= np.median(magnitude)]
    return max(1e-3, float(np.sqrt(np.mean(loud * loud, dtype=np.float64))))
