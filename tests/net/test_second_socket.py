"""The second socket of a link leads to the process that the first one led to, or there is no link."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from puma.errors import HandshakeError
from puma.net import handshake, tcp
from puma.net.handshake import Agreed, Attach, Wire
from puma.net.tls import Tls
from tests.watching.recorder import Recorder

pytestmark = pytest.mark.usefixtures("no_threads_left")
AGREED = Agreed("party", 1, b"l" * 16, b"s" * 32)


class Impostor(Recorder):
    """Passes the first socket on, and answers the second one itself: `answer` makes its words out of the dialer's."""

    def __init__(self, target, answer):
        self.answer = answer
        super().__init__(target)

    def _forth(self, sock, index):
        if index == 0:
            super()._forth(sock, index)
            return
        with sock, contextlib.suppress(Exception):
            wire = Wire(sock, time.monotonic() + 3)
            words = wire.recv()
            wire.send(self.answer(words))
            sock.recv(1 << 16)


ANSWERS = {
    "nothing": lambda words: b"",
    "noise": lambda words: bytes(32),
    "the dialer's own proof": lambda words: msgspec.msgpack.decode(words, type=Attach).proof,
    "the dialer's own words": lambda words: words,
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_somebody_between_cannot_answer_for_the_listener(identity, monkeypatch, answer):
    monkeypatch.setattr(tcp, "ATTACH_SECONDS", 0.3)
    with tcp.listen(greeting=1.0) as port:
        port.welcome(identity(), [("party", 2)])
        impostor = Impostor(port.address, answer)
        with pytest.raises(HandshakeError, match=r"link mismatch \(the second socket to P1"):
            tcp.dial(*impostor.address, identity(rank=2), ("party", 1), 3)
        impostor.close()


def test_somebody_between_who_passes_everything_on_is_none_of_this_files_business(identity):
    with tcp.listen() as port:
        port.welcome(identity(), [("party", 2)])
        relay = Recorder(port.address)
        theirs = tcp.dial(*relay.address, identity(rank=2), ("party", 1), 3).link
        port.accept(3).link.close()
        theirs.close()
        relay.close()


def test_each_side_proves_its_own_half():
    """A proof that is sent back to its author, or belongs to another link, proves nothing."""
    assert AGREED.holds(AGREED.attach()) and AGREED.answered(AGREED.welcome())
    assert not AGREED.holds(Attach(AGREED.link, AGREED.welcome()))
    assert not AGREED.answered(AGREED.attach().proof)
    for other in (Agreed("party", 1, b"m" * 16, AGREED.secret), Agreed("party", 1, AGREED.link, b"t" * 32)):
        assert not AGREED.holds(other.attach()) and not AGREED.answered(other.welcome())


def test_a_listener_that_shows_two_certificates_is_left(identity, keyring):
    """Both are known, and it has the pair secret: a party that takes another's place for half of a link."""

    class Turncoat(Tls):
        def wrap(self, sock, dialing):
            self._listening, self.next = self.next, self._listening
            return super().wrap(sock, dialing)

    guard = Turncoat(keyring.keys["p1"].certificate, keyring.keys["p1"].key, keyring.cluster)
    guard._listening, guard.next = keyring.guard("p0")._listening, guard._listening
    with tcp.listen(guard=guard, greeting=1.0) as port:
        port.welcome(identity(), [("party", 2)])
        with pytest.raises(HandshakeError, match=r"two sockets to P1, two certificates"):
            tcp.dial(*port.address, identity(rank=2), ("party", 1), 3, guard=keyring.guard("p2"))


def test_the_listener_tells_who_attaches_from_who_does_not(identity, monkeypatch):
    """A stranger with the link's number and without its secret; the number crosses a plain link in the clear."""
    monkeypatch.setattr(tcp, "ATTACH_SECONDS", 0.3)
    with tcp.listen(greeting=1.0) as port:
        port.welcome(identity(), [("party", 2)])

        def stranger(words):
            link = msgspec.msgpack.decode(words, type=Attach).link
            with socket.create_connection(port.address) as sock:
                wire = Wire(sock, time.monotonic() + 2)
                wire.send(msgspec.msgpack.encode(Attach(link, bytes(32))))
                with contextlib.suppress(Exception):
                    heard.append(wire.recv())
            return b""

        heard: list[bytes] = []
        impostor = Impostor(port.address, stranger)
        with pytest.raises(HandshakeError, match="link mismatch"):
            tcp.dial(*impostor.address, identity(rank=2), ("party", 1), 3)
        impostor.close()
        end = time.monotonic() + 3
        while not port.refused and time.monotonic() < end:
            time.sleep(0.01)
        assert not heard and "no link waits for this socket" in port.refused[0]


@pytest.fixture
def half_way(monkeypatch):
    """A function that lets links wait before their second socket until so many have come as far."""

    def make(count):
        meeting, dialer = threading.Barrier(count), handshake.dialer

        def waits(*words):
            agreed = dialer(*words)
            meeting.wait(5)
            return agreed

        monkeypatch.setattr(handshake, "dialer", waits)
        return meeting

    return make


def dials(port, identity, session):
    return tcp.dial(*port.address, identity(rank=2, session=bytes([session]) * 16), ("party", 1), 5).link


def test_many_who_wait_for_second_sockets_do_not_keep_them_out(identity, monkeypatch, half_way):
    """As at P0, to which both evaluators and the client of each session come, where many sessions begin at once."""
    monkeypatch.setattr(tcp, "MAX_GREETINGS", 2)
    half_way(6)
    with tcp.listen() as port, ThreadPoolExecutor(6) as pool:
        port.welcome(identity(), [("party", 2)], any_session=True)
        theirs = list(pool.map(lambda session: dials(port, identity, session), range(6)))
        ours = [port.accept(5).link for _ in range(6)]
    for link in (*theirs, *ours):
        link.close()


def test_who_comes_when_there_is_no_room_waits_until_strangers_are_cut_off(identity, monkeypatch):
    monkeypatch.setattr(tcp, "MAX_GREETINGS", 2)
    with contextlib.ExitStack() as opened, tcp.listen(greeting=1.0) as port:
        port.welcome(identity(), [("party", 2)])
        for _ in range(4):
            opened.enter_context(socket.create_connection(port.address))
        theirs, ours = tcp.dial(*port.address, identity(rank=2), ("party", 1), 20).link, port.accept(20).link
        theirs.close()
        ours.close()
        end = time.monotonic() + 10
        while len(port.refused) < 4 and time.monotonic() < end:  # the last may be cut off while another is greeted
            time.sleep(0.01)
        assert len(port.refused) == 4


def test_a_port_that_closes_does_not_wait_for_room(identity, monkeypatch):
    monkeypatch.setattr(tcp, "MAX_GREETINGS", 1)
    port = tcp.listen(greeting=30)
    port.welcome(identity(), [("party", 2)])
    with socket.create_connection(port.address), socket.create_connection(port.address) as late:
        time.sleep(0.1)
        start = time.monotonic()
        port.close()
        assert time.monotonic() - start < 1.5
        late.settimeout(5)
        assert late.recv(1) == b""


def test_only_so_many_may_be_half_way(identity, monkeypatch, half_way):
    """Each takes a thread until its time is over, and whoever has a key can dial in as many sessions as it likes."""
    monkeypatch.setattr(tcp, "MAX_HALVES", 1)
    meeting = half_way(2)
    with tcp.listen(greeting=5) as port, ThreadPoolExecutor(1) as pool:
        port.welcome(identity(), [("party", 2)], any_session=True)
        first = pool.submit(dials, port, identity, 1)
        while not meeting.n_waiting:
            time.sleep(0.01)
        with pytest.raises(HandshakeError, match="P1 greets 1 others at this moment"):
            dials(port, identity, 2)
        with pytest.raises(HandshakeError, match="P1 greets 1 others at this moment"):
            port.accept(5)
        meeting.wait(5)
        first.result().close()
        port.accept(5).link.close()
