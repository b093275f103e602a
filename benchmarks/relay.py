"""A network in one process: sockets led through here are delayed and slowed down.

    python benchmarks/relay.py RATE ONE_WAY     bits a second, and seconds

Each line on standard input asks for a route, {"dialer": "P2", "listener": "P1", "port": 40001}; the answer is a line
with the port to dial instead, on the loopback unless an "at" says "HOST:PORT". {"stats": true} is answered with what
has passed. The process ends with its input.

Each direction between two machines is one wire: what arrives waits until the wire is free, takes its length divided by
the rate, and comes out one way later. Bytes wait here only as long as that, plus a queue of BACKLOG seconds; a full
wire leaves them with the sender.

When bytes arrived is asked of the system, and the relay sets its alarm as much early as it has lately woken up late, so
that neither its own wake-ups nor its turns on a busy processor add to the delay in the middle. One thread serves all
wires, so a copy for one can hold up another; `late` in the statistics says by how much.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import resource
import select
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

CHUNK = 256 << 10
BACKLOG = 0.002  # seconds of sending that may wait in front of a wire, as in a network card
SOCKET_BYTES = 4 << 20
SO_TIMESTAMPNS = 35  # Linux's number; Python does not name it
STEP = 2e-6  # by which the alarm moves towards the middle of what it misses


@dataclass
class Wire:
    """One direction between two machines: when it is free again, and what has passed."""

    free: float = 0.0
    bytes: int = 0


@dataclass(eq=False)
class Lane:
    """One direction of one connection: bytes from `source`, on the wire until their time, then to `target`."""

    source: socket.socket
    target: socket.socket
    wire: Wire
    waiting: deque[tuple[float, memoryview]] = field(default_factory=deque)
    reading: bool = True  # the source may speak
    blocked: bool = False  # the target takes nothing at present
    freed: float = 0.0  # when it last took something again: what was due before is not late by our fault
    ended: bool = False  # the source has said its last


class Relay:
    """All wires; `serve` returns when standard input ends."""

    def __init__(self, rate: float, one_way: float, commands: int, answers: Any) -> None:
        self.rate, self.one_way = rate, one_way
        self._commands, self._answers = commands, answers
        self._listeners: dict[int, tuple[socket.socket, int, Wire, Wire]] = {}
        self._outward: dict[int, Lane] = {}  # by the number of the source
        self._inward: dict[int, Lane] = {}  # by the number of the target
        self._active: set[Lane] = set()  # with bytes on the wire, or not reading
        self._wires: dict[tuple[str, str], Wire] = {}
        self._spare: list[memoryview] = []
        self._late: list[float] = []
        self._early = 0.0
        self._text = b""
        self._events = select.epoll()
        self._events.register(commands, select.EPOLLIN)

    def serve(self) -> None:
        while True:
            wake = self._due()
            timeout = None if wake is None else max(0.0, wake - self._early - perf_counter())
            # epoll counts in milliseconds, select in microseconds: one waits, the other says for whom.
            if not select.select([self._events], [], [], timeout)[0]:
                continue
            for number, event in self._events.poll(0):
                if number == self._commands:
                    if not self._command():
                        return
                elif number in self._listeners:
                    self._accept(*self._listeners[number])
                else:
                    self._ready(number, event)

    def _ready(self, number: int, event: int) -> None:
        target = self._inward.get(number)
        if target and target.blocked and event & (select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR):
            target.blocked, target.freed = False, perf_counter()
            self._watch(number)
        lane = self._outward.get(number)
        if lane and lane.reading and event & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            self._read(lane)

    def _watch(self, number: int) -> None:
        """Ask the system about this socket as its two lanes want it."""
        source, target = self._outward.get(number), self._inward.get(number)
        wanted = select.EPOLLIN if source and source.reading else 0
        self._events.modify(number, wanted | (select.EPOLLOUT if target and target.blocked else 0))

    def _due(self) -> float | None:
        """Let out what is due; when to look again."""
        now, wake = perf_counter() + self._early, None
        for lane in list(self._active):
            while lane.waiting and lane.waiting[0][0] <= now and not lane.blocked:
                self._write(lane)
            times = [lane.waiting[0][0]] if lane.waiting and not lane.blocked else []
            if not lane.reading and not lane.ended and not lane.blocked:
                if lane.wire.free > now + BACKLOG:
                    times.append(lane.wire.free - BACKLOG)
                else:
                    lane.reading = True
                    self._watch(lane.source.fileno())
            if lane.reading and not lane.waiting:
                self._active.discard(lane)
            wake = min([*times, *([] if wake is None else [wake])], default=None)
        return wake

    def _read(self, lane: Lane) -> None:
        buffer = self._spare.pop() if self._spare else memoryview(bytearray(CHUNK))
        try:
            count, stamps, _, _ = lane.source.recvmsg_into([buffer], 64)
        except BlockingIOError:
            return
        except OSError:
            count, stamps = 0, []
        wire = lane.wire
        wire.free = max(wire.free, arrival(stamps)) + 8 * count / self.rate
        wire.bytes += count
        lane.ended = not count
        lane.waiting.append((wire.free + self.one_way, buffer[:count]))
        self._active.add(lane)
        if lane.ended or wire.free > perf_counter() + BACKLOG:
            lane.reading = False
            self._watch(lane.source.fileno())

    def _write(self, lane: Lane) -> None:
        due, piece = lane.waiting.popleft()
        late = perf_counter() - due
        if not len(piece):
            with contextlib.suppress(OSError):
                lane.target.shutdown(socket.SHUT_WR)
            self._forget(lane)
            return
        try:
            sent = lane.target.send(piece)
        except BlockingIOError:
            sent = 0
        except OSError:
            lane.waiting.clear()
            self._forget(lane)
            return
        if sent < len(piece):
            lane.blocked = True
            lane.waiting.appendleft((due, piece[sent:]))
            if lane.reading:
                lane.reading = False
                self._watch(lane.source.fileno())
            self._watch(lane.target.fileno())
            return
        if due > lane.freed:
            self._late.append(late)
            self._early = min(self.one_way / 2, max(0.0, self._early + (STEP if late > 0 else -STEP)))
        self._spare.append(memoryview(piece.obj))

    def _forget(self, lane: Lane) -> None:
        """This direction is over; the sockets close with the other one."""
        near, far = lane.source.fileno(), lane.target.fileno()
        self._active.discard(lane)
        del self._outward[near], self._inward[far]
        if far in self._outward:
            self._watch(near)
            return
        for sock in (lane.source, lane.target):
            self._events.unregister(sock.fileno())
            sock.close()

    def _accept(self, listener: socket.socket, port: int, there: Wire, back: Wire) -> None:
        near, _ = listener.accept()
        far = socket.socket()
        for sock in (near, far):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                sock.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
            sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        try:
            far.connect(("127.0.0.1", port))
        except OSError:
            near.close()
            far.close()
            return
        for lane in (Lane(near, far, there), Lane(far, near, back)):
            lane.source.setblocking(False)
            self._outward[lane.source.fileno()] = self._inward[lane.target.fileno()] = lane
            self._events.register(lane.source.fileno(), select.EPOLLIN)

    def _command(self) -> bool:
        """Serve what stands on standard input; False at its end."""
        more = os.read(self._commands, 1 << 16)
        *lines, self._text = (self._text + more).split(b"\n")
        for line in lines:
            asked = json.loads(line)
            print(json.dumps(self._stats() if "stats" in asked else self._route(**asked)), file=self._answers)
            self._answers.flush()
        return bool(more)

    def _route(self, dialer: str, listener: str, port: int, at: str = "127.0.0.1:0") -> int:
        there, back = (self._wires.setdefault(way, Wire()) for way in ((dialer, listener), (listener, dialer)))
        host, _, number = at.rpartition(":")
        sock = socket.create_server((host, int(number)), backlog=16)
        self._listeners[sock.fileno()] = (sock, port, there, back)
        self._events.register(sock.fileno(), select.EPOLLIN)
        return sock.getsockname()[1]

    def _stats(self) -> dict[str, Any]:
        """Bytes by wire, processor seconds, and lateness in seconds (median, 99 of 100, largest); then begin anew."""
        usage, late = resource.getrusage(resource.RUSAGE_SELF), sorted(self._late)
        self._late = []
        return {
            "bytes": {f"{a} to {b}": wire.bytes for (a, b), wire in self._wires.items()},
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "late": [late[int(part * (len(late) - 1))] for part in (0.5, 0.99, 1.0)] if late else [],
            "chunks": len(late),
        }


def arrival(stamps: list[tuple[int, int, bytes]]) -> float:
    """When the system received what was just read, on our clock; now, if it does not say."""
    now = perf_counter()
    for level, kind, data in stamps:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = struct.unpack("qq", data[:16])
            return now - max(0.0, (time.time_ns() - seconds * 10**9 - nanoseconds) * 1e-9)
    return now


def punctual() -> None:
    """Wake up on time even beside three busy parties, where the system allows it; nothing pauses for garbage."""
    gc.disable()
    with contextlib.suppress(PermissionError, OSError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def main() -> None:
    punctual()
    Relay(float(sys.argv[1]), float(sys.argv[2]), sys.stdin.fileno(), sys.stdout).serve()


if __name__ == "__main__":
    main()
