"""Labelled recordings, what is wrong with them, and data sets joined from several sources."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quads_mcu import console
from quads_mcu.audio.splits import choose_valid
from quads_mcu.slots import INTENT, NO_ANSWER, NONE, Slot

_SHOWN_PER_KIND = 3


@dataclass(frozen=True)
class Utterance:
    """One labelled recording: a label per slot; `source` is the "file:line" or folder it is in.

    start, length: the stretch of the file that counts, samples at 16 kHz; length 0: all of it.
    """

    path: Path
    answers: tuple[str, ...]
    split: str
    speaker: str
    source: str
    start: int = 0
    length: int = 0
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
        """Every slot; beyond the first, labels are those of split train, sorted, "none" first."""
        found = [Slot(self.slot_names[0], tuple(self.labels))]
        for place, name in enumerate(self.slot_names[1:], start=1):
            labels = {item.answers[place] for item in self.utterances if item.split == "train"}
            found.append(Slot(name, tuple(sorted(labels, key=lambda x: (x != NONE, x)))))
        return tuple(found)

    def answers(self, utterances: Sequence[Utterance]) -> npt.NDArray[np.int64]:
        """Return int64 (N, n_slots), indices into the labels of `slots`, or NO_ANSWER."""
        index = [{label: at for at, label in enumerate(slot.labels)} for slot in self.slots]
        rows = [
            [at.get(label, NO_ANSWER) for at, label in zip(index, item.answers, strict=True)]
            for item in utterances
        ]
        return np.array(rows, np.int64).reshape(len(utterances), len(index))


@dataclass(frozen=True)
class Clips:
    """The windows of one split.

    pcm: int16, (N, n_samples). answers: int64, (N, n_slots), as `Dataset.answers`. lengths: int64,
    (N,), samples before the padding. utterances: N, in the order of the rows.
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


# A file and where in it an utterance starts.
Place = tuple[str, int]


def place_of(item: Utterance) -> Place:
    """Return what two rows that name the same recording share."""
    return os.path.normpath(item.path.absolute()), item.start


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
                problems.append(problem_of(item, "unknown label", text))
            else:
                known.append(item)
    labels_of: dict[Place, set[str]] = collections.defaultdict(set)
    for item in known:
        labels_of[place_of(item)].add(" + ".join(item.answers))
    first: dict[Place, Utterance] = {}
    for item in known:
        place = place_of(item)
        if len(labels_of[place]) > 1:
            text = f"listed under several labels: {', '.join(sorted(labels_of[place]))}"
            problems.append(problem_of(item, "conflict", text))
        elif place in first:
            kept = first[place]
            kind = "duplicate" if kept.split == item.split else "leak"
            text = f"already in split {kept.split} ({kept.source}); this row is not used"
            problems.append(problem_of(item, kind, text))
        else:
            first[place] = item
    return dataset(list(first.values()), problems, intents, slot_names)


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


def warn(problems: Sequence[Problem]) -> None:
    """Print the report of what this command has not reported yet, on stderr."""
    if found := console.unsaid(problems):
        console.warn(f"the data has {len(found)} problem(s)\n{report(found)}")


def dataset(
    utterances: list[Utterance],
    problems: list[Problem],
    labels: Sequence[str] = (),
    slot_names: tuple[str, ...] = (INTENT,),
) -> Dataset:
    """Return a data set whose first slot has `labels`, or those found, sorted."""
    found = sorted({item.label for item in utterances})
    return Dataset(utterances, problems, list(labels) or found, slot_names)


def problem_of(item: Utterance, kind: str, text: str) -> Problem:
    """Return what is wrong with an utterance, with the manifest's line where there is one."""
    source, _, line = item.source.rpartition(":")
    if line.isdecimal():
        return Problem(item.path, int(line), kind, text, Path(source))
    return Problem(item.path, 0, kind, text)


def with_valid_split(utterances: list[Utterance]) -> list[Utterance]:
    """Let about a tenth of `train` validate where nothing does (`splits.choose_valid`)."""
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
