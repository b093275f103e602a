"""Processes of one machine that meet at a socket of the system instead of a port."""

from __future__ import annotations

import sys

import pytest

from puma.errors import HandshakeError, PeerLost, UsageError
from puma.net import tcp
from puma.net.guard import is_loopback
from puma.net.sockets import HERE, LOCAL

pytestmark = [
    pytest.mark.usefixtures("no_threads_left"),
    pytest.mark.skipif(sys.platform != "linux", reason="sockets without a file are Linux's"),
]


@pytest.fixture
def port(identity):
    with tcp.listen(HERE, greeting=0.4) as port:
        port.welcome(identity(), [("party", 2)], timeout=5)
        yield port


def test_words_go_both_ways(port, identity):
    host, number = port.address
    assert host == HERE == LOCAL and number > 0 and is_loopback(host)
    theirs = tcp.dial(host, number, identity(rank=2), ("party", 1), 5).link
    ours = port.accept(5).link
    with theirs, ours:
        theirs.send(b"x" * (3 << 20))
        ours.send(b"y")
        assert bytes(ours.recv(3 << 20)) == b"x" * (3 << 20) and bytes(theirs.recv(1)) == b"y"


def test_who_does_not_know_the_cookie_is_refused(port, identity):
    with pytest.raises(HandshakeError, match="cookie"):
        tcp.dial(*port.address, identity(rank=2, cookie=bytes(32)), ("party", 1), 5)


def test_a_number_that_is_taken_and_one_that_nobody_has(port, identity):
    with pytest.raises(UsageError, match="cannot listen on @"):
        tcp.listen(*port.address)
    gone = port.address
    port.close()
    with pytest.raises(PeerLost, match="does not answer at @"):
        tcp.dial(*gone, identity(rank=2), ("party", 1), 5, patience=0.2)
