"""Who may become a link: both sides agree on a secret or raise the same reason; strangers change nothing."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time

import msgspec
import pytest

from puma.errors import HandshakeError, PeerLost, PeerTimeout, UsageError
from puma.net import frame, handshake, tcp
from puma.net.frame import Kind, header_bytes
from puma.net.guard import Plain
from puma.net.handshake import PROTOCOL, Hello

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.fixture
def port(identity):
    with tcp.listen(greeting=0.4) as port:
        port.welcome(identity(), [("party", 2), ("client", None)], timeout=5)
        yield port


def meet(port, me, expect=("party", 1)):
    dialed = tcp.dial(*port.address, me, expect, deadline=5, timeout=5)
    return dialed, port.accept(5)


def test_both_sides_hold_the_same_new_secret(port, identity):
    secrets = set()
    for _ in range(2):
        theirs, ours = meet(port, identity(rank=2))
        with theirs.link, ours.link:
            assert theirs.secret == ours.secret and len(ours.secret) == 32
            assert (theirs.role, theirs.rank, ours.role, ours.rank) == ("party", 1, "party", 2)
            assert (theirs.link.peer, ours.link.peer) == ("P1", "P2")
            theirs.link.send(b"hello")
            assert bytes(ours.link.recv(5)) == b"hello"
            ours.link.send(b"back")
            assert bytes(theirs.link.recv(4)) == b"back"
            assert theirs.link.sent_bytes == 37
            secrets.add(ours.secret)
            assert ours.secret.hex() not in repr(ours) and repr(ours.secret) not in repr(ours)
    assert len(secrets) == 2
    assert "kkkk" not in repr(identity())


@pytest.mark.parametrize(
    "changes, expect, reason",
    [
        ({"session": b"t" * 16}, ("party", 1), "session mismatch"),
        ({"config": b"d" * 32}, ("party", 1), "config mismatch"),
        ({"cookie": b"x" * 32}, ("party", 1), "cookie mismatch"),
        ({"rank": 0}, ("party", 1), r"rank mismatch \(P1 does not expect P0\)"),
        ({"role": "owner", "rank": 0}, ("party", 1), r"rank mismatch \(P1 does not expect owner\)"),
        ({}, ("party", 0), r"rank mismatch \(P0 was dialed, P1 answered\)"),
    ],
)
def test_both_sides_raise_the_same_reason(port, identity, changes, expect, reason):
    with pytest.raises(HandshakeError, match=reason) as theirs:
        tcp.dial(*port.address, identity(**{"rank": 2, **changes}), expect, deadline=5)
    with pytest.raises(HandshakeError, match=reason) as ours:
        port.accept(5)
    assert str(theirs.value) == str(ours.value) and ours.value.hint
    for end in meet(port, identity(rank=2)):
        end.link.close()


@pytest.mark.parametrize("module, name", [(handshake, "PROTOCOL"), (frame, "VERSION")])
def test_another_version_is_named_on_both_sides(port, identity, monkeypatch, module, name):
    real, ours = getattr(module, name), threading.current_thread()
    # Only the dialing thread pretends to be newer.
    if module is frame:
        monkeypatch.setattr(
            handshake,
            "header_bytes",
            lambda *args: (
                b"PUMA\x07\x00" + header_bytes(*args)[6:] if threading.current_thread() is ours else header_bytes(*args)
            ),
        )
    else:
        monkeypatch.setattr(handshake, "_hello", _newer(handshake._hello, ours))
    with pytest.raises(HandshakeError, match=f"version mismatch .* versions {real} and 7") as theirs:
        tcp.dial(*port.address, identity(rank=2), ("party", 1), deadline=5)
    with pytest.raises(HandshakeError, match=f"version mismatch .* versions {real} and 7") as here:
        port.accept(5)
    assert str(theirs.value) == str(here.value)


def _newer(real, thread):
    def hello(me):
        private, payload = real(me)
        if threading.current_thread() is thread:
            payload = msgspec.msgpack.encode({**msgspec.msgpack.decode(payload), "version": 7, "new": "field"})
        return private, payload

    return hello


def test_a_place_is_taken_once_and_free_after_the_link_ended(port, identity):
    theirs, ours = meet(port, identity(rank=2))
    with pytest.raises(HandshakeError, match=r"rank mismatch \(P1 has a link to P2 already\)"):
        tcp.dial(*port.address, identity(rank=2), ("party", 1), deadline=5)
    with pytest.raises(HandshakeError, match="already"):
        port.accept(5)
    for rank in (0, 7):
        for end in meet(port, identity("client", rank)):
            end.link.close()
    theirs.link.close()
    with pytest.raises(PeerLost):
        ours.link.recv(1)
    for end in (ours, *meet(port, identity(rank=2))):
        end.link.close()


HELLO = msgspec.msgpack.encode(Hello(PROTOCOL, "party", 2, b"s" * 16, b"c" * 32, bytes(32), bytes(32)))
STRANGERS = {
    "silent": b"",
    "http": b"GET / HTTP/1.1\r\n\r\n" + bytes(100),
    "truncated header": header_bytes(Kind.HELLO, 0, 10)[:9],
    "truncated payload": header_bytes(Kind.HELLO, 0, 100) + b"abc",
    "oversized": header_bytes(Kind.HELLO, 0, 1 << 30),
    "data first": header_bytes(Kind.DATA, 0, 0),
    "error first": header_bytes(Kind.ERROR, 0, 3) + b"boo",
    "not msgpack": header_bytes(Kind.HELLO, 0, 3) + b"\xc1\xc1\xc1",
    "other msgpack": header_bytes(Kind.HELLO, 0, 1) + b"\x80",
    "unknown link": header_bytes(Kind.HELLO, 0, 85)
    + msgspec.msgpack.encode(handshake.Attach(bytes(16), bytes(32))).ljust(85, b"\0"),
    "hello and no more": header_bytes(Kind.HELLO, 0, len(HELLO)) + HELLO,
}


def test_strangers_are_refused_within_the_deadline_and_disturb_nobody(port, identity):
    opened = []
    for words in STRANGERS.values():
        sock = socket.create_connection(port.address)
        sock.settimeout(20)
        sock.sendall(words)
        opened.append(sock)
    time.sleep(0.05)
    for end in meet(port, identity("client")):
        end.link.close()
    start = time.monotonic()
    for sock in opened:
        with contextlib.suppress(ConnectionResetError):  # an end or a reset, whichever comes first
            while sock.recv(4096):
                pass
        sock.close()
    assert time.monotonic() - start < 8
    while len(port.refused) < len(STRANGERS) and time.monotonic() - start < 20:
        time.sleep(0.01)
    assert len(port.refused) == len(STRANGERS), list(port.refused)
    for end in meet(port, identity(rank=2)):
        end.link.close()


def test_a_second_socket_shows_the_secret_of_the_first():
    """The number of a link is no secret: who has seen it cannot join it."""
    agreed = handshake.Agreed("party", 2, b"l" * 16, b"s" * 32)
    assert agreed.holds(agreed.attach())
    assert not agreed.holds(handshake.Attach(agreed.link, b"p" * 32))
    assert not agreed.holds(handshake.Agreed("party", 2, b"l" * 16, b"t" * 32).attach())


def test_what_is_agreed_shows_no_secret():
    assert "ssss" not in repr(handshake.Agreed("party", 2, b"l" * 16, b"s" * 32))


def test_a_proof_cannot_be_reflected(port, identity):
    """A dialer without the cookie that sends the listener's own kind of message back gets nowhere."""
    with socket.create_connection(port.address) as sock:
        wire = handshake.Wire(sock, time.monotonic() + 3)
        wire.send(HELLO)
        theirs = wire.recv()
        wire.send(theirs)
        with pytest.raises(HandshakeError, match="cookie mismatch"):
            wire.recv()
    with pytest.raises(HandshakeError, match="cookie mismatch"):
        port.accept(5)


