"""The threshold below which a device rejects an utterance, and what it costs.

Everything is measured with the integer reference, on scores (docs/arithmetic.md, section 7): of the
commands of a split and of what is no command, `[data] unknown` and silence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.audio import datasets, sources, unknown, utterances
from quads_mcu.audio.augment import at_speed
from quads_mcu.audio.frontend import features
from quads_mcu.config import SAMPLE_RATE, Config
from quads_mcu.console import Progress
from quads_mcu.errors import ExportError
from quads_mcu.export.reference import Reference, scores
from quads_mcu.model_format import PackedModel

# At which split valid is heard for the threshold: so many voices more.
SPEEDS = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2)

_BATCH = 32
_INT32 = (-(2**31), 2**31 - 1)
# The tail of the scores of what is no command: a twentieth, of ten at least.
_TAIL_SHARE = 20
_LEAST_TAIL = 10

Scores = NDArray[np.int64]


@dataclass(frozen=True)
class Heard:
    """Scores of a split's commands, (N,), and of the other windows, (M,); hours of the latter."""

    split: str
    commands: Scores
    others: Scores
    hours: float

    def false_accepts(self, threshold: int) -> int:
        """Return how many windows that are no command are taken for one."""
        return int((self.others >= threshold).sum())

    def false_rejects(self, threshold: int) -> int:
        """Return how many commands are rejected."""
        return int((self.commands < threshold).sum())


def calibrated(model: PackedModel, config: Config, progress: Progress) -> PackedModel:
    """Return the model with the threshold that split valid asks for, heard at all SPEEDS.

    Raises:
        ExportError: split valid has no command or nothing else to tell it from.
    """
    heard = listen(model, config, "valid", progress, SPEEDS)
    limit = config.rejection.false_accepts_per_hour
    found = threshold(heard, limit)
    provenance = {
        "rejection": f"valid: {heard.false_rejects(found)} of {len(heard.commands)} commands "
        f"rejected, {heard.false_accepts(found)} false accepts in {heard.hours:.3f} h at "
        f"{len(SPEEDS)} speeds, limit {limit:g} per hour"
    }
    return replace(model, reject_threshold=found, provenance=model.provenance | provenance)


def threshold(heard: Heard, false_accepts_per_hour: float) -> int:
    """Return the threshold for at most so many false accepts per hour.

    Of all thresholds that keep to the limit and reject the fewest commands, the middle one, so
    that unheard speech has room on either side; and no less than what the tail of the scores
    (`tail_threshold`) asks for, where the limit is too low to be seen in so few hours.

    Raises:
        ExportError: nothing to choose by.
    """
    if not len(heard.commands) or not len(heard.others):
        raise ExportError(
            f"split {heard.split} has {len(heard.commands)} commands and {len(heard.others)} "
            "windows of unknown speech; the rejection threshold needs both: add some, or empty "
            "[data] unknown"
        )
    expected = false_accepts_per_hour * heard.hours
    allowed = int(expected)
    loudest = np.sort(heard.others)[::-1]
    everything = min(int(loudest[-1]), int(heard.commands.min()))
    least = int(loudest[allowed]) + 1 if allowed < len(loudest) else everything
    kept = heard.commands[heard.commands >= least]
    middle = (least + int(kept.min())) // 2 if len(kept) else least
    found = max(middle, tail_threshold(heard.others, expected))
    return max(_INT32[0], min(_INT32[1], found))


def tail_threshold(others: Scores, expected: float) -> int:
    """Return the score that so many of as many windows would reach, most likely.

    What the highest twentieth of the scores has above the rest is taken for exponential (peaks
    over threshold, Pickands 1975, of shape zero), with its mean: from 0.44 hours that let none
    through, to half a false accept per hour.

    Args:
        others: (M,). expected: may be less than one.
    Returns:
        The least int32, asking for nothing, where fewer than ten scores make a tail, or it holds
        no more than are expected, or none is expected: no tail ends.
    """
    size = len(others) // _TAIL_SHARE
    if size < _LEAST_TAIL or not 0 < expected < size:
        return _INT32[0]
    highest = np.sort(others)[::-1]
    begin = int(highest[size])
    mean_excess = float((highest[:size] - begin).mean())
    return math.ceil(begin + mean_excess * math.log(size / expected))


def curve(heard: Heard) -> list[dict[str, Any]]:
    """Return a point for every number of false accepts, from none to all.

    Each is the least threshold that allows no more: threshold, false_accepts, per hour,
    false_rejects, percent.
    """
    steps = np.unique(heard.others)[::-1]
    thresholds = [*(int(step) + 1 for step in steps), int(steps[-1])]
    return [point(heard, value) for value in thresholds]


def point(heard: Heard, threshold: int) -> dict[str, Any]:
    """Return what a threshold costs, with 95 % intervals."""
    accepts, rejects = heard.false_accepts(threshold), heard.false_rejects(threshold)
    return {
        "threshold": threshold,
        "false_accepts": accepts,
        "false_accepts_per_hour": round(accepts / heard.hours, 4),
        "false_rejects": rejects,
        "false_reject_percent": round(100 * rejects / len(heard.commands), 4),
    }


def listen(
    model: PackedModel,
    config: Config,
    split: str,
    progress: Progress,
    speeds: Sequence[float] = (1.0,),
) -> Heard:
    """Return the scores of everything in a split, computed by the integer reference.

    Problems of the data are printed.

    Args:
        speeds: at which unknown speech is heard, each time as long.
    Raises:
        ConfigError, AudioError: the data cannot be read.
    """
    dataset = sources.load(config, progress)
    n_samples = round(config.audio.window_s * SAMPLE_RATE)
    load = (dataset, split, n_samples, config.data.trim, progress)
    commands = datasets.load_pcm(*load, keep=unknown.is_command)
    others = datasets.load_pcm(*load, keep=unknown.is_unknown)
    utterances.warn([*dataset.problems, *commands.problems, *others.problems])
    quiet = unknown.silence(len(others.pcm), n_samples, config.project.seed, split)
    heard = [_scores(model, quiet, progress)]
    for factor in speeds:
        spoken = [at_speed(pcm, factor) for pcm in others.pcm]
        heard.append(_scores(model, np.array(spoken, np.int16), progress))
    samples = len(speeds) * int(others.lengths.sum()) + quiet.size
    return Heard(
        split,
        _scores(model, commands.pcm, progress),
        np.concatenate(heard),
        samples / SAMPLE_RATE / 3600,
    )


def _scores(model: PackedModel, pcm: NDArray[np.int16], progress: Progress) -> Scores:
    reference, dims = Reference(model), model.dims
    found = np.empty(len(pcm), np.int64)
    for at in range(0, len(pcm), _BATCH):
        mel = features(pcm[at : at + _BATCH], dims.n_mels, dims.n_frames, model.frontend)
        found[at : at + _BATCH] = scores(model, reference.logits(mel))[1]
        progress("scores", min(at + _BATCH, len(pcm)), len(pcm))
    return found
