"""Manifests and folders of utterances, what is wrong with them, and their windows of samples.

Reading never stops at one bad row or file: each becomes a `Problem` with its place, and the
caller shows `report(problems)`. Errors are raised where nothing useful could follow.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quads_mcu.audio import files, manifest
from quads_mcu.audio.files import Pcm
from quads_mcu.audio.splits import SPLITS, choose_valid, speech_commands_split
from quads_mcu.config import FILE_NAME, SAMPLE_RATE, Config
from quads_mcu.console import Progress
from quads_mcu.errors import AudioError, ConfigError
from quads_mcu.slots import INTENT, NONE, Slot

BACKGROUND_NOISE = "_background_noise_"

# Share of full-scale samples from which a clip counts as clipped, and the peak (of 32768) up to
# which it counts as silent.
CLIPPED_SHARE = 0.001
SILENT_PEAK = 32

_NOISE_LIMIT_S = 3600.0
_SHOWN_PER_KIND = 3


@dataclass(frozen=True)
class Utterance:
    """One labelled recording: a label per slot; `source` is the "file:line" or folder it is in."""

    path: Path
    answers: tuple[str, ...]
    split: str
    speaker: str
    source: str
    synthesized: bool = False

    @property
    def label(self) -> str:
        """Label of the first slot."""
        return self.answers[0]


@dataclass(frozen=True)
class Problem:
    """Something wrong with `path`; `line` is the manifest's line, or 0 without a manifest."""

    path: Path
    line: int
    kind: str
    text: str
    manifest: Path | None = None

    def __str__(self) -> str:
        place = f" ({self.manifest}:{self.line})" if self.manifest else ""
        return f"{self.path}{place}: {self.text}"


@dataclass(frozen=True)
class Dataset:
    """Usable utterances, what was left out or looks wrong, and the classes in order.

    labels: of the first slot. slot_names: one for each of an utterance's answers.
    """

    utterances: list[Utterance]
    problems: list[Problem]
    labels: list[str]
    slot_names: tuple[str, ...] = (INTENT,)

    @property
    def slots(self) -> tuple[Slot, ...]:
        """Every slot; beyond the first, labels are those found, sorted, "none" first."""
        found = [Slot(self.slot_names[0], tuple(self.labels))]
        for place, name in enumerate(self.slot_names[1:], start=1):
            labels = {item.answers[place] for item in self.utterances}
            found.append(Slot(name, tuple(sorted(labels, key=lambda x: (x != NONE, x)))))
        return tuple(found)


