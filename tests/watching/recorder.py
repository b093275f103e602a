"""Stands between a dialer and a port, and keeps what the dialer said."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable

Address = tuple[str, int]


class Recorder(threading.Thread):
    """Passes connections on to `target`; `said` holds the dialer's bytes, connection by connection."""

    def __init__(self, target: Address) -> None:
        super().__init__(daemon=True)
        self.server = socket.create_server(("127.0.0.1", 0))
        self.target = target
        self.said: list[bytes] = []
        self.busy: list[threading.Thread] = []
        self.start()

    @property
    def address(self) -> Address:
        return self.server.getsockname()[:2]

    def run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self.server.accept()
                self.said.append(b"")
                self._aside(self._forth, sock, len(self.said) - 1)

    def _forth(self, sock: socket.socket, index: int) -> None:
        with sock, socket.create_connection(self.target) as onward:
            self._aside(self._back, onward, sock)
            with contextlib.suppress(OSError):
                while data := sock.recv(1 << 16):
                    self.said[index] += data
                    onward.sendall(data)

    def _aside(self, work: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=work, args=args, daemon=True)
        self.busy.append(thread)
        thread.start()

    def _back(self, onward: socket.socket, sock: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := onward.recv(1 << 16):
                sock.sendall(data)

    def close(self) -> None:
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.join(2)
        for thread in self.busy:
            thread.join(2)


def replay(said: bytes, target: Address, seconds: float = 4.0) -> bytes:
    """Say this again to a port; what it answers until it hangs up. TimeoutError if it does not within `seconds`."""
    heard = b""
    with socket.create_connection(target) as sock:
        sock.settimeout(seconds)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            sock.sendall(said)
            sock.shutdown(socket.SHUT_WR)
            while data := sock.recv(4096):
                heard += data
    return heard
