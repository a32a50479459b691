"""Rows of a CSV or JSONL manifest, with the line each starts at; bad lines are kept as such."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from quads_mcu.errors import ConfigError

SUFFIXES = (".csv", ".jsonl")
_LIMIT_BYTES = 256 << 20

# The line a row starts at, and its fields by column, or what is wrong with it.
Row = tuple[int, dict[str, str] | str]


def read_rows(path: Path) -> tuple[list[str], list[Row]]:
    """Return the columns and rows of a manifest (UTF-8, with or without BOM, any line ends).

    Raises:
        ConfigError: the file is missing, over 256 MiB, or not called .csv or .jsonl.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"{path}: not a manifest; its name must end in {' or '.join(SUFFIXES)}")
    try:
        size = path.stat().st_size
        if size > _LIMIT_BYTES:
            raise ConfigError(f"{path}: {size} bytes; the limit is {_LIMIT_BYTES}; split it")
        # Bytes that are not UTF-8 become surrogates: only the rows that hold them are bad.
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as problem:
        raise ConfigError(f"{path}: manifest cannot be read: {problem.strerror}") from None
    rows = list(_csv_rows(text) if path.suffix.lower() == ".csv" else _json_rows(text))
    columns = list(dict.fromkeys(name for _, row in rows if isinstance(row, dict) for name in row))
    if path.suffix.lower() == ".csv" and rows:
        _, header = rows.pop(0)
        columns = list(header) if isinstance(header, dict) else []
    return columns, [(line, _checked(row)) for line, row in rows]


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
