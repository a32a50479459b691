"""Continuous listening on a board: a scene of recorded commands, other speech and noise.

    python -m benchmarks.listening RUN [--minutes 60] [--board qemu-an386] [--json FILE]

RUN is an exported run trained on the shared wakewords. Every frame, window and logit is compared
with the reference; commands and events are matched by overlap. Exits 1 when something was lost or
differs, or when a command has not exactly one event.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np

from quads_mcu import console, model_format
from quads_mcu.audio import files, scene
from quads_mcu.device import boards
from quads_mcu.errors import AudioError
from quads_mcu.report import listening
from quads_mcu.run_dir import RunDir

REPOSITORY = Path(__file__).resolve().parent.parent
SEED = 1
CHUNK_SEED = 7
END_SILENCE_S = 1.0
# Clips with a longer pause hold two sounds, which are two utterances to any gate.
LONGEST_PAUSE_S = 0.4


def shared_data() -> Path:
    """Return the folder of the shared recordings."""
    return Path(os.environ.get("QUADS_SHARED_DATA", REPOSITORY.parent / "shared" / "data"))


def shared_scene(labels: tuple[str, ...], minutes: float, seed: int = SEED) -> scene.Scene:
    """Return a scene of the test splits: wakewords in coffee orders and digits, in noise.

    Raises:
        AudioError: the recordings are not there.
    """
    recorded = _clips("wakewords", lambda row: labels.index(row["label"]))
    commands = [clip for clip in recorded if files.longest_pause_s(clip.pcm) < LONGEST_PAUSE_S]
    others = _clips("s2i", lambda row: None) + _clips("digits", lambda row: None)
    noises = [clip.pcm for clip in _clips("noise", lambda row: None)]
    return scene.compose(commands, others, noises, 60 * minutes, seed)


def _clips(name: str, label: Callable[[dict[str, str]], int | None]) -> list[scene.Clip]:
    folder = shared_data() / name
    manifest = folder / "manifest.csv"
    if not manifest.is_file():
        raise AudioError(f"{manifest}: no such file; set QUADS_SHARED_DATA")
    with manifest.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == "test"]
    return [scene.Clip(files.load(folder / row["path"]), label(row)) for row in rows]


def main() -> int:
    """Run the benchmark; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--board", default="qemu-an386")
    parser.add_argument("--json", type=Path)
    wanted = parser.parse_args()
    found, board = RunDir(wanted.run), boards.load(wanted.board)
    model = model_format.read(found.model_path)
    made = shared_scene(model.slots[0].labels, wanted.minutes)
    silence = np.zeros(round(END_SILENCE_S * 16_000), np.int16)
    pcm = np.concatenate([made.pcm, silence])
    started_s = time.monotonic()
    with console.progress() as progress:
        heard = listening.run(found, board, pcm, progress, chunk_seed=CHUNK_SEED)
    wall_s = time.monotonic() - started_s
    problems = listening.differences(heard, model, pcm)
    score = listening.score(heard.events, made.segments, heard.settings["lead_frames"])
    console.table(f"Listening on {board.name}", ("", ""), listening.summary(heard))
    console.table("Commands", ("", ""), [(k, f"{v:,}") for k, v in asdict(score).items()])
    console.note(f"{wall_s:.0f} s; differences to the reference: {'; '.join(problems) or 'none'}")
    if wanted.json:
        values = listening.to_json(heard, model.slots)
        latency = [event.latency_ms for event in heard.events]
        values |= {
            "events": len(heard.events),
            "latency_ms": {"median": float(np.median(latency)), "longest": max(latency)},
            "score": asdict(score),
            "differences": problems,
            "minutes": wanted.minutes,
        }
        wanted.json.parent.mkdir(parents=True, exist_ok=True)
        wanted.json.write_text(json.dumps(values, indent=2) + "\n")
    lost = heard.counters.samples_lost or heard.counters.utterances_lost
    return int(bool(problems or lost or score.once < score.commands))


if __name__ == "__main__":
    sys.exit(main())
