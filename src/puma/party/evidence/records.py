"""What a party keeps of the latest requests: what it signed, the marks of the chains, and which steps a request was in.

Bounded in bytes, in memory: whoever restarts a party forgets. This file must not know how a statement is made.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from puma.wire.receipts import Signed

MOST_BYTES = 64 << 20
STEP_BYTES = 200  # of a step besides its marks
LATEST = 256  # statements of one session: it may live for months
Trails = Mapping[str, Mapping[str, bytes]]  # by peer, of "sent" and "received"


@dataclass
class OfSession:
    """Of one session: its latest statements, the marks of its own links so far, its latest steps of the channel."""

    statements: list[Signed] = field(default_factory=list[Signed])
    trails: Trails = field(default_factory=dict[str, Mapping[str, bytes]])
    steps: list[tuple[bytes, int]] = field(default_factory=list[tuple[bytes, int]])  # channel and number

    @property
    def size(self) -> int:
        """About how many bytes it takes."""
        return sum(len(each.statement) + 300 for each in self.statements) + _size(self.trails) + 64 * len(self.steps)


class Records:
    """For all sessions and channels of a party; the longest unused goes first. Threads may share it."""

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._most, self._lock = most, threading.Lock()
        self._sessions: OrderedDict[bytes, OfSession] = OrderedDict()
        self._steps: OrderedDict[tuple[bytes, int], Trails] = OrderedDict()
        self._sizes: dict[object, int] = {}
        self._bytes = 0

    def signed(self, session: bytes, statement: Signed, trails: Trails, steps: Sequence[tuple[bytes, int]]) -> None:
        """A session was told this; `trails` are those of all of it so far, `steps` the latest."""
        with self._lock:
            found = self._sessions.setdefault(session, OfSession())
            found.statements.append(statement)
            del found.statements[:-LATEST]
            found.trails, found.steps = trails, [*steps]
            self._sessions.move_to_end(session)
            self._grown(session, found.size)

    def step(self, channel: bytes, number: int, trails: Trails) -> None:
        """A step of a channel is over."""
        with self._lock:
            self._steps[channel, number] = trails
            self._grown((channel, number), STEP_BYTES + _size(trails))

    def session(self, session: bytes) -> OfSession | None:
        """All that is kept of a session; None if it is not, or no more."""
        with self._lock:
            return self._sessions.get(session)

    def step_trails(self, channel: bytes, number: int) -> Trails | None:
        """The marks of a step; None if they are not kept, or no more."""
        with self._lock:
            return self._steps.get((channel, number))

    @property
    def size(self) -> int:
        """About how many bytes are kept."""
        return self._bytes

    def _grown(self, name: object, size: int) -> None:
        self._bytes += size - self._sizes.get(name, 0)
        self._sizes[name] = size
        while self._bytes > self._most and (self._steps or self._sessions):
            gone = self._steps.popitem(last=False) if self._steps else self._sessions.popitem(last=False)
            self._bytes -= self._sizes.pop(gone[0])


def _size(trails: Trails) -> int:
    return sum(len(marks) for each in trails.values() for marks in each.values())
