"""The history as TensorBoard scalars, where the tensorboard package is installed."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

from quads_mcu.console import warn

SCALARS = ("loss", "valid_float", "valid_quantized")


class Log:
    """Event files in one folder: loss and validation accuracy by phase, step = epoch.

    Without the tensorboard package nothing is written. The log of an interrupted run goes on in a
    file of its own, and an epoch that is trained again replaces what was logged of it. Where the
    folder lacks the epoch before, because there was no package, no space, or the process was killed
    between an epoch's checkpoint and its log, the whole history is logged again.

    Nothing that goes wrong here stops a training: it is told once, and the log ends for this time.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._ended = False

    def write(self, history: list[dict[str, Any]]) -> None:
        """Log the last epoch of the history, and those before it that are missing."""
        if self._ended or not history:
            return
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2
            from tensorboard.summary.writer import record_writer
        except ImportError:
            return
        try:
            self._write(history, event_pb2, summary_pb2, record_writer)
        # Whatever the package or the folder does, the training is worth more.
        except Exception as problem:
            self._ended = True
            warn(
                f"{self._folder}: TensorBoard's log cannot be written: {problem}; training goes on "
                "without it, and its next start logs the whole history: check the folder, its "
                "owner and the space left"
            )

    def _write(self, history: list[dict[str, Any]], events: Any, summaries: Any, file: Any) -> None:
        data = io.BytesIO()
        records = file.RecordWriter(data)
        first = len(history) - 1
        if self._path is None:
            logged = [path.read_bytes() for path in self._folder.glob("events.*")]

            def holds(epoch: int) -> bool:
                part = _event(history[epoch], events, summaries).SerializeToString()
                return any(part in whole for whole in logged)

            if holds(first):
                return
            if not first or not holds(first - 1):
                first = 0
            start = events.SessionLog(status=events.SessionLog.START)
            for event in (
                events.Event(file_version="brain.Event:2"),
                # From this step on, what older files hold counts no more.
                events.Event(step=history[first]["epoch"], session_log=start),
            ):
                event.wall_time = time.time()
                records.write(event.SerializeToString())
        for entry in history[first:]:
            event = _event(entry, events, summaries)
            event.wall_time = time.time()
            records.write(event.SerializeToString())
        self._append(data.getvalue())

    def _append(self, data: bytes) -> None:
        if self._path is None:
            self._folder.mkdir(parents=True, exist_ok=True)
            # TensorBoard reads a folder's files in the order of their names.
            self._path = self._folder / f"events.out.tfevents.{time.time_ns()}"
        with self._path.open("ab") as file:
            file.write(data)


def _event(entry: dict[str, Any], events: Any, summaries: Any) -> Any:
    """Return all that is logged of an epoch, without the time."""
    values = {f"{name}/{entry['phase']}": entry[name] for name in SCALARS if name in entry}
    by_bits = entry.get("valid_by_bits", {})
    values |= {f"valid_by_bits/{bits}": accuracy for bits, accuracy in by_bits.items()}
    found = [summaries.Summary.Value(tag=tag, simple_value=x) for tag, x in values.items()]
    return events.Event(step=entry["epoch"], summary=summaries.Summary(value=found))
