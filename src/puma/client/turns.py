"""Whose turn it is: the requests of one session come one after the other, whichever threads they come from.

A whole request is one turn, and so is each step of a stream; between its steps a stream keeps the others out. This file
must not know what a request is.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from time import monotonic
from typing import Any, ParamSpec, TypeVar

from puma.errors import UsageError

P = ParamSpec("P")
R = TypeVar("R")

PATIENCE = 60.0  # seconds that others wait for a stream which nobody reads


class Stream:
    """A request that is read step by step; entering it is the turn of one step."""

    def __init__(self, turns: Turns) -> None:
        self._turns = turns

    def __enter__(self) -> None:
        self._turns._enter(self)

    def __exit__(self, *_: object) -> None:
        self._turns._exit(self)

    @property
    def current(self) -> bool:
        """Whether no other request has come since."""
        return self._turns._open is self

    @property
    def at_hand(self) -> bool:
        """Whether this thread could take the next step now: not while it waits itself, as a finaliser may find it."""
        turns = self._turns
        return turns.here and self.current and turns._inside is None and threading.get_ident() not in turns._waiting


class Turns:
    """One session's. The thread that read a stream last may ask for something else, which ends the stream; others wait
    until it is read, closed or forgotten, or for PATIENCE seconds in which nobody reads it."""

    def __init__(self, patience: float = PATIENCE) -> None:
        self._pid = os.getpid()
        self._changed = threading.Condition()  # its lock is reentrant: a finaliser may come upon a thread that waits
        self._patience = patience
        self._inside: int | None = None  # the thread whose turn it is
        self._waiting: set[int] = set()
        self._open: Stream | None = None
        self._reader, self._read = 0, 0.0  # who took the last turn, and when it ended

    @property
    def here(self) -> bool:
        """Whether this is the process to which the session belongs."""
        return os.getpid() == self._pid

    def check(self) -> None:
        """UsageError in a process that was forked from the one to which the session belongs."""
        if not self.here:
            raise UsageError(
                "this cluster belongs to the process that opened it, and this one was forked from it",
                "open a cluster here, or start processes by multiprocessing's spawn",
            )

    @contextmanager
    def whole(self) -> Iterator[None]:
        """The turn of a whole request; a stream that this thread has open ends by it."""
        self._enter(None)
        try:
            yield
        finally:
            self._exit(None)

    @contextmanager
    def stream(self) -> Iterator[Stream]:
        """A request that is read step by step, the first step being this thread's turn as soon as it enters."""
        self.check()
        stream = Stream(self)
        self._enter(None, stream)
        self._exit(None)
        try:
            yield stream
        finally:
            self._forget(stream)

    @contextmanager
    def at_once(self) -> Iterator[bool]:
        """The turn, if nobody has it: whether this thread got it."""
        with self._changed:
            free = self._inside is None
            if free:
                self._inside, self._open = threading.get_ident(), None
        try:
            yield free
        finally:
            if free:
                self._exit(None)

    def _enter(self, wanted: Stream | None, opened: Stream | None = None) -> None:
        self.check()
        me = threading.get_ident()
        with self._changed:
            if self._inside == me:
                raise UsageError("a request was made in the middle of another", "wait until the first has returned")
            self._waiting.add(me)
            try:
                self._await(wanted, me)
            finally:
                self._waiting.discard(me)
            if wanted is not None and self._open is not wanted:
                raise UsageError("a new request came before this one was read", "read a stream to its end")
            self._inside = self._reader = me
            self._open = wanted or opened

    def _await(self, wanted: Stream | None, me: int) -> None:
        while not self._free(wanted, me):
            rest = None if self._inside is not None else self._read + self._patience - monotonic()
            if rest is not None and rest <= 0:
                raise UsageError(
                    "another thread has a stream open, and does not read it",
                    "read it to its end or close it before others ask",
                )
            self._changed.wait(rest)

    def _free(self, wanted: Stream | None, me: int) -> bool:
        if wanted is not None and self._open is not wanted:
            return True  # to hear that it is over
        return self._inside is None and (self._open is None or self._open is wanted or self._reader == me)

    def _exit(self, _: Stream | None) -> None:
        with self._changed:
            self._inside, self._read = None, monotonic()
            self._changed.notify_all()

    def _forget(self, stream: Stream) -> None:
        """The stream keeps nobody out any more; in a forked process there is nobody, and its lock may never come."""
        if not self.here:
            return
        with self._changed:
            if self._open is stream:
                self._open = None
                self._changed.notify_all()


def whole(method: Callable[P, R]) -> Callable[P, R]:
    """A method of something with `turns` that is one request."""

    @wraps(method)
    def turn(*args: P.args, **kwargs: P.kwargs) -> R:
        owner: Any = args[0]
        with owner.turns.whole():
            return method(*args, **kwargs)

    return turn
