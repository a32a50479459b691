"""A run trained in seconds on synthetic tones, for tests of everything behind training."""

from __future__ import annotations

import csv
import wave
from pathlib import Path

import numpy as np
import torch

from quads_mcu import config as project
from quads_mcu.run_dir import RunDir
from quads_mcu.training import train

LABELS = ("high", "low", "middle")
_HERTZ = {"low": 300, "middle": 900, "high": 2700}
_COUNTS = {"train": 8, "valid": 4, "test": 4}  # of each label
SETTINGS = {
    "data": {"manifests": ["manifest.csv"]},
    "audio": {"n_mels": 40, "window_s": 0.5},
    "student": {"preset": "d64x2"},
    "train": {
        "warmup_epochs": 6,
        "cycles": 1,
        "distill_epochs": 1,
        "quant_epochs": 1,
        "final_epochs": 1,
        "batch_size": 4,
        "threads": 1,
    },
    "augment": {"noise_probability": 0.0, "reverb_probability": 0.0, "speed": 0.0},
    "target": {"board": "host"},
}


def tiny_run(folder: Path, bits: int = 4, *, channel_scales: bool = False) -> RunDir:
    """Train a student on three classes of tones in noise; recordings and run lie in `folder`."""
    config = tiny_config(folder, bits, channel_scales=channel_scales)
    run = RunDir(folder / "run")
    threads = torch.get_num_threads()
    try:
        train.train(config, run, lambda description, completed, total: None)
    finally:
        torch.set_num_threads(threads)
    return run


def tiny_config(folder: Path, bits: int = 4, *, channel_scales: bool = False) -> project.Config:
    """Write the recordings to `folder` and return the settings that learn them."""
    write_corpus(folder)
    tree = SETTINGS | {"quantization": {"bits": bits, "channel_scales": channel_scales}}
    return project.from_tree(tree, where="tests/tiny_run.py", root=folder)


def write_corpus(folder: Path) -> None:
    """Write manifest.csv and the recordings it names: three tones in noise, 0.5 s each."""
    rng = np.random.default_rng(0)
    time_s = np.arange(8000) / 16000
    rows = [("path", "label", "split")]
    for split, count in _COUNTS.items():
        for label in LABELS * count:
            hertz = _HERTZ[label] * rng.uniform(0.8, 1.25)
            pcm = 8000 * np.sin(2 * np.pi * hertz * time_s) + rng.normal(0, 300, time_s.size)
            rows.append((f"{len(rows)}.wav", label, split))
            with wave.open(str(folder / rows[-1][0]), "wb") as file:
                file.setparams((1, 2, 16000, 0, "NONE", ""))
                file.writeframes(pcm.astype("<i2").tobytes())
    with (folder / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
