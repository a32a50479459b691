"""What a device hears that is no command: other speech and noise, cut into windows, and silence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from quads_mcu.audio import files, layouts, manifest
from quads_mcu.audio.files import Pcm
from quads_mcu.audio.splits import SPLITS, speech_commands_split
from quads_mcu.audio.utterances import Dataset, Problem, Utterance, dataset, place_of, problem_of
from quads_mcu.errors import AudioError, ConfigError
from quads_mcu.slots import NONE, UNKNOWN

# Quietest and loudest silence, root mean square in LSB; one window in this many of unknown ones.
_SILENCE_RMS = (0.3, 30.0)
SILENCE_EVERY = 25
_SILENCE_STREAM = 0x51


def read(entries: Sequence[tuple[str, Path]], n_samples: int) -> Dataset:
    """Read the entries of [data] unknown; long recordings become windows one after the other.

    A manifest needs the columns path and split. In a folder, or for a single file, a hash of the
    name up to `_nohash_` decides the split, as in Speech Commands.

    Args:
        entries: as written (`PATH` or `PATH#split,split`), and the path.
        n_samples: length of a window; a rest of less than half of it is left out.
    Raises:
        ConfigError: an entry is missing, names no split that exists, or holds nothing.
    """
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    for entry, path in entries:
        wanted = [name for name in entry.partition("#")[2].split(",") if name] or list(SPLITS)
        if unknown := [name for name in wanted if name not in SPLITS]:
            raise ConfigError(
                f"[data] unknown {entry!r}: no split {unknown[0]!r}; allowed: {', '.join(SPLITS)}"
            )
        found = list(_recordings(path, problems))
        kept = [item for item in found if item.split in wanted]
        if not kept:
            raise ConfigError(f"{path}: no recording in split {', '.join(wanted)} ([data] unknown)")
        utterances += [window for item in kept for window in _windows(item, n_samples, problems)]
    return dataset(utterances, problems)


def added(commands: Dataset, other: Dataset) -> Dataset:
    """Return `commands` with the unknown speech of `other` as the last label of the first slot.

    Further slots answer "none". A recording that is a command stays one.
    """
    known = {place_of(item)[0]: item for item in commands.utterances}
    fill = (NONE,) * (len(commands.slot_names) - 1)
    utterances, problems = list(commands.utterances), [*commands.problems, *other.problems]
    for item in other.utterances:
        owner = known.get(place_of(item)[0])
        if owner is not None:
            text = f"a command, too ({owner.source}); not used as unknown"
            problems.append(problem_of(item, "conflict", text))
        else:
            utterances.append(replace(item, answers=(UNKNOWN, *fill)))
    labels = [label for label in commands.labels if label != UNKNOWN]
    return Dataset(utterances, problems, [*labels, UNKNOWN], commands.slot_names)


def is_unknown(item: Utterance) -> bool:
    """Return whether an utterance is no command."""
    return item.label == UNKNOWN


def is_command(item: Utterance) -> bool:
    """Return whether an utterance is a command."""
    return item.label != UNKNOWN


def silence(n_others: int, n_samples: int, seed: int, split: str) -> Pcm:
    """Return windows of what a microphone gives where nothing is heard, int16 (count, n_samples).

    White noise; its level is drawn between a third of a LSB and -60 dB. One window, at least, for
    SILENCE_EVERY others; different ones in every split.
    """
    count = -(-n_others // SILENCE_EVERY)
    rng = np.random.default_rng([seed, SPLITS.index(split), _SILENCE_STREAM])
    low, high = (float(np.log(level)) for level in _SILENCE_RMS)
    levels = np.exp(rng.uniform(low, high, (count, 1)))
    return files.to_int16(levels * rng.standard_normal((count, n_samples)))


def _recordings(path: Path, problems: list[Problem]) -> Iterator[Utterance]:
    if path.suffix.lower() in manifest.SUFFIXES:
        columns, rows = manifest.read_rows(path)
        manifest.require(path, columns, ("path", "split"))
        for line, row in rows:
            item = (
                Utterance(path.parent / row["path"], (UNKNOWN,), row["split"], "", f"{path}:{line}")
                if isinstance(row, dict)
                else None
            )
            if item is None:
                problems.append(Problem(path, line, "bad line", str(row), path))
            elif item.split not in SPLITS:
                problems.append(problem_of(item, "unknown split", f"split {item.split!r}"))
            else:
                yield item
        return
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder ([data] unknown)")
    for sound in layouts.sound_files(path.rglob("*")) if path.is_dir() else [path]:
        yield Utterance(sound, (UNKNOWN,), speech_commands_split(sound.name), "", str(sound))


def _windows(item: Utterance, n_samples: int, problems: list[Problem]) -> Iterator[Utterance]:
    try:
        length = files.duration(item.path)
    except AudioError as problem:
        text = str(problem).removeprefix(f"{item.path}: ")
        problems.append(problem_of(item, "unreadable", f"{text}; left out"))
        return
    if length <= n_samples:
        yield item
        return
    for start in range(0, length - n_samples // 2 + 1, n_samples):
        yield replace(item, start=start, length=n_samples)
