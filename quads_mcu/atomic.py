"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

from quads_mcu.errors import StorageError

_SUFFIX = ".part"


def write(path: Path, data: bytes) -> None:
    """Write `data` to `path`, replacing what is there, and make the folder if needed.

    What is there afterwards survives a power cut. A killed process may leave `NAME.XXXXXXXX.part`.

    Raises:
        StorageError: disk full, no permission, or no such place; what was there before stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(
            dir=path.parent, prefix=f"{path.name}.", suffix=_SUFFIX
        )
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(handle)
            Path(temporary).chmod(0o644)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as problem:
        raise StorageError(
            f"{path}: {len(data):,} bytes cannot be written: {problem.strerror}; what was there "
            "before is kept: check the folder, its owner and the space left, and go on"
        ) from None
    _sync_folder(path.parent)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of writing `path`; nobody may be writing it now.

    Raises:
        StorageError: a leftover cannot be removed.
    """
    # mkstemp's eight characters.
    pattern = re.compile(re.escape(path.name) + r"\.[a-z0-9_]{8}" + re.escape(_SUFFIX))
    try:
        found = list(path.parent.iterdir()) if path.parent.is_dir() else []
        for item in found:
            if pattern.fullmatch(item.name) and item.is_file():
                item.unlink(missing_ok=True)
    except OSError as problem:
        raise StorageError(
            f"{path}: what a killed process left of it cannot be removed: {problem.strerror}; "
            f"check the folder and its owner, or delete {path.name}.*{_SUFFIX} there, and go on"
        ) from None


def _sync_folder(folder: Path) -> None:
    """Let a new name in a folder reach the disk, where the system can sync folders."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
