"""A link over two one-way sockets, one for each direction, so that no two threads ever use one socket at
the same time. It must not know how the sockets came to be (tcp.py) nor who may speak on them
(handshake.py).

Two ways lead from the inbound socket to the caller. While the parties exchange small frames, the caller
of `recv` reads the socket itself, which saves the two thread switches that would double a round trip.
Whenever it does not read for some milliseconds, or is about to send much, a receiving thread takes over
and drains the socket into the bounded inbox, so that two parties that send at once never wait for each
other."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
from time import monotonic

from puma.errors import FrameError, PeerLost, PeerTimeout, ProtocolError, PumaError
from puma.net import at_once
from puma.net.endpoint import QUEUE_BYTES, TIMEOUT, Endpoint, again, ended, owned, printable, stopped, stuck
from puma.net.frame import HEADER_BYTES, Kind, header_bytes, parse_header
from puma.net.pulse import PULSE
from puma.net.sockets import set_timeout

# Pieces below this are joined with the header into one write; a larger one is not worth a copy.
JOIN_BYTES = 64 << 10
# So many bytes of small data frames may wait for the next ones: a call of the system takes longer than making a frame.
GATHERED_BYTES = 8 << 10
# A frame nobody has asked for yet is given memory in growing steps, each paid for by bytes that arrived.
STEP_BYTES = 1 << 20
# So much is read at a time, of whatever frames, where less than this is wanted: the dealer is far ahead as a rule.
AHEAD_BYTES = 32 << 10
# How long a caller may stay away from recv before the receiving thread takes over: longer and longer while it comes
# back, because a thread that looks every few milliseconds takes the processor from the caller.
TICK, LONGEST_TICK = 0.005, 0.08
# How long an ending link waits for its own threads and for its last frame to leave.
GRACE = 1.0

_SILENCE = (BlockingIOError, TimeoutError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_DEAD_HINT = "look at the log of that party; start the session again"
_STILL_HINT = "its process is stopped, or the network between is cut; start the session again"
_BEAT = header_bytes(Kind.BEAT, 0, 0)


class StreamLink(Endpoint):
    """One end of a link over an outbound and an inbound socket, both past the handshake."""

    def __init__(
        self,
        name: str,
        peer: str,
        outbound: socket.socket,
        inbound: socket.socket,
        timeout: float = TIMEOUT,
        queue_bytes: int = QUEUE_BYTES,
    ) -> None:
        super().__init__(name, peer, timeout, queue_bytes)
        self._outbound = outbound
        self._inbound = inbound
        self._arrived = {Kind.DATA: 0, Kind.CONTROL: 0}
        self._head = memoryview(bytearray(HEADER_BYTES))
        self._ahead = memoryview(bytearray(AHEAD_BYTES))  # what came behind a frame lies from `low` to `high`
        self._low: int = 0
        self._high: int = 0
        self._reader = threading.Lock()  # whoever holds it, and nobody else, reads the inbound socket
        self._takeover = threading.Event()
        self._awaited = False  # a caller waits for the receiving thread to bring a data frame
        self._leaving = False  # the receiving thread is about to leave the socket to that caller
        self._direct_reads = 0
        self._gathers, self._waiting = False, bytearray()  # data frames that have not left yet
        self._finishing = threading.Lock()
        self._finished = False
        for sock in (outbound, inbound):
            sock.settimeout(None)
            set_timeout(sock, timeout)
        self._roomy = outbound.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) // 2
        self._thread = threading.Thread(target=self._receive, name=f"puma {name} from {peer}", daemon=True)
        self.heard = monotonic()
        self._thread.start()
        PULSE.add(self)

    def set_timeout(self, seconds: float) -> None:
        super().set_timeout(seconds)
        with contextlib.suppress(OSError):  # closed meanwhile: then the deadline no longer matters
            set_timeout(self._outbound, seconds)
            set_timeout(self._inbound, seconds)

    # sending

    def gather(self, on: bool) -> None:
        """Small data frames may wait for the next ones from now on, or no longer: before one waits for an answer."""
        with self._sending:
            self._gathers = on
            self._let_go()

    def _let_go(self) -> None:
        waiting, self._waiting = self._waiting, bytearray()
        if waiting and self.inbox.over is None:
            self._write(waiting)

    def _transmit(self, kind: Kind, sequence: int, pieces: list[memoryview], size: int) -> None:
        if size > self._roomy:
            self._takeover.set()
        if len(pieces) == 1 and size < JOIN_BYTES and not (self._gathers or self._waiting):
            self._write(header_bytes(kind, sequence, size) + pieces[0])
            return
        if self._gathers and kind is Kind.DATA and size < GATHERED_BYTES:
            self._waiting += header_bytes(kind, sequence, size)
            self._waiting += b"".join(pieces)
            if len(self._waiting) >= GATHERED_BYTES:
                self._let_go()
            return
        self._let_go()
        joined: list[bytes | memoryview] = [header_bytes(kind, sequence, size)]
        for piece in pieces:
            if len(piece) < JOIN_BYTES:
                joined.append(piece)
            else:
                self._write(b"".join(joined))
                self._write(piece)
                joined = []
        if joined:
            self._write(b"".join(joined))

    def _write(self, data: bytes | bytearray | memoryview) -> None:
        try:
            # In steps, so that a deadline speaks of the peer and not of the size.
            done = self._outbound.send(data if len(data) <= STEP_BYTES else memoryview(data)[:STEP_BYTES])
            while done < len(data):
                done += self._outbound.send(memoryview(data)[done : done + STEP_BYTES])
        except _SILENCE:
            # Part of a frame may be out: nothing sensible can follow it.
            raise self._over(stuck(self.peer, self.timeout)) from None
        except OSError as error:
            raise self._why_lost(error) from None

    def _why_lost(self, error: OSError) -> PumaError:
        """A peer that stops says why on the other socket; prefer that to the bare error of this one."""
        self._takeover.set()
        with self.inbox.changed:
            self.inbox.changed.wait_for(lambda: self.inbox.over is not None, GRACE / 2)
        return self._over(PeerLost(f"{self.peer} is gone ({error.strerror or error})", _DEAD_HINT))

    def beat(self) -> None:
        """Tell the peer that this process lives, if the socket takes it at once: else bytes are on their way anyway."""
        if self.inbox.over is None and self._sending.acquire(blocking=False):
            try:
                if at_once.ready(self._outbound, select.POLLOUT):
                    self._beat()
            except (OSError, ValueError):  # whoever sends or receives next says what has happened to the link
                pass
            finally:
                self._sending.release()

    def _beat(self) -> None:
        if isinstance(self._outbound, ssl.SSLSocket):
            self._outbound.send(_BEAT)
        elif 0 < (done := at_once.send(self._outbound, _BEAT)) < len(_BEAT):  # the system is short of memory
            self._outbound.sendall(_BEAT[done:])

    def silent(self, seconds: float) -> None:
        """Nothing has come for so long, not even a beat: the link is over, and whoever waits for it is woken."""
        if self.inbox.full or (self.inbox.over is None and self._waits):  # nobody here has looked
            self.heard = monotonic()
        elif self.inbox.over is None:
            what = f"{self.peer} has given no sign of life for {seconds:.0f} s"
            self._over(PeerLost(what, _STILL_HINT))
            for sock in (self._outbound, self._inbound):
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)

    # receiving

    @property
    def quiet(self) -> bool:
        behind = self._low < self._high  # the last frame, and perhaps all of the next one
        return super().quiet and not behind and not self._waits

    @property
    def _waits(self) -> bool:
        """Whether bytes have come that nobody has read."""
        inside = isinstance(self._inbound, ssl.SSLSocket) and self._inbound.pending() > 0
        return inside or at_once.ready(self._inbound, select.POLLIN)

    def _next(self, kind: Kind, size: int | None) -> memoryview | None:
        inbox = self.inbox
        if inbox.holds(kind) or inbox.over is not None:
            return inbox.take(kind, 0)
        if kind is Kind.CONTROL:
            self._takeover.set()
            return inbox.take(kind, self.timeout)
        if self._reader.acquire(timeout=TICK if self._leaving else 0):
            try:
                return self._read_directly(kind, size)
            finally:
                self._direct_reads += 1
                self._reader.release()
        return self._wait_for_thread(kind)

    def _wait_for_thread(self, kind: Kind) -> memoryview | None:
        self._awaited = True
        if not self._reader.locked():
            self._takeover.set()
        try:
            return self.inbox.take(kind, self.timeout)
        finally:
            self._awaited = False

    def _read_directly(self, kind: Kind, size: int | None) -> memoryview | None:
        while not self.inbox.holds(kind):
            if size is not None and HEADER_BYTES + size <= AHEAD_BYTES:
                if self._low == self._high:
                    self._low, self._high = 0, self._come(self._ahead, begun=False)
                    if not self._high:
                        return None
                if (payload := self._whole(size)) is not None:
                    return payload
            frame = self._read_frame(size)
            if frame is None:
                return None
            if frame[0] is kind:
                return frame[1]
            if not self.inbox.put(*frame, self.timeout):
                raise self._over(FrameError(f"{self.peer} sent more control frames than anybody reads", _DEAD_HINT))
        return self.inbox.take(kind, 0)

    def _receive(self) -> None:
        """The receiving thread: drains the socket unless the caller reads it."""
        try:
            while self.inbox.over is None:
                with self._reader:
                    self._drain()
                self._park()
        except ProtocolError:
            pass  # the inbox holds it for whoever asks next
        except Exception as error:
            self.inbox.end(ProtocolError(f"receiving from {self.peer} failed: {error!r}"))

    def _drain(self) -> None:
        self._leaving = False
        while not self._leaving and self.inbox.over is None:
            frame = self._read_frame(None)
            if frame is not None:
                # Said before the frame is handed over: its taker may ask for the next one at once.
                self._leaving = self._awaited
                self.inbox.put(*frame)

    def _park(self) -> None:
        """Wait until nobody has read directly for a whole tick, or until called."""
        seen, tick = -1, TICK
        while self.inbox.over is None and not (self._awaited and not self.inbox.holds(Kind.DATA)):
            if self._takeover.wait(tick) or (seen == self._direct_reads and not self._reader.locked()):
                break
            seen, tick = self._direct_reads, min(2 * tick, LONGEST_TICK)
        self._takeover.clear()

    def _read_frame(self, expected: int | None) -> tuple[Kind, memoryview] | None:
        """The next data or control frame; None after a silence; the link's end is raised and kept."""
        header, end = None, monotonic() + self.timeout
        while header is None or header.kind is Kind.BEAT:  # a peer that merely lives is as silent as before
            if (header is not None and monotonic() > end) or not self._fill(self._head, begun=False):
                return None
            if expected is not None and self._is_due(self._head, expected):
                return Kind.DATA, self._payload(expected, True)
            try:
                header = parse_header(self._head, self.accepts)
                if header.kind is Kind.HELLO:
                    raise FrameError(f"{self.peer} sent a hello in the middle of a session", _DEAD_HINT)
            except FrameError as error:
                raise self._over(FrameError(f"{self.peer}: {error.message}", error.hint)) from None
        kind = header.kind
        if kind in (Kind.ERROR, Kind.BYE):
            text = self._payload(header.length, False)
            raise self._over(stopped(self.peer, printable(text) if kind is Kind.ERROR else None))
        due = self._arrived[kind]
        if header.sequence != due:
            what = f"{self.peer} sent {kind.name.lower()} frame {header.sequence} where {due} was due"
            raise self._over(FrameError(f"bad sequence in a frame header: {what}", _DEAD_HINT))
        self._arrived[kind] = due + 1
        return kind, self._payload(header.length, header.length == expected)

    def _whole(self, size: int) -> memoryview | None:
        """The next data frame, if all of it has come and it is what is due, of this size; else nothing is taken."""
        body = self._low + HEADER_BYTES
        end = body + size
        if end > self._high or not self._is_due(self._ahead[self._low : body], size):
            return None
        self._low = end
        return memoryview(bytearray(self._ahead[body:end]))

    def _is_due(self, head: memoryview, size: int) -> bool:
        """Whether this header is that of the next data frame, of this size: nearly all are, and need no parsing."""
        due = self._arrived[Kind.DATA]
        if size > self.accepts[Kind.DATA] or bytes(head) != header_bytes(Kind.DATA, due, size):
            return False
        self._arrived[Kind.DATA] = due + 1
        return True

    def _payload(self, length: int, expected: bool) -> memoryview:
        if expected or length <= STEP_BYTES:
            buffer = owned(length)
            self._fill(buffer, begun=True)
            return buffer
        buffer, done = owned(STEP_BYTES), 0
        while True:
            self._fill(buffer[done:], begun=True)
            done = len(buffer)
            if done == length:
                return buffer
            larger = owned(min(length, 8 * done))
            larger[:done] = buffer
            buffer = larger

    def _fill(self, view: memoryview, begun: bool) -> bool:
        """Read until the view is full; False if nothing at all came and no frame had begun."""
        done = self._take_ahead(view, 0)
        while done < len(view):
            few = len(view) - done < AHEAD_BYTES
            count = self._come(self._ahead if few else view[done:], begun or done > 0)
            if not count:
                return False
            if few:
                self._low, self._high = 0, count
                done = self._take_ahead(view, done)
            else:
                done += count
        return True

    def _come(self, view: memoryview, begun: bool) -> int:
        """How many bytes have come into the view; 0 if nothing came and no frame had begun."""
        try:
            count = self._inbound.recv_into(view)
        except _SILENCE:
            if not begun:
                return 0
            what = f"{self.peer} fell silent for {self.timeout:g} s in the middle of a frame"
            raise self._over(PeerTimeout(what, _DEAD_HINT)) from None
        except OSError as error:
            what = f"{self.peer} is gone ({error.strerror or error})"
            raise self._over(PeerLost(what, _DEAD_HINT)) from None
        if not count:
            what = f"{self.peer} is gone: its connection ended without a goodbye"
            raise self._over(PeerLost(what, _DEAD_HINT))
        self.heard = monotonic()
        return count

    def _take_ahead(self, view: memoryview, done: int) -> int:
        """What has been read already goes into the view behind `done`; where it then ends."""
        low = self._low
        count = min(self._high - low, len(view) - done)
        if count:
            view[done : done + count] = self._ahead[low : low + count]
            self._low = low + count
        return done + count

    # ending

    def _over(self, reason: PumaError) -> PumaError:
        """End the link for this reason unless it has already ended for another; what to raise."""
        self.inbox.end(reason)
        return again(self.inbox.over or reason)

    def _finish(self, message: str | None) -> None:
        with self._finishing:
            if self._finished:
                return
            self._finished = True
            PULSE.remove(self)
            lost = self.inbox.over is not None
            self.inbox.end(ended(self.peer, message))
            if not lost:
                self._last_frame(message)
            self._takeover.set()
            for sock in (self._outbound, self._inbound):
                with contextlib.suppress(OSError):
                    socket.socket.shutdown(sock, socket.SHUT_RDWR)
            # Only when no thread is left inside a socket may its number be given back to the system.
            for lock in (self._sending, self._reader):
                if lock.acquire(timeout=GRACE):
                    lock.release()
            self._outbound.close()
            self._inbound.close()
        if threading.current_thread() is not self._thread:
            self._thread.join(GRACE)

    def _last_frame(self, message: str | None) -> None:
        """An error frame or a goodbye, unless a frame is stuck half-way."""
        text = b"" if message is None else message.encode()
        kind = Kind.BYE if message is None else Kind.ERROR
        if self._sending.acquire(timeout=GRACE):
            try:
                set_timeout(self._outbound, GRACE)
                self._outbound.sendall(header_bytes(kind, 0, len(text)) + text)
            except OSError:
                pass
            finally:
                self._sending.release()
