"""Where processes of one machine meet without a port: as guarded as the loopback, and every failure has its name."""

from __future__ import annotations

import socket
import sys

import pytest

from puma import config
from puma.errors import ConfigError, HandshakeError, PeerLost, UsageError
from puma.net import sockets, tcp
from puma.net.guard import is_loopback
from puma.net.sockets import HERE

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="no abstract sockets")


def test_who_does_not_know_the_cookie_stays_outside(identity, logs):
    audits, read = logs
    with tcp.listen(HERE, audit=audits["in"]) as port:
        number = port.address[1]
        port.welcome(identity(), [("party", 2)])
        with pytest.raises(HandshakeError, match="cookie mismatch"):
            tcp.dial(*port.address, identity(rank=2, cookie=b"?" * 32), ("party", 1), 5, audit=audits["out"])
        with pytest.raises(HandshakeError, match="cookie mismatch"):
            port.accept(5)
        tcp.dial(*port.address, identity(rank=2), ("party", 1), 5, audit=audits["out"]).link.close()
        port.accept(5).link.close()
    assert [line["address"] for line in read("in")] == [HERE, HERE]
    assert [line["address"] for line in read("out")] == [f"{HERE}:{number}"] * 2


def test_a_number_that_is_taken_and_one_where_nobody_is(identity):
    with tcp.listen(HERE) as port:
        with pytest.raises(UsageError, match=r"cannot listen on @ port \d+: Address already in use"):
            tcp.listen(*port.address)
        number = port.address[1]
    with pytest.raises(PeerLost, match=r"does not answer at @ port .* refused"):
        tcp.dial(HERE, number, identity(rank=2), ("party", 1), 0.2)
    with tcp.listen(HERE, number) as port:
        assert port.address == (HERE, number)


def test_a_dialer_who_finds_many_waiting_tries_again(identity):
    """There the system says at once that there is no room, where TCP would wait."""
    with tcp.listen(HERE) as port:
        waiting = []
        for _ in range(1000):
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.setblocking(False)
            waiting.append(sock)
            if sock.connect_ex(b"\0%05x" % port.address[1]):
                break
        with pytest.raises(PeerLost, match="does not answer at @"):
            tcp.dial(*port.address, identity(rank=2), ("party", 1), 0.3)
        for sock in waiting:
            sock.close()
        port.welcome(identity(), [("party", 2)])
        tcp.dial(*port.address, identity(rank=2), ("party", 1), 10).link.close()
        port.accept(5).link.close()


def test_no_user_can_name_it():
    """It is for processes that one of ours has started: whoever writes it as an address is told that it is none."""
    assert is_loopback(HERE) and not is_loopback(HERE * 2)
    for address in (f"{HERE}:7700", f"[{HERE}]:7700"):
        with pytest.raises(ConfigError, match="not an address"):
            config.split_address(address)


def test_where_the_system_forbids_them_processes_meet_at_ports(monkeypatch):
    """Some sandboxes refuse the name, others the way to it."""
    assert sockets.local() == HERE
    for step in ("served", "reached"):

        def refused(*_):
            raise PermissionError(1, "Operation not permitted")

        with monkeypatch.context() as patched:
            patched.setattr(sockets, step, refused)
            assert sockets.local.__wrapped__() == "127.0.0.1", step
    monkeypatch.setattr("sys.platform", "darwin")
    assert sockets.local.__wrapped__() == "127.0.0.1"
