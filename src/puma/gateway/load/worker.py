"""Threads that have a session each, a bounded queue before them, and new sessions after a failure.

The parties compute what these sessions ask in company, a step of all at a time: whoever comes joins at the next step,
and leaves when it has ended or is gone. A session is made when somebody waits for it, up to a number, or as many as the
parties let in. When the parties fail, whoever waits is told so and nothing of theirs is sent: only who asks again gets
new sessions. This file must not know HTTP or models.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from puma.client.drafts.draft import Source
from puma.client.session import Session
from puma.errors import (
    AdmissionError,
    HandshakeError,
    OutOfRange,
    PeerLost,
    PeerTimeout,
    ProtocolError,
    PumaError,
    StoreError,
    UsageError,
)
from puma.gateway import watch as watched
from puma.gateway.answers import Answers, Piece, Wanted
from puma.gateway.cluster import Cluster
from puma.gateway.load.jobs import Job, Run
from puma.gateway.load.keys import ANYBODY, Key
from puma.gateway.load.metrics import Metrics
from puma.gateway.load.waiting import Waiting
from puma.gateway.refusals import Refused, busy, not_sent
from puma.gateway.watch import Watch, noting, tapped

# A party that is gone or not yet there says nothing about an answer. Whatever else ends a session could be a party that
# changed something and watches whether it is asked again.
INNOCENT = (PeerLost, PeerTimeout, HandshakeError)
SHUT_HINT = "find out which party deviates, or runs another version, then start the gateway again"
IDLE, STARTING, READY, FAILED = "idle", "starting", "ready", "failed"
AGAIN = 5.0  # seconds after which parties that let no further session in are asked for one again


def once(session: Any) -> bool:
    """Whether a session is for one request, and none beside it, as where the parties are audited."""
    return getattr(session, "once", False)


def over(session: Session) -> bool:
    """Whether a session has ended, perhaps while nobody asked: parties let go of one that is silent for long. Raises
    how a link ended that no party ends so which is merely gone, or has waited enough."""
    for link in session.links if session.over else ():
        try:
            link.check()
        except INNOCENT:
            continue
    return session.over


class Seat:
    """A thread's place: its session, and to which cluster of this gateway's that belongs."""

    def __init__(self) -> None:
        self.cluster: Cluster | None = None
        self.of: Cluster | None = None
        self.job: Job | None = None
        self.failures = 0  # of sessions, when it took its job
        self.asks = False  # from when its job has a session until whatever came of that has been told and heeded

    def close(self) -> None:
        """Leave the parties; a session that is the cluster's own ends with it."""
        cluster, of, self.cluster = self.cluster, self.of, None
        if cluster is not None and cluster is not of:
            with contextlib.suppress(Exception):  # it may have failed already, and the reason is known
                cluster.close()


