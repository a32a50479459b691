"""`quads-mcu validate`: all runtimes of a converted run on the same utterances."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu import slots
from quads_mcu.console import Progress
from quads_mcu.errors import ConfigError
from quads_mcu.export import pack
from quads_mcu.model_format import PackedModel
from quads_mcu.report import evaluation
from quads_mcu.report.statistics import Accuracy, whole_command
from quads_mcu.run_dir import RunDir, write_json
from quads_mcu.tflite import convert, interpreters, runtimes

REPORT = "validation.json"
COLUMNS = ("runtime", "accuracy", "95 %", "same", "error", "worst", "arena", "ms")
_CHUNK = 4
LEGEND = (
    "same: answers of the float student; error, worst: of the logits against the codebook student, "
    "root mean square and largest; arena: bytes on this PC; ms: per utterance on this PC"
)


@dataclass(frozen=True)
class Row:
    """What one runtime did.

    accuracy: utterances with every answer right. agreement: share of utterances with the answers of
    the float student. logit_error: root mean square difference to the codebook student in torch;
    worst_logit_error: the largest. arena_bytes: on this PC. time_ms: per utterance on this PC.
    """

    key: str
    title: str
    accuracy: Accuracy
    agreement: float
    logit_error: float
    worst_logit_error: float
    arena_bytes: int | None
    time_ms: float

    def cells(self) -> tuple[str, ...]:
        """Return the row as text, as COLUMNS."""
        low, high = self.accuracy.interval_percent
        return (
            self.title,
            f"{self.accuracy.percent:.1f} %",
            f"{low:.1f}-{high:.1f}",
            f"{100 * self.agreement:.1f} %",
            f"{self.logit_error:.3f}",
            f"{self.worst_logit_error:.3f}",
            "" if self.arena_bytes is None else f"{self.arena_bytes:,}",
            f"{self.time_ms:.1f}",
        )


@dataclass(frozen=True)
class Validation:
    """All runtimes on one split."""

    split: str
    utterances: int
    model_hash: str
    rows: list[Row]
    logits_equal: dict[str, bool]

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        values = asdict(self)
        for row, plain in zip(self.rows, values["rows"], strict=True):
            plain["accuracy"] = row.accuracy.to_json()
        return values


# Pairs that must agree in every bit.
EQUAL = (("tflm", "lut"), ("reference", "c"))


def validate(
    run: RunDir,
    split: str,
    progress: Progress,
    *,
    limit: int = 0,
    arena_bytes: int | None = None,
    keys: Sequence[str] = (),
) -> Validation:
    """Run every runtime on a split; write tflite/validation.json.

    Args:
        limit: only so many utterances, spread over the split; 0: all.
        arena_bytes: what tflite-micro gets; None: as much as it takes.
        keys: only these runtimes (runtimes.TITLES); empty: all.
    Raises:
        InstallationError: the `tflite` extra is missing.
        ConfigError: the run is not converted, or an unknown runtime.
        ExportError: files of another model; an arena that is too small.
    """
    interpreters.require()
    model = pack.pack(run.path)
    if not (convert.folder(run) / convert.SUMMARY).is_file():
        raise ConfigError(f"{run.path} is not converted; run `quads-mcu convert` first")
    wanted = list(keys) or runtimes.available(run)
    opened = [
        runtimes.open_runtime(key, run, model, progress, arena_bytes=arena_bytes) for key in wanted
    ]
    mel, truth = utterances(run, model, split, limit, progress)
    logits, seconds = {}, {}
    for runtime in opened:
        start_s = time.perf_counter()
        logits[runtime.key] = _logits(runtime, mel, progress)
        seconds[runtime.key] = time.perf_counter() - start_s
    baseline = {key: logits.get(key) for key in ("float", "torch")}
    for key, found in baseline.items():
        if found is None:
            opener = runtimes.open_runtime(key, run, model, progress)
            baseline[key] = _logits(opener, mel, progress)
    rows = [
        _row(runtime, logits[runtime.key], baseline, truth, model, 1e3 * seconds[runtime.key])
        for runtime in opened
    ]
    equal = {
        f"{a} = {b}": bool(np.array_equal(logits[a], logits[b]))
        for a, b in EQUAL if a in logits and b in logits
    }  # fmt: skip
    result = Validation(split, len(mel), model.model_hash, rows, equal)
    write_json(convert.folder(run) / REPORT, result.to_json())
    return result


def utterances(
    run: RunDir, model: PackedModel, split: str, limit: int, progress: Progress
) -> tuple[NDArray[np.int8], NDArray[np.int64]]:
    """Return features int8 (N, n_frames, n_mels) and right answers int64 (N, n_heads).

    Raises:
        ConfigError: an empty split, or data of another model.
    """
    clips = evaluation.load_clips(run.config(), model.labels, split, progress)
    chosen = np.arange(len(clips.pcm))
    if limit:
        chosen = np.unique(np.linspace(0, len(chosen) - 1, limit).round().astype(int))
    mel = evaluation.mel_features(clips.pcm[chosen], model.dims, progress, model.frontend)
    return mel, clips.answers[chosen]


def _logits(
    runtime: runtimes.Runtime, mel: NDArray[np.int8], progress: Progress
) -> NDArray[np.float64]:
    chunk = len(mel) if runtime.key == "c" else _CHUNK
    parts = []
    for at in range(0, len(mel), chunk):
        parts.append(runtime.logits(mel[at : at + chunk]))
        progress(runtime.title, min(at + chunk, len(mel)), len(mel))
    return np.concatenate(parts)


def _row(
    runtime: runtimes.Runtime,
    logits: NDArray[np.float64],
    baseline: dict[str, Any],
    truth: NDArray[np.int64],
    model: PackedModel,
    total_ms: float,
) -> Row:
    answers = slots.argmax(logits, model.slots)
    floating = slots.argmax(baseline["float"], model.slots)
    error = logits - baseline["torch"]
    return Row(
        key=runtime.key,
        title=runtime.title,
        accuracy=whole_command(truth, answers, model.slots),
        agreement=float((answers == floating).all(axis=1).mean()),
        logit_error=float(np.sqrt((error**2).mean())),
        worst_logit_error=float(np.abs(error).max()),
        arena_bytes=runtime.arena_bytes,
        time_ms=round(total_ms / len(logits), 3),
    )