@dataclass(frozen=True)
class Clips:
    """The windows of one split.

    pcm: int16, (N, n_samples). answers: int64, (N, n_slots), indices into the labels of
    `Dataset.slots`. lengths: int64, (N,), samples before the padding. utterances: N, in the order
    of the rows.
    """

    pcm: npt.NDArray[np.int16]
    answers: npt.NDArray[np.int64]
    lengths: npt.NDArray[np.int64]
    utterances: list[Utterance]
    problems: list[Problem]

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Answers of the first slot, int64 (N,)."""
        return self.answers[:, 0]

    def spread(self, count: int) -> Clips:
        """Return `count` windows (all, if there are fewer), evenly spaced over the rows."""
        rows = np.unique(np.linspace(0, len(self.pcm) - 1, count).round().astype(np.int64))
        chosen = [self.utterances[row] for row in rows]
        return Clips(self.pcm[rows], self.answers[rows], self.lengths[rows], chosen, self.problems)


def load_dataset(config: Config, progress: Progress, extra: Sequence[Path] = ()) -> Dataset:
    """Read every source in [data] and check them together.

    Args:
        config: the project; [intents], where given, are the classes allowed, in this order.
        progress: called with sources read.
        extra: further manifests, such as the one from `synth.synthesize`; label column "label".
    Raises:
        ConfigError: no source is named, or one is missing or of the wrong shape.
        AudioError: not a single utterance is usable.
    """
    data = config.data
    if not (data.manifests or data.speech_commands or extra):
        raise ConfigError(
            "no training data: name manifests or speech_commands under [data] in quads.toml"
        )
    parts = []
    total = len(data.manifests) + len(extra) + bool(data.speech_commands)
    for entry in data.manifests:
        name, _, splits = entry.partition("#")
        part = read_manifest(config.resolve(name), data.label_column, config.slots)
        parts.append(_only(part, splits, entry) if splits else part)
        progress("reading manifests", len(parts), total)
    for path in extra:
        part = read_manifest(path, slots={name: name for name in config.slots})
        spoken = [replace(item, synthesized=True) for item in part.utterances]
        part = replace(part, utterances=spoken)
        # Recordings, where there are any to choose by or to test with, stay among themselves.
        recorded = {item.split for known in parts for item in known.utterances} - {"train"}
        kept = [split for split in SPLITS if split not in recorded]
        parts.append(_only(part, ",".join(kept), str(path)))
        progress("reading manifests", len(parts), total)
    if data.speech_commands:
        folder = config.resolve(data.speech_commands)
        parts.append(read_speech_commands(folder, tuple(config.intents)))
        progress("reading manifests", total, total)
    dataset = combine(parts, tuple(config.intents))
    if not dataset.utterances:
        problems = dataset.problems
        found = f"problems: {len(problems)}, the first: {problems[0]}" if problems else "no rows"
        raise AudioError(f"no usable utterance; {found}")
    if not data.synth or extra:
        trained = {item.label for item in dataset.utterances if item.split == "train"}
        place = config.root / FILE_NAME
        for label in (name for name in dataset.labels if name not in trained):
            text = f"no training utterance for label {label!r}"
            dataset.problems.append(Problem(place, 0, "untrained", text))
    return dataset


def _only(dataset: Dataset, splits: str, entry: str) -> Dataset:
    """Keep the splits named after `#` in a [data] manifests entry."""
    wanted = splits.split(",")
    if unknown := [name for name in wanted if name not in SPLITS]:
        raise ConfigError(
            f"[data] manifests {entry!r}: no split {unknown[0]!r}; allowed: {', '.join(SPLITS)}"
        )
    kept = [item for item in dataset.utterances if item.split in wanted]
    return replace(dataset, utterances=kept)


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
    sources = [manifest.Answer.parse(name, text, columns) for name, text in (slots or {}).items()]
    needed = [source.column for source in sources] or [label_column]
    manifest.require(path, columns, ("path", *dict.fromkeys(needed), "split"))
    utterances: list[Utterance] = []
    problems: list[Problem] = []
    for line, row in rows:
        item = _utterance(path, line, row, sources or label_column)
        if isinstance(item, Utterance):
            utterances.append(item)
        else:
            problems.append(item)
    return _dataset(_with_valid_split(utterances), problems, slot_names=tuple(slots or (INTENT,)))


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
        sounds = _sound_files(class_folder.iterdir())
        if not sounds:
            problems.append(Problem(class_folder, 0, "missing", "no sound files in this folder"))
        elif intents and class_folder.name not in intents:
            text = f"{class_folder.name!r} is not in [intents]; {len(sounds)} files left out"
            problems.append(Problem(class_folder, 0, "unknown label", text))
        else:
            utterances += [_speech_command(sound, listed) for sound in sounds]
    return _dataset(_with_valid_split(utterances), problems)


def combine(parts: Iterable[Dataset], intents: Sequence[str] = ()) -> Dataset:
    """Join data sets, leaving out and reporting labels not among `intents` and repeated files.

    A file under two labels is left out altogether; one listed twice is used once, in the split
    that names it first.
    """
    problems: list[Problem] = []
    known: list[Utterance] = []
    slot_names: tuple[str, ...] = (INTENT,)
    for part in parts:
        slot_names = part.slot_names
        problems += part.problems
        for item in part.utterances:
            if intents and item.label not in intents:
                text = f"label {item.label!r} is not in [intents]"
                problems.append(_problem(item, "unknown label", text))
            else:
                known.append(item)
    labels_of: dict[str, set[str]] = collections.defaultdict(set)
    for item in known:
        labels_of[os.path.normpath(item.path.absolute())].add(" + ".join(item.answers))
    first: dict[str, Utterance] = {}
    for item in known:
        place = os.path.normpath(item.path.absolute())
        if len(labels_of[place]) > 1:
            text = f"listed under several labels: {', '.join(sorted(labels_of[place]))}"
            problems.append(_problem(item, "conflict", text))
        elif place in first:
            kept = first[place]
            kind = "duplicate" if kept.split == item.split else "leak"
            text = f"already in split {kept.split} ({kept.source}); this row is not used"
            problems.append(_problem(item, kind, text))
        else:
            first[place] = item
    return _dataset(list(first.values()), problems, intents, slot_names)


def load_pcm(dataset: Dataset, split: str, n_samples: int, trim: bool, progress: Progress) -> Clips:
    """Load the windows of one split.

    Clipped clips (over 0.1 % of the samples at full scale) and clips longer than the window
    (cropped to the loudest stretch) are used and reported; empty, silent (peak under -60 dB) and
    unreadable ones are left out and reported.

    Args:
        dataset: from `load_dataset`.
        split: "train", "valid" or "test".
        n_samples: length of the window.
        trim: cut leading and trailing silence first (`files.trim`).
        progress: called with files read.
    Raises:
        ConfigError: no such split.
    """
    if split not in SPLITS:
        raise ConfigError(f"no split {split!r}; allowed: {', '.join(SPLITS)}")
    chosen = [item for item in dataset.utterances if item.split == split]
    slots = dataset.slots
    index = [{label: at for at, label in enumerate(slot.labels)} for slot in slots]
    pcm = np.zeros((len(chosen), n_samples), np.int16)
    lengths: list[int] = []
    used: list[Utterance] = []
    problems: list[Problem] = []
    for count, item in enumerate(chosen, start=1):
        clip = _usable(item, problems)
        if clip is not None:
            clip = files.trim(clip) if trim else clip
            pcm[len(used)], cropped = files.fit_window(clip, n_samples)
            if cropped:
                excess_s = (len(clip) - n_samples) / SAMPLE_RATE
                text = f"{excess_s:.3g} s longer than the window; cropped to the loudest stretch"
                problems.append(_problem(item, "too long", text))
            lengths.append(min(len(clip), n_samples))
            used.append(item)
        progress(f"loading {split}", count, len(chosen))
    rows = [[at[label] for at, label in zip(index, item.answers, strict=True)] for item in used]
    answers = np.array(rows, np.int64).reshape(len(used), len(slots))
    return Clips(pcm[: len(used)], answers, np.array(lengths, np.int64), used, problems)


def load_noise(config: Config, split: str = "train") -> list[Pcm]:
    """Load the recordings in [data] noise: those of a split in manifests, sound files and folders.

    Files and folders, and manifests without the column, are of split train.

    Returns:
        A list of int16, (n,), in the order named; folders in the order of their file names.
    Raises:
        ConfigError: an entry is missing or holds no recording.
        AudioError: a recording cannot be read or is silent.
    """
    paths: list[Path] = []
    for entry in config.data.noise:
        path = config.resolve(entry)
        found = _noise_files(path, split)
        if not found and split == "train":
            raise ConfigError(f"{path}: no noise recordings for training ([data] noise)")
        paths += found
    noises = []
    for path in paths:
        noise = files.load(path, limit_s=_NOISE_LIMIT_S)
        if not noise.any():
            raise AudioError(f"{path}: noise recording without sound; take it out of [data] noise")
        noises.append(noise)
    return noises


def report(problems: Sequence[Problem]) -> str:
    """Return counts per kind and the first few of each, a line each; "" without problems."""
    kinds: dict[str, list[Problem]] = collections.defaultdict(list)
    for problem in problems:
        kinds[problem.kind].append(problem)
    lines = []
    for kind, group in sorted(kinds.items(), key=lambda item: (-len(item[1]), item[0])):
        lines.append(f"{kind}: {len(group)}")
        lines += [f"  {problem}" for problem in group[:_SHOWN_PER_KIND]]
        if len(group) > _SHOWN_PER_KIND:
            lines.append(f"  ... and {len(group) - _SHOWN_PER_KIND} more")
    return "\n".join(lines)


def _dataset(
    utterances: list[Utterance],
    problems: list[Problem],
    labels: Sequence[str] = (),
    slot_names: tuple[str, ...] = (INTENT,),
) -> Dataset:
    found = sorted({item.label for item in utterances})
    return Dataset(utterances, problems, list(labels) or found, slot_names)


def _problem(item: Utterance, kind: str, text: str) -> Problem:
    source, _, line = item.source.rpartition(":")
    if line.isdecimal():
        return Problem(item.path, int(line), kind, text, Path(source))
    return Problem(item.path, 0, kind, text)


def _utterance(
    source: Path,
    line: int,
    row: dict[str, str] | str,
    labels: str | Sequence[manifest.Answer],
) -> Utterance | Problem:
    """`labels`: the column of the only slot, or where to find each of several."""
    if isinstance(row, str):
        return Problem(source, line, "bad line", row, source)
    path, split = row.get("path", ""), row.get("split", "")
    sound = source.parent / path
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
        return _problem(item, "unlabelled", f"column {labels!r} is empty")
    if split not in SPLITS:
        text = f"split {split!r} is not one of {', '.join(SPLITS)}"
        return _problem(item, "unknown split", text)
    if not files.is_regular(sound):
        return _problem(item, "missing", "no such file")
    return replace(item, speaker=row.get("speaker") or row.get("pseudo_speaker") or "")


def _with_valid_split(utterances: list[Utterance]) -> list[Utterance]:
    train = [item for item in utterances if item.split == "train"]
    if not train or any(item.split == "valid" for item in utterances):
        return utterances
    chosen = choose_valid(
        [item.path.name for item in train],
        [" + ".join(item.answers) for item in train],
        [item.speaker for item in train],
    )
    valid = {train[row].source for row in chosen}
    return [replace(item, split="valid") if item.source in valid else item for item in utterances]


def _listed(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"{path}: cannot be read: {problem}") from None


def _sound_files(paths: Iterable[Path]) -> list[Path]:
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


def _usable(item: Utterance, problems: list[Problem]) -> Pcm | None:
    try:
        clip = files.decode(item.path)
    except AudioError as problem:
        text = str(problem).removeprefix(f"{item.path}: ")
        problems.append(_problem(item, "unreadable", f"{text}; left out"))
        return None
    if not len(clip):
        problems.append(_problem(item, "empty", "holds no samples; left out"))
        return None
    peak = int(np.abs(clip.astype(np.int32)).max())
    if peak <= SILENT_PEAK:
        text = f"silent: the peak is {peak} of {files.FULL_SCALE}; left out"
        problems.append(_problem(item, "silent", text))
        return None
    share = files.clipped_share(clip)
    if share > CLIPPED_SHARE:
        text = f"{100 * share:.2f} % of the samples are at full scale"
        problems.append(_problem(item, "clipped", text))
    return clip


def _noise_files(path: Path, split: str) -> list[Path]:
    if path.is_dir():
        return _sound_files(path.rglob("*")) if split == "train" else []
    if path.suffix.lower() not in manifest.SUFFIXES:
        if not files.is_regular(path):
            raise ConfigError(f"{path}: no such file or folder ([data] noise)")
        return [path] if split == "train" else []
    columns, rows = manifest.read_rows(path)
    manifest.require(path, columns, ("path",))
    found = []
    for line, row in rows:
        if isinstance(row, str):
            raise ConfigError(f"{path}:{line}: {row} ([data] noise)")
        if row.get("split", "train") == split:
            found.append(path.parent / row["path"])
    return found
