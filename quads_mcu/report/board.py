"""The report of one board test: figures collected by hil_tests, written as JSON and HTML."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu import __version__, slots
from quads_mcu.config import Config
from quads_mcu.device import energy
from quads_mcu.device.boards import Board
from quads_mcu.device.build import Build
from quads_mcu.device.memory import place
from quads_mcu.export.project import Cost
from quads_mcu.model_format import NEVER_REJECT, STAGES, PackedModel
from quads_mcu.report import evaluation, page
from quads_mcu.report.statistics import confusion, per_slot, whole_command, wilson_interval
from quads_mcu.run_dir import RunDir, write_json

if TYPE_CHECKING:
    from quads_mcu.audio.utterances import Clips
    from quads_mcu.device.client import Hello, Stats

EVIDENCE = {
    True: "Emulated: executed instructions are counted, nothing was measured on silicon.",
    False: "Measured on this device.",
}


class BoardReport:
    """Collects what the board tests measure; `write` makes report.json and report.html."""

    def __init__(
        self, run: RunDir, config: Config, board: Board, model: PackedModel, folder: Path
    ) -> None:
        self.run = run
        self.config = config
        self.board = board
        self.model = model
        self.folder = folder
        self.cost = Cost.read(run.source_dir(board.name))
        self.build = Build.read(run.build_dir(board.name))
        self.values: dict[str, Any] = {
            "version": __version__,
            "project": config.project.name,
            "board": {
                "name": board.name,
                "description": board.description,
                "emulated": board.emulated,
                "evidence": EVIDENCE[board.emulated],
                "build_id": "",
            },
            "model": _model_json(model),
            "slots": slots.to_json(model.slots),
            "data": {"split": "", "utterances": 0, "problems": ""},
            "equality": {"utterances": 0},
            "accuracy": {},
            "slot_accuracy": {},
            "rejected": None,
            "confusion": {},
            "memory": {},
            "latency": {"instructions": [], "instructions_total": 0, "estimate_ms": 0.0},
            "energy": {},
            "thresholds": [],
        }

    def hello(self, hello: Hello) -> None:
        """Note the build that answered."""
        self.values["board"]["build_id"] = hello.build_id

    def features(self, total: int, differing: int) -> None:
        """Note how many feature bytes differ from the twin's."""
        self.values["equality"] |= {"feature_bytes": total, "feature_bytes_differing": differing}

    def logits(self, total: int, differing: int) -> None:
        """Note how many logits differ from the reference's."""
        self.values["equality"] |= {"logits": total, "logits_differing": differing}

    def accuracy(
        self,
        split: str,
        clips: Clips,
        reference: NDArray[np.int64],
        board: NDArray[np.int64],
        rejected: NDArray[np.bool_],
    ) -> None:
        """Note accuracies, confusion matrices and rejected commands of the board.

        reference, board: int64 (N, n_slots), answers whether rejected or not; rejected: bool (N,).
        """
        from quads_mcu.audio.utterances import report as problem_report

        truth, known = clips.answers, self.model.slots
        self.values["data"] = {
            "split": split,
            "utterances": len(truth),
            "problems": problem_report(clips.problems),
        }
        found = self.values["accuracy"]
        stored = evaluation.stored(self.run, self.model.model_hash)
        if stored and stored["split"] == split and stored.get("truth") == truth.tolist():
            found["float student"] = stored["float"]
        bits = self.config.quantization.bits
        found[f"{bits}-bit reference"] = whole_command(truth, reference, known).to_json()
        found[self.board.name] = whole_command(truth, board, known).to_json()
        self.values["equality"]["utterances"] = len(truth)
        if self.model.unknown_class >= 0 or self.model.reject_threshold > NEVER_REJECT:
            count = int(rejected.sum())
            share = [round(100 * bound, 3) for bound in wilson_interval(count, len(truth))]
            self.values["rejected"] = {
                "commands": count,
                "of": len(truth),
                "percent": round(100 * count / len(truth), 3),
                "interval_95_percent": share,
            }
        by_slot = per_slot(truth, board, known)
        self.values["slot_accuracy"] = {name: a.to_json() for name, a in by_slot.items()}
        self.values["confusion"] = {
            slot.name: confusion(truth[:, at], board[:, at], len(slot.labels)).tolist()
            for at, slot in enumerate(known)
        }

    def memory(self, stats: Stats) -> None:
        """Note memory, predicted by `export` and measured by linker and high-water marks."""
        cost, build = self.cost, self.build
        stack = stats.stack_used_bytes or None
        predicted = {one.region: one.used_bytes for one in place(self.board, cost.needs)}
        self.values["memory"] = {
            "weights": {"predicted": cost.weight_bytes, "measured": build.weight_bytes},
            "arena": {"predicted": cost.arena_bytes, "measured": stats.arena_used_bytes},
            "stack": {"predicted": self.board.stack_bytes or None, "measured": stack},
        } | {
            f"region {one.region}: {', '.join(one.contents)}": {
                "predicted": predicted.get(one.region, 0),
                "measured": one.used_bytes,
            }
            for one in build.regions
        }

    def latency(self, instructions: NDArray[np.int64]) -> None:
        """Note mean instructions per stage, and the estimates made from them."""
        mean = instructions.mean(axis=0)
        total = float(mean.sum())
        self.values["latency"] = {
            "instructions": [
                {"stage": name, "mean": round(float(value))}
                for name, value in zip(STAGES, mean, strict=True)
            ],
            "instructions_total": round(total),
            "estimate_ms": 0.0,
        }
        if total and self.board.energy:
            estimate = energy.estimate(self.board, total)
            self.values["latency"]["estimate_ms"] = round(estimate.latency_ms, 2)
            if estimate.energy_uj is not None:
                self.values["energy"] = {
                    "estimate_mj": round(estimate.energy_uj / 1000, 3),
                    "method": estimate.method,
                }

    def thresholds(self) -> list[dict[str, Any]]:
        """Compare with [thresholds] of quads.toml and note the outcome."""
        lines = list(_threshold_lines(self.values, self.config, self.board.name))
        self.values["thresholds"] = lines
        return lines

    def write(self) -> None:
        """Write report.json and report.html."""
        write_json(self.folder / "report.json", self.values)
        page.write(self.folder / "report.html", "report.html.j2", self.values)


