"""Accuracy on a data split before any board: float student and integer reference."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu import model_format
from quads_mcu import slots as slot_table
from quads_mcu.audio import utterances
from quads_mcu.audio.utterances import Clips
from quads_mcu.config import SAMPLE_RATE, Config
from quads_mcu.console import Progress
from quads_mcu.errors import ConfigError
from quads_mcu.export.reference import Reference
from quads_mcu.model.dimensions import Dimensions
from quads_mcu.report.statistics import Accuracy, per_slot, whole_command
from quads_mcu.run_dir import RunDir, write_json
from quads_mcu.slots import Slot

BATCH = 32


@dataclass(frozen=True)
class Evaluation:
    """What float student and packed model answer on one split, int64 (N, n_slots) each."""

    split: str
    model_hash: str
    slots: tuple[Slot, ...]
    truth: NDArray[np.int64]
    float_answers: NDArray[np.int64]
    reference_answers: NDArray[np.int64]

    @property
    def float_accuracy(self) -> Accuracy:
        """Accuracy of the float student; of several slots, all must be right."""
        return whole_command(self.truth, self.float_answers, self.slots)

    @property
    def reference_accuracy(self) -> Accuracy:
        """Accuracy of the packed integer model; of several slots, all must be right."""
        return whole_command(self.truth, self.reference_answers, self.slots)

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (what, float student, integer reference) as text: whole commands, every slot."""
        found = [("", self.float_accuracy.text(), self.reference_accuracy.text())]
        if len(self.slots) > 1:
            found[0] = ("all slots right", *found[0][1:])
            floating = per_slot(self.truth, self.float_answers, self.slots)
            packed = per_slot(self.truth, self.reference_answers, self.slots)
            found += [(name, floating[name].text(), packed[name].text()) for name in packed]
        return found

    def to_json(self) -> dict[str, Any]:
        """Return figures and predictions as plain values."""
        return {
            "split": self.split,
            "model_hash": self.model_hash,
            "float": self.float_accuracy.to_json(),
            "reference": self.reference_accuracy.to_json(),
            "slots": slot_table.to_json(self.slots),
            "float_slots": _slots_json(self.truth, self.float_answers, self.slots),
            "reference_slots": _slots_json(self.truth, self.reference_answers, self.slots),
            "truth": self.truth.tolist(),
            "float_answers": self.float_answers.tolist(),
            "reference_answers": self.reference_answers.tolist(),
        }


def _slots_json(
    truth: NDArray[np.int64], answers: NDArray[np.int64], slots: tuple[Slot, ...]
) -> dict[str, Any]:
    return {name: found.to_json() for name, found in per_slot(truth, answers, slots).items()}


def load_clips(config: Config, labels: tuple[str, ...], split: str, progress: Progress) -> Clips:
    """Return the windows of the split's commands; `labels`: the model's, of every logit.

    Raises:
        ConfigError: the split is empty or has an intent the model does not know.
        AudioError: a source cannot be read.
    """
    from quads_mcu.audio import datasets, sources, unknown

    dataset = sources.load(config, progress)
    found = slot_table.flat_labels(dataset.slots)
    if found != labels:
        raise ConfigError(
            f"the data has labels {', '.join(found)}, the model {', '.join(labels)}; train it again"
        )
    n_samples = window_samples(config)
    clips = datasets.load_pcm(
        dataset, split, n_samples, config.data.trim, progress, keep=unknown.is_command
    )
    if len(clips.pcm) == 0:
        raise ConfigError(f"the data has no usable utterance in split {split!r}")
    return replace(clips, problems=[*dataset.problems, *clips.problems])


def window_samples(config: Config) -> int:
    """Return the samples of one utterance window."""
    return round(config.audio.window_s * SAMPLE_RATE)


def mel_features(
    pcm: NDArray[np.int16], dims: Dimensions, progress: Progress, frontend: str = "float"
) -> NDArray[np.int8]:
    """Return the device's features, int8 (N, n_frames, n_mels), of int16 (N, n_samples).

    frontend: the packed model's, "float" or "fixed".
    """
    from quads_mcu.audio.frontend import features

    n_frames, n_mels = dims.n_frames, dims.n_mels
    mel = np.empty((len(pcm), n_frames, n_mels), np.int8)
    for at in range(0, len(pcm), BATCH):
        mel[at : at + BATCH] = features(pcm[at : at + BATCH], n_mels, n_frames, frontend)
        progress("features", min(at + BATCH, len(pcm)), len(pcm))
    return mel


def reference_logits(
    model: model_format.PackedModel, mel: NDArray[np.int8], progress: Progress
) -> NDArray[np.int32]:
    """Return int32 (N, n_classes) of the integer reference."""
    reference = Reference(model)
    logits = np.empty((len(mel), model.dims.n_classes), np.int32)
    for at in range(0, len(mel), BATCH):
        logits[at : at + BATCH] = reference.logits(mel[at : at + BATCH])
        progress("integer reference", min(at + BATCH, len(mel)), len(mel))
    return logits


def evaluate(run: RunDir, split: str, progress: Progress) -> Evaluation:
    """Evaluate a run on one split; the test split's result is kept in evaluation.json.

    Problems of the data are printed.
    """
    from quads_mcu.training.evaluation import float_logits

    config = run.config()
    model = model_format.read(run.model_path)
    clips = load_clips(config, model.labels, split, progress)
    utterances.warn(clips.problems)
    mel = mel_features(clips.pcm, model.dims, progress, model.frontend)
    evaluation = Evaluation(
        split=split,
        model_hash=model.model_hash,
        slots=model.slots,
        truth=clips.answers,
        float_answers=slot_table.argmax(float_logits(run.path, mel), model.slots),
        reference_answers=slot_table.argmax(reference_logits(model, mel, progress), model.slots),
    )
    if split == "test":
        write_json(run.evaluation_path, evaluation.to_json())
    return evaluation


def stored(run: RunDir, model_hash: str) -> dict[str, Any] | None:
    """Return evaluation.json if it belongs to this model, else None."""
    try:
        found = json.loads(run.evaluation_path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    belongs = isinstance(found, dict) and found.get("model_hash") == model_hash
    return found if belongs else None
