"""A thread that owns the session, a bounded queue before it, and a new session after a failure.

Generations whose tokens are chosen alike go through the parties together: those that wait join at the next token of
those that run, and whoever has finished or is gone leaves. All other jobs run alone, in their turn; one is closed at
its next item once nobody waits for it any more.
When the parties fail, whoever waits is told so and nothing of theirs is sent: only who asks again gets a new session.
This file must not know HTTP or models.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Sequence

from puma.client.drafts.draft import Source
from puma.errors import HandshakeError, OutOfRange, PeerLost, PeerTimeout, ProtocolError, PumaError, UsageError
from puma.gateway import watch as watched
from puma.gateway.answers import Answers, Wanted
from puma.gateway.cluster import Cluster
from puma.gateway.jobs import Job, Run
from puma.gateway.refusals import busy, not_sent
from puma.gateway.together import Together
from puma.gateway.watch import Watch, noting

# A party that is gone or not yet there says nothing about an answer. Whatever else ends a session could be a party that
# changed something and watches whether it is asked again.
INNOCENT = (PeerLost, PeerTimeout, HandshakeError)
SHUT_HINT = "find out which party deviates, or runs another version, then start the gateway again"
IDLE, STARTING, READY, FAILED = "idle", "starting", "ready", "failed"


class Worker:
    """Runs jobs in their order on a cluster that `start` makes; `waiting` of them may wait behind those that run, of
    which there are `together` at most. Drafts of their answers come from `draft`, if there are any."""

    def __init__(
        self, start: Callable[[], Cluster], waiting: int, together: int = 1, draft: Source | None = None
    ) -> None:  # fmt: skip
        self._draft = draft
        self.waiting, self.together, self.state = waiting, together, IDLE
        self.problem: str | None = None  # why the last session ended, until there is a new one
        self._shut: ProtocolError | None = None  # what the parties sent did not fit: nothing is asked any more
        self._start = start
        self._cluster: Cluster | None = None
        self._jobs: deque[Job | None] = deque()
        self._running: list[Job] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._work, name="session", daemon=True)
        self._thread.start()

    @property
    def queued(self) -> int:
        """Jobs that run or wait."""
        with self._changed:
            return len(self._jobs) + len(self._running)

    def ahead(self, watch: Watch) -> int:
        """How many jobs are served before this one."""
        with self._changed:
            waiting = [job.watch for job in self._jobs if job is not None]
            return waiting.index(watch) + bool(self._running) if watch in waiting else 0

    def submit(self, run: Run | Wanted, watch: Watch) -> Job:
        """Put a job at the end of the queue; refused if too many wait there."""
        job = Job(run, watch)
        with self._changed:
            if len(self._jobs) + bool(self._running) > self.waiting:
                raise busy(len(self._jobs))
            self._jobs.append(job)
            self._changed.notify()
        return job

    def close(self) -> None:
        """End the session once the job that runs comes to its next item; what waits is not run any more."""
        with self._changed:
            for job in [*self._running, *self._jobs]:
                if job is not None:
                    job.left.set()
            self._jobs.append(None)
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._jobs)
                job = self._jobs.popleft()
                if job is None:
                    break
                self._running = [job]
            if job.left.is_set():
                job.end(watched.STOPPED)
            elif isinstance(job.run, Wanted) and job.run.paced:
                self._do_together(job)
            else:
                self._do(job)
            with self._changed:
                self._running = []
        self._drop(IDLE)

    def _do(self, job: Job) -> None:
        """One job from its beginning to its end."""
        try:
            cluster = self._session()
            run = Answers.alone(job.run) if isinstance(job.run, Wanted) else job.run
            with noting(cluster.session, [job.watch]), contextlib.closing(run(cluster)) as items:
                for item in items:
                    job.tell(item)
                    if job.left.is_set():
                        break
            job.end(watched.STOPPED if job.left.is_set() else watched.DONE)
        except Exception as error:
            self._failed(error, [job])

    def _do_together(self, first: Job) -> None:
        """A generation, and those that join it before all have ended."""
        together = None
        try:
            with Together(self._session(), first, self._draft) as together:
                while together.jobs:
                    self._join(together)
                    together.step()
        except Exception as error:
            self._failed(error, [first] if together is None else together.jobs)

    def _join(self, together: Together) -> None:
        """Let those that wait join, in their order, up to the first that cannot: nobody overtakes it for long."""
        with self._changed:
            while self._jobs and len(together.jobs) < (1 if self._once else self.together):
                job = self._jobs[0]
                if job is None or not (job.left.is_set() or together.takes(job)):
                    break
                self._jobs.popleft()
                if job.left.is_set():
                    job.end(watched.STOPPED)
                else:
                    together.add(job)
            self._running = [*together.jobs]

    def _failed(self, error: Exception, jobs: Sequence[Job]) -> None:
        """Tell those concerned; what is not an asker's own fault ends the session."""
        if not isinstance(error, UsageError | OutOfRange) or self._cluster is None or self._cluster.session.over:
            self._drop(FAILED, error)
        for job in jobs:
            job.end(watched.FAILED, error)

    @property
    def _once(self) -> bool:
        """Whether a session is for one request, as where the parties are audited."""
        return self._cluster is not None and getattr(self._cluster.session, "once", False)

    def _session(self) -> Cluster:
        """The session, or a new one if the last has failed; none after an answer that did not fit."""
        if self._shut is not None:
            what = f"the parties are asked nothing more, since what they sent did not fit: {self._shut.message}"
            raise ProtocolError(what, SHUT_HINT)
        if self._once and self._cluster is not None and self._cluster.session.over:
            self._drop(IDLE)
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
