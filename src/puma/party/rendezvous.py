"""Where the three parties of a session find each other: links from peers wait here for the session that they name, and
sessions for their links, in whatever order they come. What waits is bounded in number and time. This file must not know
what a session does.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from puma.errors import AdmissionError, PeerTimeout
from puma.net.endpoint import remaining
from puma.net.tcp import Met

MEET_SECONDS = 10.0  # from a client's arrival to three linked parties
LOOK = 0.2  # how often a session that waits looks whether its client is still there


def room(parties: int, sessions: int) -> int:
    """How many links may wait where so many sessions begin at once: one from each other party, and a channel's."""
    return (parties - 1) * sessions + 8


class Rendezvous:
    """The links from peers that no session has taken yet."""

    def __init__(self, most: int, seconds: float = MEET_SECONDS) -> None:
        self._most, self._seconds = most, seconds
        self._changed = threading.Condition()
        self._waiting: dict[tuple[bytes, int], tuple[Met, float]] = {}
        self._closed: dict[bytes, tuple[str, float]] = {}  # sessions that will take none, and why

    def arrived(self, met: Met) -> None:
        """A link from a peer has come; one too many, or for a session that is over, ends at once."""
        with self._changed:
            why, _ = self._closed.get(met.session, ("", 0.0))
            if not why and len(self._waiting) >= self._most:
                why = "too many links wait for their sessions here"
            before = None if why else self._waiting.get((met.session, met.rank))
            if not why:
                self._waiting[met.session, met.rank] = met, monotonic() + self._seconds
                self._changed.notify_all()
        if why:
            met.link.fail(why)
        elif before is not None:  # else links of one name would take sockets and threads without end
            before[0].link.fail("another link came in its place")

    def take(self, session: bytes, rank: int, gone: Callable[[], bool]) -> Met:
        """The link from this peer; PeerTimeout if it does not come, AdmissionError once `gone` says so."""
        end = monotonic() + self._seconds
        with self._changed:
            while (session, rank) not in self._waiting:
                if gone():
                    raise AdmissionError("the session ended before all parties had met", "look at the client's error")
                if not remaining(end):
                    what = f"P{rank} did not come for {self._seconds:g} s"
                    raise PeerTimeout(what, "is that party running, and can it reach this one?")
                self._changed.wait(min(LOOK, remaining(end)))
            return self._waiting.pop((session, rank))[0]

    def close(self, session: bytes, why: str) -> None:
        """Nobody will take links of this session any more."""
        with self._changed:
            self._closed[session] = why, monotonic() + 2 * self._seconds
            late = [self._waiting.pop(key) for key in list(self._waiting) if key[0] == session]
        for met, _ in late:
            met.link.fail(why)

    def sweep(self) -> None:
        """End what has waited too long; called now and then."""
        now = monotonic()
        with self._changed:
            self._closed = {key: kept for key, kept in self._closed.items() if kept[1] > now}
            stale = [key for key, (met, end) in self._waiting.items() if end < now or met.link.lost]
            late = [self._waiting.pop(key)[0] for key in stale]
        for met in late:
            met.link.fail("no client came for this session")

    def __len__(self) -> int:
        return len(self._waiting)
