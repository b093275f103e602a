"""Canaries beside real requests: one for so many on average, by chance, each like one that was asked of late.

Parties see sessions of one request each, which begin alike; that one of them meant nothing shows when it is opened.
What a real request said in public is all that is remembered of it. This file must not know how a canary is judged.
"""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from puma.audit.auditing import Ask
from puma.audit.report import Report
from puma.client.canaries.asking import ask_like
from puma.errors import ProtocolError, PumaError
from puma.net.endpoint import again
from puma.wire.messages import Request

LATE = 64  # requests that are remembered
HINT = "find out which party deviates, or runs another version, before anything is asked again"
Tell = Callable[[Report | PumaError], None]


class Schedule:
    """`one` asks a canary, one for `every` requests; `tell` hears, in another thread, what each found or why it failed.
    After a finding nothing more is asked: `check` raises it."""

    def __init__(self, one: Callable[[Ask], Report], every: int, tell: Tell) -> None:
        self._one, self._every, self._tell = one, every, tell
        self._late: deque[tuple[list[Request], int]] = deque(maxlen=LATE)
        self._wanted: queue.SimpleQueue[tuple[list[Request], int] | None] = queue.SimpleQueue()
        self._problem: ProtocolError | None = None
        self._thread = threading.Thread(target=self._work, name="puma audits", daemon=True)
        self._thread.start()

    def over(self, said: Sequence[Request], early: int = 0) -> None:
        """A request has ended, of which this was said in public, so many words early (`ask_like`)."""
        if said and self._problem is None:
            self._late.append(([*said], early))
            if below(self._every) == 0:
                self._wanted.put(self._late[below(len(self._late))])

    def check(self) -> None:
        """ProtocolError once a party has been found to deviate."""
        if self._problem is not None:
            raise again(self._problem)

    def close(self, seconds: float = 60.0) -> None:
        """No more canaries; one that is under way is waited for."""
        self._wanted.put(None)
        self._thread.join(seconds)

    def _work(self) -> None:
        while (like := self._wanted.get()) is not None:
            said, early = like
            try:
                report = self._one(partial(ask_like, said=said, early=early))
            except PumaError as error:
                self._tell(error)
                continue
            if report.findings:
                self._problem = ProtocolError("; ".join(map(str, report.findings)), HINT)
            self._tell(report)


class Audited:
    """A cluster whose sessions take one request each, so that they look like canaries; else it is the cluster."""

    def __init__(self, cluster: Any, schedule: Schedule) -> None:
        self._cluster, self._schedule = cluster, schedule
        cluster.session.once = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cluster, name)

    def another(self) -> Audited:
        """The same parties and model in one more session; ProtocolError once a party has been found to deviate."""
        self._schedule.check()
        return Audited(self._cluster.another(), self._schedule)

    def close(self) -> None:
        """End the session, and perhaps ask a canary like what it asked."""
        session = self._cluster.session
        self._schedule.over(session.said, session.early)
        self._cluster.close()


def below(most: int) -> int:
    """A number from the operating system, from 0 on."""
    return int.from_bytes(os.urandom(8)) % most
