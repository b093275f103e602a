"""What links ask of the system's sockets: deadlines that the system keeps, room for large frames, probes. It must not
know frames."""

from __future__ import annotations

import functools
import socket
import ssl
import struct

SOCKET_BYTES = 4 << 20
# A machine that is gone without a word is noticed after 3 + 3 * 2 seconds: the inbound socket of a link never has
# anything unacknowledged on its way out, so the system's probes decide alone, whatever its peer is too busy to read.
PROBES = {socket.TCP_KEEPIDLE: 3, socket.TCP_KEEPINTVL: 2, socket.TCP_KEEPCNT: 3}


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
