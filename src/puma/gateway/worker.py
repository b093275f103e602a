"""One request at a time: a thread that owns the session, a bounded queue before it, and a new session after a failure.

A job is a generator over what it yields to its asker; it is closed at the next item once nobody waits for it any more.
When the parties fail, whoever waits is told so and nothing of theirs is sent: only who asks again gets a new session.
This file must not know HTTP or models.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any

from puma.errors import HandshakeError, PeerLost, PeerTimeout, ProtocolError, PumaError, UsageError
from puma.gateway import watch as watched
from puma.gateway.cluster import Cluster
from puma.gateway.refusals import busy, not_sent
from puma.gateway.watch import Watch, noting

# A party that is gone or not yet there says nothing about an answer. Whatever else ends a session could be a party that
# changed something and watches whether it is asked again.
INNOCENT = (PeerLost, PeerTimeout, HandshakeError)
SHUT_HINT = "find out which party deviates, or runs another version, then start the gateway again"
IDLE, STARTING, READY, FAILED = "idle", "starting", "ready", "failed"
Run = Callable[[Any], Generator[Any, None, None]]


class Job:
    """A request in the queue and afterwards; items come in the asker's event loop. `watch` is its asker's to see."""

    def __init__(self, run: Run, watch: Watch) -> None:
        self.run, self.watch = run, watch
        self.left = threading.Event()  # nobody waits for it any more
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Any] = asyncio.Queue()

    def tell(self, item: Any, last: bool = False) -> None:
        """From the thread: an item, an error, or the end."""
        with contextlib.suppress(RuntimeError):  # the event loop is gone, and with it whoever waited
            self._loop.call_soon_threadsafe(self._items.put_nowait, (item, last))

    def leave(self) -> None:
        """Nobody waits any more: the job ends at its next item, and `items` now."""
        self.left.set()
        self.tell(None, last=True)

    async def items(self, leave: bool = True) -> AsyncIterator[Any]:
        """What the job yields; raises its error. Leaving the iteration leaves the job, unless others read on."""
        try:
            while True:
                item, last = await self._items.get()
                if isinstance(item, Exception):
                    raise item
                if last:
                    return
                yield item
        finally:
            if leave:
                self.left.set()


class Worker:
    """Runs jobs in their order on a cluster that `start` makes; `waiting` of them may wait behind the one that runs."""

    def __init__(self, start: Callable[[], Cluster], waiting: int) -> None:
        self.waiting, self.state = waiting, IDLE
        self.problem: str | None = None  # why the last session ended, until there is a new one
        self._shut: ProtocolError | None = None  # what the parties sent did not fit: nothing is asked any more
        self._start = start
        self._cluster: Cluster | None = None
        self._jobs: deque[Job | None] = deque()
        self._running: Job | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="session", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Jobs that run or wait."""
        with self._changed:
            return len(self._jobs) + (self._running is not None)

    def ahead(self, watch: Watch) -> int:
        """How many jobs are served before this one."""
        with self._changed:
            waiting = [job.watch for job in self._jobs if job is not None]
            return waiting.index(watch) + (self._running is not None) if watch in waiting else 0

    def submit(self, run: Run, watch: Watch) -> Job:
        """Put a job at the end of the queue; refused if too many wait there."""
        job = Job(run, watch)
        with self._changed:
            if len(self._jobs) + (self._running is not None) > self.waiting:
                raise busy(len(self._jobs))
            self._jobs.append(job)
            self._changed.notify()
        return job

    def close(self) -> None:
        """End the session once the job that runs comes to its next item; what waits is not run any more."""
        with self._changed:
            for job in [self._running, *self._jobs]:
                if job is not None:
                    job.left.set()
            self._jobs.append(None)
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs)
                job = self._running = self._jobs.popleft()
            if job is None:
                break
            if job.left.is_set():
                job.watch.end(watched.STOPPED)
            else:
                self._do(job)
            with self._changed:
                self._running = None
        self._drop(IDLE)

    def _do(self, job: Job) -> None:
        try:
            cluster = self._session()
            with noting(cluster.session, [job.watch]), contextlib.closing(job.run(cluster)) as items:
                for item in items:
                    job.tell(item)
                    if job.left.is_set():
                        break
            job.watch.end(watched.STOPPED if job.left.is_set() else watched.DONE)
            job.tell(None, last=True)
        except Exception as error:
            job.watch.end(watched.FAILED)
            if not isinstance(error, UsageError) or self._cluster is None or self._cluster.session.over:
                self._drop(FAILED, error)
            job.tell(error)

    def _session(self) -> Cluster:
        """The session, or a new one if the last has failed; none after an answer that did not fit."""
        if self._shut is not None:
            what = f"the parties are asked nothing more, since what they sent did not fit: {self._shut.message}"
            raise ProtocolError(what, SHUT_HINT)
        if self._cluster is None:
            self.state = STARTING
            self._cluster = self._start()
        self.state, self.problem = READY, None
        return self._cluster

    def _drop(self, state: str, error: Exception | None = None) -> None:
        """End the session. Where the parties failed, nothing more goes to them before somebody asks anew."""
        cluster, self._cluster, self.state = self._cluster, None, state
        self.problem = str(error) if isinstance(error, PumaError) else error and type(error).__name__
        if isinstance(error, ProtocolError):
            if not isinstance(error, INNOCENT):
                self._shut = self._shut or error
            self._refuse_all(error)
        if cluster is not None:
            with contextlib.suppress(Exception):  # it has failed already, and the reason is known
                cluster.close()

    def _refuse_all(self, error: ProtocolError) -> None:
        with self._changed:
            waiting = [job for job in self._jobs if job is not None]
            for job in waiting:
                self._jobs.remove(job)
        for job in waiting:
            job.watch.end(watched.FAILED)
            job.tell(not_sent(error))
