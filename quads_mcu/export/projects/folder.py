"""A folder of generated files that appears whole or not at all, and forgets nothing of the user's.

The manifest in it names every generated file with its SHA-256. When the folder is written again,
files that are not in the manifest (builds, settings) stay, and a generated file that was edited
stops the export.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from quads_mcu.device.boards import Board
from quads_mcu.errors import ExportError, StorageError
from quads_mcu.run_dir import RunDir

MANIFEST = "quads_export.json"


def write(
    folder: Path, files: Mapping[str, str | bytes], facts: Mapping[str, Any]
) -> dict[str, int]:
    """Write `files` (relative path to content) and a manifest with `facts` as `folder`.

    Returns the bytes of every file by its path, sorted.

    Raises:
        ExportError: the folder holds something else, or generated files that were changed.
        StorageError: it cannot be written; what was there before stays.
    """
    contents = {name: _bytes(name, content) for name, content in files.items()}
    sums = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(contents.items())}
    contents[MANIFEST] = (json.dumps({**facts, "files": sums}, indent=2) + "\n").encode()
    try:
        known = _known(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as place:
            fresh, old = Path(place) / "new", Path(place) / "old"
            for name, data in contents.items():
                (fresh / name).parent.mkdir(parents=True, exist_ok=True)
                (fresh / name).write_bytes(data)
            _swap(folder, fresh, old, known)
    except OSError as problem:
        raise StorageError(
            f"{problem.filename or folder}: cannot be written: {problem.strerror}; what was there "
            "before is kept: check the folder, its owner and the space left"
        ) from None
    return {name: len(data) for name, data in sorted(contents.items())}


def _bytes(name: str, content: str | bytes) -> bytes:
    path = PurePosixPath(name)
    assert not path.is_absolute() and ".." not in path.parts and name != MANIFEST, name
    return content.encode() if isinstance(content, str) else content


def read_manifest(folder: Path) -> dict[str, Any]:
    """Return the facts an export left in `folder`, and "files" with their SHA-256.

    Raises:
        ExportError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found["files"], dict):
            raise TypeError("files is not a table")
        return dict(found)
    except OSError:
        raise ExportError(
            f"{folder} is not an exported project (no {MANIFEST}); `quads-mcu export` writes one"
        ) from None
    except (ValueError, KeyError, TypeError) as problem:
        raise ExportError(f"{path}: {problem}; export into another folder") from None


def find(run: RunDir, board: Board, folder: Path | None) -> Path:
    """Return `folder`, or else the newest of the run's projects for `board`.

    Raises:
        ExportError: there is none, it is for another board, or not an export.
    """
    if folder is None:
        places = [run.project_dir(board.name, fmt) for fmt in board.formats]
        there = [place for place in places if (place / MANIFEST).is_file()]
        if not there:
            raise ExportError(
                f"{run.path} holds no project for {board.name}; `quads-mcu export --run {run.path} "
                f"--target {board.name}` writes one"
            )
        folder = max(there, key=lambda place: (place / MANIFEST).stat().st_mtime)
    if (made_for := read_manifest(folder).get("board")) != board.name:
        raise ExportError(
            f"{folder} was exported for {made_for}, not for {board.name}; name that by --target, "
            "or another --project-dir"
        )
    return folder


def format_of(folder: Path, board: Board) -> str:
    """Return the format of an exported project.

    Raises:
        ExportError: not an export, or of a format that the board does not have.
    """
    fmt = str(read_manifest(folder).get("format"))
    if fmt not in board.formats:
        raise ExportError(f"{folder / MANIFEST}: format {fmt!r} is unknown; export again")
    return fmt


def _known(folder: Path) -> set[str]:
    """Return the generated files of an export that is there already, none of which was changed."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return set()
    if not (folder / MANIFEST).is_file():
        raise ExportError(
            f"{folder} exists and is not an exported project (no {MANIFEST}); choose another --out"
        )
    sums: dict[str, str] = read_manifest(folder)["files"]
    for name, expected in sums.items():
        path = folder / name
        if path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise ExportError(
                f"{path} was changed after the export that wrote it; move or rename your version, "
                "or export into another folder (--out)"
            )
    return {*sums, MANIFEST}


def _swap(folder: Path, fresh: Path, old: Path, known: set[str]) -> None:
    """Put `fresh` in the place of `folder`, with everything in it that is not in `known`."""
    if folder.exists():
        _link_others(folder, fresh, known)
        folder.rename(old)
    try:
        fresh.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise


def _link_others(folder: Path, fresh: Path, known: set[str]) -> None:
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        if path.is_dir() and not path.is_symlink():
            continue
        if name.as_posix() not in known and not (fresh / name).exists():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path, fresh / name, follow_symlinks=False)
            except OSError:  # a file system without hard links
                shutil.copy2(path, fresh / name, follow_symlinks=False)
