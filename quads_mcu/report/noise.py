"""Accuracy in noise: recordings that training never hears, added to the clips of a split."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu import model_format
from quads_mcu import slots as slot_table
from quads_mcu.audio import utterances
from quads_mcu.console import Progress
from quads_mcu.errors import ConfigError
from quads_mcu.report.evaluation import load_clips, mel_features, reference_logits
from quads_mcu.report.statistics import Accuracy, whole_command
from quads_mcu.run_dir import RunDir, write_json

# Signal-to-noise ratios of the published benchmark of spoken coffee orders.
SNR_DB = (6, 9, 12, 15, 18, 21, 24)


@dataclass(frozen=True)
class NoiseEvaluation:
    """Whole commands right, by signal-to-noise ratio in dB; every clip with every recording."""

    split: str
    model_hash: str
    float_accuracy: dict[int, Accuracy]
    reference_accuracy: dict[int, Accuracy]

    def rows(self) -> list[tuple[str, str, str]]:
        """Return (noise, float student, integer reference) as text, the mean first."""
        floating, packed = self.float_accuracy, self.reference_accuracy
        found = [("mean", f"{mean(floating):.1f} %", f"{mean(packed):.1f} %")]
        for snr_db in floating:
            found.append((f"{snr_db} dB", floating[snr_db].text(), packed[snr_db].text()))
        return found

    def to_json(self) -> dict[str, Any]:
        """Return figures as plain values."""
        found: dict[str, Any] = {"split": self.split, "model_hash": self.model_hash}
        for name, by_snr in (
            ("float", self.float_accuracy),
            ("reference", self.reference_accuracy),
        ):
            figures = {str(snr_db): value.to_json() for snr_db, value in by_snr.items()}
            found[name] = {"mean_percent": round(mean(by_snr), 3), "by_snr_db": figures}
        return found


def mean(by_snr: dict[int, Accuracy]) -> float:
    """Return the mean accuracy over the ratios, percent."""
    return float(np.mean([value.percent for value in by_snr.values()]))


def evaluate(run: RunDir, split: str, progress: Progress) -> NoiseEvaluation:
    """Evaluate a run in noise; the test split's result is kept in noise.json.

    Problems of the data are printed.

    Raises:
        ConfigError: [data] noise has no recording for this split.
    """
    from quads_mcu.training.evaluation import float_logits

    model = model_format.read(run.model_path)
    clips = load_clips(run.config(), model.labels, split, progress)
    utterances.warn(clips.problems)
    noises = _noises(run, split)
    truth = np.tile(clips.answers, (len(noises), 1))
    floating, packed = {}, {}
    for snr_db in SNR_DB:
        noisy = _noisy(clips.pcm, noises, snr_db)
        mel = mel_features(noisy, model.dims, progress, model.frontend)
        answers = slot_table.argmax(float_logits(run.path, mel), model.slots)
        floating[snr_db] = whole_command(truth, answers, model.slots)
        answers = slot_table.argmax(reference_logits(model, mel, progress), model.slots)
        packed[snr_db] = whole_command(truth, answers, model.slots)
        progress("signal-to-noise ratios", len(packed), len(SNR_DB))
    evaluation = NoiseEvaluation(split, model.model_hash, floating, packed)
    if split == "test":
        write_json(run.path / "noise.json", evaluation.to_json())
    return evaluation


def _noises(run: RunDir, split: str) -> list[NDArray[np.int16]]:
    """Test clips get noise of split test; to choose by, the training noise has to do."""
    from quads_mcu.audio import datasets

    wanted = "test" if split == "test" else "train"
    found = datasets.load_noise(run.config(), wanted)
    if not found:
        raise ConfigError(
            f"[data] noise has no recording of split {wanted}: name a manifest whose column split "
            "says which recordings training shall not hear"
        )
    return found


def _noisy(
    pcm: NDArray[np.int16], noises: list[NDArray[np.int16]], snr_db: int
) -> NDArray[np.int16]:
    """Return int16 (noises * N, n_samples); the stretches depend on clip, noise and ratio alone."""
    from quads_mcu.audio.augment import add_noise

    mixed = [
        add_noise(clip, noise, float(snr_db), np.random.default_rng([which, snr_db, row]))
        for which, noise in enumerate(noises)
        for row, clip in enumerate(pcm)
    ]
    return np.stack(mixed)
