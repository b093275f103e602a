"""Listening and dialing: how a link comes to be between two processes. The dialer opens two sockets to
one port, shows on the first who it is and on the second that it belongs to the first, as does the listener; then each
socket carries one direction. A stranger on the port costs the listener one short-lived thread and is forgotten.
A guard (guard.py, tls.py) stands around each socket before its first byte, and an audit log hears of every
link that comes to be or is refused."""

from __future__ import annotations

import contextlib
import queue
import socket
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from time import monotonic, sleep

import msgspec

from puma.errors import FrameError, HandshakeError, PeerLost, PeerTimeout, ProtocolError, UsageError
from puma.net import handshake
from puma.net.audit import NOWHERE, Log, Visit
from puma.net.endpoint import QUEUE_BYTES, TIMEOUT, remaining
from puma.net.guard import PLAIN, Guard
from puma.net.handshake import Agreed, Attach, Identity, Proven, Role, Wire
from puma.net.sockets import address, caller, reached, served, tune
from puma.net.stream import StreamLink

Seat = tuple[str, int, str, bytes]  # role, rank, fingerprint, session

# From the first byte to a finished link; strangers who say nothing are cut off after it.
GREETING_SECONDS = 10.0
MAX_GREETINGS = 64  # of dialers who have not shown yet who they are; more wait for them to do so, or to be cut off
MAX_HALVES = 512  # links whose second socket is on its way: where many sessions begin at once, several for each
ATTACH_SECONDS = 2.0
RETRY_SECONDS = 0.05


@dataclass(frozen=True)
class Met:
    """A link that has just come to be: who is at the other end, and the secret of this pair.

    `name` is what the cluster file calls the other end, and `fingerprint` its key's; both are empty on plain links.
    `session` is the one that the dialer named.
    """

    link: StreamLink
    role: Role
    rank: int
    secret: bytes = field(repr=False)
    name: str = ""
    fingerprint: str = ""
    session: bytes = b""


def listen(
    host: str = "127.0.0.1",
    port: int = 0,
    guard: Guard = PLAIN,
    greeting: float = GREETING_SECONDS,
    audit: Log = NOWHERE,
) -> Listener:
    """Bind a port (0: any free one). Dialers wait from now on; `welcome` lets them in.

    UsageError if the port cannot be had, or if the guard is not enough for this host.
    """
    guard.check_host(host)
    try:
        sock = served(host, port)
    except OSError as error:
        what = f"cannot listen on {host} port {port}: {error.strerror or error}"
        raise UsageError(what, "is this party running already? else pick another port") from None
    return Listener(sock, guard, greeting, audit)


def dial(
    host: str,
    port: int,
    me: Identity,
    expect: tuple[Role, int],
    deadline: float = 30.0,
    timeout: float = TIMEOUT,
    guard: Guard = PLAIN,
    queue_bytes: int = QUEUE_BYTES,
    audit: Log = NOWHERE,
    patience: float | None = None,
) -> Met:
    """A link to `expect` at this address; all of it takes `deadline` seconds at most, and a port that is not open yet
    is tried again for `patience` of these.

    HandshakeError if either side refuses, PeerLost if nobody answers, UsageError if the guard is not enough for this
    host.
    """
    guard.check_host(host)
    visit = Visit("out", f"{host}:{port}", *expect)
    try:
        now = monotonic()
        opening = now + (deadline if patience is None else min(patience, deadline))
        met = _dialed(host, port, me, expect, (opening, now + deadline), timeout, guard, queue_bytes, visit)
    except ProtocolError as error:
        audit.link(visit, error.message)
        raise
    audit.link(visit)
    return met


def _dialed(
    host: str,
    port: int,
    me: Identity,
    expect: tuple[Role, int],
    ends: tuple[float, float],
    timeout: float,
    guard: Guard,
    queue_bytes: int,
    visit: Visit,
) -> Met:
    peer = handshake.name_of(*expect)
    with contextlib.ExitStack() as opened:
        try:
            first = _connect(host, port, peer, ends, guard, opened)
            if first.proven:
                visit.fingerprint, visit.name = first.proven.theirs, first.proven.name(*expect)
            agreed = handshake.dialer(first, me, expect)
            second = _connect(host, port, peer, (ends[1], ends[1]), guard, opened)
            if second.proven != first.proven:
                problem = handshake.refusal("certificate", f"two sockets to {peer}, two certificates")
                second.refuse(problem)
                raise problem
            second.send(msgspec.msgpack.encode(agreed.attach()))
            if not agreed.answered(second.recv()):
                problem = handshake.refusal("link", f"the second socket to {peer} does not lead to the same process")
                second.refuse(problem)
                raise problem
        except HandshakeError:
            raise
        except (OSError, ProtocolError) as error:
            if isinstance(error, PeerLost | PeerTimeout):
                raise
            known = guard.explained(error, peer, dialing=True) if isinstance(error, OSError) else None
            raise known or handshake.handshake_failed(peer, error) from None
        opened.pop_all()
    link = StreamLink(me.name, peer, first.sock, second.sock, timeout, queue_bytes)
    link.chain_key = agreed.chain_key
    return Met(link, agreed.role, agreed.rank, agreed.secret, visit.name, visit.fingerprint, me.session)


