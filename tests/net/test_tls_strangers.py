"""What strangers and thieves get from a guarded port: nothing, by a deadline, and nobody else notices."""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import replace

import pytest

from puma.errors import FrameError, HandshakeError, PeerTimeout
from puma.net import stream, tcp
from puma.net.frame import Kind, header_bytes
from puma.net.guard import PLAIN
from puma.net.tls import Tls
from tests.watching.recorder import Recorder, replay

pytestmark = pytest.mark.usefixtures("no_threads_left")
ANYBODY = [("party", 0), ("party", 2), ("client", None)]
SILENT = r"P1 (fell silent for 0\.3 s in the middle of a frame|sent nothing for 0\.3 s)"


def wait_for(found, count, seconds=20.0):
    end = time.monotonic() + seconds
    while len(found) < count and time.monotonic() < end:
        time.sleep(0.01)
    return list(found)


def test_the_second_socket_must_show_the_same_certificate(identity, keyring):
    """A party that takes over an address between the two sockets of a link learns nothing and gets nothing."""
    with tcp.listen(guard=keyring.guard("p1")) as port:
        port.welcome(identity(), ANYBODY)

        class Turncoat(Tls):
            def wrap(self, sock, dialing):
                self._dialing, self.next = self.next, self._dialing
                return super().wrap(sock, dialing)

        guard = Turncoat(keyring.keys["p2"].certificate, keyring.keys["p2"].key, keyring.cluster)
        guard.next = keyring.guard("p0")._dialing
        guard._dialing, guard.next = guard.next, guard._dialing
        with pytest.raises(HandshakeError, match="P1 broke off"):
            tcp.dial(*port.address, identity(rank=2), ("party", 1), 3, guard=guard)
        assert any("no link waits for this socket" in reason for reason in wait_for(port.refused, 1))


def test_a_dialer_compares_the_certificates_of_both_sockets(identity, keyring):
    """Whoever answers the second socket with another key is told nothing of the link, and the listener hears why."""

    class Credulous(Tls):
        """Sees somebody else on the second socket."""

        sockets = 0

        def prove(self, sock, listener, dialing):
            found = super().prove(sock, listener, dialing)
            self.sockets += 1
            return found if self.sockets == 1 else replace(found, theirs="puma1:another")

    guard = Credulous(keyring.keys["p2"].certificate, keyring.keys["p2"].key, keyring.cluster)
    with tcp.listen(guard=keyring.guard("p1")) as port:
        port.welcome(identity(), ANYBODY)
        with pytest.raises(HandshakeError, match="two sockets to P1, two certificates"):
            tcp.dial(*port.address, identity(rank=2), ("party", 1), 3, guard=guard)
        with pytest.raises((HandshakeError, PeerTimeout)):
            port.accept(0.5)


def test_nothing_is_resumed(identity, keyring):
    """No ticket comes from a listener: every socket shows its certificate anew."""
    with tcp.listen(guard=keyring.guard("p1")) as port:
        port.welcome(identity(), ANYBODY)
        met = tcp.dial(*port.address, identity(rank=2), ("party", 1), 5, guard=keyring.guard("p2"))
        ours = port.accept(5)
        ours.link.send(b"words")  # a ticket would come before them
        assert bytes(met.link.recv(5)) == b"words"
        sockets = [s for s in vars(met.link).values() if isinstance(s, ssl.SSLSocket)]
        assert len(sockets) == 2 and not any(s.session and s.session.has_ticket for s in sockets)
        for link in (met.link, ours.link):
            link.close()


@pytest.mark.parametrize("guarded", [True, False], ids=["tls", "plain"])
def test_a_recorded_handshake_opens_nothing(identity, keyring, guarded, monkeypatch):
    monkeypatch.setattr(tcp, "ATTACH_SECONDS", 0.3)
    guards = (keyring.guard("p1"), keyring.guard("p2")) if guarded else (PLAIN, PLAIN)
    with tcp.listen(guard=guards[0], greeting=1.0) as port:
        port.welcome(identity(), ANYBODY)
        relay = Recorder(port.address)
        theirs = tcp.dial(*relay.address, identity(rank=2), ("party", 1), 5, guard=guards[1]).link
        ours = port.accept(5).link
        ours.close()
        theirs.close()
        relay.close()
        recorded = list(relay.said)
        assert len(recorded) == 2 and all(len(said) > 100 for said in recorded)
        for said in recorded:
            replay(said, port.address)
        if guarded:
            assert len(wait_for(port.refused, 2)) == 2
        else:
            with pytest.raises(HandshakeError, match="cookie mismatch"):
                port.accept(2)
        with pytest.raises(PeerTimeout):
            port.accept(0.05)


HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"  # a ClientHello's first bytes
STRANGERS = {
    "nothing": [b""],
    "http": [b"GET / HTTP/1.1\r\n\r\n"],
    "noise": [b"\x00\xff" * 400],
    "half a hello": [HELLO],
    "hello of noise": [HELLO + bytes(600)],
    "an alert": [b"\x15\x03\x03\x00\x02\x02\x28"],
    "huge record": [b"\x16\x03\x01\xff\xff" + bytes(3000)],
    "byte by byte": [HELLO[i : i + 1] for i in range(len(HELLO))],
}


def test_strangers_end_by_the_deadline_and_disturb_nobody(identity, keyring, logs):
    audits, read = logs
    with tcp.listen(guard=keyring.guard("p1"), greeting=0.6, audit=audits["in"]) as port:
        port.welcome(identity(), ANYBODY)
        opened = {name: socket.create_connection(port.address) for name in STRANGERS}
        start = time.monotonic()
        for step in range(len(HELLO)):
            for name, pieces in STRANGERS.items():
                if step < len(pieces):
                    with contextlib.suppress(OSError):
                        opened[name].sendall(pieces[step])
            time.sleep(0.02)
        theirs = tcp.dial(*port.address, identity(rank=2), ("party", 1), 5, guard=keyring.guard("p2"))
        port.accept(5).link.close()
        theirs.link.close()
        for sock in opened.values():
            sock.settimeout(20)
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(4096):
                    pass
            sock.close()
        assert time.monotonic() - start < 8
        assert len(wait_for(port.refused, len(STRANGERS))) == len(STRANGERS)
    assert sum(line["outcome"] == "refused" for line in read("in")) == len(STRANGERS)
    assert all(line["reason"] for line in read("in") if line["outcome"] == "refused")


def test_a_dialer_gives_up_on_a_silent_port_by_its_deadline(identity, keyring):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(HandshakeError, match="P1 did not finish the handshake in time"):
            tcp.dial(*silent.getsockname(), identity(rank=2), ("party", 1), 0.3, guard=keyring.guard("p2"))  # type: ignore[call-arg]
        assert time.monotonic() - start < 8


def test_a_port_that_closes_ends_its_greetings(identity, keyring):
    port = tcp.listen(guard=keyring.guard("p1"), greeting=30)
    port.welcome(identity(), ANYBODY)
    with socket.create_connection(port.address) as sock:
        sock.sendall(HELLO)
        time.sleep(0.1)
        start = time.monotonic()
        port.close()
        assert time.monotonic() - start < 8


@pytest.mark.parametrize("make_links", ["tls"], indirect=True)
def test_a_slow_peer_ends_by_the_deadline(make_links, monkeypatch):
    monkeypatch.setattr(stream.PULSE, "add", lambda link: None)
    a, b = make_links(timeout=0.3)
    a._outbound.sendall(header_bytes(Kind.DATA, 0, 100)[:20])
    start = time.monotonic()
    with pytest.raises(PeerTimeout, match=SILENT):
        b.recv(100)
    assert time.monotonic() - start < 8


@pytest.mark.parametrize("make_links", ["tls"], indirect=True)
def test_an_announced_gigabyte_is_neither_allocated_nor_read_beyond_the_limit(make_links, monkeypatch):
    asked = []
    monkeypatch.setattr(stream.PULSE, "add", lambda link: None)
    monkeypatch.setattr(stream, "owned", lambda size: asked.append(size) or memoryview(bytearray(size)))
    a, b = make_links(timeout=0.3)
    a._outbound.sendall(header_bytes(Kind.DATA, 0, 1 << 30) + bytes(1000))
    with pytest.raises(PeerTimeout, match=SILENT):
        b.recv(4)
    assert asked == [stream.STEP_BYTES]
    a, b = make_links(timeout=5)
    a._outbound.sendall(header_bytes(Kind.DATA, 0, (1 << 30) + 1))
    with pytest.raises(FrameError, match="P1: bad length"):
        b.recv(4)
