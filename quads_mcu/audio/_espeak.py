"""Speech synthesis in a process of its own: espeak-ng carries state from one utterance to the next.

Run as a script. Standard input: one JSON object, {"library", "data", "jobs": [{"voice", "text",
"rate_wpm", "pitch"}]}. Standard output, per job in order: a little-endian int32 n, then n int16
samples at 22,050 Hz; n = -1 means that the voice is unknown and ends the process, as does
n = -2: espeak-ng itself failed. Imports nothing of the package.
"""

from __future__ import annotations

import ctypes
import json
import os
import struct
import sys
from typing import Any

SAMPLE_RATE_HZ = 22_050
UNKNOWN_VOICE = -1
FAILED = -2

# speak_lib.h
_AUDIO_OUTPUT_SYNCHRONOUS = 2
_INITIALIZE_DONT_EXIT = 0x8000
_RATE, _PITCH = 1, 3
_POS_CHARACTER = 1
_CHARS_UTF8 = 1

_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Synthesizer:
    """One initialized espeak-ng."""

    def __init__(self, library: str, data: str) -> None:
        self._chunks: list[bytes] = []
        self._count = 0
        self._espeak = ctypes.CDLL(library)
        self._libc = ctypes.CDLL(None)
        # Kept in an attribute: the library holds only a bare pointer to it.
        self._callback = _Callback(self._collect)
        rate = self._espeak.espeak_Initialize(
            _AUDIO_OUTPUT_SYNCHRONOUS, 0, os.fsencode(data), _INITIALIZE_DONT_EXIT
        )
        if rate != SAMPLE_RATE_HZ:
            raise RuntimeError(f"espeak-ng did not start with data in {data} (returned {rate})")
        self._espeak.espeak_SetSynthCallback(self._callback)

    def _collect(self, samples: Any, count: int, events: Any) -> int:
        if samples and count > 0:
            self._chunks.append(ctypes.string_at(samples, 2 * count))
        return 0

    def say(self, voice: str, text: str, rate_wpm: int, pitch: int) -> bytes | int:
        """Return int16 samples as bytes, or UNKNOWN_VOICE or FAILED."""
        self._chunks.clear()
        if self._espeak.espeak_SetVoiceByName(voice.encode()):
            return UNKNOWN_VOICE
        # Breath and flutter come from two random generators, seeded with the time at the start.
        self._count += 1
        self._espeak.espeak_ng_SetRandSeed(ctypes.c_long(self._count))
        self._libc.srand(self._count)
        self._espeak.espeak_SetParameter(_RATE, rate_wpm, 0)
        self._espeak.espeak_SetParameter(_PITCH, pitch, 0)
        data = text.encode()
        size = ctypes.c_size_t(len(data) + 1)
        failed = self._espeak.espeak_Synth(
            data, size, 0, _POS_CHARACTER, 0, _CHARS_UTF8, None, None
        )
        failed |= self._espeak.espeak_Synchronize()
        return FAILED if failed else b"".join(self._chunks)


def main() -> None:
    """Synthesize the jobs on standard input."""
    # The library may print: keep standard output for samples.
    output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    request = json.load(sys.stdin.buffer)
    synthesizer = Synthesizer(request["library"], request["data"])
    for job in request["jobs"]:
        samples = synthesizer.say(job["voice"], job["text"], job["rate_wpm"], job["pitch"])
        if isinstance(samples, int):
            output.write(struct.pack("<i", samples))
            break
        output.write(struct.pack("<i", len(samples) // 2) + samples)
        output.flush()
    output.close()


if __name__ == "__main__":
    main()
