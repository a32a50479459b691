"""Where templates, firmware and board tests lie: in a source tree or inside an installed wheel."""

from __future__ import annotations

import os
from pathlib import Path

from quads_mcu.errors import InstallationError

_PACKAGE = Path(__file__).resolve().parent


def data_dir(name: str) -> Path:
    """Return the folder `name` ("templates", "firmware" or "hil_tests").

    Raises:
        InstallationError: neither the wheel's nor the source tree's copy exists.
    """
    candidates = (_PACKAGE / "_data" / name, _PACKAGE.parent / name)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise InstallationError(
        f"package data {name!r} not found (looked in {', '.join(map(str, candidates))}); "
        "reinstall quads-mcu"
    )


def boards_dir() -> Path:
    """Return the folder of board descriptions (one TOML file per board)."""
    return _PACKAGE / "device" / "boards"


def cache_dir() -> Path:
    """Return the per-user cache folder (`QUADS_CACHE`, else `$XDG_CACHE_HOME/quads-mcu`)."""
    if chosen := os.environ.get("QUADS_CACHE"):
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "quads-mcu"
