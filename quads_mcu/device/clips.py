"""The clip store: one file of test utterances that a board reads by itself.

Layout, little-endian: `"QCLP"`, version u32, count u32, then per clip offset u32 and length u32
(bytes, from the start of the file), then the clips, int16 PCM, 16 kHz mono.
"""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quads_mcu.errors import AudioError

MAGIC = b"QCLP"
VERSION = 1
HEADER = struct.Struct("<4sII")
ENTRY = struct.Struct("<II")
# Semihosting reports sizes as a signed 32-bit number.
MAX_FILE_BYTES = (1 << 31) - 1


def write(path: Path, clips: Sequence[NDArray[np.int16]]) -> None:
    """Write `clips` (int16, one dimension, any length) to `path`, atomically.

    Raises:
        AudioError: a clip has another shape or dtype, all together exceed 2 GiB, or the file
            cannot be written.
    """
    for index, clip in enumerate(clips):
        if clip.dtype != np.int16 or clip.ndim != 1:
            raise AudioError(
                f"clip {index} is {clip.dtype} {clip.shape}, expected int16 (samples,)"
            )
    lengths = [2 * len(clip) for clip in clips]
    at = HEADER.size + ENTRY.size * len(clips)
    if at + sum(lengths) > MAX_FILE_BYTES:
        raise AudioError(
            f"{path}: {at + sum(lengths):,} bytes of clips, the limit is {MAX_FILE_BYTES:,}; "
            "run fewer utterances at a time"
        )
    head = bytearray(HEADER.pack(MAGIC, VERSION, len(clips)))
    for length in lengths:
        head += ENTRY.pack(at, length)
        at += length
    _write_atomically(path, bytes(head), clips)


def _write_atomically(path: Path, head: bytes, clips: Sequence[NDArray[np.int16]]) -> None:
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(head)
                for clip in clips:
                    file.write(clip.astype("<i2").tobytes())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as problem:
        raise AudioError(f"{path}: cannot be written: {problem.strerror}") from None


def read(path: Path) -> list[NDArray[np.int16]]:
    """Read a clip store.

    Raises:
        AudioError: unreadable, not a clip store, or an entry points outside the file.
    """
    try:
        data = path.read_bytes()
    except OSError as problem:
        raise AudioError(f"{path}: {problem.strerror}") from None
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise AudioError(f"{path}: not a clip store (no {MAGIC.decode()} at its start)")
    _, version, count = HEADER.unpack_from(data)
    if version != VERSION:
        raise AudioError(f"{path}: clip store of version {version}, this version reads {VERSION}")
    if HEADER.size + count * ENTRY.size > len(data):
        raise AudioError(f"{path}: {count} clips announced in a file of {len(data)} bytes")
    clips = []
    for index in range(count):
        offset, length = ENTRY.unpack_from(data, HEADER.size + index * ENTRY.size)
        if offset + length > len(data) or length % 2:
            raise AudioError(
                f"{path}: clip {index} ({length} bytes at {offset}) is not in the file"
            )
        clips.append(np.frombuffer(data, "<i2", length // 2, offset).astype(np.int16))
    return clips
