"""What every kind of link does alike: numbering, counting, limits, the bounded queue of frames that
arrived before they were asked for, and the wording of errors. It must not know how bytes travel;
memory.py and tcp.py say that."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections import deque
from time import monotonic
from typing import Any

import numpy as np

from puma.errors import FrameError, PeerLost, PeerTimeout, ProtocolError, PumaError
from puma.net.chain import NO_KEY, STAMPED, Chains, Heads, looks
from puma.net.frame import DEFAULT_LIMITS, HEADER_BYTES, MAX_TEXT, Kind

# Python 3.12 names this collections.abc.Buffer; until then: bytes, bytearray, memoryview, a numpy array.
Buffer = Any

QUEUE_BYTES = 256 << 20
FRAME_COST = 256  # bytes that a frame in a queue takes besides its payload: empty ones fill it, too
TIMEOUT = 60.0

_LOST_HINT = "look at the log of that party; start the session again"
_SILENT_HINT = "that party may be overloaded or cut off; raise the timeout if it only needs longer"
_SIZE_HINT = "the parties run different programs or versions"
_STATE_HINT = "that party misbehaves, or its machine errs: do not ask again before you know which"


class Inbox:
    """Frames that arrived and wait to be taken, and, once the link is over, the reason."""

    def __init__(self, bound: int = QUEUE_BYTES) -> None:
        self.changed = threading.Condition(threading.Lock())
        self.bound = bound
        self.bytes = 0
        self.over: PumaError | None = None
        self._frames: dict[Kind, deque[memoryview]] = {Kind.DATA: deque(), Kind.CONTROL: deque()}

    def put(self, kind: Kind, payload: memoryview, timeout: float | None = None) -> bool:
        """Queue a frame, waiting while the queue is full; False if it stayed full for `timeout` seconds.

        A frame is let in whenever fewer than `bound` bytes wait, however large it is itself: two parties that
        exchange frames larger than the bound must not wait for each other.
        """
        with self.changed:
            room = self.changed.wait_for(lambda: self.bytes < self.bound or self.over is not None, timeout)
            if room and self.over is None:
                self.bytes += FRAME_COST + len(payload)
                self._frames[kind].append(payload)
                self.changed.notify_all()
            return room

    def take(self, kind: Kind, timeout: float) -> memoryview | None:
        """The next frame of this kind; None after `timeout` seconds; raises once no more can come."""
        frames = self._frames[kind]
        with self.changed:
            if not frames:
                self.changed.wait_for(lambda: frames or self.over is not None, timeout)
            return self._pop(frames)

    @property
    def full(self) -> bool:
        """Whether frames have to wait outside."""
        return self.bytes >= self.bound

    def holds(self, kind: Kind) -> bool:
        """Whether `take` would return at once with a frame, as far as can be said without the lock."""
        return bool(self._frames[kind])

    def _pop(self, frames: deque[memoryview]) -> memoryview | None:
        if frames:
            payload = frames.popleft()
            if self.bytes >= self.bound:
                self.changed.notify_all()
            self.bytes -= FRAME_COST + len(payload)
            return payload
        if self.over is not None:
            raise again(self.over)
        return None

    def end(self, reason: PumaError) -> None:
        """No frame will come after this; the first reason given stays."""
        with self.changed:
            if self.over is None:
                self.over = reason
            self.changed.notify_all()


class Endpoint(ABC):
    """One side of a link; a subclass says how a frame leaves (`_transmit`) and a link ends (`_finish`)."""

    def __init__(self, name: str, peer: str, timeout: float = TIMEOUT, queue_bytes: int = QUEUE_BYTES) -> None:
        self.name = name
        self.peer = peer
        self._timeout = timeout
        self.sent_bytes = 0
        self.received_bytes = 0
        self.inbox = Inbox(queue_bytes)
        self.limits = dict(DEFAULT_LIMITS)  # of what is sent
        self.accepts = dict(DEFAULT_LIMITS)  # of what may come
        self._sending = threading.Lock()
        self._sent = {Kind.DATA: 0, Kind.CONTROL: 0}
        self._taken = {Kind.DATA: 0, Kind.CONTROL: 0}
        self.chain_key = NO_KEY  # that only the two ends have
        self._chains: Chains | None = None
        self._doubts = False  # whether all that comes is hashed

    @property
    def timeout(self) -> float:
        """How long a silence, in seconds, is borne."""
        return self._timeout

    @property
    def lost(self) -> bool:
        """Whether nothing more can come, though what has come may still wait to be taken."""
        return self.inbox.over is not None

    @property
    def quiet(self) -> bool:
        """Whether nothing has come that `recv` could begin with."""
        return not self.inbox.holds(Kind.DATA) and self.inbox.over is None

    def check(self) -> None:
        """Raise how the link ended, if it did, whatever still waits to be taken."""
        if self.inbox.over is not None:
            raise again(self.inbox.over)

    def set_timeout(self, seconds: float) -> None:
        """How long a silence, in seconds, is borne."""
        self._timeout = seconds

    def send(self, *buffers: Buffer) -> None:
        """One data frame made of these pieces; FrameError above the limit, PeerLost or PeerTimeout if it is stuck."""
        self._emit(Kind.DATA, buffers)

    def send_control(self, payload: Buffer) -> None:
        """One control frame; errors as of `send`."""
        self._emit(Kind.CONTROL, (payload,))

    def recv(self, size: int) -> memoryview:
        """The next data frame; FrameError if it has another size, PeerTimeout after a silence, PeerLost at the end."""
        payload = self._take(Kind.DATA, size)
        if len(payload) != size:
            number = self._taken[Kind.DATA] - 1
            raise FrameError(
                f"{self.peer} sent {len(payload)} bytes in data frame {number} where {size} were expected",
                _SIZE_HINT,
            )
        return payload

    def recv_control(self) -> bytes:
        """The next control frame; errors as of `recv`."""
        return bytes(self._take(Kind.CONTROL, None))

    def chain(self, label: str, words: bool = False) -> None:
        """From now on hash data frames, and with `words` control frames, into chains that begin with this label; both
        ends do so between the same two frames. A label serves once on a link."""
        self._chains = Chains.begun(self.chain_key, label, self.name, self.peer, words)

    def doubt(self) -> None:
        """From now on hash every frame that comes, whatever its sender says that it hashes to."""
        self._doubts = True

    @property
    def heads(self) -> Heads | None:
        """Of the chains so far; None before `chain`."""
        return self._chains and self._chains.heads

    @property
    def trails(self) -> dict[str, bytes]:
        """The marks of the chains so far."""
        return self._chains.trails if self._chains else {}

    def fail(self, message: str) -> None:
        """Tell the peer why we stop, as well as can be done, and close."""
        self._finish(message.encode()[:MAX_TEXT].decode(errors="ignore"))

    def close(self) -> None:
        """Say goodbye and close; harmless when repeated."""
        self._finish(None)

    def __enter__(self):
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
        else:
            self.fail(f"{type(error).__name__}: {error}")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name} to {self.peer})"

    @abstractmethod
    def _transmit(self, kind: Kind, sequence: int, pieces: list[memoryview], size: int) -> None: ...

    @abstractmethod
    def _finish(self, message: str | None) -> None: ...

    def _emit(self, kind: Kind, buffers: tuple[Buffer, ...]) -> None:
        pieces = [flat(buffer) for buffer in buffers]
        size = sum(map(len, pieces))
        with self._sending:
            chains = self._chains
            whole = size + (chains.stamp(kind, size) if chains is not None and size >= STAMPED else 0)
            if whole > self.limits[kind]:
                what = f"a {kind.name.lower()} frame of {whole} bytes for {self.peer}"
                raise FrameError(f"{what} is over the limit of {self.limits[kind]}", "split it")
            if self.inbox.over is not None:
                raise again(self.inbox.over)
            sequence = self._sent[kind]
            self._sent[kind] = sequence + 1
            chain = chains.sent.get(kind) if chains is not None else None
            stamped = chain is not None and whole > size
            self._transmit(kind, sequence, chain.stamped(pieces, size) if chain and stamped else pieces, whole)
            self.sent_bytes += HEADER_BYTES + whole
            if chain is not None and not stamped:
                chain.add(pieces, size)

    def _take(self, kind: Kind, size: int | None) -> memoryview:
        chains = self._chains
        more = chains.stamp(kind, size) if chains is not None and size is not None and size >= STAMPED else 0
        payload = self._next(kind, None if size is None else size + more)
        if payload is None:
            raise PeerTimeout(
                f"{self.peer} sent nothing for {self.timeout:g} s; "
                f"{self.name} waits for {kind.name.lower()} frame {self._taken[kind]}",
                _SILENT_HINT,
            )
        self._taken[kind] += 1
        self.received_bytes += HEADER_BYTES + len(payload)
        if more and size is not None and len(payload) == size + more:
            return self._stamped(kind, payload[:size], bytes(payload[size:]))
        if chains is not None and (chain := chains.received.get(kind)) is not None:
            chain.add((payload,), len(payload))
        return payload

    def _stamped(self, kind: Kind, payload: memoryview, state: bytes) -> memoryview:
        """A frame that says what it hashes to; ProtocolError if it is found to hash to something else.

        Safe: whether one looks is chance, and what one finds a function of what the peer has sent. Both know the state.
        """
        assert self._chains is not None
        chain = self._chains.received[kind]
        if (self._doubts or looks()) and chain.after((payload,), len(payload)) != state:
            what = f"{self.peer} says of {kind.name.lower()} frame {self._taken[kind] - 1} what it does not hash to"
            raise ProtocolError(what, _STATE_HINT)
        chain.believe(state, len(payload))
        return payload

    def _next(self, kind: Kind, size: int | None) -> memoryview | None:
        return self.inbox.take(kind, self.timeout)


def owned(size: int) -> memoryview:
    """A writable buffer of this size, not cleared; numpy asks for huge pages where bytearray does not."""
    return np.empty(size, dtype=np.uint8).data if size > 4096 else memoryview(bytearray(size))


def flat(buffer: Buffer) -> memoryview:
    """The buffer as plain bytes, without a copy."""
    view = memoryview(buffer)
    if view.format == "B" and view.ndim == 1:
        return view
    return view.cast("B") if view.nbytes else memoryview(b"")


def printable(text: bytes | memoryview) -> str:
    """Text from another process, made harmless for a terminal."""
    return "".join(c if c.isprintable() else "?" for c in bytes(text).decode(errors="replace"))


def again(error: PumaError) -> PumaError:
    """A fresh copy of an error that several calls may raise, so that no traceback grows without end."""
    return type(error)(error.message, error.hint)


def stopped(peer: str, message: str | None) -> PeerLost:
    """How a peer that ended the link is reported: with its reason, or without one."""
    what = f"{peer} stopped: {message}" if message is not None else f"{peer} closed its link"
    return PeerLost(what, _LOST_HINT)


def ended(peer: str, message: str | None) -> PeerLost:
    """How a link that this side ended itself is reported."""
    why = f": {message}" if message is not None else ""
    return PeerLost(f"the link to {peer} was closed on this side{why}")


def stuck(peer: str, timeout: float) -> PeerTimeout:
    """How a peer that does not read is reported."""
    return PeerTimeout(f"{peer} took no data for {timeout:g} s", _SILENT_HINT)


def remaining(deadline: float) -> float:
    """Seconds left, never negative."""
    return max(0.0, deadline - monotonic())
