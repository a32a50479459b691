"""What the listening firmware hears: the numpy twin of firmware/src/gate.c and listen.c.

Works on whole recordings; the device hears the same in pieces of any size (docs/listening.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

import numpy as np
from numpy.typing import NDArray

from quads_mcu.audio import frontend
from quads_mcu.config import ListenSection
from quads_mcu.export.reference import Reference, decide
from quads_mcu.model.dimensions import FRAMES_PER_S
from quads_mcu.model_format import PackedModel

LSB_PER_DB = 2
# Constants of firmware/src/gate.c.
LEVEL_ONE, LEVEL_LEAST, SMOOTH_SHIFT, FLOOR_STEP = 64, -80 * 64, 1, 8
WARM_FRAMES, WARM_FACTOR = 100, 16
LOUD_LSB, PEAK_SHIFT = 1, 4
ONSET_FRAMES, RESUME_FRAMES, SHORT_FRAMES = 6, 4, 10
SILENCE = -128

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]


@dataclass(frozen=True)
class GateSettings:
    """The settings as the device has them: LSB of 0.5 dB, frames of 10 ms."""

    gate_lsb: int
    lead_frames: int
    tail_frames: int
    hangover_frames: int

    @classmethod
    def of(cls, section: ListenSection) -> GateSettings:
        """Round [listen] of a project file to the device's units."""
        tail = max(1, _frames(section.tail_ms))
        return cls(
            gate_lsb=round(section.gate_db * LSB_PER_DB),
            lead_frames=_frames(section.lead_ms),
            tail_frames=tail,
            hangover_frames=max(tail, _frames(section.hangover_ms)),
        )

    def ring_frames(self, n_frames: int) -> int:
        """Frames of the device's ring: two windows and what precedes the speech."""
        return 2 * n_frames + self.lead_frames


def _frames(milliseconds: int) -> int:
    return round(milliseconds * FRAMES_PER_S / 1000)


@dataclass(frozen=True)
class Utterance:
    """One stretch of speech, in frames: window start and length, end of speech, certain since."""

    start: int
    length: int
    end: int
    confirmed: int


@dataclass(frozen=True)
class Heard:
    """Utterances with their windows int8 (N, n_frames, n_mels) and logits int32 (N, n_classes).

    answers: int64 (N, n_slots); rejected: bool (N,), the model's threshold refuses them.
    frames: int8 (F, n_mels), the whole recording's features before any clamp.
    """

    frames: Int8
    utterances: tuple[Utterance, ...]
    windows: Int8
    logits: Int32
    answers: NDArray[np.int64]
    rejected: NDArray[np.bool_]


def listen(model: PackedModel, pcm: NDArray[np.int16], settings: GateSettings) -> Heard:
    """Return what the listening firmware hears in a recording, int16 (samples,), 16 kHz.

    Frames that need samples beyond the recording's end are not heard.

    Raises:
        AudioError: pcm is not int16.
        ModelFormatError: the model breaks a bound of docs/arithmetic.md.
    """
    dims = model.dims
    mel = frontend.frames(pcm, dims.n_mels, frames_in(len(pcm)), model.frontend)
    found = tuple(utterances(mel, settings, dims.n_frames))
    windows = np.stack(
        [window(mel, utterance, dims.n_frames) for utterance in found]
        or [np.zeros((dims.n_frames, dims.n_mels), np.int8)]
    )[: len(found)]
    logits = Reference(model).logits(windows)
    return Heard(mel, found, windows, logits, *decide(model, logits))


def frames_in(n_samples: int) -> int:
    """Return how many frames are complete after `n_samples`: frame f needs 160 f + 200."""
    return (n_samples - 200) // 160 + 1 if n_samples >= 200 else 0