def test_a_listener_cannot_send_a_proof_back_to_its_author(identity):
    """Somebody without the cookie has taken the port: what the dialer proves proves nothing of the listener."""
    me, thief = identity(rank=2), identity(cookie=b"?" * 32)

    def reflect(server):
        sock, _ = server.accept()
        with sock, contextlib.suppress(Exception):
            wire = handshake.Wire(sock, time.monotonic() + 3)
            wire.recv()
            wire.send(handshake._hello(thief)[1])
            wire.send(wire.recv())
            wire.recv()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=reflect, args=(server,), daemon=True)
        thread.start()
        with pytest.raises(HandshakeError, match="cookie mismatch"):
            tcp.dial(*server.getsockname()[:2], me, ("party", 1), deadline=3)
        thread.join(5)


def test_the_dialer_waits_for_a_port_that_opens_late(identity):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = probe.getsockname()[:2]
    box = []

    def late():
        time.sleep(0.2)
        with tcp.listen(*address) as port:
            port.welcome(identity(), [("party", 2)])
            box.append(port.accept(5).link)

    thread = threading.Thread(target=late)
    thread.start()
    tcp.dial(*address, identity(rank=2), ("party", 1), deadline=5).link.close()
    thread.join()
    box[0].close()


def test_deadlines_name_who_is_missing(identity):
    with tcp.listen() as silent:
        with pytest.raises(HandshakeError, match="P1 did not finish the handshake in time"):
            tcp.dial(*silent.address, identity(rank=2), ("party", 1), deadline=0.3)
        address = silent.address
        silent.welcome(identity(), [("party", 2)])
        with pytest.raises(PeerTimeout, match=r"nobody else came .* \(nobody is here\)"):
            silent.accept(0.1)
    with pytest.raises(PeerLost, match=r"P1 does not answer at 127\.0\.0\.1"):
        tcp.dial(*address, identity(rank=2), ("party", 1), deadline=0.2)


