"""Ports that exist, vanish or refuse, and the processes behind emulated boards."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import serial
from c_build import REPOSITORY
from firmware_build import built, model

from quads_mcu.device import boards, flash
from quads_mcu.device.client import Client
from quads_mcu.device.link import DroppedError, Link
from quads_mcu.errors import BuildError, DeviceError, LinkError

HOST = boards.load("host")


@pytest.fixture
def pty():
    """(master descriptor, path of the port)."""
    master, slave = os.openpty()
    yield master, os.ttyname(slave)
    for descriptor in (master, slave):
        with contextlib.suppress(OSError):
            os.close(descriptor)


# --- links ----------------------------------------------------------------------------------


def test_bytes_pass_unchanged(pty) -> None:
    master, path = pty
    every_byte = bytes(range(256))
    with Link(path) as link:
        link.write(every_byte)
        assert os.read(master, 4096) == every_byte
        os.write(master, every_byte)
        assert link.read(1.0) == every_byte


def test_silence_ends_after_the_timeout(pty) -> None:
    with Link(pty[1]) as link:
        start = time.monotonic()
        assert link.read(0.1) == b""
        assert 0.1 <= time.monotonic() - start < 1.0


def test_missing_port_lists_forms() -> None:
    with pytest.raises(LinkError, match=r"no such port; found: .*forms: .*socket://"):
        Link("/dev/ttyNONE7")


def test_busy_port(pty) -> None:
    with Link(pty[1]), pytest.raises(LinkError, match="busy: another program"):
        Link(pty[1])


def test_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **keywords: object) -> None:
        raise serial.SerialException(13, "could not open port: [Errno 13] Permission denied")

    monkeypatch.setattr(serial, "serial_for_url", refuse)
    with pytest.raises(LinkError, match="usermod -aG dialout"):
        Link("/dev/ttyUSB0")


@pytest.mark.parametrize("url", ["socket://127.0.0.1", "nonsense://x", "socket://127.0.0.1:1"])
def test_impossible_urls(url: str) -> None:
    with pytest.raises(LinkError, match=url):
        Link(url)


def test_unplugged_port_is_dropped(pty) -> None:
    master, path = pty
    with Link(path) as link:
        os.close(master)
        with pytest.raises(DroppedError, match="was dropped"):
            link.read(1.0)


def test_closed_link(pty) -> None:
    link = Link(pty[1])
    link.close()
    link.close()
    with pytest.raises(DroppedError, match="is closed"):
        link.write(b"x")
    link.reopen()
    link.write(b"x")
    assert os.read(pty[0], 10) == b"x"
    link.close()


def test_socket_that_hangs_up() -> None:
    server = socket.create_server(("127.0.0.1", 0))
    with server, Link(f"socket://127.0.0.1:{server.getsockname()[1]}") as link:
        peer, _ = server.accept()
        peer.sendall(b"last words")
        peer.close()
        assert link.read(1.0) == b"last words"
        with pytest.raises(DroppedError):
            link.read(1.0)


# --- processes ------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.01)


RUNNABLE = [board.name for board in boards.all_boards() if board.kind != "chip"]


@pytest.mark.parametrize("problem", [None, ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("board", RUNNABLE)
def test_no_process_stays_behind(board: str, problem: type[BaseException] | None) -> None:
    elf = built(board).elf
    expected = pytest.raises(problem) if problem else contextlib.nullcontext()
    with expected, flash.start(boards.load(board), elf) as session:
        pid = session._process.pid
        assert session.running
        if problem:
            raise problem
    assert not session.running
    assert not alive(pid)
    session.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl is Linux's")
@pytest.mark.parametrize("board", RUNNABLE)
def test_killed_parent_takes_the_board_along(board: str) -> None:
    elf = built(board).elf
    code = (
        "import sys, time; from pathlib import Path; from quads_mcu.device import boards, flash\n"
        "session = flash.start(boards.load(sys.argv[1]), Path(sys.argv[2]))\n"
        "print(session._process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, board, str(elf)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPOSITORY,
    )
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
        parent.send_signal(signal.SIGKILL)
    wait_until_gone(pid)


def test_wait_returns_the_exit_code() -> None:
    with flash.start(HOST, built("host").elf) as session:
        os.kill(session._process.pid, signal.SIGTERM)
        assert session.wait() == -signal.SIGTERM


def test_a_board_that_ends_at_once_shows_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="ended with code 3 while starting: no flash today"):
        flash.Session(HOST, [sys.executable, "-c", "print('no flash today'); exit(3)"])


def test_a_board_that_names_no_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash, "START_TIMEOUT_S", 0.3)
    with pytest.raises(DeviceError, match=r"named no port within 0\.3 s"):
        flash.Session(HOST, [sys.executable, "-c", "import time; time.sleep(30)"])


def test_missing_firmware_and_clips(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="run `quads-mcu build --target host`"):
        flash.start(HOST, tmp_path / "none.elf")
    with pytest.raises(DeviceError, match="no such clip store"):
        flash.start(HOST, built("host").elf, tmp_path / "none.qclp")


def test_missing_emulator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elf = tmp_path / "firmware.elf"
    elf.write_bytes(b"")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match=r"apt install qemu-system-arm.*--target host"):
        flash.start(boards.load("qemu-an386"), elf)


# --- the host process -----------------------------------------------------------------------


def test_pseudo_terminal_instead_of_tcp() -> None:
    process = subprocess.Popen([str(built("host").elf), "--pty"], stdout=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stdout is not None
            word, path = process.stdout.readline().split()
            assert word == "pty"
            for _ in range(2):
                with Link(path) as link:
                    assert Client(link).hello().model_hash == model().model_hash
        finally:
            process.kill()


def test_next_client_is_served_after_one_left_mid_frame() -> None:
    with flash.start(HOST, built("host").elf) as session:
        with Link(session.url) as link:
            link.write(b"\x05\x08\x01half a fra")
        with Link(session.url) as link:
            client = Client(link)
            client.hello()
            assert client.echo(b"me too") == b"me too"


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ([], 2),
        (["--tcp"], 2),
        (["--tcp", "0", "--pty"], 2),
        (["--tcp", "70000"], 2),
        (["--tcp", "12x"], 2),
        (["--faster"], 2),
        (["--tcp", "0", "--clips", "/does/not/exist"], 1),
    ],
)
def test_usage_errors_of_the_host_process(arguments: list[str], code: int) -> None:
    done = subprocess.run(
        [str(built("host").elf), *arguments], capture_output=True, timeout=20, check=False
    )
    assert done.returncode == code
    assert done.stderr
