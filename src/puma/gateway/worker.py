"""One request at a time: a thread that owns the session, a bounded queue before it, and a new session after a failure.

A job is a generator over what it yields to its asker; it is closed at the next item once nobody waits for it any more.
This file must not know HTTP or models.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any, Protocol

from puma.errors import UsageError
from puma.gateway.replies import busy

IDLE, STARTING, READY, FAILED = "idle", "starting", "ready", "failed"


class Cluster(Protocol):
    """What the gateway needs of three parties that serve a model: a session with them, and the model's public side."""

    @property
    def session(self) -> Any: ...

    @property
    def model(self) -> Any: ...

    @property
    def cost(self) -> Any: ...

    def encode(self, sentence: Any) -> Any: ...

    def close(self) -> None: ...


Run = Callable[[Any], Generator[Any, None, None]]


class Job:
    """A request in the queue and afterwards; items come in the asker's event loop."""

    def __init__(self, run: Run) -> None:
        self.run = run
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

    def submit(self, run: Run) -> Job:
        """Put a job at the end of the queue; refused if too many wait there."""
        job = Job(run)
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
            if not job.left.is_set():
                self._do(job)
            with self._changed:
                self._running = None
        self._drop(IDLE)

    def _do(self, job: Job) -> None:
        try:
            with contextlib.closing(job.run(self._session())) as items:
                for item in items:
                    job.tell(item)
                    if job.left.is_set():
                        break
            job.tell(None, last=True)
        except Exception as error:
            if not isinstance(error, UsageError) or self._cluster is None or self._cluster.session.over:
                self._drop(FAILED)
            job.tell(error)

    def _session(self) -> Cluster:
        """The session, or a new one if the last has failed."""
        if self._cluster is None:
            self.state = STARTING
            self._cluster = self._start()
        self.state = READY
        return self._cluster

    def _drop(self, state: str) -> None:
        cluster, self._cluster, self.state = self._cluster, None, state
        if cluster is not None:
            with contextlib.suppress(Exception):  # it has failed already, and the reason is known
                cluster.close()
