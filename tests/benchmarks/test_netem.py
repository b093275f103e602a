"""The kernel's networks: rates where namespaces are allowed, delays where it knows netem as well."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import netem

SCRIPT = """
import socket, threading, time
from benchmarks import netem
from puma.measure.forecast import Network
netem.enter()
with netem.Shaped(Network("narrow", 200e6, 0.06), delays={delays}) as net, socket.create_server(("127.0.0.1", 0)) as s:
    near = socket.create_connection(("127.0.0.1", net.route("P2", "P1", s.getsockname()[1])))
    far, _ = s.accept()
    started = time.perf_counter()
    near.sendall(b"x"); far.recv(1); far.sendall(b"x"); near.recv(1)
    print(time.perf_counter() - started)
    for one, other in ((near, far), (far, near)):
        started, left = time.perf_counter(), 5_000_000
        threading.Thread(target=one.sendall, args=(bytes(left),), daemon=True).start()
        while left:
            left -= len(other.recv(1 << 20))
        print(time.perf_counter() - started)
"""


def allowed() -> bool:
    try:
        return subprocess.run(["unshare", "-n", "tc", "qdisc"], capture_output=True, check=False).returncode == 0
    except OSError:
        return False


@pytest.mark.skipif(not allowed(), reason="no right to make a network namespace, or no tc")
@pytest.mark.parametrize("delays", [False, True])
def test_rates_and_delays(delays: bool) -> None:
    if delays and not netem.available():
        pytest.skip("this kernel has no netem")
    done = subprocess.run([sys.executable, "-c", SCRIPT.format(delays=delays)], capture_output=True, text=True)
    assert not done.returncode, done.stderr
    ping, there, back = map(float, done.stdout.split())
    assert ping > (0.059 if delays else 0)
    assert 0.18 < there < 20 and 0.18 < back < 20
