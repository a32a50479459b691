"""`quads-mcu test`: run hil_tests against a board and read the report they wrote."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from typing import Any

from quads_mcu.device.boards import Board
from quads_mcu.errors import ConfigError, DeviceError, InstallationError, QuadsError, ThresholdError
from quads_mcu.paths import data_dir
from quads_mcu.run_dir import RunDir

ERRORS = {2: ConfigError, 3: DeviceError}
Table = tuple[str, tuple[str, ...], list[tuple[Any, ...]]]


def run(
    run: RunDir,
    board: Board,
    *,
    port: str | None = None,
    split: str = "test",
    limit: int = 0,
    workers: int = 2,
) -> dict[str, Any]:
    """Run the board tests in a child process; return report.json with their outcome.

    Raises:
        InstallationError: pytest is not installed.
        ConfigError, DeviceError, QuadsError: what ended the tests early: settings, link, model.
    """
    if importlib.util.find_spec("pytest") is None:
        raise InstallationError("the board tests need pytest; pip install 'quads-mcu[hil]'")
    report_dir = run.report_dir(board.name)
    report_dir.mkdir(parents=True, exist_ok=True)
    report, error = report_dir / "report.json", report_dir / "error.json"
    report.unlink(missing_ok=True)
    error.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", str(data_dir("hil_tests")), "-q", "--no-header"]
    command += ["-p", "no:cacheprovider", "--rootdir", str(data_dir("hil_tests")), "-c", os.devnull]
    command += ["--run-dir", str(run.path), "--board", board.name, "--split", split]
    command += ["--limit", str(limit), "--workers", str(workers)]
    command += ["--report-dir", str(report_dir), "--junitxml", str(report_dir / "junit.xml")]
    command += ["-s", "--tb=short"]
    if port:
        command += ["--port", port]
    finished = subprocess.run(command, stdout=sys.stderr, check=False)
    if error.exists():
        found = json.loads(error.read_text(encoding="utf-8"))
        raise ERRORS.get(found["exit_code"], QuadsError)(found["text"])
    try:
        values: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DeviceError(
            f"the board tests ended with code {finished.returncode} before they wrote "
            f"{report}; their output above says why"
        ) from None
    values["tests_exit_code"] = finished.returncode
    return values


def raise_for(values: dict[str, Any]) -> None:
    """Turn missed thresholds and failed tests into errors.

    Raises:
        ThresholdError: a threshold of quads.toml was missed.
        QuadsError: a board test failed.
    """
    missed = [line for line in values["thresholds"] if not line["met"]]
    if missed:
        text = "; ".join(f"{m['name']}: {m['value']}, limit {m['limit']}" for m in missed)
        raise ThresholdError(f"missed: {text}")
    if values["tests_exit_code"]:
        raise QuadsError("board tests failed; see their output above and junit.xml")


def tables(values: dict[str, Any]) -> list[Table]:
    """Return the report as (title, columns, rows) for printing."""
    data, equality = values["data"], values["equality"]
    title = f"{values['project']} on {values['board']['name']}"
    accuracy_rows = [
        (
            name,
            f"{a['correct']} / {a['total']}",
            f"{a['percent']:.1f} %",
            "{:.1f} - {:.1f} %".format(*a["interval_95_percent"]),
        )
        for name, a in values["accuracy"].items()
    ]
    if lost := values["rejected"]:
        interval = "{:.1f} - {:.1f} %".format(*lost["interval_95_percent"])
        count = f"{lost['commands']} / {lost['of']}"
        accuracy_rows.append(("rejected commands", count, f"{lost['percent']:.1f} %", interval))
    equality_rows = [
        (kind.replace("_", " "), f"{equality[kind]:,}", equality[f"{kind}_differing"])
        for kind in ("feature_bytes", "logits")
        if kind in equality
    ]
    memory_rows = [
        (name, _bytes(m["predicted"]), _bytes(m["measured"]))
        for name, m in values["memory"].items()
    ]
    columns = ("", "correct", "accuracy", "95 % interval")
    found: list[Table] = [
        (
            f"{title}: {data['utterances']} utterances, split {data['split']}",
            columns,
            accuracy_rows,
        ),
        *_slot_table(values),
        ("Board against reference", ("", "compared", "differing"), equality_rows),
        ("Memory, bytes", ("", "predicted", "measured"), memory_rows),
    ]
    if values["latency"]["instructions_total"]:
        found.append(_work_table(values))
    if values["thresholds"]:
        rows = [
            (t["name"], t["value"], t["limit"], "met" if t["met"] else "MISSED")
            for t in values["thresholds"]
        ]
        found.append(("Thresholds", ("", "measured", "limit", ""), rows))
    return found


def _slot_table(values: dict[str, Any]) -> list[Table]:
    if len(values["slot_accuracy"]) < 2:
        return []
    rows = [
        (name, f"{a['correct']} / {a['total']}", f"{a['percent']:.1f} %", f"{a['macro_f1']:.3f}")
        for name, a in values["slot_accuracy"].items()
    ]
    return [("Slots on the board", ("slot", "correct", "accuracy", "macro F1"), rows)]


def _work_table(values: dict[str, Any]) -> Table:
    latency, energy = values["latency"], values["energy"]
    rows: list[tuple[Any, ...]] = [
        (s["stage"], f"{s['mean'] / 1e6:.2f} M") for s in latency["instructions"]
    ]
    rows.append(("total", f"{latency['instructions_total'] / 1e6:.2f} M"))
    rows.append(("latency, estimate", f"{latency['estimate_ms']:.0f} ms"))
    rows.append(("energy, estimate", f"{energy['estimate_mj']:.1f} mJ"))
    return ("Instructions per utterance, mean", ("stage", "executed"), rows)


def _bytes(value: int | None) -> str:
    return "-" if value is None else f"{value:,}"
