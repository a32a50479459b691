"""Data sets in the layouts they are published in: manifests, FSC, SLURP, Speech Commands.

Each reader keeps to the official splits and gives a `Dataset`; rows that cannot be used become
problems with their place.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from quads_mcu.audio import files, manifest
from quads_mcu.audio.splits import SPLITS, by_digest, speech_commands_split
from quads_mcu.audio.utterances import (
    Dataset,
    Problem,
    Utterance,
    dataset,
    problem_of,
    with_valid_split,
)
from quads_mcu.config import SAMPLE_RATE
from quads_mcu.errors import ConfigError
from quads_mcu.slots import INTENT

BACKGROUND_NOISE = "_background_noise_"
FSC_FILES = {"train": "train_data.csv", "valid": "valid_data.csv", "test": "test_data.csv"}
FSC_COLUMNS = ("path", "speakerId", "transcription", "action", "object", "location")
SLURP_FILES = {"train": "train.jsonl", "valid": "devel.jsonl", "test": "test.jsonl"}
SLURP_SYNTHETIC = "train_synthetic.jsonl"
SLURP_COLUMNS = ("recordings", "scenario", "action")
# Speech Commands: the words of the 12-class task, which adds the two labels below, and all of v2.
TEN_WORDS = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
WORDS = (
    *TEN_WORDS,
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    *("backward", "bed", "bird", "cat", "dog", "follow", "forward", "happy", "house", "learn"),
    *("marvin", "sheila", "tree", "visual", "wow"),
)
UNKNOWN_WORD = "_unknown_"
SILENCE = "_silence_"
# Share of the known words, and where in a noise file each split's stretches lie.
_EXTRA_SHARE = 0.1
_SILENCE_PARTS = {"train": (0.0, 0.8), "valid": (0.8, 0.9), "test": (0.9, 1.0)}


def read_manifest(
    path: Path, label_column: str = "label", slots: Mapping[str, str] | None = None
) -> Dataset:
    """Read a CSV or JSONL manifest with the columns path, `label_column`, split, [speaker].

    With `slots` (name -> column, see `manifest.Answer`), their columns take the place of
    `label_column`; a slot that a row leaves empty is "none".

    Paths are relative to the manifest's folder. Where `speaker` is empty, `pseudo_speaker` takes
    its place. A manifest without a valid split gets one: a tenth of train, by speaker where every
    row names one and there are enough, else a tenth of each label; the choice depends on the
    names alone.

    Raises:
        ConfigError: the file is missing, too large, of another type, or lacks a column.
    """
    columns, rows = manifest.read_rows(path)
    found = _read(path, path.parent, columns, rows, label_column, slots or {})
    return replace(found, utterances=with_valid_split(found.utterances))


def _read(
    path: Path,
    base: Path,
    columns: Sequence[str],
    rows: Iterable[manifest.Row],
    label_column: str,
    slots: Mapping[str, str],
) -> Dataset:
    """Turn rows with path (from `base`), split, [speaker] and label columns into a data set."""
    sources = [manifest.Answer.parse(name, text, columns) for name, text in slots.items()]
    needed = dict.fromkeys(source.column for source in sources) if sources else (label_column,)
    manifest.require(path, list(columns), ("path", *needed, "split"))
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    for line, row in rows:
        item = _utterance(path, base, line, row, sources or label_column)
        if isinstance(item, Utterance):
            utterances.append(item)
        else:
            problems.append(item)
    return dataset(utterances, problems, slot_names=tuple(slots) or (INTENT,))


def _joined(parts: Sequence[Dataset]) -> Dataset:
    utterances = [item for part in parts for item in part.utterances]
    problems = [item for part in parts for item in part.problems]
    return dataset(utterances, problems, slot_names=parts[0].slot_names)


def read_fsc(folder: Path, slots: Mapping[str, str] | None = None) -> Dataset:
    """Read Fluent Speech Commands: data/{train,valid,test}_data.csv, wavs/speakers/ID/*.wav.

    The intent is the words of action, object and location that are not "none" ("activate lights
    kitchen"; 31 in the published set). `slots` may name any column.

    Raises:
        ConfigError: the folder or one of its files is missing, or lacks a column.
    """
    _require_folder(folder, "fsc", "data")
    parts = []
    for split, name in FSC_FILES.items():
        path = folder / "data" / name
        columns, rows = manifest.read_rows(path)
        manifest.require(path, columns, FSC_COLUMNS)
        named = [(line, _fsc_row(row, split)) for line, row in rows]
        parts.append(_read(path, folder, [*columns, "split", INTENT], named, INTENT, slots or {}))
    return _joined(parts)


def _fsc_row(row: dict[str, str] | str, split: str) -> dict[str, str] | str:
    if isinstance(row, str):
        return row
    words = (row.get(name, "") for name in ("action", "object", "location"))
    intent = " ".join(word for word in words if word not in ("", "none"))
    return row | {"split": split, "speaker": row.get("speakerId", ""), INTENT: intent}


def read_slurp(folder: Path, slots: Mapping[str, str] | None = None) -> Dataset:
    """Read SLURP: dataset/slurp/{train,devel,test}.jsonl, audio/slurp_real/*.flac.

    Every recording of a sentence is an utterance; the intent is SCENARIO_ACTION, as in the set's
    own evaluation. `slots` may name any field, `intent`, and `entities.TYPE` for the words of an
    entity.
    train_synthetic.jsonl with audio/slurp_synth is read, too, where both are there.

    Raises:
        ConfigError: the folder or one of its files is missing, or lacks a field.
    """
    _require_folder(folder, "slurp", "dataset/slurp", "audio/slurp_real")
    sources = [(name, split, "slurp_real") for split, name in SLURP_FILES.items()]
    texts, audio = folder / "dataset" / "slurp", folder / "audio"
    if (texts / SLURP_SYNTHETIC).is_file() and (audio / "slurp_synth").is_dir():
        sources.append((SLURP_SYNTHETIC, "train", "slurp_synth"))
    parts = []
    for name, split, sounds in sources:
        columns, rows = manifest.read_rows(texts / name)
        manifest.require(texts / name, columns, SLURP_COLUMNS)
        named = [(line, found) for line, row in rows for found in _slurp_rows(row, split)]
        every = [*columns, "path", "split", INTENT, "entities"]
        parts.append(_read(texts / name, audio / sounds, every, named, INTENT, slots or {}))
    return _joined(parts)


def _slurp_rows(row: dict[str, str] | str, split: str) -> Iterator[dict[str, str] | str]:
    if isinstance(row, str):
        yield row
        return
    try:
        names = [str(recording["file"]) for recording in json.loads(row["recordings"])]
        tokens = [str(token["surface"]) for token in json.loads(row.get("tokens", "") or "[]")]
        entities = {
            str(entity["type"]): " ".join(tokens[at] for at in entity["span"])
            for entity in json.loads(row.get("entities", "") or "[]")
        }
    except (KeyError, TypeError, ValueError, IndexError, RecursionError) as problem:
        yield f"recordings, tokens or entities are not as SLURP has them: {problem!r}"
        return
    parts = (row.get("scenario", ""), row.get("action", ""))
    intent = "_".join(parts) if all(parts) else ""
    for name in names:
        yield row | {
            "path": name,
            "split": split,
            INTENT: intent,
            "entities": json.dumps(entities),
        }


def read_speech_commands(folder: Path, intents: Sequence[str] = ()) -> Dataset:
    """Read a folder in the Speech Commands layout: a folder of sound files per class.

    The splits come from validation_list.txt and testing_list.txt; without both, from the data
    set's own rule (a hash of the file name up to `_nohash_`, 10 % validation, 10 % testing).

    Args:
        folder: the data set; its `_background_noise_` is not a class.
        intents: classes to take; empty for all. Folders left out are reported.
    Raises:
        ConfigError: no such folder, or it holds no class folders.
    """
    if not folder.is_dir():
        raise ConfigError(f"{folder}: no such folder; [data] speech_commands names a folder")
    lists = {"valid": folder / "validation_list.txt", "test": folder / "testing_list.txt"}
    listed = {split: _listed(path) for split, path in lists.items() if path.is_file()}
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    classes = [item for item in sorted(folder.iterdir()) if item.is_dir()]
    classes = [item for item in classes if item.name != BACKGROUND_NOISE and item.name[0] != "."]
    if not classes:
        raise ConfigError(f"{folder}: holds no class folders")
    for class_folder in classes:
        sounds = sound_files(class_folder.iterdir())
        if not sounds:
            problems.append(Problem(class_folder, 0, "missing", "no sound files in this folder"))
        elif intents and class_folder.name not in intents:
            text = f"{class_folder.name!r} is not in [intents]; {len(sounds)} files left out"
            problems.append(Problem(class_folder, 0, "unknown label", text))
        else:
            utterances += [_speech_command(sound, listed) for sound in sounds]
    return dataset(with_valid_split(utterances), problems)


def read_speech_commands_task(folder: Path, task: int) -> Dataset:
    """Read Speech Commands v2 for an official task, with the splits of its two lists.

    12: the ten command words, `_unknown_` (other words) and `_silence_` (stretches of 1 s of
    `_background_noise_`, whose last two tenths validate and test), a tenth as many of each as of
    the ten words, in every split. 35: all words.

    Raises:
        ConfigError: a word's folder, a list or the noise is missing.
    """
    for name in ("validation_list.txt", "testing_list.txt"):
        if not (folder / name).is_file():
            raise ConfigError(
                f"{folder / name}: no such file; [data] speech_commands_task = {task} needs the "
                "official splits: unpack speech_commands_v0.02 there"
            )
    words = TEN_WORDS if task == 12 else WORDS
    missing = [word for word in words if not (folder / word).is_dir()]
    if missing:
        raise ConfigError(
            f"{folder / missing[0]}: no such folder; [data] speech_commands_task = {task} needs "
            f"{', '.join(missing)}"
        )
    everything = read_speech_commands(folder)
    known = [item for item in everything.utterances if item.label in words]
    if task == 12:
        rest = [item for item in everything.utterances if item.label not in words]
        known += _extra_classes(folder, known, rest)
    empty = [item for item in everything.problems if item.path.name in words]
    return dataset(known, empty)


def _extra_classes(
    folder: Path, known: list[Utterance], rest: list[Utterance]
) -> Iterator[Utterance]:
    noises = _noise_stretches(folder / BACKGROUND_NOISE)
    for split in SPLITS:
        count = math.ceil(_EXTRA_SHARE * sum(item.split == split for item in known))
        others = [item for item in rest if item.split == split]
        chosen = by_digest([f"{item.label}/{item.path.name}" for item in others])[:count]
        yield from (replace(others[row], answers=(UNKNOWN_WORD,)) for row in chosen)
        for number in range(count):
            path, duration = noises[number % len(noises)]
            low, high = (round(part * duration) for part in _SILENCE_PARTS[split])
            place = (number // len(noises) + 0.5) / math.ceil(count / len(noises))
            start = low + round(place * max(0, high - low - SAMPLE_RATE))
            yield Utterance(path, (SILENCE,), split, "", str(path), start, SAMPLE_RATE)


def _noise_stretches(folder: Path) -> list[tuple[Path, int]]:
    sounds = sound_files(folder.iterdir()) if folder.is_dir() else []
    if not sounds:
        raise ConfigError(
            f"{folder}: no sound files; [data] speech_commands_task = 12 makes {SILENCE} of them"
        )
    return [(path, files.duration(path)) for path in sounds]


def _require_folder(folder: Path, setting: str, *inside: str) -> None:
    for path in (folder, *(folder / name for name in inside)):
        if not path.is_dir():
            raise ConfigError(
                f"{path}: no such folder; [data] {setting} names a folder with "
                f"{' and '.join(inside)} in it"
            )


def _utterance(
    source: Path,
    base: Path,
    line: int,
    row: dict[str, str] | str,
    labels: str | Sequence[manifest.Answer],
) -> Utterance | Problem:
    """`labels`: the column of the only slot, or where to find each of several."""
    if isinstance(row, str):
        return Problem(source, line, "bad line", row, source)
    path, split = row.get("path", ""), row.get("split", "")
    sound = base / path
    if not path:
        return Problem(source, line, "bad line", "the path is empty", source)
    try:
        answers = (
            (row.get(labels, ""),) if isinstance(labels, str) else tuple(a.of(row) for a in labels)
        )
    except ValueError as problem:
        return Problem(source, line, "bad line", str(problem), source)
    item = Utterance(sound, answers, split, "", f"{source}:{line}")
    if isinstance(labels, str) and not item.label:
        return problem_of(item, "unlabelled", f"column {labels!r} is empty")
    if split not in SPLITS:
        text = f"split {split!r} is not one of {', '.join(SPLITS)}"
        return problem_of(item, "unknown split", text)
    if not files.is_regular(sound):
        return problem_of(item, "missing", "no such file")
    return replace(item, speaker=row.get("speaker") or row.get("pseudo_speaker") or "")


def _listed(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path}: cannot be read: {problem}") from None


def sound_files(paths: Iterable[Path]) -> list[Path]:
    """Return those that are called like sound files, in order."""
    return sorted(path for path in paths if path.suffix.lower() in files.SUFFIXES)


def _speech_command(sound: Path, listed: dict[str, set[str]]) -> Utterance:
    label = sound.parent.name
    if listed:
        name = f"{label}/{sound.name}"
        split = next((split for split, names in listed.items() if name in names), "train")
    else:
        split = speech_commands_split(sound.name)
    speaker = sound.name.partition("_nohash_")[0] if "_nohash_" in sound.name else ""
    return Utterance(sound, (label,), split, speaker, str(sound))