def window(mel: Int8, utterance: Utterance, n_frames: int) -> Int8:
    """Return the utterance's window, int8 (n_frames, n_mels): its frames, silence, the clamp."""
    out = np.full((n_frames, mel.shape[1]), SILENCE, np.int8)
    out[: utterance.length] = mel[utterance.start : utterance.start + utterance.length]
    return frontend.clamp(out)


def utterances(mel: Int8, settings: GateSettings, n_frames: int) -> list[Utterance]:
    """Return the utterances whose end is certain within int8 frames (F, n_mels)."""
    if not len(mel):
        return []
    gate = _Gate(settings, n_frames, mel[0])
    heard = (gate.take(frame, levels) for frame, levels in enumerate(mel.astype(np.int32)))
    return [utterance for utterance in heard if utterance is not None]


def _half_more(frames: int) -> int:
    return frames + frames // 2


class _State(Enum):
    CLOSED = auto()
    OPEN = auto()
    FULL = auto()


class _Gate:
    """firmware/src/gate.c."""

    def __init__(self, settings: GateSettings, n_frames: int, first: Int8) -> None:
        self._settings = settings
        self._n_frames = n_frames
        self._level = np.maximum(first.astype(np.int32) * LEVEL_ONE, LEVEL_LEAST)
        self._floor = self._level
        self._warming = WARM_FRAMES
        self._state = _State.CLOSED
        self._run = self._quiet = self._loud = self._peak = self._start = self._end = 0

    def take(self, frame: int, levels: Int32) -> Utterance | None:
        """Take one frame; return the utterance that it makes certain."""
        loudness = self._loudness(levels)
        loud = loudness >= LOUD_LSB * len(levels)
        if self._state is _State.CLOSED:
            self._run = self._run + 1 if loud else 0
            self._wait(frame, loudness)
            return None
        self._peak = max(self._peak, loudness)
        loud = loud and loudness >= self._peak >> PEAK_SHIFT
        self._run = self._run + 1 if loud else 0
        paused = self._quiet >= self._settings.tail_frames
        loud = loud and (not paused or self._run >= RESUME_FRAMES)
        self._quiet = 0 if loud else self._quiet + 1
        if self._state is _State.OPEN:
            return self._follow(frame, loud)
        if self._quiet == _half_more(self._settings.tail_frames):
            self._close()
        return None

    def _loudness(self, levels: Int32) -> int:
        factor = WARM_FACTOR if self._warming else 1
        self._warming = max(0, self._warming - 1)
        now = np.maximum(levels * LEVEL_ONE, LEVEL_LEAST)
        self._level = self._level + ((now - self._level) >> SMOOTH_SHIFT)
        excess = (self._level >> 6) - (self._floor >> 6) - self._settings.gate_lsb
        step = np.where(self._level > self._floor, FLOOR_STEP, -FLOOR_STEP) * factor
        self._floor = np.maximum(self._floor + step, LEVEL_LEAST)
        return int(np.maximum(excess, 0).sum())

    def _wait(self, frame: int, loudness: int) -> None:
        if self._run == ONSET_FRAMES:
            self._state = _State.OPEN
            self._start = max(0, frame + 1 - ONSET_FRAMES - self._settings.lead_frames)
            self._end = frame + 1
            self._peak, self._quiet, self._loud = loudness, 0, ONSET_FRAMES

    def _follow(self, frame: int, loud: bool) -> Utterance | None:
        if loud:
            self._end = frame + 1
            self._loud += 1
        if self._quiet < self._settings.tail_frames and frame + 1 - self._start >= self._n_frames:
            self._state = _State.FULL
            return Utterance(self._start, self._n_frames, self._end, frame)
        hangover = self._settings.hangover_frames
        if self._quiet < (_half_more(hangover) if self._loud < SHORT_FRAMES else hangover):
            return None
        self._close()
        length = self._end + self._settings.tail_frames - self._start
        return Utterance(self._start, min(length, self._n_frames), self._end, frame)

    def _close(self) -> None:
        self._state = _State.CLOSED
        self._run = 0
