"""What a flash will write where: everything is known, and checked, before anything is written."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from quads_mcu.errors import BuildError, DeviceError

COLUMNS = ("what", "from", "to", "bytes", "MD5", "file")


@dataclass(frozen=True)
class Part:
    """One range of flash. offset: address on the chip, as its flasher counts; file: its origin."""

    what: str
    offset: int
    data: bytes
    file: str

    @property
    def end(self) -> int:
        """First address behind the part."""
        return self.offset + len(self.data)

    @property
    def md5(self) -> str:
        """MD5 of the data, hexadecimal."""
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Plan:
    """Parts in the order in which they are written: what makes the board start comes last."""

    board: str
    parts: tuple[Part, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of all parts."""
        return sum(len(part.data) for part in self.parts)

    def rows(self) -> list[tuple[str, ...]]:
        """Return one row of text per part, under COLUMNS."""
        return [
            (part.what, f"{part.offset:#010x}", f"{part.end - 1:#010x}", f"{len(part.data):,}",
             part.md5, part.file)
            for part in self.parts
        ]  # fmt: skip


def check(plan: Plan, start: int, size_bytes: int) -> None:
    """Refuse parts that are empty, overlap or lie outside the flash.

    Raises:
        DeviceError: names the part, its end and the limit.
    """
    if not plan.parts:
        raise DeviceError(f"{plan.board}: the build holds nothing to flash; build it again")
    for part in plan.parts:
        if not part.data:
            raise DeviceError(f"{part.what} ({part.file}) is empty; build again")
        if part.offset < start or part.end > start + size_bytes:
            raise DeviceError(
                f"{part.what} ({part.file}) would lie at {part.offset:#x} to {part.end:#x}, the "
                f"flash of {plan.board} ends at {start + size_bytes:#x}; take fewer bits, a "
                "smaller student or a board with more flash"
            )
    ordered = sorted(plan.parts, key=lambda part: part.offset)
    for first, second in itertools.pairwise(ordered):
        if first.end > second.offset:
            raise DeviceError(
                f"{first.what} ends at {first.end:#x}, behind {second.offset:#x} where "
                f"{second.what} begins; export and build again"
            )


def read(path: Path) -> bytes:
    """Return a build product.

    Raises:
        BuildError: it is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as problem:
        raise BuildError(f"{path}: {problem.strerror}; run `quads-mcu build` first") from None


# Programs of a project and words of their files' names: the one that answers `quads-mcu test`, and
# the one that listens to a microphone.
PROGRAMS = {"server": ("server",), "demo": ("demo", "listen")}


def product(folder: Path, patterns: Sequence[str], program: str, what: str) -> Path:
    """Return the newest file of `program` (of PROGRAMS) that fits a pattern.

    A build whose files name no program has one that is both.

    Raises:
        BuildError: there is none.
    """
    found = [path for pattern in patterns for path in folder.glob(pattern)]
    named = {path: _program_of(path.relative_to(folder)) for path in found}
    if any(named.values()):
        found = [path for path in found if named[path] == program]
    if not found:
        raise BuildError(
            f"{folder} holds no {what} of program {program} ({', '.join(patterns)}); run "
            "`quads-mcu build` first"
        )
    return max(found, key=lambda path: path.stat().st_mtime)


def _program_of(path: Path) -> str | None:
    text = path.as_posix().lower()
    for program, words in PROGRAMS.items():
        if any(word in text for word in words):
            return program
    return None
