"""Which utterances train and which validate; decided by names alone, so it never changes."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Sequence

SPLITS = ("train", "valid", "test")

_VALID_SHARE = 0.1
_SPEAKER_SHARES = (0.05, 0.15)
_MAX_FILES_PER_CLASS = 2**27 - 1


def speech_commands_split(file_name: str) -> str:
    """Return the split of a Speech Commands file: which_set() of the data set's README.

    All files of a speaker (the name up to `_nohash_`) share a split; 10 % validate, 10 % test.
    """
    digest = int(_digest(file_name.partition("_nohash_")[0]), 16)
    percentage = digest % (_MAX_FILES_PER_CLASS + 1) * (100.0 / _MAX_FILES_PER_CLASS)
    return "valid" if percentage < 10.0 else "test" if percentage < 20.0 else "train"


def choose_valid(names: Sequence[str], labels: Sequence[str], speakers: Sequence[str]) -> set[int]:
    """Return the rows that shall validate, about a tenth.

    Whole speakers where every row names one and some of them make up 5 to 15 % of the rows;
    else a tenth of each label's rows, at least one where a label has two.

    Args:
        names, labels, speakers: of each row; "" for an unknown speaker.
    """
    return _by_speaker(speakers) or _by_label(names, labels)


def by_digest(names: Sequence[str]) -> list[int]:
    """Return the rows in an order that depends on nothing but the names."""
    return sorted(range(len(names)), key=lambda row: (_digest(names[row]), row))


def _by_speaker(speakers: Sequence[str]) -> set[int]:
    if not all(speakers):
        return set()
    least, most = (share * len(speakers) for share in _SPEAKER_SHARES)
    sizes = collections.Counter(speakers)
    chosen: set[str] = set()
    size = 0
    for speaker in sorted(sizes, key=_digest):
        if size < _VALID_SHARE * len(speakers) and size + sizes[speaker] <= most:
            chosen.add(speaker)
            size += sizes[speaker]
    if size < least:
        return set()
    return {row for row, speaker in enumerate(speakers) if speaker in chosen}


def _by_label(names: Sequence[str], labels: Sequence[str]) -> set[int]:
    groups: dict[str, list[int]] = collections.defaultdict(list)
    for row, label in enumerate(labels):
        groups[label].append(row)
    chosen: set[int] = set()
    for label, rows in groups.items():
        rows.sort(key=lambda row: (_digest(f"{label}/{names[row]}"), row))
        chosen.update(rows[: max(round(_VALID_SHARE * len(rows)), int(len(rows) > 1))])
    return chosen


def _digest(text: str) -> str:
    encoded = text.encode("utf-8", "surrogateescape")
    return hashlib.sha1(encoded, usedforsecurity=False).hexdigest()
