"""The byte link to a board: a serial port, a pseudo terminal, or a TCP socket, through pyserial."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from quads_mcu.errors import LinkError

if TYPE_CHECKING:
    import serial

BAUD = 115200
WRITE_TIMEOUT_S = 30.0
POLL_S = 0.05
MAX_READ_BYTES = 65536
URL_HINT = "/dev/ttyUSB0, /dev/pts/3, COM3, socket://127.0.0.1:4000, rfc2217://host:port"


class DroppedError(LinkError):
    """The link was there and is gone; opening it again may help."""


class Transport(Protocol):
    """What a client needs of a link."""

    url: str

    def write(self, data: bytes) -> None:
        """Send all bytes."""

    def read(self, timeout_s: float) -> bytes:
        """Return what came in, waiting up to timeout_s for the first byte; b"" if none came."""

    def reopen(self) -> None:
        """Close and open again."""

    def close(self) -> None:
        """Close; may be called twice."""


class Link:
    """An open port. `url`: a device path or anything `serial.serial_for_url` takes.

    Raises:
        LinkError: no such port, busy, no permission, or nobody listens.
    """

    def __init__(self, url: str, baud: int = BAUD) -> None:
        self.url = url
        self._baud = baud
        self._port: serial.SerialBase | None = _open(url, baud)

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Send all bytes.

        Raises:
            DroppedError: the link is gone.
            LinkError: the device takes no bytes.
        """
        import serial

        try:
            self._opened().write(data)
        except serial.SerialTimeoutException:
            raise LinkError(
                f"{self.url}: {len(data)} bytes could not be sent within {WRITE_TIMEOUT_S:g} s; "
                "is the board running, and its flow control off?"
            ) from None
        except (OSError, serial.SerialException) as problem:
            raise self._dropped(problem) from None

    def read(self, timeout_s: float) -> bytes:
        """Return what came in, waiting up to timeout_s for the first byte; b"" if none came.

        Raises:
            DroppedError: the link is gone.
        """
        import serial

        port = self._opened()
        deadline = time.monotonic() + timeout_s
        try:
            while not (first := bytes(port.read(1))):
                if time.monotonic() >= deadline:
                    return b""
        except (OSError, TypeError, serial.SerialException) as problem:
            raise self._dropped(problem) from None
        return first + self._waiting(port)

    def reopen(self) -> None:
        """Close and open again.

        Raises:
            LinkError: as the constructor.
        """
        self.close()
        self._port = _open(self.url, self._baud)

    def close(self) -> None:
        """Close; may be called twice."""
        if self._port is not None:
            self._port.close()
            self._port = None

    def _waiting(self, port: serial.SerialBase) -> bytes:
        """Return what else has arrived; the next read tells if the link is gone."""
        import serial

        try:
            if not self.url.startswith("socket://"):
                return bytes(port.read(min(port.in_waiting, MAX_READ_BYTES)))
            port.timeout = 0  # a socket does not say how much is waiting
            try:
                return bytes(port.read(MAX_READ_BYTES))
            finally:
                port.timeout = POLL_S
        except (OSError, TypeError, serial.SerialException):
            return b""

    def _opened(self) -> serial.SerialBase:
        if self._port is None:
            raise DroppedError(f"{self.url} is closed")
        return self._port

    def _dropped(self, problem: Exception) -> DroppedError:
        return DroppedError(f"{self.url} was dropped ({problem}); is the board still powered?")


def _open(url: str, baud: int) -> serial.SerialBase:
    import serial

    # pyserial refuses a write timeout on RFC 2217 ports.
    write_timeout_s = None if url.startswith("rfc2217://") else WRITE_TIMEOUT_S
    try:
        return serial.serial_for_url(
            url, baudrate=baud, timeout=POLL_S, write_timeout=write_timeout_s, exclusive=True
        )
    except (serial.SerialException, ValueError, OSError) as problem:
        raise LinkError(_why(url, problem)) from None


def check(url: str) -> None:
    """Open and close a port, to learn whether a program may use it.

    Raises:
        LinkError: no such port, busy, no permission, or nobody listens.
    """
    _open(url, BAUD).close()


def _why(url: str, problem: Exception) -> str:
    text = str(problem)
    number = getattr(problem, "errno", None)
    if number == errno.EACCES or "Permission denied" in text:
        return (
            f"{url}: no permission to open it; add yourself to its group "
            "(`sudo usermod -aG dialout $USER`, then log in again) or give it a udev rule; "
            "`quads-mcu doctor` tells which"
        )
    if number in (errno.EBUSY, errno.EAGAIN) or "exclusively lock" in text:
        return f"{url} is busy: another program has it open; close that (a terminal?) and try again"
    if url.startswith("socket://"):
        return f"{url}: {text}; is the board (or `quads-mcu flash`) running there?"
    if number == errno.ENOENT or "FileNotFoundError" in text:
        return f"{url}: no such port; found: {', '.join(ports()) or 'none'}; forms: {URL_HINT}"
    return f"{url} cannot be opened: {text}; ports found: {', '.join(ports()) or 'none'}"


def ports() -> list[str]:
    """Return the serial ports of this computer."""
    from serial.tools import list_ports

    found = {port.device for port in list_ports.comports()}
    found |= {str(path) for path in Path("/dev").glob("tty[UA][SC][BM]*")}
    return sorted(found)


def only_port() -> str:
    """Return the one serial port of this computer.

    Raises:
        LinkError: there is none, or more than one.
    """
    found = ports()
    if len(found) == 1:
        return found[0]
    if found:
        raise LinkError(f"{len(found)} serial ports: {', '.join(found)}; name one by --port")
    raise LinkError(
        f"no serial port: is the board plugged in, and its cable one that carries data? {URL_HINT} "
        "by --port; `quads-mcu doctor` tells more"
    )


def usb_ids(url: str) -> tuple[int, int] | None:
    """Return vendor and product of the USB device behind a port; None: it is none, or unknown."""
    from serial.tools import list_ports

    real = str(Path(url).resolve()) if url.startswith("/") else url
    for port in list_ports.comports():
        if port.device in (url, real) and port.vid is not None:
            return port.vid, port.pid
    return None
