"""The history as TensorBoard scalars, where the tensorboard package is installed."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from quads_mcu.errors import StorageError

SCALARS = ("loss", "valid_float", "valid_quantized")


class Log:
    """Event files in one folder: loss and validation accuracy by phase, step = epoch.

    Without the tensorboard package nothing is written. A folder without events gets the whole
    history; one of an interrupted run goes on, and an epoch that is trained again replaces what was
    logged of it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: Any = None

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, history: list[dict[str, Any]]) -> None:
        """Log the last epoch of the history.

        Raises:
            StorageError: the folder cannot be written to.
        """
        try:
            entries = history[-1:]
            if self._writer is None:
                if not any(self._folder.glob("events.*")):
                    entries = history
                self._writer = _open(self._folder, entries[0]["epoch"])
            if self._writer is not None:
                for entry in entries:
                    self._add(entry)
                self._writer.flush()
        except OSError as problem:
            raise StorageError(
                f"{self._folder}: TensorBoard's log cannot be written: {problem}; check the "
                "folder, its owner and the space left, and go on"
            ) from None

    def _add(self, entry: dict[str, Any]) -> None:
        step = entry["epoch"]
        for name in (scalar for scalar in SCALARS if scalar in entry):
            self._writer.add_scalar(f"{name}/{entry['phase']}", entry[name], step)
        for bits, accuracy in entry.get("valid_by_bits", {}).items():
            self._writer.add_scalar(f"valid_by_bits/{bits}", accuracy, step)


def _open(folder: Path, first_step: int) -> Any:
    """Return a SummaryWriter that replaces the steps from `first_step` on, or None."""
    try:
        from tensorboard import compat

        # TensorBoard's switch for its own file functions; else it imports TensorFlow for them.
        compat.notf = True
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=first_step)
