"""Heartbeats: a peer that lives is kept, one that merely has its sockets open is given up."""

from __future__ import annotations

import select
import socket
import sys
import threading
import time

import pytest

from puma.errors import PeerLost, PeerTimeout
from puma.net import at_once, pulse, stream
from puma.net.frame import Kind, header_bytes
from puma.net.pulse import Pulse
from puma.net.stream import StreamLink

pytestmark = pytest.mark.usefixtures("no_threads_left")
BEAT = header_bytes(Kind.BEAT, 0, 0)


@pytest.fixture
def heart(monkeypatch):
    """A pulse whose looks the test takes itself."""
    mine = Pulse()
    monkeypatch.setattr(mine, "_thread", object())
    monkeypatch.setattr(stream, "PULSE", mine)
    return mine


@pytest.fixture
def raw(heart):
    """A link, and the sockets at the other side of it: the one to write into and the one to read from."""
    outbound, reads = socket.socketpair()
    inbound, writes = socket.socketpair()
    reads.settimeout(5)
    link = StreamLink("P1", "P2", outbound, inbound, timeout=5)
    yield link, writes, reads
    link.close()
    for sock in (reads, writes):
        sock.close()


def later(heart, seconds):
    """Look every second until so much later."""
    now = time.monotonic()
    for second in range(int(seconds) + 1):
        heart.look(now + second)


def test_a_link_beats(raw, heart):
    link, _, reads = raw
    heart.look(time.monotonic())
    assert reads.recv(100) == BEAT
    assert link.sent_bytes == 0, "beats are no traffic of the protocol's"
    link.close()
    heart.look(time.monotonic())
    assert reads.recv(100) == header_bytes(Kind.BYE, 0, 0)


def test_a_silent_peer_is_given_up_and_whoever_waits_is_woken(raw, heart, aside):
    link, _, _ = raw
    waiting = aside(link.recv, 1)
    stuck = aside(link.send, bytes(64 << 20))
    time.sleep(0.1)
    later(heart, pulse.SILENT - 1)
    assert not link.lost
    later(heart, pulse.SILENT + 1)
    for each in (waiting, stuck):
        with pytest.raises(PeerLost, match="P2 has given no sign of life for 6 s"):
            each.result(2)


def test_whoever_beats_is_kept(raw, heart):
    link, writes, _ = raw
    before = link.heard
    time.sleep(0.05)
    writes.sendall(BEAT + header_bytes(Kind.DATA, 0, 2) + b"ab" + BEAT)
    assert link.recv(2) == b"ab"
    assert link.heard > before
    heart.look(before + pulse.SILENT + 0.01)
    assert not link.lost


@pytest.mark.parametrize("direct", [False, True], ids=["thread reads", "caller reads"])
def test_beats_do_not_stretch_a_deadline(raw, aside, direct):
    link, writes, _ = raw
    link.set_timeout(0.3)
    if direct:
        first = aside(link.recv, 0)
        time.sleep(0.02)
        writes.sendall(header_bytes(Kind.DATA, 0, 0))
        first.result()
    waiting = aside(link.recv, 1)
    end = time.monotonic() + 0.6
    while time.monotonic() < end:
        writes.sendall(BEAT)
        time.sleep(0.05)
    with pytest.raises(PeerTimeout, match=r"sent nothing for 0\.3 s"):
        waiting.result(0.2)


def test_a_process_that_was_away_blames_nobody(raw, heart):
    link, _, _ = raw
    now = time.monotonic()
    heart.look(now)
    heart.look(now + 100)
    assert not link.lost
    later(heart, 0)


def test_what_nobody_takes_here_is_not_the_peers_silence(heart):
    outbound, reads = socket.socketpair()
    inbound, writes = socket.socketpair()
    link = StreamLink("P1", "P2", outbound, inbound, timeout=5, queue_bytes=1)
    try:
        writes.sendall(header_bytes(Kind.DATA, 0, 2) + b"ab")
        end = time.monotonic() + 2
        while not link.inbox.full and time.monotonic() < end:
            time.sleep(0.01)
        later(heart, pulse.SILENT + 2)
        assert not link.lost
        assert link.recv(2) == b"ab"
    finally:
        link.close()
        reads.close()
        writes.close()


def test_what_nobody_here_has_had_time_to_read_is_not_the_peers_silence(heart, monkeypatch):
    """A machine that has too much to do lets a thread wait for seconds: what has come meanwhile is a sign of life."""
    monkeypatch.setattr(StreamLink, "_receive", lambda link: None)
    outbound, reads = socket.socketpair()
    inbound, writes = socket.socketpair()
    link = StreamLink("P1", "P2", outbound, inbound, timeout=5)
    try:
        writes.sendall(BEAT)
        later(heart, pulse.SILENT + 2)
        assert not link.lost
        link._fill(memoryview(bytearray(len(BEAT))), begun=False)
        later(heart, 2 * pulse.SILENT + 2)
        assert link.lost, "nothing has come since"
    finally:
        link.close()
        reads.close()
        writes.close()


@pytest.mark.parametrize("make_links", ["plain", "tls"], indirect=True)
def test_beats_travel_on_real_links(make_links, monkeypatch):
    monkeypatch.setattr(pulse, "EVERY", 0.05)
    a, b = make_links()
    time.sleep(1.2)  # the look that is under way may still take a whole second
    before = a.heard
    time.sleep(0.3)
    assert a.heard > before
    a.send(b"abc")
    assert b.recv(3) == b"abc"


@pytest.mark.parametrize("busy", [False, True], ids=["nobody computes", "a thread computes"])
def test_beats_on_many_links_take_no_time(busy, heart):
    """Not even where a thread holds Python's lock whenever it can: each link that let go of it would wait for it."""
    pairs = [(socket.socketpair(), socket.socketpair()) for _ in range(40)]
    links = [StreamLink("P1", "P2", out, inbound, timeout=5) for (out, _), (inbound, _) in pairs]
    over = threading.Event()

    def compute() -> None:
        while not over.is_set():
            sum(range(1000))

    thread = threading.Thread(target=compute)
    before = sys.getswitchinterval()
    try:
        if busy:
            sys.setswitchinterval(0.05)
            thread.start()
        times = []
        for _ in range(3):
            began = time.monotonic()
            heart.look(began)
            times.append(time.monotonic() - began)
        assert min(times) < 40 * 0.05 / 4
        assert all(reads.recv(1000) == 3 * BEAT for (_, reads), _ in pairs)
    finally:
        over.set()
        if busy:
            thread.join()
        sys.setswitchinterval(before)
        for link in links:
            link.close()
        for (_, reads), (_, writes) in pairs:
            reads.close()
            writes.close()


def test_a_socket_that_takes_nothing_is_not_waited_for():
    ours, theirs = socket.socketpair()
    while at_once.send(ours, bytes(1 << 16)):
        pass
    assert not at_once.ready(ours, select.POLLOUT) and at_once.ready(theirs, select.POLLIN)
    assert not at_once.ready(ours, select.POLLIN)
    theirs.close()
    ours.close()
    assert not at_once.ready(ours, select.POLLOUT) and at_once.send(ours, b"x") == 0
