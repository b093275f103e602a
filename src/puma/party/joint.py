"""A session's request that goes through the channel's steps with those of others: its client's words in, results out.

Words are heard while steps are computed, so that a client who is ahead of what it has read keeps nobody waiting; one
that changes what comes next is heeded once all results before it are there. One session's client knows nothing of
another's. This file must not know how a step is computed, nor how a party tells others what it was told.
"""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from puma.engine.company import Ended, Event, Member, Outcome
from puma.engine.generation import Turn
from puma.engine.request import Request
from puma.errors import PeerTimeout, ProtocolError
from puma.party.channel import Channel
from puma.wire import messages as msg

LOOK = 0.5  # seconds after which a session that waits for results looks whether everybody is still there


@dataclass(frozen=True)
class Place:
    """Where a session's requests are computed in company, and by what they are known there: number and key."""

    channel: Callable[[], Channel]
    session: bytes
    key: str = ""


class Surface(Protocol):
    """What a session does with a request's words and results."""

    def hear(self) -> msg.Pace:
        """The client's next word."""
        ...

    def told(self, word: msg.Request) -> bytes:
        """Let the other parties know of a word; a digest of all words so far."""
        ...

    def turn(self, request: msg.Generate, word: msg.Pace, requests: Sequence[Request], step: int) -> Turn:
        """What a word lets happen before this step; raises if it is refused."""
        ...

    def give(self, outcome: Outcome) -> None:
        """Results leave for the client, once the parties have agreed on all words so far."""
        ...

    def agree(self) -> None:
        """Raise if the parties were not told alike."""
        ...

    def look(self) -> None:
        """Raise how a link of the session ended, if one did."""
        ...


class Joint:
    """One request from its first step to its last. `run` returns when the client has got all that it wanted."""

    def __init__(
        self, channel: Channel, member: Member, surface: Surface, digest: bytes, prefilled: Callable[[], None]
    ) -> None:
        self._channel, self._member, self._surface, self._prefilled = channel, member, surface, prefilled
        self._events: queue.SimpleQueue[Event | msg.Pace | Exception] = queue.SimpleQueue()
        member.tell = self._events.put
        job = member.requests[0].job
        self._job = job
        self._paced = isinstance(job, msg.Generate) and job.paced
        tokens = job.tokens if isinstance(job, msg.Generate) else 1
        first = 1 if self._paced else tokens
        self._left = [tokens - first] * member.rows  # what each row will be owed once all granted steps are taken
        member.grants.append((first, digest))
        self._words: deque[msg.Pace] = deque()  # that wait for results before them
        self._got = 0  # results that have left
        self._ended = False  # the leader has said that there are no more steps
        self._hearer: threading.Thread | None = None
        self._hearing = False
        self._wanted = threading.Semaphore(0)
        self._done = False

    def run(self) -> None:
        """Take part; raises what ends it, and then nobody here waits for it any more."""
        try:
            self._channel.allow(self._member)
            while not self._finished:
                self._listen()
                self._take(self._next())
        except BaseException:
            self._channel.leave(self._member)
            raise
        finally:
            self._done = True
            self._wanted.release()

    @property
    def _finished(self) -> bool:
        """Whether all granted results have left, and no more will be granted."""
        more = any(self._left) and not self._member.closed
        return not more and not self._words and self._got == self._member.granted

    def _next(self) -> Event | msg.Pace | Exception:
        while True:
            try:
                return self._events.get(timeout=LOOK)
            except queue.Empty:
                self._surface.look()

    def _take(self, event: Event | msg.Pace | Exception) -> None:
        if isinstance(event, Outcome):
            self._surface.give(event)
            self._got += bool(event.shares)  # none as long as some of the prompt is unread
            if self._got == 1 and event.shares:
                self._prefilled()
        elif isinstance(event, msg.Pace):
            self._hearing = False
            self._words.append(event)
        elif isinstance(event, Ended):
            self._ended = True
            if event.problem is not None:
                raise event.problem
        else:
            raise event
        while self._words and self._may_heed(self._words[0]):
            self._heed(self._words.popleft())

    def _may_heed(self, word: msg.Pace) -> bool:
        """At once, unless it changes who goes on or with what."""
        plain = not (word.leave or word.join or word.kept or word.input is not None or _fed(self._job))
        return not word.more or plain or self._got == self._member.granted

    def _heed(self, word: msg.Pace) -> None:
        digest, member = self._surface.told(word), self._member
        if self._ended and word.more:
            self._surface.agree()
            raise ProtocolError("the parties were not told alike who goes on", "look at the client's error")
        if not word.more:
            member.closed = True
        else:
            step = member.granted
            rows = [left for left in self._left if left]
            if self._got == step:
                assert isinstance(self._job, msg.Generate)
                member.turns[step] = self._surface.turn(self._job, word, member.requests, step)
            if word.kept:  # as many as there are rows, or it has been refused
                rows = [left + 1 - len(kept) for left, kept in zip(rows, word.kept, strict=True)]
            gone = set(word.leave)
            rows = [left for row, left in enumerate(rows) if row not in gone]
            rows += [job.tokens for job in word.join for _ in job.input.lengths]
            self._left = [left - 1 for left in rows]
            member.grants.append((step + 1, digest))
        self._channel.allow(member)

    # -- the client's words -------------------------------------------------------------------------------------------

    def _listen(self) -> None:
        """Hear the client's next word in a thread beside, if there can be one before anything else happens."""
        may_come = self._paced and any(self._left) and not self._member.closed
        if may_come and not self._words and not self._hearing:
            if self._hearer is None:
                self._hearer = threading.Thread(target=self._hear, name="puma hears a client", daemon=True)
                self._hearer.start()
            self._hearing = True
            self._wanted.release()

    def _hear(self) -> None:
        while True:
            self._wanted.acquire()
            if self._done:
                return
            try:
                self._events.put(self._word())
            except Exception as error:
                self._events.put(error)
                return

    def _word(self) -> msg.Pace:
        """A client may be silent as long as it waits for results itself."""
        while True:
            waits = self._got < self._member.granted
            try:
                return self._surface.hear()
            except PeerTimeout:
                if not (waits and not self._done):
                    raise


def _fed(job: msg.Generate | msg.Encode) -> bool:
    return isinstance(job, msg.Generate) and job.fed
