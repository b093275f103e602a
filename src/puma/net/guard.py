"""What stands around the sockets of a link before the first word: nothing, on the loopback, or TLS (tls.py). Decides
also where nothing may stand there. Both kinds recognise each other, so that a side that was started in the wrong
way is told so instead of reading noise."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
from collections.abc import Iterable
from time import monotonic
from typing import Protocol

from puma.errors import FrameError, HandshakeError, UsageError
from puma.net.frame import MAGIC
from puma.net.handshake import Proven, Wire, refusal
from puma.net.sockets import HERE

TLS_HANDSHAKE = b"\x16\x03"  # how every TLS connection begins
_REFUSAL_SECONDS = 1.0


class Guard(Protocol):
    """Wraps sockets. `wrap` returns at once; `prove` talks, within the socket's timeout, and raises HandshakeError for
    a peer that may not come in, having told it why, and FrameError or OSError for anything else."""

    def wrap(self, sock: socket.socket, dialing: bool) -> socket.socket:
        """The socket to use from now on."""
        ...

    def prove(self, sock: socket.socket, listener: str, dialing: bool) -> Proven | None:
        """What is proved about the two ends of a wrapped socket; `listener` is what errors call that side."""
        ...

    def explained(self, error: OSError, listener: str, dialing: bool) -> HandshakeError | None:
        """The refusal behind an error that came up after `prove`, if it is one."""
        ...

    def check_host(self, host: str) -> None:
        """UsageError if links to or from this host may not be guarded like this."""
        ...


class Plain:
    """No guard: for processes of one machine."""

    def wrap(self, sock: socket.socket, dialing: bool) -> socket.socket:
        """The socket as it is."""
        return sock

    def prove(self, sock: socket.socket, listener: str, dialing: bool) -> Proven | None:
        """Nothing is proved."""
        if not dialing and first_bytes(sock, 2) == TLS_HANDSHAKE:
            raise refused_in_plain(sock, refusal("tls", f"{listener} does not speak TLS, the dialer does"))
        return None

    def explained(self, error: OSError, listener: str, dialing: bool) -> HandshakeError | None:
        """No error is a guard's."""
        return None

    def check_host(self, host: str) -> None:
        """UsageError unless the host is this machine."""
        insecure([host])


PLAIN = Plain()


def insecure(hosts: Iterable[str]) -> None:
    """What --insecure means: links without TLS, between loopback addresses only. UsageError for any other host.

    Names are not looked up: what a name stands for can change, so only localhost and literal addresses pass.
    """
    for host in hosts:
        if not is_loopback(host):
            hint = "use keys and a cluster file there (docs/deploy.md); 127.0.0.1, ::1 and localhost need none"
            raise UsageError(f"links without TLS are for the loopback only, not for {host}", hint)


def is_loopback(host: str) -> bool:
    """Whether this host certainly is this machine itself."""
    if host == HERE:
        return True
    try:
        return ipaddress.ip_address(host.strip("[]").partition("%")[0]).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def first_bytes(sock: socket.socket, count: int) -> bytes:
    """What a peer begins with, left in place, at most `count` bytes; FrameError if it says nothing and leaves."""
    found = socket.socket.recv(sock, count, socket.MSG_PEEK)
    if not found:
        raise FrameError("the connection ended before its first byte")
    return found


def refused_in_plain(sock: socket.socket, error: HandshakeError) -> HandshakeError:
    """Tell a peer, without TLS, why it may not come in; what to raise here."""
    Wire(sock, monotonic() + _REFUSAL_SECONDS).refuse(error)
    return error


def speaks_plain(first: bytes) -> bool:
    """Whether a connection that begins like this is Puma's without TLS."""
    return first[: len(MAGIC)] == MAGIC


def linger(sock: socket.socket, seconds: float = 0.5) -> None:
    """Let the peer read our last words: closing over unread bytes would destroy them on their way."""
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_WR)
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            sock.settimeout(left)
            if not socket.socket.recv(sock, 4096):
                break
