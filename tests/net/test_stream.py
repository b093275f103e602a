"""A link over raw sockets whose other side misbehaves: every lie is named, and nothing hangs."""

from __future__ import annotations

import queue
import socket
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from puma.errors import FrameError, PeerLost, PeerTimeout
from puma.net import stream, tcp
from puma.net.frame import MAGIC, Kind, header_bytes
from puma.net.stream import StreamLink
from puma.net.tcp import dial, listen

pytestmark = pytest.mark.usefixtures("no_threads_left")


@pytest.fixture
def raw(monkeypatch):
    """A link, and the sockets at the other side of it: the one to write into and the one to read from; no beats."""
    monkeypatch.setattr(stream.PULSE, "add", lambda link: None)
    outbound, reads = socket.socketpair()
    inbound, writes = socket.socketpair()
    link = StreamLink("P1", "P2", outbound, inbound, timeout=0.25)
    yield link, writes, reads
    link.close()
    for sock in (reads, writes):
        sock.close()


SILENT = r"P2 (fell silent for 0\.25 s in the middle|sent nothing for 0\.25 s)"
LIES = {
    "http": (lambda due: b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", FrameError, "P2: bad magic"),
    "version": (lambda due: MAGIC + b"\x09\x00" + bytes(26), FrameError, "P2: bad version .* 9, here 2"),
    "kind": (lambda due: header_bytes(99, 0, 0), FrameError, "P2: bad kind"),
    "data": (
        lambda due: header_bytes(Kind.DATA, due, (1 << 30) + 1),
        FrameError,
        "P2: bad length .* 1073741824",
    ),
    "control": (lambda due: header_bytes(Kind.CONTROL, 0, 1 << 25), FrameError, "P2: bad length"),
    "sequence": (
        lambda due: header_bytes(Kind.DATA, due + 3, 0),
        FrameError,
        r"bad seq.* frame \d where \d was due",
    ),
    "replay": (
        lambda due: header_bytes(Kind.CONTROL, 7, 0),
        FrameError,
        "P2 sent control frame 7 where 0 was due",
    ),
    "hello": (lambda due: header_bytes(Kind.HELLO, 0, 0), FrameError, "P2 sent a hello in the middle"),
    "error": (
        lambda due: header_bytes(Kind.ERROR, 0, 8) + b"why \x1b[2J",
        PeerLost,
        r"P2 stopped: why \?\[2J",
    ),
    "bye": (lambda due: header_bytes(Kind.BYE, 0, 0), PeerLost, "P2 closed its link"),
    "half frame": (lambda due: header_bytes(Kind.DATA, due, 4) + b"ab", PeerTimeout, SILENT),
    "half header": (lambda due: header_bytes(Kind.DATA, due, 4)[:20], PeerTimeout, SILENT),
}


def leave_socket_to_caller(link, writes, aside):
    """One awaited frame: having brought it, the receiving thread leaves the socket to the caller."""
    waiting = aside(link.recv, 0)
    time.sleep(0.02)
    writes.sendall(header_bytes(Kind.DATA, 0, 0))
    waiting.result()


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("direct", [False, True], ids=["thread reads", "caller reads"])
def test_lies_are_named(raw, aside, lie, direct):
    link, writes, _ = raw
    sent, error, message = LIES[lie]
    if direct:
        leave_socket_to_caller(link, writes, aside)
    writes.sendall(sent(int(direct)))
    for _ in range(2):
        with pytest.raises(error, match=message):
            link.recv(4)


@pytest.mark.parametrize("sent", [b"", MAGIC, header_bytes(Kind.DATA, 0, 9), header_bytes(Kind.DATA, 0, 9) + b"x"])
def test_an_end_without_a_goodbye_is_a_loss(raw, sent):
    link, writes, _ = raw
    writes.sendall(sent)
    writes.close()
    with pytest.raises(PeerLost, match="P2 is gone: its connection ended without a goodbye"):
        link.recv(9)


def test_an_announced_gigabyte_is_not_allocated(raw, monkeypatch):
    link, writes, _ = raw
    asked = []
    monkeypatch.setattr(stream, "owned", lambda size: asked.append(size) or memoryview(bytearray(size)))
    writes.sendall(header_bytes(Kind.DATA, 0, 1 << 30) + bytes(1000))
    with pytest.raises(PeerTimeout, match=SILENT):
        link.recv(4)
    assert asked == [stream.STEP_BYTES]


def test_memory_grows_with_what_arrives(raw):
    link, writes, _ = raw
    data = np.arange(11 << 20).astype(np.uint8).tobytes()
    time.sleep(0.02)
    writes.sendall(header_bytes(Kind.DATA, 0, len(data)) + data)
    assert bytes(link.recv(len(data))) == data


def test_the_reason_on_one_socket_explains_the_loss_of_the_other(raw):
    link, writes, reads = raw
    writes.sendall(header_bytes(Kind.ERROR, 0, 8) + b"the disk")
    reads.close()
    with pytest.raises(PeerLost, match="P2 stopped: the disk"):
        for _ in range(3):
            link.send(bytes(1 << 16))


def test_a_lost_reader_is_a_loss(raw):
    link, _, reads = raw
    reads.close()
    with pytest.raises(PeerLost, match="P2 is gone"):
        link.send(b"x")


def test_ends_are_framed(raw):
    link, _, reads = raw
    link.fail("no")
    assert reads.recv(100) == header_bytes(Kind.ERROR, 0, 2) + b"no"
    assert reads.recv(100) == b""


DIES = """
import os, sys
from puma.net.handshake import Identity
from puma.net.tcp import dial
me = Identity("party", 2, b"s" * 16, b"c" * 32, b"k" * 32)
link = dial("127.0.0.1", int(sys.argv[1]), me, ("party", 1)).link
for _ in range(int(sys.argv[2])):
    link.send(link.recv(64))
link.send(bytes(link.recv(64))[:32])
os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("rounds", [0, 50])
def test_a_killed_process_is_noticed_at_once(identity, rounds):
    with listen() as port:
        port.welcome(identity(), [("party", 2)])
        with subprocess.Popen([sys.executable, "-c", DIES, str(port.address[1]), str(rounds)]) as process:
            with port.accept(20).link as link:
                for _ in range(rounds):
                    link.send(struct.pack("<Q", 1) * 8)
                    link.recv(64)
                link.send(bytes(64))
                link.recv(32)
                start = time.monotonic()
                with pytest.raises(PeerLost, match="P2 is gone"):
                    link.recv(64)
                with pytest.raises(PeerLost, match="P2 is gone"):
                    link.send(bytes(64))
                assert time.monotonic() - start < 5  # before beats could tell
            process.wait(5)


def test_the_receiving_thread_leaves_a_caller_in_peace_that_keeps_reading(raw, aside):
    link, writes, _ = raw
    looks, wait = [], link._takeover.wait
    link._takeover.wait = lambda seconds: looks.append(seconds) or wait(seconds)
    frame = bytes(8)
    leave_socket_to_caller(link, writes, aside)
    for due in range(1, 101):
        writes.sendall(header_bytes(Kind.DATA, due, len(frame)) + frame)
        link.recv(len(frame))
        time.sleep(0.004)
    assert max(looks) == stream.LONGEST_TICK and len(looks) < 40  # every five milliseconds: 80 or more


class Lingering(queue.SimpleQueue):
    """Whoever puts something in stays for a while, as a thread may that loses the processor just then."""

    def put(self, *args, **kwargs):
        super().put(*args, **kwargs)
        time.sleep(0.1)


def test_a_port_that_closes_leaves_accepted_links_alone(identity, aside, monkeypatch):
    monkeypatch.setattr(tcp.queue, "SimpleQueue", Lingering)
    port = listen()
    port.welcome(identity(), [("party", 2)])
    dialing = aside(dial, "127.0.0.1", port.address[1], identity(rank=2), ("party", 1))
    with port.accept(20).link as here:
        port.close()
        with dialing.result().link as there:
            here.send(b"there")
            assert bytes(there.recv(5)) == b"there"
            there.send(b"and back")
            assert bytes(here.recv(8)) == b"and back"


def test_a_link_on_which_the_next_frame_has_been_read_already_is_not_quiet(raw):
    """Who draws masks until something comes would let the other wait: no socket says that it is there."""
    link, writes, _ = raw
    assert link.quiet
    writes.sendall(header_bytes(Kind.DATA, 0, 3) + b"one" + header_bytes(Kind.DATA, 1, 3) + b"two")
    assert bytes(link.recv(3)) == b"one"
    assert not link.quiet
    assert bytes(link.recv(3)) == b"two" and link.quiet


def frames(*payloads):
    return b"".join(header_bytes(Kind.DATA, i, len(each)) + each for i, each in enumerate(payloads))


def nothing_came(reads):
    reads.setblocking(False)
    with pytest.raises(BlockingIOError):
        reads.recv(1)
    reads.setblocking(True)


def test_small_frames_wait_for_each_other_while_they_are_gathered(raw):
    link, _, reads = raw
    link.gather(True)
    link.send(b"one")
    link.send(b"t", b"wo")
    nothing_came(reads)
    assert link.sent_bytes == len(frames(b"one", b"two"))
    link.gather(True)  # before something that takes long
    assert reads.recv(1000) == frames(b"one", b"two")
    link.send(b"three")
    nothing_came(reads)
    link.gather(False)
    link.send(b"four")
    assert reads.recv(1000) == frames(b"", b"", b"three", b"four")[2 * len(frames(b"")) :]


def test_what_is_gathered_leaves_before_anything_else_and_when_it_is_much(raw):
    link, _, reads = raw
    link.gather(True)
    link.send(b"one")
    link.send_control(b"word")
    assert reads.recv(1000) == frames(b"one") + header_bytes(Kind.CONTROL, 0, 4) + b"word"
    link.send(b"two")
    link.send(bytes(stream.JOIN_BYTES))  # is not copied
    sent, expected = b"", 2 * len(frames(b"")) + 3 + stream.JOIN_BYTES
    while len(sent) < expected:
        sent += reads.recv(1 << 20)
    assert sent == frames(b"one", b"two", bytes(stream.JOIN_BYTES))[len(frames(b"one")) :]
    for _ in range(3):
        link.send(bytes(stream.GATHERED_BYTES // 2 - len(frames(b""))))
    assert len(reads.recv(1 << 20)) == stream.GATHERED_BYTES
    nothing_came(reads)


def test_nothing_that_was_gathered_leaves_on_a_link_that_is_over(raw):
    link, _, reads = raw
    link.gather(True)
    link.send(b"one")
    link.fail("no")
    link.gather(False)
    assert reads.recv(1000) == header_bytes(Kind.ERROR, 0, 2) + b"no"
