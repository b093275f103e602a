"""Heartbeats: how a process that is stopped, but whose sockets still stand, is told from one that computes.

One thread of each process sends a bare frame on every link now and then, whatever the others are busy with, and ends
the links on which nothing has come for too long. It must not know what links carry.
"""

from __future__ import annotations

import threading
from time import monotonic, sleep
from typing import Protocol
from weakref import WeakSet

EVERY = 1.0  # seconds between two beats
SILENT = 6.0  # seconds without a byte after which a peer is given up; with all that follows, less than ten
# A process that was itself stopped for so long has heard nobody, which is nobody's fault.
ABSENT = 3.0
NAME = "puma pulse"


class Beating(Protocol):
    """A link as its heart sees it."""

    heard: float  # when something last came, by `monotonic`

    def beat(self) -> None:
        """Send a beat, unless that would have to wait."""

    def silent(self, seconds: float) -> None:
        """Nothing has come for so long: end the link."""


class Pulse:
    """The thread and the links that it looks after; a link leaves by `remove`, or by being forgotten."""

    def __init__(self) -> None:
        self._links: WeakSet[Beating] = WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._last = self._present = monotonic()

    def add(self, link: Beating) -> None:
        """Beat on this link from now on."""
        with self._lock:
            self._links.add(link)
            if self._thread is None:
                self._last = self._present = monotonic()
                self._thread = threading.Thread(target=self._run, name=NAME, daemon=True)
                self._thread.start()

    def remove(self, link: Beating) -> None:
        """This link is over."""
        with self._lock:
            self._links.discard(link)

    def look(self, now: float) -> None:
        """Beat on all links, and then end those that are silent at this time: ending one may take a while."""
        if now - self._last > ABSENT:
            self._present = now
        self._last = now
        with self._lock:
            links = list(self._links)
        for link in links:
            link.beat()
        for link in links:
            quiet = now - max(self._present, link.heard)
            if quiet > SILENT:
                link.silent(quiet)

    def _run(self) -> None:
        while True:
            sleep(EVERY)
            self.look(monotonic())


PULSE = Pulse()