class Worker:
    """Runs jobs on sessions with a cluster that `start` makes, `together` at a time at most; `waiting` of them may wait
    behind these, keys in turns. Drafts of their answers come from `draft`, if there are any."""

    def __init__(
        self,
        start: Callable[[], Cluster],
        waiting: int,
        together: int = 1,
        metrics: Metrics | None = None,
        draft: Source | None = None,
    ) -> None:
        self.waiting, self.together, self.state = waiting, together, IDLE
        self.metrics, self._draft = metrics or Metrics(), draft
        self.problem: str | None = None  # why the last session ended, until there is a new one
        self._shut: ProtocolError | None = None  # what the parties sent did not fit: nothing is asked any more
        self._start = start
        self._cluster: Cluster | None = None
        self._failures = 0  # of the parties, by which whoever waits for a session is told
        self._latest = ProtocolError("no session has failed yet")
        self._first: Any = None  # its session; whoever asks a local one for it in another thread gets another
        self._opening = threading.Lock()
        self._jobs = Waiting()
        self._seats: list[Seat] = []
        self._threads: list[threading.Thread] = []
        self._full_until = 0.0
        self._closed = False
        self._took = 1.0  # seconds of a job, of late
        self._changed = threading.Condition()

    @property
    def queued(self) -> int:
        """Jobs that run or wait."""
        with self._changed:
            return len(self._jobs) + self.running

    @property
    def running(self) -> int:
        """Jobs that are with the parties."""
        return sum(seat.job is not None for seat in self._seats)

    @property
    def behind(self) -> int:
        """Jobs that wait."""
        return len(self._jobs)

    @property
    def sessions(self) -> int:
        """Sessions that are open."""
        return sum(seat.cluster is not None for seat in self._seats)

    def ahead(self, watch: Watch) -> int:
        """How many jobs are served before this one: those that wait before it, and one that has to end for it."""
        with self._changed:
            waiting = [job.watch for job in self._jobs]
            return waiting.index(watch) + bool(self.running) if watch in waiting else 0

    def submit(self, run: Run | Wanted, watch: Watch, key: Key = ANYBODY, tokens: int = 0) -> Job:
        """Put a job at the end of its key's queue; refused if too many wait, or it is more than this key may."""
        with self._changed:
            free = max(0, self._room - self.running)
            if len(self._jobs) - free >= self.waiting:
                after = self._took * (1 + len(self._jobs)) / max(1, self._room)
                raise busy(f"{len(self._jobs)} requests wait already", after)
            key.begin(tokens)
            job = Job(run, watch, key, tokens)
            self._jobs.put(job)
            self._man()
            self._changed.notify_all()
        return job

    def close(self) -> None:
        """End all sessions once the jobs that run come to their next items; what waits is not run any more."""
        with self._changed:
            self._closed = True
            for job in [*self._jobs, *(seat.job for seat in self._seats)]:
                if job is not None:
                    job.left.set()
            threads = [*self._threads]
            self._changed.notify_all()
        for thread in threads:
            thread.join()
        cluster = self._let_go(IDLE)
        if cluster is not None:
            with contextlib.suppress(Exception):
                cluster.close()

    # -- threads ----------------------------------------------------------------------------------------------------

    @property
    def _room(self) -> int:
        """Jobs that can be with the parties at a time, as far as is known."""
        return self.together if monotonic() >= self._full_until else max(1, len(self._seats))

    def _man(self) -> None:
        """One more thread, if a job would have to wait for those that there are."""
        if len(self._seats) < self._room and len(self._jobs) + self.running > len(self._seats):
            seat = Seat()
            self._seats.append(seat)
            self._threads = [thread for thread in self._threads if thread.is_alive()]
            self._threads.append(threading.Thread(target=self._work, args=(seat,), name="session", daemon=True))
            self._threads[-1].start()

    def _next(self, seat: Seat) -> Job | None:
        """The next job for this seat, once there is one; None at the end."""
        with self._changed:
            seat.job = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._closed or self._jobs)
            if not self._jobs:
                return None
            seat.job, seat.failures = self._jobs.take(), self._failures
            return seat.job

    def _work(self, seat: Seat) -> None:
        try:
            while (job := self._next(seat)) is not None:
                if job.left.is_set():
                    self._end(job, watched.STOPPED)
                    continue
                if not self._do(job, seat):
                    self._stand_back(job, seat)
                    return
        finally:
            seat.close()
            with self._changed:
                if seat in self._seats:
                    self._seats.remove(seat)

    def _stand_back(self, job: Job, seat: Seat) -> None:
        """There is no session for this seat: others do the job, before all that came later."""
        with self._changed:
            seat.job = None
            self._full_until = monotonic() + AGAIN
            self._seats.remove(seat)
            self._jobs.put(job, first=True)
            self._changed.notify_all()

    def _do(self, job: Job, seat: Seat) -> bool:
        """One job from its beginning to its end; False if there is no session for this seat."""
        began = monotonic()
        try:
            cluster = self._session(seat)
            if cluster is None:
                return False
            self.metrics.observe("puma_gateway_batch_size", self.running)
            run = Answers.alone(job.run, self._draft) if isinstance(job.run, Wanted) else job.run
            with noting(cluster.session, job.watch), contextlib.closing(run(cluster)) as items:
                for number, item in enumerate(items):
                    self._note(job, item, cluster if number == 0 else None)
                    job.tell(item)
                    if job.left.is_set():
                        break
            if self._shut is not None and job.left.is_set():
                raise self._shut
            self._end(job, watched.STOPPED if job.left.is_set() else watched.DONE)
            self._took += 0.2 * (monotonic() - began - self._took)
        except Refused as error:
            self._end(job, watched.FAILED, error)
        except Exception as error:
            self._failed(error, job, seat)
        finally:
            seat.asks = False
        return True

    def _note(self, job: Job, item: object, first: Cluster | None) -> None:
        """Numbers of an item; of the `first` one how long it took."""
        if isinstance(item, Piece) and item.new:
            self.metrics.add("puma_gateway_tokens_total", item.new, kind="new")
        if first is None:
            return
        self.metrics.observe("puma_gateway_first_token_seconds", monotonic() - job.came)
        if isinstance(job.run, Wanted):
            job.watch.cached = first.session.held if job.run.memory is not None else 0
            self.metrics.add("puma_gateway_tokens_total", sum(map(len, job.run.prompts)), kind="prompt")
            self.metrics.add("puma_gateway_tokens_total", job.watch.cached, kind="cached")

    def _end(self, job: Job, state: str, error: Exception | None = None) -> None:
        """Tell the asker, and give back what the job held."""
        job.key.end(job.tokens)
        cost = job.watch.cost
        if cost is not None:
            self.metrics.add("puma_gateway_rounds_total", cost.rounds)
            self.metrics.add("puma_gateway_bytes_total", cost.bytes()["total"])
        self.metrics.observe("puma_gateway_request_seconds", monotonic() - job.came)
        job.end(state, error)

    # -- sessions ---------------------------------------------------------------------------------------------------

    def _session(self, seat: Seat) -> Cluster | None:
        """This seat's session, or a new one if the last has failed; None if the parties let no further one in. Raises
        after an answer that did not fit, and Refused where the parties have failed since the seat took its job, of
        which nothing has been sent then."""
        with self._opening:
            if self._shut is not None:
                what = f"the parties are asked nothing more, since what they sent did not fit: {self._shut.message}"
                raise ProtocolError(what, SHUT_HINT)
            if seat.failures != self._failures:
                raise not_sent(self._latest)
            if self._cluster is not None and self._left_alone(self._cluster):
                with contextlib.suppress(PumaError):
                    self._cluster.close()
                self._cluster = None
            if self._cluster is None:
                seat.close()
                self.state = STARTING
                self._cluster = self._start()
                self._first = self._cluster.session
            if seat.of is not self._cluster or seat.cluster is None or over(seat.cluster.session):
                seat.close()
                try:
                    opened = self._opened(self._cluster)
                except ProtocolError as error:  # so that those who wait behind this one need not try it, too
                    self._failures, self._latest = self._failures + 1, error
                    raise
                if opened is None:
                    return None
                seat.of, seat.cluster = self._cluster, tapped(opened)
            self.state, self.problem, seat.asks = READY, None, True
            return seat.cluster

    def _left_alone(self, cluster: Cluster) -> bool:
        """Whether nothing is under way with these parties and their first session has ended: those on this machine are
        gone then, and others are reached anew. What has ended in somebody's request is under way until it is known why:
        parties that deviated must not be asked again."""
        seats = [seat for seat in self._seats if seat.of is cluster and seat.cluster is not None]
        if any(seat.asks for seat in seats) or not over(self._first):
            return False
        return once(self._first) or all(seat.cluster is None or seat.cluster.session.over for seat in seats)

    def _opened(self, cluster: Cluster) -> Cluster | None:
        """A session that no other seat has; None if there is none besides those of others."""
        taken = any(seat.cluster is cluster for seat in self._seats)
        if once(self._first):
            return None if taken else cluster
        if cluster.in_company and not taken and not self._first.over:
            return cluster
        try:
            return cluster.another()
        except AdmissionError:
            if any(seat.cluster is not None and seat.of is cluster for seat in self._seats):
                return None
            if self._first.over:
                raise
            return cluster  # alone, then

    def _failed(self, error: Exception, job: Job, seat: Seat) -> None:
        """Tell those concerned; what is not an asker's own fault ends the session, and what is the parties', all.

        Who asked hears of it before anything is closed: that takes a while, and others would be told its consequence
        before anybody was told the cause.
        """
        cluster, ended = seat.cluster, None
        ends = cluster is None or not isinstance(error, UsageError | OutOfRange) or cluster.session.over
        if ends:
            of = seat.of if cluster is not None else self._cluster
            self.metrics.add("puma_gateway_failures_total", error=type(error).__name__)
            if isinstance(error, ProtocolError | StoreError) or of is None:
                ended = self._let_go(FAILED, error, of)
        self._end(job, watched.FAILED, error)
        if ends:
            seat.close()
        if ended is not None:
            with contextlib.suppress(Exception):  # it has failed already, and the reason is known
                ended.close()

    def _let_go(self, state: str, error: Exception | None = None, of: Cluster | None = None) -> Cluster | None:
        """Use the cluster no more, unless there is another one by now: it, to be closed. Where the parties failed,
        nothing more goes to them before somebody asks anew."""
        with self._opening:
            if error is not None and of is not self._cluster:
                return None
            cluster, self._cluster, self.state = self._cluster, None, state
            if isinstance(error, ProtocolError):
                self._failures, self._latest = self._failures + 1, error
            self.problem = str(error) if isinstance(error, PumaError) else error and type(error).__name__
        if isinstance(error, ProtocolError):
            if not isinstance(error, INNOCENT):
                self._shut = self._shut or error
                self._stop_all()
            self._refuse_all(error)
        return cluster

    def _stop_all(self) -> None:
        """Nothing more is asked of parties that deviate, for whomever it is."""
        with self._changed:
            for seat in self._seats:
                if seat.job is not None:
                    seat.job.left.set()

    def _refuse_all(self, error: ProtocolError) -> None:
        with self._changed:
            waiting = self._jobs.clear()
        for job in waiting:
            job.key.end(job.tokens)
            job.watch.end(watched.FAILED)
            job.tell(not_sent(error))