def _connect(
    host: str, port: int, peer: str, ends: tuple[float, float], guard: Guard, opened: contextlib.ExitStack
) -> Wire:
    """A socket that is open by the first of `ends`, and proven by the second."""
    opening, end = ends
    while True:
        try:
            sock = reached(host, port, max(0.01, remaining(opening)))
            break
        except OSError as error:
            if monotonic() + RETRY_SECONDS >= opening:
                what = f"{peer} does not answer at {host} port {port}: {error.strerror or error}"
                raise PeerLost(what, "is that party running, and is the address right?") from None
            sleep(RETRY_SECONDS)
    opened.callback(sock.close)
    tune(sock)
    sock.settimeout(max(0.01, remaining(end)))
    wrapped = guard.wrap(sock, dialing=True)
    opened.callback(wrapped.close)
    return Wire(wrapped, end, guard.prove(wrapped, peer, dialing=True))


class Listener:
    """An open port. `welcome` says who we are and whom we expect; `accept` gives the links as they come."""

    def __init__(self, sock: socket.socket, guard: Guard, greeting: float, audit: Log) -> None:
        self._socket = sock
        self._guard = guard
        self._greeting = greeting
        self._audit = audit
        self.refused: deque[str] = deque(maxlen=100)  # what strangers did, for a log
        # not a SimpleQueue, which waits for ever if the time is over once a signal's handler has ended (CPython 3.11)
        self._met: queue.Queue[Met | HandshakeError] = queue.Queue()
        self._lock = threading.Condition()
        self._greetings: dict[threading.Thread, socket.socket | None] = {}  # None: the socket is a link's already
        self._seats: dict[Seat, StreamLink | None] = {}  # None: being greeted
        self._waiting: dict[bytes, tuple[Agreed, Proven | None, queue.SimpleQueue[socket.socket | None]]] = {}
        self._closed = False
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> tuple[str, int]:
        """Host and port, the real ones."""
        return address(self._socket)

    def welcome(
        self,
        me: Identity,
        expect: Iterable[tuple[Role, int | None]],
        timeout: float = TIMEOUT,
        queue_bytes: int = QUEUE_BYTES,
        any_session: bool = False,
    ) -> None:
        """From now on let in whoever is expected; rank None stands for any rank of that role.

        With `any_session` the dialer names the session, and `Met` tells which; else it must be ours.
        """
        self._me, self._any_session = me, any_session
        self._expect = frozenset(expect)
        self._timeout = timeout
        self._queue_bytes = queue_bytes
        self._thread = threading.Thread(target=self._listen, name=f"puma {me.name} listens", daemon=True)
        self._thread.start()

    def accept(self, timeout: float = 30.0) -> Met:
        """The next link; HandshakeError if a peer came that may not come in, and the port stays open."""
        try:
            met = self._met.get(timeout=timeout)
        except queue.Empty:
            seats = sorted(handshake.name_of(*seat[:2]) for seat, link in self._seats.items() if link is not None)
            here = ", ".join(seats) or "nobody"
            host, port = self.address
            what = f"nobody else came to {host} port {port} for {timeout:g} s ({here} is here)"
            raise PeerTimeout(what, "are all parties started, with the same cluster file?") from None
        if isinstance(met, HandshakeError):
            raise met
        return met

    def close(self) -> None:
        """Close the port; links that were accepted stay, links that nobody accepted end."""
        with self._lock:
            self._closed = True
            self._lock.notify_all()
            greetings = dict(self._greetings)
            for _, _, handover in self._waiting.values():
                handover.put(None)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for sock in filter(None, greetings.values()):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(sock, socket.SHUT_RDWR)
        for thread in (self._thread, *greetings):
            if thread is not None:
                thread.join(2.0)
        with contextlib.suppress(queue.Empty):
            while True:
                met = self._met.get_nowait()
                if isinstance(met, Met):
                    met.link.fail("nobody accepted this link")

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _listen(self) -> None:
        while True:
            try:
                sock, found = self._socket.accept()
            except OSError:
                if self._closed:
                    return
                sleep(RETRY_SECONDS)  # out of file descriptors, or a dialer that was gone at once
                continue
            with self._lock:
                self._lock.wait_for(self._has_room)
                closed = self._closed
                if not closed:
                    visit = Visit("in", caller(found))
                    thread = threading.Thread(target=self._greet, args=(sock, visit), name="puma greets", daemon=True)
                    self._greetings[thread] = sock
                    thread.start()
            if closed:
                sock.close()

    def _has_room(self) -> bool:
        """Whether one more may be greeted, or nobody any more. Who waits for a second socket takes no room: else many
        who come at once would keep each other's out."""
        return self._closed or len(self._greetings) - len(self._waiting) < MAX_GREETINGS

    def _greet(self, raw: socket.socket, visit: Visit) -> None:
        end = monotonic() + self._greeting
        sock = raw
        kept = False
        try:
            tune(raw)
            raw.settimeout(self._greeting)
            sock = self._guard.wrap(raw, dialing=False)
            with self._lock:
                self._greetings[threading.current_thread()] = sock
            proven = self._guard.prove(sock, self._me.name, dialing=False)
            if proven:
                visit.fingerprint = proven.theirs
            kept = self._first_words(Wire(sock, end, proven), visit)
        except HandshakeError as error:
            self._audit.link(visit, error.message)
            self._met.put(error)
        except (OSError, ProtocolError) as error:
            self._audit.link(visit, str(error) or type(error).__name__)
            self.refused.append(str(error) or type(error).__name__)
        finally:
            if not kept:
                sock.close()
                raw.close()
            with self._lock:
                self._greetings.pop(threading.current_thread(), None)
                self._lock.notify_all()

    def _greeted(self) -> None:
        """The socket is about to be handed over: `close`, which ends greetings, must not end somebody's link."""
        with self._lock:
            self._greetings[threading.current_thread()] = None

    def _first_words(self, wire: Wire, visit: Visit) -> bool:
        """True if the socket now belongs to a link, or to the greeting that waits for it."""
        try:
            payload = wire.recv()
            words = handshake.decode_first(payload)
        except HandshakeError as error:
            wire.refuse(error)
            raise
        if isinstance(words, Attach):
            return self._attach(wire, words)
        visit.role, visit.rank = words.role, words.rank
        visit.name = wire.proven.name(words.role, words.rank) if wire.proven else ""
        me = replace(self._me, session=words.session) if self._any_session else self._me
        return self._seat(wire, payload, visit, me)

    def _attach(self, wire: Wire, words: Attach) -> bool:
        # The dialer may be here before the thread that greeted it has said that it waits.
        with self._lock:
            self._lock.wait_for(lambda: words.link in self._waiting, ATTACH_SECONDS)
            waiting = self._waiting.get(words.link)
            if waiting is None or not waiting[0].holds(words) or waiting[1] != wire.proven:
                raise FrameError("no link waits for this socket")
            del self._waiting[words.link]
        wire.send(waiting[0].welcome())
        self._greeted()
        waiting[2].put(wire.sock)
        return True

    def _seat(self, wire: Wire, payload: bytes, visit: Visit, me: Identity) -> bool:
        seat: list[Seat] = []

        def admit(role: Role, rank: int) -> HandshakeError | None:
            wanted = (role, rank, visit.fingerprint, me.session)
            problem = self._reserve(wanted)
            if problem is None:
                seat.append(wanted)
            return problem

        link: StreamLink | None = None
        try:
            agreed = handshake.listener(wire, me, payload, admit)
            link = self._join(wire, agreed)
            self._audit.link(visit)
            found = agreed.role, agreed.rank, agreed.secret, visit.name, visit.fingerprint, me.session
            self._greeted()
            self._met.put(Met(link, *found))
        finally:
            with self._lock:
                for key in seat:
                    if link is None:
                        del self._seats[key]
                    else:
                        self._seats[key] = link
        return True

    def _join(self, wire: Wire, agreed: Agreed) -> StreamLink:
        """Wait for the second socket; the first one carries the dialer's words, the second one ours."""
        handover: queue.SimpleQueue[socket.socket | None] = queue.SimpleQueue()
        with self._lock:
            self._waiting[agreed.link] = (agreed, wire.proven, handover)
            self._lock.notify_all()
        outbound = None
        with contextlib.suppress(queue.Empty):
            outbound = handover.get(timeout=remaining(wire.deadline))
        if outbound is None:
            with self._lock:
                self._waiting.pop(agreed.link, None)
            raise FrameError(f"{agreed.name} opened one socket and no second")
        link = StreamLink(self._me.name, agreed.name, outbound, wire.sock, self._timeout, self._queue_bytes)
        link.chain_key = agreed.chain_key
        return link

    def _reserve(self, seat: Seat) -> HandshakeError | None:
        role, rank, *_ = seat
        name, mine = handshake.name_of(role, rank), self._me.name
        if not self._expect & {(role, rank), (role, None)}:
            return handshake.refusal("rank", f"{mine} does not expect {name}")
        with self._lock:
            self._seats = {s: link for s, link in self._seats.items() if link is None or not link.lost}
            if seat in self._seats:
                return handshake.refusal("rank", f"{mine} has a link to {name} already")
            if list(self._seats.values()).count(None) >= MAX_HALVES:
                what = f"handshake refused: {mine} greets {MAX_HALVES} others at this moment"
                return HandshakeError(what, "try again a little later")
            self._seats[seat] = None
        return None
