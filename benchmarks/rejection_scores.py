"""Which score tells commands from other speech, for a model that never heard any in training.

    python benchmarks/rejection_scores.py runs/demo examples/wakewords-unknown

Commands of split valid rejected at a number of false accepts per hour of the project's unknown
speech, for scores that can be had from the integer logits.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quads_mcu import config, console, model_format
from quads_mcu.audio import datasets, sources, unknown
from quads_mcu.report import evaluation

PER_HOUR = (10, 60, 120, 300, 600)
Real = NDArray[np.float64]


def main() -> None:
    model = model_format.read(Path(sys.argv[1]) / "model.safetensors")
    settings = config.load(Path(sys.argv[2]))
    with console.progress() as progress:
        dataset = sources.load(settings, progress)
        n_samples = evaluation.window_samples(settings)
        load = (dataset, "valid", n_samples, settings.data.trim, progress)
        commands = datasets.load_pcm(*load, keep=unknown.is_command)
        others = datasets.load_pcm(*load, keep=unknown.is_unknown)
        quiet = unknown.silence(len(others.pcm), n_samples, settings.project.seed, "valid")
        logits = []
        for pcm in (commands.pcm, np.concatenate([others.pcm, quiet])):
            mel = evaluation.mel_features(pcm, model, progress)
            found = evaluation.reference_logits(model, mel, progress)
            logits.append(found * model.logit_scale)
    hours = (int(others.lengths.sum()) + quiet.size) / config.SAMPLE_RATE / 3600
    rows = []
    for name, score in SCORES.items():
        known, other = (score(values) for values in logits)
        limits = [np.sort(other)[::-1][int(per_hour * hours)] for per_hour in PER_HOUR]
        rows.append((name, *(f"{100 * (known <= limit).mean():.1f} %" for limit in limits)))
    title = f"{len(logits[0])} commands rejected at false accepts per hour ({hours:.2f} h)"
    console.table(title, ("score", *(f"{per_hour}" for per_hour in PER_HOUR)), rows)


def _margin(logits: Real) -> Real:
    ordered = np.sort(logits, axis=1)
    return ordered[:, -1] - ordered[:, -2]


def _log_sum_exp(logits: Real) -> Real:
    top = logits.max(axis=1)
    return top + np.log(np.exp(logits - top[:, None]).sum(axis=1))


SCORES = {
    "greatest logit": lambda logits: logits.max(axis=1),
    "greatest probability": lambda logits: logits.max(axis=1) - _log_sum_exp(logits),
    "margin to the runner-up": _margin,
    "log-sum-exp": _log_sum_exp,
}


if __name__ == "__main__":
    main()
