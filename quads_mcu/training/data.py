"""From a project's sound files to what the training loop works on."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.audio import datasets, sources, unknown, utterances
from quads_mcu.audio.augment import Augmenter, content, spec_augment
from quads_mcu.audio.frontend import features
from quads_mcu.audio.splits import SPLITS
from quads_mcu.audio.utterances import Clips, Dataset, Problem
from quads_mcu.config import SAMPLE_RATE, Config
from quads_mcu.console import Progress
from quads_mcu.errors import ConfigError
from quads_mcu.slots import NO_ANSWER, NONE, UNKNOWN, Slot
from quads_mcu.training.ahead import ahead
from quads_mcu.training.problem import Batch, Mel, check_trained

Pcm = NDArray[np.int16]

_FEATURE_BATCH = 64
_AHEAD = 4
# [train] crop: what stays after the longest utterance, and batches that are filled by length.
_MARGIN_S = 0.5
_SORTED_BATCHES = 8


@dataclass(frozen=True)
class Utterances:
    """pcm: int16 (N, n_samples); answers: int64 (N, n_slots), as `Dataset.answers`.

    synthesized, unknown: bool (N,), whether spoken by a machine, and whether no command.
    """

    pcm: Pcm
    answers: NDArray[np.int64]
    synthesized: NDArray[np.bool_]
    unknown: NDArray[np.bool_]


@dataclass(frozen=True)
class Corpus:
    """The windows to train on and to choose by, noise for augmentation, and the slots.

    problems: of the data and of these windows.
    """

    slots: tuple[Slot, ...]
    train: Utterances
    valid: Utterances
    noises: list[Pcm]
    problems: list[Problem]

    def fingerprint(self) -> str:
        """Return SHA-256 (hex) of everything."""
        return digest(
            *(text for slot in self.slots for text in (slot.name, *slot.labels)),
            *(array for part in (self.train, self.valid) for array in (part.pcm, part.answers)),
            *self.noises,
        )


def digest(*parts: Any) -> str:
    """Return SHA-256 (hex) of texts, bytes and arrays, in order."""
    found = hashlib.sha256()
    for item in parts:
        if isinstance(item, np.ndarray):
            found.update(f"{item.dtype}{item.shape}".encode())
            found.update(np.ascontiguousarray(item).data)
        else:
            data = item if isinstance(item, bytes) else str(item).encode()
            found.update(f"{len(data)}:".encode() + data)
    return found.hexdigest()


def load(config: Config, progress: Progress) -> Corpus:
    """Load the splits train and valid, synthesized speech included; problems are printed.

    Raises:
        ConfigError, AudioError, InstallationError: as `datasets.load_dataset` and `synthesize`.
        TrainingError: a label has no row in split train.
    """
    dataset = sources.load(config, progress)
    utterances.warn(dataset.problems)
    check_trained(dataset.slots, {split: _answers(dataset, split) for split in SPLITS})
    problems = list(dataset.problems)
    n_samples = round(config.audio.window_s * SAMPLE_RATE)

    def windows(split: str) -> Utterances:
        clips = datasets.load_pcm(dataset, split, n_samples, config.data.trim, progress)
        problems.extend(clips.problems)
        return _with_silence(clips, dataset.slots, split, config.project.seed)

    noises = datasets.load_noise(config)
    train = _with_unlabelled(windows("train"), config, n_samples, problems, progress)
    valid = windows("valid")
    utterances.warn(problems)
    return Corpus(dataset.slots, train, valid, noises, problems)


def _answers(dataset: Dataset, split: str) -> NDArray[np.int64]:
    return dataset.answers([item for item in dataset.utterances if item.split == split])


def _with_unlabelled(
    commands: Utterances,
    config: Config,
    n_samples: int,
    problems: list[Problem],
    progress: Progress,
) -> Utterances:
    """Add the windows of [data] unlabelled, and what is wrong with them to `problems`."""
    if not config.data.unlabelled:
        return commands
    if not config.teacher.weights:
        raise ConfigError("[data] unlabelled needs a teacher to learn from: set [teacher] weights")
    entries = [(name, config.resolve(name.partition("#")[0])) for name in config.data.unlabelled]
    found = replace(unknown.read(entries, n_samples), labels=[UNKNOWN])
    clips = datasets.load_pcm(found, "train", n_samples, config.data.trim, progress)
    problems += [*found.problems, *clips.problems]
    others = len(clips.pcm)
    no = np.zeros(others, bool)
    return Utterances(
        np.concatenate([commands.pcm, clips.pcm]),
        np.concatenate([commands.answers, np.full((others, commands.answers.shape[1]), NO_ANSWER)]),
        np.concatenate([commands.synthesized, no]),
        np.concatenate([commands.unknown, no]),
    )


def _with_silence(clips: Clips, slots: tuple[Slot, ...], split: str, seed: int) -> Utterances:
    """Add silence where there is unknown speech."""
    other = np.array([unknown.is_unknown(item) for item in clips.utterances], bool)
    spoken = np.array([item.synthesized for item in clips.utterances], bool)
    if not other.any():
        return Utterances(clips.pcm, clips.answers, spoken, other)
    quiet = unknown.silence(int(other.sum()), clips.pcm.shape[1], seed, split)
    row = [slot.labels.index(NONE if at else UNKNOWN) for at, slot in enumerate(slots)]
    return Utterances(
        np.concatenate([clips.pcm, quiet]),
        np.concatenate([clips.answers, np.tile(np.array(row, np.int64), (len(quiet), 1))]),
        np.concatenate([spoken, np.zeros(len(quiet), bool)]),
        np.concatenate([other, np.ones(len(quiet), bool)]),
    )


def clean_features(pcm: Pcm, n_mels: int, n_frames: int, progress: Progress) -> Mel:
    """Return device features, int8 (N, n_frames, n_mels), of int16 (N, n_samples)."""
    mel = np.empty((len(pcm), n_frames, n_mels), np.int8)
    for at in range(0, len(pcm), _FEATURE_BATCH):
        mel[at : at + _FEATURE_BATCH] = features(pcm[at : at + _FEATURE_BATCH], n_mels, n_frames)
        progress("features", min(at + _FEATURE_BATCH, len(pcm)), len(pcm))
    return mel


class AugmentedBatches:
    """Shuffled, augmented training batches, computed ahead by a thread (more gain nothing).

    Every utterance of every epoch has its own random generator, so a batch depends on the seed,
    the epoch's number and the settings, but not on what ran before.

    Args:
        utterances: the training split. Of the synthesized ones, where there are recordings, an
            epoch takes `synth_ratio` per recording, others each time; so of unknown speech, up to
            [data] unknown_share of the epoch, and of unlabelled speech as many as of the rest.
        config: [augment], [train] batch_size, synth_ratio and crop are used.
        noises: int16 recordings.
        n_mels: 40 or 80.
        n_frames: frames of the window.
        seed: of order and variations.
        heard_mels: mel bands of a teacher that listens ([train] token_share); 0 for none.
    """

    def __init__(
        self,
        utterances: Utterances,
        config: Config,
        noises: list[Pcm],
        n_mels: int,
        n_frames: int,
        seed: int,
        heard_mels: int = 0,
    ) -> None:
        self._pcm = utterances.pcm
        self._settings = config.augment
        self._augment = Augmenter(config.augment, noises)
        self._n_mels, self._n_frames = n_mels, n_frames
        self._heard_mels = heard_mels
        self._batch_size = config.train.batch_size
        self._crop = config.train.crop
        self._seed = seed
        spoken, unknown = utterances.synthesized, utterances.unknown
        bare = utterances.answers[:, 0] == NO_ANSWER
        masks = (~spoken & ~unknown & ~bare, spoken & ~unknown, unknown, bare)
        recorded, synthesized, other, unlabelled = map(np.flatnonzero, masks)
        wanted = round(config.train.synth_ratio * len(recorded)) or len(synthesized)
        n_synthesized = min(wanted, len(synthesized))
        share = config.data.unknown_share
        most = math.ceil((len(recorded) + n_synthesized) * share / (1 - share))
        self._recorded = recorded
        # Rows of which every epoch draws some, and how many.
        self._drawn = [(synthesized, n_synthesized), (other, min(most, len(other)))]
        if len(unlabelled):
            labelled = len(recorded) + sum(count for _, count in self._drawn)
            self._drawn.append((unlabelled, min(labelled, len(unlabelled))))

    def __len__(self) -> int:
        size = len(self._recorded) + sum(count for _, count in self._drawn)
        return -(-size // self._batch_size)

    def __call__(self, epoch: int, distills: bool, *, whole: bool = False) -> Iterator[Batch]:
        """Return an epoch's batches; arguments as `problem.Batches`."""
        crop = self._crop and not whole
        heard_mels = self._heard_mels if distills else 0
        return ahead(
            lambda rows: self._batch(epoch, rows, heard_mels, crop),
            self._order(epoch, crop),
            _AHEAD,
        )

    def _order(self, epoch: int, by_length: bool) -> list[NDArray[np.int64]]:
        rng = np.random.default_rng([self._seed, epoch])
        drawn = [rng.permutation(rows)[:count] for rows, count in self._drawn]
        order = rng.permutation(np.concatenate([self._recorded, *drawn]))
        if not by_length:
            return self._split(order, self._batch_size)
        batches: list[NDArray[np.int64]] = []
        for rows in self._split(order, _SORTED_BATCHES * self._batch_size):
            ends = [content(self._pcm[row])[1] for row in rows]
            batches += self._split(rows[np.argsort(ends, kind="stable")], self._batch_size)
        return [batches[at] for at in rng.permutation(len(batches))]

    @staticmethod
    def _split(rows: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
        return [rows[at : at + size] for at in range(0, len(rows), size)]

    def _batch(self, epoch: int, rows: NDArray[np.int64], heard_mels: int, crop: bool) -> Batch:
        generators = [np.random.default_rng([self._seed, epoch, int(row)]) for row in rows]
        pairs = [self._augment.pair(self._pcm[r], g) for r, g in zip(rows, generators, strict=True)]
        clean, noisy = (np.stack(windows) for windows in zip(*pairs, strict=True))
        mel = features(noisy, self._n_mels, self._n_frames)
        masks = self._settings.time_masks, self._settings.frequency_masks
        masked = [spec_augment(m, g, *masks) for m, g in zip(mel, generators, strict=True)]
        n_frames = self._frames_heard(clean) if crop else self._n_frames
        heard: Mel | None = None
        if heard_mels:
            # Beyond them there is no sound that the clamp could tell of.
            heard = features(clean, heard_mels, n_frames)
        return Batch(rows, np.stack(masked)[:, :n_frames], heard)

    def _frames_heard(self, clean: Pcm) -> int:
        """Return an even number of frames in which every utterance of a batch has ended."""
        end = max(content(pcm)[1] for pcm in clean) + round(_MARGIN_S * SAMPLE_RATE)
        tokens = -(-end * self._n_frames // (2 * clean.shape[1]))
        return min(2 * tokens, self._n_frames)
