"""What links ask of the system's sockets: an address, deadlines that the system keeps, room for large frames, probes.
It must not know frames.

Processes of one machine may meet at HERE instead of a host: at a socket of the system (abstract, unix(7)) whose number
the system chooses, like a port's. Words go from one to the other in less time than over TCP.
"""

from __future__ import annotations

import functools
import socket
import ssl
import struct
import sys

HERE = "@"
_LOOPBACK = "127.0.0.1"
SOCKET_BYTES = 4 << 20
BACKLOG = 128  # who may wait to be let in
# A machine that is gone without a word is noticed after 3 + 3 * 2 seconds: the inbound socket of a link never has
# anything unacknowledged on its way out, so the system's probes decide alone, whatever its peer is too busy to read.
PROBES = {socket.TCP_KEEPIDLE: 3, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3}


@functools.cache
def local() -> str:
    """Where processes of this machine meet: HERE, unless it is none of Linux or a sandbox forbids that."""
    if sys.platform != "linux":
        return _LOOPBACK
    try:
        with served(HERE, 0) as listening, reached(*address(listening), 1):
            return HERE
    except OSError:
        return _LOOPBACK


def served(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 stands for any free one. OSError if it cannot be had."""
    if host != HERE:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(_name(port) if port else "")
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def reached(host: str, port: int, seconds: float) -> socket.socket:
    """A socket to one that listens; OSError if there is none after so many seconds."""
    if host != HERE:
        return socket.create_connection((host, port), timeout=seconds)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.settimeout(seconds)
        sock.connect(_name(port))
    except OSError:
        sock.close()
        raise
    return sock


def address(sock: socket.socket) -> tuple[str, int]:
    """Host and port at which a socket listens."""
    if sock.family != socket.AF_UNIX:
        return sock.getsockname()[:2]
    return HERE, int(sock.getsockname()[1:], 16)


def caller(found: object) -> str:
    """Who has come, as the system tells it with a socket that it accepts."""
    return f"{found[0]}:{found[1]}" if isinstance(found, tuple) else HERE


def _name(port: int) -> bytes:
    """As the system itself names those that have no name."""
    return b"\0%05x" % port


def set_timeout(sock: socket.socket, seconds: float) -> None:
    """Let the system keep the deadline: Python's own would ask for readiness before every read and write."""
    if isinstance(sock, ssl.SSLSocket):  # hides the system's deadline by trying again for ever
        sock.settimeout(seconds)
        return
    whole = int(seconds)
    value = struct.pack("ll", whole, max(1, int((seconds - whole) * 1e6)))
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, value)


def tune(sock: socket.socket) -> None:
    """Small frames leave at once; large ones find room; a machine that is gone is noticed."""
    if sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in PROBES.items():
            sock.setsockopt(socket.IPPROTO_TCP, option, value)
    if _large_buffers_granted():
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)


@functools.cache
def _large_buffers_granted() -> bool:
    """Client for more than the system grants would be worse than leaving the sizes to the system."""
    with socket.socket() as probe:
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            probe.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
            if probe.getsockopt(socket.SOL_SOCKET, option) < SOCKET_BYTES:
                return False
    return True
