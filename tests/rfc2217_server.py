"""A serial port over TCP (RFC 2217), for ports that have no modem lines."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from typing import Any

import serial
from serial import rfc2217


class _Port(serial.Serial):
    """A pseudo terminal has no lines to set or read."""

    cts = dsr = ri = cd = False

    def _update_rts_state(self) -> None: ...
    def _update_dtr_state(self) -> None: ...


class Rfc2217Server:
    """Serves one port to one client after another; a context manager with its URL."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"rfc2217://127.0.0.1:{self._listener.getsockname()[1]}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Rfc2217Server:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            connection, _ = self._listener.accept()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection, _Port(self._path, timeout=0) as port, contextlib.suppress(OSError):
                self._forward(connection, port)

    def _forward(self, connection: socket.socket, port: _Port) -> None:
        writer = _Writer(connection)
        manager: Any = rfc2217.PortManager(port, writer)
        while not self._stop.is_set():
            for ready in select.select([connection, port.fileno()], [], [], 0.05)[0]:
                if ready is connection:
                    if not (data := connection.recv(65536)):
                        return
                    port.write(b"".join(manager.filter(data)))
                else:
                    connection.sendall(b"".join(manager.escape(port.read(65536))))


class _Writer:
    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def write(self, data: bytes) -> None:
        self._connection.sendall(data)
