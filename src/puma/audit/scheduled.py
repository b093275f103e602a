"""Canaries beside real requests: one for so many on average, each like the request beside which it is asked.

Parties see sessions of one request each, which begin alike. A canary of the very shape of a real request comes before
it or after it, by chance: so neither a request of a new shape nor one that was seen a moment ago is safe to deviate in.
How far an answer goes, which shows as it ends, is drawn from answers of late. That one of the two meant nothing shows
when it is opened. This file must not know how a canary is judged.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from puma.audit.auditing import Ask
from puma.audit.report import Report
from puma.client.canaries.asking import ask_like
from puma.client.session import Session
from puma.errors import ProtocolError, PumaError
from puma.net.endpoint import again
from puma.wire.messages import Encode, Generate, Pace, Request

LATE = 64  # answers whose lengths are remembered
WAIT = 20.0  # seconds that a request waits for a canary to be asked before it
HINT = "find out which party deviates, or runs another version, before anything is asked again"
Tell = Callable[[Report | PumaError], None]


@dataclass(frozen=True)
class Like:
    """What a canary is to look like: what is said in public, so many words early, by which choice of functions; `asked`
    is set once its first word leaves."""

    said: Sequence[Request]
    early: int
    variants: str
    asked: threading.Event = field(default_factory=threading.Event)


class Schedule:
    """`one` asks a canary, one for `every` requests; `tell` hears, in another thread, what each found or why it failed.
    After a finding nothing more is asked: `check` raises it.

    Canaries are asked and judged one after the other. One that is due while another is judged is asked beside a later
    request.
    """

    def __init__(self, one: Callable[[Ask], Report], every: int, tell: Tell) -> None:
        self._one, self._every, self._tell = one, every, tell
        self._late: deque[tuple[int, int]] = deque(maxlen=LATE)  # further words of an answer, and how many came early
        self._wanted: queue.SimpleQueue[Like | None] = queue.SimpleQueue()
        self._due = 0
        self._busy = False
        self._lock = threading.Lock()
        self._problem: ProtocolError | None = None
        self._thread = threading.Thread(target=self._work, name="puma audits", daemon=True)
        self._thread.start()

    def about(self, request: Generate | Encode, variants: str = "lean") -> None:
        """This request is about to leave: perhaps a canary like it goes before it, or soon after. ProtocolError once a
        party has been found to deviate."""
        self.check()
        with self._lock:
            self._due += below(self._every) == 0
            if not self._due or self._busy:
                return
            self._due, self._busy = self._due - 1, True
            like = self._like(request, variants)
        first = self._first()
        self._wanted.put(like)
        if first:
            like.asked.wait(WAIT)
            self.check()

    def over(self, said: Sequence[Request], early: int = 0) -> None:
        """A request has ended, of which this was said in public, so many words early (`ask_like`)."""
        if said and isinstance(said[0], Generate) and said[0].paced:
            with self._lock:
                self._late.append((granted(said[1:]), max(0, early)))

    def check(self) -> None:
        """ProtocolError once a party has been found to deviate."""
        if self._problem is not None:
            raise again(self._problem)

    def close(self, seconds: float = 60.0) -> None:
        """No more canaries; one that is under way is waited for."""
        self._wanted.put(None)
        self._thread.join(seconds)

    def _first(self) -> bool:
        """Whether a canary comes before the request that it is like: then a request of a new shape is a canary about as
        often as the second one of two alike, and a party learns nothing from having seen the first."""
        return below(max(2, self._every)) != 0

    def _like(self, request: Generate | Encode, variants: str) -> Like:
        if isinstance(request, Encode) or not request.paced:
            return Like([request], 0, variants)
        most = request.tokens - 1
        more, early = self._late[below(len(self._late))] if self._late else (below(most + 1), 0)
        more = min(more, most)
        return Like([request, *[Pace(True)] * more], min(early, more), variants)

    def _work(self) -> None:
        while (like := self._wanted.get()) is not None:
            try:
                self._canary(like)
            finally:
                like.asked.set()
                self._busy = False

    def _canary(self, like: Like) -> None:
        try:
            report = self._one(partial(_asked, like=like))
        except PumaError as error:
            self._tell(error)
            return
        except Exception as error:  # else this thread would be gone, and no canary ever asked again
            self._tell(PumaError(f"{type(error).__name__}: {error}", "please report it"))
            return
        if report.findings:
            self._problem = ProtocolError("; ".join(map(str, report.findings)), HINT)
        self._tell(report)


class Audited:
    """A cluster whose sessions take one request each, so that they look like canaries; else it is the cluster."""

    def __init__(self, cluster: Any, schedule: Schedule) -> None:
        self._cluster, self._schedule = cluster, schedule
        session = cluster.session
        session.once = True
        session.before.append(lambda request: schedule.about(request, session.variants))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def another(self) -> Audited:
        """The same parties and model in one more session; ProtocolError once a party has been found to deviate."""
        self._schedule.check()
        return Audited(self._cluster.another(), self._schedule)

    def close(self) -> None:
        """End the session."""
        session = self._cluster.session
        self._schedule.over(session.said, session.early)
        self._cluster.close()


def granted(words: Sequence[Request]) -> int:
    """After how many of these words a paced request went on."""
    return sum(isinstance(word, Pace) and word.more for word in words)


def below(most: int) -> int:
    """A number from the operating system, from 0 on."""
    return int.from_bytes(os.urandom(8)) % most


def _asked(session: Session, like: Like) -> None:
    session.variants = like.variants
    session.before.append(lambda _: like.asked.set())
    ask_like(session, like.said, like.early)
