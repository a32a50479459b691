"""Where recordings and Whisper's weights lie; tests that need them skip without."""

from __future__ import annotations

import os
from pathlib import Path

SHARED = Path(
    os.environ.get("QUADS_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)
