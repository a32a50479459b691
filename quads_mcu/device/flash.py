"""Bring firmware onto a board. For the host and emulated boards that means: start the process."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from quads_mcu.device.boards import Board
from quads_mcu.device.client import Client
from quads_mcu.device.link import Link
from quads_mcu.errors import BuildError, DeviceError

START_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 3.0
# Runs a command that is killed with its parent, so that nothing survives a killed quads-mcu.
DIE_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); "
    "os.getppid() == int(sys.argv[1]) and os.execvp(sys.argv[2], sys.argv[2:])"
)
PORT_LINES = (
    (re.compile(r"^port (\d+)$", re.M), "socket://127.0.0.1:{}"),
    (re.compile(r"redirected to (/dev/\S+)"), "{}"),
)


class Session:
    """A running board process and the URL of its link; a context manager that ends it."""

    def __init__(self, board: Board, command: list[str], folder: Path | None = None) -> None:
        self.board = board
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by close()
        self._process = subprocess.Popen(
            _dying_with_parent(command),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            cwd=folder,
        )
        try:
            self.url = self._wait_for_url(time.monotonic() + START_TIMEOUT_S)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def running(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def wait(self) -> int:
        """Wait until the process ends; return its exit code."""
        return self._process.wait()

    def output(self) -> str:
        """Return what the process printed so far."""
        if self._output.closed:
            return ""
        # pread: the process writes at the shared file position.
        return os.pread(self._output.fileno(), 65536, 0).decode(errors="replace").strip()

    def close(self) -> None:
        """End the process; may be called twice."""
        if self.running:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._output.close()

    def _wait_for_url(self, deadline: float) -> str:
        while True:
            ended = not self.running
            output = self.output()
            for pattern, url in PORT_LINES:
                if found := pattern.search(output):
                    return url.format(found[1])
            if ended:
                raise DeviceError(
                    f"{self.board.name} ended with code {self._process.returncode} while "
                    f"starting: {output[-500:] or 'no output'}"
                )
            if time.monotonic() > deadline:
                raise DeviceError(
                    f"{self.board.name} named no port within {START_TIMEOUT_S:g} s; "
                    f"it printed: {output[-500:] or 'nothing'}"
                )
            time.sleep(0.005)


def start(board: Board, elf: Path, clips: Path | None = None) -> Session:
    """Start the firmware `elf` on a host or emulated board, with the clip store `clips`.

    Raises:
        BuildError: there is no firmware.
        DeviceError: the emulator is missing, or the process ended before it named its port.
    """
    if not elf.is_file():
        raise BuildError(f"{elf}: no such firmware; run `quads-mcu build --target {board.name}`")
    elf = elf.resolve()
    clips = clips.resolve() if clips else None
    if clips and not clips.is_file():
        raise DeviceError(f"{clips}: no such clip store")
    if board.emulator is None:
        return Session(board, [str(elf), "--tcp", "0", *(["--clips", str(clips)] if clips else [])])
    if shutil.which(board.emulator.command[0]) is None:
        raise DeviceError(
            f"{board.emulator.command[0]} is not installed; it emulates {board.name}. "
            f"To get it: {board.emulator.install}; or use this PC: --target host"
        )
    # The firmware opens the store by its bare name, in the folder the emulator runs in.
    semihosting = "enable=on,target=native,arg=firmware"
    if clips:
        semihosting += ",arg=" + clips.name.replace(",", ",,")
    command = [*board.emulator.command, "-kernel", str(elf), "-display", "none", "-monitor", "none"]
    command += ["-serial", "pty", "-semihosting-config", semihosting]
    return Session(board, command, clips.parent if clips else None)


@contextlib.contextmanager
def open_board(
    board: Board, elf: Path, port: str | None = None, clips: Path | None = None
) -> Iterator[Client]:
    """Yield a client of the board at `port`, or of one started for it (then with `clips`).

    Raises:
        BuildError, DeviceError, LinkError: as `start` and `Link`.
    """
    with contextlib.ExitStack() as stack:
        url = port or stack.enter_context(start(board, elf, clips)).url
        yield Client(stack.enter_context(Link(url)))


def _dying_with_parent(command: list[str]) -> list[str]:
    if not sys.platform.startswith("linux"):
        return command
    return [sys.executable, "-ISc", DIE_WITH_PARENT, str(os.getpid()), *command]
