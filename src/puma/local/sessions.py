"""Sessions for threads that ask a local trio at the same time: requests of several sessions share the parties' steps.

As long as one thread asks, it has the trio's first session, which needs nothing more. This file must not know what is
asked.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable

from puma.client.client import Client
from puma.client.model_info import ModelInfo
from puma.client.session import Session
from puma.errors import UsageError

MOST = 32  # sessions besides the first: further threads wait for that one


class _Held:
    """A session as long as a thread lives."""

    def __init__(self, session: Session) -> None:
        self.session = session


class Beside(Client):
    """One more session with the parties of a local cluster; closing it leaves them."""

    in_company = True

    def __init__(self, session: Session, model: ModelInfo) -> None:
        self._session, self.model = session, model

    @property
    def session(self) -> Session:
        """Its own, for one thread at a time."""
        return self._session

    def another(self) -> Beside:
        """UsageError: ask the cluster for it."""
        raise UsageError("a session beside others makes none", "ask the cluster")

    def close(self) -> None:
        """Leave the parties; harmless when repeated."""
        self._session.close()


class Sessions:
    """One for each thread; `make` opens another session with the same model, or gives None where there can be none."""

    def __init__(self, first: Session, make: Callable[[], Session | None]) -> None:
        self.first, self.latest = first, first
        self._make, self._made = make, list[Session]()
        self._free: list[Session] = []
        self._thread: int | None = None  # the one that has asked so far
        self._several = False
        self._lock = threading.Lock()
        self._mine = threading.local()

    def mine(self) -> Session:
        """This thread's."""
        if not self.first.turns.here:  # a forked process has none, and the lock may never be free in it
            return self.first
        with self._lock:
            self._thread = self._thread or threading.get_ident()
            self._several = self._several or self._thread != threading.get_ident()
            self.latest = self._own() if self._several else self.first
            return self.latest

    def present(self) -> Session | None:
        """This thread's, if it has asked; none is made."""
        held = getattr(self._mine, "held", None)
        if held is not None:
            return held.session
        return self.first if self._thread == threading.get_ident() else None

    def all(self) -> list[Session]:
        """Every one that there is."""
        return [self.first, *self._made]

    def close(self) -> None:
        """End those that were made."""
        for session in self._made:
            session.close()

    def _own(self) -> Session:
        held = getattr(self._mine, "held", None)
        if held is not None and not held.session.over:
            return held.session
        session = self._another()
        if session is None:
            return self.first
        self._mine.held = held = _Held(session)
        weakref.finalize(held, self._free.append, session)
        return session

    def _another(self) -> Session | None:
        while self._free:
            session = self._free.pop()
            if not session.over:
                return session
        if self.first.over or len(self._made) >= MOST:
            return None
        made = self._make()
        if made is not None:
            self._made.append(made)
        return made
