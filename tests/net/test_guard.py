"""Where links may go without TLS: the loopback, by literal address, and nowhere else."""

from __future__ import annotations

import socket

import pytest

from puma.errors import FrameError, UsageError
from puma.net import tcp
from puma.net.guard import PLAIN, first_bytes, insecure, is_loopback


@pytest.mark.parametrize("host", ["127.0.0.1", "127.255.1.9", "::1", "[::1]", "localhost", "LOCALHOST"])
def test_the_loopback_is_allowed(host):
    assert is_loopback(host)
    insecure([host])


@pytest.mark.parametrize(
    "host",
    ["", "0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "p0.example.org", "localhost.example.org", "127.0.0.1.org", "127.1"],
)
def test_anything_else_is_refused(host, identity):
    with pytest.raises(UsageError, match="loopback only") as raised:
        insecure(["127.0.0.1", host])
    assert "docs/deploy.md" in raised.value.hint
    with pytest.raises(UsageError, match="loopback only"):
        tcp.listen(host)
    with pytest.raises(UsageError, match="loopback only"):
        tcp.dial(host, 1, identity(), ("party", 2), guard=PLAIN)


def test_tls_may_go_anywhere(keyring):
    keyring.guard("p1").check_host("p0.example.org")
    with tcp.listen("0.0.0.0", guard=keyring.guard("p1")) as port:
        assert port.address[0] == "0.0.0.0"


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6 here")
def test_links_over_ipv6(identity, keyring):
    try:
        port = tcp.listen("::1", guard=keyring.guard("p1"))
    except UsageError:
        pytest.skip("no IPv6 loopback here")
    with port:
        port.welcome(identity(), [("party", 2)])
        dialed = tcp.dial("::1", port.address[1], identity(rank=2), ("party", 1), 5, guard=keyring.guard("p2"))
        port.accept(5).link.close()
        dialed.link.close()


def test_first_bytes_stay_where_they_are():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"abcdef")
        assert first_bytes(ours, 4) == b"abcd" and ours.recv(10) == b"abcdef"
        theirs.close()
        with pytest.raises(FrameError, match="before its first byte"):
            first_bytes(ours, 4)
