"""Run a flashing tool to its end, line by line, and end it with us."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from quads_mcu.errors import DeviceError

SILENCE_S = 300.0
STOP_S = 5.0
# Programs that would colour or redraw for a person; the lines are read by a program.
PLAIN = {"NO_COLOR": "1", "PYTHONUTF8": "1", "PYTHONUNBUFFERED": "1", "LC_ALL": "C.UTF-8"}


def run(
    command: Sequence[str],
    follow: Callable[[str], None] = lambda line: None,
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    silence_s: float = SILENCE_S,
) -> tuple[int, str]:
    """Run `command`; return its exit code and everything it printed. `follow` gets every line.

    Raises:
        DeviceError: it printed nothing for silence_s, or cannot be started.
    """
    environment = {**os.environ, **PLAIN, **(environment or {})}
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):
        environment.pop(name, None)
    try:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, text=True, encoding="utf-8", errors="replace",
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
    except OSError as problem:
        raise DeviceError(f"{command[0]} cannot be started: {problem.strerror}") from None
    silent = threading.Event()
    try:
        assert process.stdout is not None
        lines = []
        for line in _watched(process.stdout, process, silent, silence_s):
            lines.append(line.rstrip())
            follow(lines[-1])
        code = process.wait()
    finally:
        _end(process)
    if silent.is_set():
        raise DeviceError(f"{command[0]} said nothing for {silence_s:g} s and was ended")
    return code, "\n".join(lines)


def _watched(
    output: Iterable[str], process: subprocess.Popen[str], silent: threading.Event, limit_s: float
) -> Iterable[str]:
    """Yield lines; when none comes for limit_s, end the process, which ends its output."""

    def expired() -> None:
        silent.set()
        process.kill()

    timer = threading.Timer(limit_s, expired)
    timer.start()
    try:
        for line in output:
            timer.cancel()
            yield line
            timer = threading.Timer(limit_s, expired)
            timer.start()
    finally:
        timer.cancel()


def _end(process: subprocess.Popen[str]) -> None:
    """End the process if it still runs: an error or Ctrl-C came first."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_S)
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.stdout is not None:
        process.stdout.close()
