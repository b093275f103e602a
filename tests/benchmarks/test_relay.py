"""The emulated network: bytes whole and in order, never before their time, never faster than the rate."""

from __future__ import annotations

import hashlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import pytest

from benchmarks.network import Emulated
from puma.measure.forecast import Network

MARGIN = 1.5  # seconds that a busy machine may add


@contextmanager
def connected(network: Network) -> Iterator[tuple[Emulated, socket.socket, socket.socket]]:
    """Both ends of a connection through the relay."""
    with Emulated(network) as emulated, socket.create_server(("127.0.0.1", 0)) as server:
        port = emulated.route("P2", "P1", server.getsockname()[1])
        with socket.create_connection(("127.0.0.1", port), timeout=20) as near:
            far, _ = server.accept()
            with far:
                far.settimeout(20)
                yield emulated, near, far


def received(sock: socket.socket, count: int) -> bytes:
    data = bytearray()
    while len(data) < count:
        more = sock.recv(1 << 20)
        assert more
        data += more
    return bytes(data)


def test_latency_of_each_direction() -> None:
    with connected(Network("far", 1e9, 0.06)) as (emulated, near, far):
        for one, other in ((near, far), (far, near)):
            started = perf_counter()
            one.sendall(b"ping")
            assert received(other, 4) == b"ping"
            assert 0.029 < perf_counter() - started < 0.03 + MARGIN
        stats = emulated.stats()
    assert stats["bytes"] == {"P2 to P1": 4, "P1 to P2": 4}
    assert stats["chunks"] == 2 and stats["cpu_seconds"] > 0


@pytest.mark.parametrize("both", [False, True])
def test_rate_order_and_end(both: bool) -> None:
    """Ten million bytes at 200 Mbps take 0.4 s, in both directions at once as well; then the end is passed on."""
    data = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(312_500))
    with connected(Network("narrow", 200e6, 1e-3)) as (_, near, far):
        pairs = [(near, far), (far, near)][: 2 if both else 1]
        started = perf_counter()
        for one, _ in pairs:
            threading.Thread(target=one.sendall, args=(data,), daemon=True).start()
        for _, other in pairs:
            assert received(other, len(data)) == data
        assert 0.39 < perf_counter() - started < 0.4 + 2 * MARGIN
        near.shutdown(socket.SHUT_WR)
        assert far.recv(1) == b""
        far.sendall(b"still open")
        assert received(near, 10) == b"still open"


def test_a_full_target_holds_up_the_source_and_loses_nothing() -> None:
    data = bytes(range(256)) * (1 << 17)
    with connected(Network("fast", 1e12, 2e-5)) as (_, near, far):
        sender = threading.Thread(target=near.sendall, args=(data,), daemon=True)
        sender.start()
        sender.join(0.3)
        assert received(far, len(data)) == data
        sender.join(5)
        assert not sender.is_alive()


def test_nobody_there_is_a_closed_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with Emulated(Network("lan", 1e9, 1e-3)) as emulated:
        with socket.create_connection(("127.0.0.1", emulated.route("P2", "P1", port)), timeout=5) as near:
            assert near.recv(1) == b""
        assert emulated.stats()["chunks"] == 0
