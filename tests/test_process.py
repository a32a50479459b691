"""Tools that are run to their end, line by line, and never outlive us."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from quads_mcu.device import process
from quads_mcu.errors import DeviceError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_lines_as_they_come_and_the_exit_code() -> None:
    lines: list[str] = []
    code = "import sys; print('one'); print('two', file=sys.stderr); print('ä'); sys.exit(5)"
    assert process.run(python(code), lines.append) == (5, "one\ntwo\nä")
    assert lines == ["one", "two", "ä"]


def test_bytes_that_are_no_text() -> None:
    code = "import sys; sys.stdout.buffer.write(b'\\xff\\xfe ok\\n')"
    assert process.run(python(code))[1].endswith(" ok")


def test_silence_ends_it() -> None:
    code = "import time; print('begun', flush=True); time.sleep(60)"
    start = time.monotonic()
    with pytest.raises(DeviceError, match=r"said nothing for 0\.5 s and was ended"):
        process.run(python(code), silence_s=0.5)
    assert time.monotonic() - start < 30


def test_no_such_program(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="none cannot be started: No such file"):
        process.run([str(tmp_path / "none")])


def test_an_error_on_the_way_ends_it() -> None:
    pids: list[int] = []

    def follow(line: str) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        process.run(python(code), follow)
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)