def _model_json(model: PackedModel) -> dict[str, Any]:
    dims = model.dims
    return {
        "hash": model.model_hash,
        "size": f"d={dims.d_model} x {dims.n_layers} layers, {dims.n_mels} mels, "
        f"{dims.n_frames / 100:g} s",
        "bits": "/".join(str(b) for b in sorted({x.bits for _, x in model.linears()})),
    }


def _threshold_lines(values: dict[str, Any], config: Config, board: str) -> list[dict[str, Any]]:
    limits = config.thresholds
    lines = []

    def line(name: str, value: float, limit: float, met: bool) -> None:
        shown = round(value, 2)
        lines.append({"name": name, "value": shown, "limit": limit, "met": bool(met)})

    accuracies = values["accuracy"]
    if limits.accuracy_percent and board in accuracies:
        found = accuracies[board]["percent"]
        least = limits.accuracy_percent
        line("accuracy, percent, at least", found, least, found >= least)
    if limits.float_gap_points < 100 and "float student" in accuracies:
        gap = accuracies["float student"]["percent"] - accuracies[board]["percent"]
        most = limits.float_gap_points
        line("loss against float, points, at most", gap, most, gap <= most)
    memory = values["memory"]
    if limits.weight_bytes and memory:
        found = memory["weights"]["measured"]
        line("weights, bytes, at most", found, limits.weight_bytes, found <= limits.weight_bytes)
    if limits.ram_bytes and memory:
        found = memory["arena"]["measured"] + (memory["stack"]["measured"] or 0)
        line("arena + stack, bytes, at most", found, limits.ram_bytes, found <= limits.ram_bytes)
    latency = values["latency"]["estimate_ms"]
    if limits.latency_ms and latency:
        most = limits.latency_ms
        line("latency estimate, ms, at most", latency, most, latency <= most)
    return lines
