"""Rows of a CSV or JSONL manifest, with the line each starts at; bad lines are kept as such."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quads_mcu.errors import ConfigError
from quads_mcu.slots import NONE

SUFFIXES = (".csv", ".jsonl")
_LIMIT_BYTES = 256 << 20

# The line a row starts at, and its fields by column, or what is wrong with it.
Row = tuple[int, dict[str, str] | str]


@dataclass(frozen=True)
class Answer:
    """Where a row says what fills a slot: `COLUMN`, `COLUMN.KEY` or either with ` /PATTERN/`.

    key: into a column that holds a JSON object. pattern: a regular expression; what it matches is
    the answer. A row without a value, or without a match, answers "none".
    """

    column: str
    key: str = ""
    pattern: re.Pattern[str] | None = None

    @classmethod
    def parse(cls, slot: str, text: str, columns: Sequence[str]) -> Answer:
        """Read an entry of [slots].

        Raises:
            ConfigError: a pattern that is not closed or no regular expression.
        """
        name, slash, pattern = text.partition(" /")
        if slash and not pattern.endswith("/"):
            raise ConfigError(f"[slots] {slot}: the pattern in {text!r} does not end in /")
        try:
            compiled = re.compile(pattern[:-1]) if slash else None
        except re.error as problem:
            raise ConfigError(f"[slots] {slot}: {pattern[:-1]!r}: {problem}") from None
        name = name.strip()
        if name in columns or "." not in name:
            return cls(name, "", compiled)
        column, _, key = name.partition(".")
        return cls(column, key, compiled)

    def of(self, row: dict[str, str]) -> str:
        """Return the row's answer.

        Raises:
            ValueError: a key is wanted, and the column does not hold a JSON object.
        """
        value = row.get(self.column, "")
        if self.key and value:
            try:
                fields = json.loads(value)
            except (ValueError, RecursionError):
                fields = None
            if not isinstance(fields, dict):
                raise ValueError(f"column {self.column!r} is not a JSON object: {value[:60]!a}")
            value = _text(fields.get(self.key))
        if self.pattern is not None:
            match = self.pattern.search(value)
            value = match[0].strip() if match else ""
        return value or NONE


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Return the columns and rows of a manifest (UTF-8, with or without BOM, any line ends).

    Raises:
        ConfigError: the file is missing, over 256 MiB, or not called .csv or .jsonl.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: not a manifest; its name must end in {' or '.join(SUFFIXES)}")
    text = read_text(path)
    rows = list(_csv_rows(text) if path.suffix.lower() == ".csv" else _json_rows(text))
    columns = list(dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row))
    if path.suffix.lower() == ".csv" and rows:
        _, header = rows.pop(0)
        columns = list(header) if isinstance(header, dict) else []
    return columns, [(line, _checked(row)) for line, row in rows]


def read_text(path: Path) -> str:
    """Return a text file (UTF-8, with or without BOM); other bytes become surrogates.

    Raises:
        ConfigError: the file is missing or over 256 MiB.
    """
    try:
        size = path.stat().st_size
        if size > _LIMIT_BYTES:
            raise ConfigError(f"{path}: {size} bytes; the limit is {_LIMIT_BYTES}; split it")
        return path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as problem:
        raise ConfigError(f"{path}: cannot be read: {problem.strerror}") from None


def require(path: Path, columns: list[str], names: tuple[str, ...]) -> None:
    """Raise a ConfigError naming the columns found if one of `names` is missing."""
    absent = [name for name in names if name not in columns]
    if absent:
        found = ", ".join(ascii(name) for name in columns) or "none"
        raise ConfigError(
            f"{path}: no column {', '.join(map(repr, absent))}; columns found: {found}"
        )


def _csv_rows(text: str) -> Iterator[Row]:
    """Yield the header, as a row that maps each column to itself, then the rows."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] | None = None
    while True:
        line = reader.line_num + 1
        try:
            fields = [field.strip() for field in next(reader)]
        except StopIteration:
            return
        except csv.Error as problem:
            lost = f" (lost: lines {line} to {reader.line_num})" if reader.line_num > line else ""
            yield line, f"{problem}{lost}"
            continue
        if not any(fields):
            continue
        if header is None:
            header = fields
        if len(fields) != len(header):
            yield line, f"{len(fields)} fields where the header has {len(header)}"
        else:
            yield line, dict(zip(header, fields, strict=True))


def _json_rows(text: str) -> Iterator[Row]:
    for line, content in enumerate(text.split("\n"), start=1):
        if not content.strip():
            continue
        try:
            value = json.loads(content)
        except (ValueError, RecursionError) as problem:
            yield line, f"not JSON: {problem}"
            continue
        if isinstance(value, dict):
            yield line, {str(name).strip(): _text(item) for name, item in value.items()}
        else:
            yield line, "not a JSON object"


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    return "" if value is None else json.dumps(value)


def _checked(row: dict[str, str] | str) -> dict[str, str] | str:
    if isinstance(row, str):
        return row
    for name, value in row.items():
        if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
            return f"column {name!r} is not UTF-8 text: {value[:60]!a}"
    return row