def test_a_signal_at_the_end_of_a_wait_does_not_make_it_longer(identity):
    """Else a daemon that is told to stop might never look up again."""
    before = signal.signal(signal.SIGALRM, lambda *_: time.sleep(0.3))
    try:
        with tcp.listen() as port:
            port.welcome(identity(), [("party", 2)])
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(PeerTimeout, match="nobody else came"):
                port.accept(0.2)
    finally:
        signal.signal(signal.SIGALRM, before)


def test_a_port_can_be_had_once():
    with tcp.listen() as port, pytest.raises(UsageError, match="cannot listen"):
        tcp.listen(*port.address)


def test_another_program_on_the_port_is_said_so(identity, aside):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def web_server():
            sock, _ = server.accept()
            with sock:
                sock.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(40))
                sock.recv(4096)

        other = aside(web_server)
        with pytest.raises(HandshakeError, match="P1 broke off the handshake: bad magic"):
            tcp.dial(*server.getsockname()[:2], identity(rank=2), ("party", 1), deadline=3)
        other.result()


def test_every_socket_passes_through_the_guard(identity):
    wrapped, proven = [], []

    class Watched(Plain):
        def wrap(self, sock, dialing):
            wrapped.append(dialing)
            return super().wrap(sock, dialing)

        def prove(self, sock, listener, dialing):
            proven.append((listener, dialing))
            return super().prove(sock, listener, dialing)

    with tcp.listen(guard=Watched()) as port:
        port.welcome(identity(), [("party", 2)])
        dialed = tcp.dial(*port.address, identity(rank=2), ("party", 1), guard=Watched())
        port.accept(5).link.close()
        dialed.link.close()
    assert sorted(wrapped) == [False, False, True, True]
    assert sorted(proven) == [("P1", False)] * 2 + [("P1", True)] * 2


def test_links_that_nobody_accepted_end_with_the_port(identity):
    with tcp.listen() as port:
        port.welcome(identity(), [("party", 2)])
        link = tcp.dial(*port.address, identity(rank=2), ("party", 1)).link
        time.sleep(0.05)
    with link, pytest.raises(PeerLost, match="nobody accepted this link"):
        link.recv(1)
