"""Calls of the system that never wait, made without letting go of Python's lock.

Who lets go of it gets it back behind every thread that computes, and where there is more to do than cores for it, the
one that holds it may not be running: some hundredths of a second each time. A thread with a hundred sockets to look
after would be seconds late. This file must not know what the sockets are for.
"""

from __future__ import annotations

import ctypes
import socket

_system = ctypes.PyDLL(None)
_system.send.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]
_system.send.restype = ctypes.c_ssize_t


class _Asked(ctypes.Structure):
    """struct pollfd of poll(2)."""

    _fields_ = (("fd", ctypes.c_int), ("events", ctypes.c_short), ("revents", ctypes.c_short))


_system.poll.argtypes = [ctypes.POINTER(_Asked), ctypes.c_ulong, ctypes.c_int]


def ready(sock: socket.socket, event: int) -> bool:
    """Whether one of select's events, POLLIN or POLLOUT, or the end of the connection has come; not on a closed one.

    The system says that there is room only where there is room for many bytes.
    """
    number = sock.fileno()
    return number >= 0 and _system.poll(_Asked(number, event, 0), 1, 0) > 0


def send(sock: socket.socket, data: bytes) -> int:
    """How many of the bytes the system took at once, perhaps none; not of a socket that is guarded."""
    number = sock.fileno()
    return 0 if number < 0 else max(0, _system.send(number, data, len(data), socket.MSG_DONTWAIT))
