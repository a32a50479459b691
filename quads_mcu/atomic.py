"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from quads_mcu.errors import StorageError


def write(path: Path, data: bytes) -> None:
    """Write `data` to `path`, replacing what is there, and make the folder if needed.

    Raises:
        StorageError: disk full, no permission, or no such place; what was there before stays.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
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
