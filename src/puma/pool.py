"""The threads that this process computes with beside those that call: kernels and key streams cut large work into
ranges and do them side by side. One thread unless `use` says otherwise.

Results never depend on how many there are: a range is computed as it would be in one piece. Work inside a range is not
cut again, and what would keep a thread for less time than it takes to wake it is done by the caller. There are more
ranges than threads, and whoever is free takes the next one: so nobody waits for a thread that wakes late, or that the
machine has other work for. They are not many more: for each range a thread needs Python's lock, and where two ask at
the same time one sleeps. This file must not know what is computed.
"""

from __future__ import annotations

import os
import threading
from array import array
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from time import thread_time

Range = tuple[int, int]
Work = Callable[[int, int], object]
Watch = Callable[[int, int, int], bool]
_Done = tuple[list[BaseException], float]

MOST = 1024  # threads
SHORT = 4  # of a whole that many threads do, this part is left for whoever is free first
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


class _Job:
    """Ranges that are left to do, who has begun with them, and how those ended that others than the caller did."""

    __slots__ = ("begun", "done", "left", "work")

    def __init__(self, work: Work, parts: Sequence[Range]) -> None:
        self.work: Work | None = work
        self.left = deque(parts)
        self.begun = list[None]()
        self.done = SimpleQueue[_Done]()

    def all(self) -> list[BaseException]:
        """Do ranges that nobody has taken, until there are none; what failed."""
        failures, left = list[BaseException](), self.left
        while (work := self.work) is not None:
            try:
                part = left.popleft()
            except IndexError:
                break
            try:
                work(*part)
            except BaseException as error:
                failures.append(error)
        return failures


class _Workers:
    """Threads that wait for ranges; they end with the process, so that nobody waits for one that has left."""

    def __init__(self) -> None:
        self.jobs: SimpleQueue[_Job] = SimpleQueue()
        self.asked, self.told = array("q", [0]), array("q", [0])  # how often there was a job, or nothing left of one
        self._made = 0

    def grow(self, count: int) -> None:
        """So many of them at least."""
        while self._made < count:
            threading.Thread(target=self._serve, name="puma computes", daemon=True).start()
            self._made += 1

    def _serve(self) -> None:
        _here.inside = True
        while True:
            job = self._next()
            job.begun.append(None)  # before it looks what is left: who has seen nobody begin does not wait
            began = thread_time()
            job.done.put((job.all(), thread_time() - began))  # what the work holds is the caller's to let go of
            del job

    def put(self, job: _Job, count: int) -> None:
        """For so many of them."""
        for _ in range(count):
            self.jobs.put(job)
        self.asked[0] += 1

    def _next(self) -> _Job:
        """The next job: who has just done one looks out for it, then sleeps."""
        while True:
            seen = self.asked[0]
            try:
                return self.jobs.get_nowait()
            except Empty:
                if not _watch(_place(self.told), _place(self.asked), seen):
                    return self.jobs.get()

    def ended(self, job: _Job) -> _Done:
        """How the ranges of one more of them ended."""
        while True:
            seen = self.told[0]
            try:
                return job.done.get_nowait()
            except Empty:
                if not _watch(0, _place(self.told), seen):
                    return job.done.get()


class _Here(threading.local):
    inside = False  # whether this thread does a range already
    helped = 0.0  # processor seconds that others spent on its ranges


_here = _Here()
_count = 1
_workers: _Workers | None = None
_making = threading.Lock()


def _sleep(tell: int, word: int, seen: int) -> bool:
    """At once, until somebody says how to look out for work."""
    return False


_watch: Watch = _sleep


def use(threads: int) -> None:
    """Compute with so many threads from now on, 1 to MOST; ValueError for another number."""
    global _count
    if not 1 <= threads <= MOST:
        raise ValueError(f"{threads} threads are not between 1 and {MOST}")
    _count = threads


def watching(watch: Watch) -> None:
    """How threads look out for work before they sleep: see `kernels.startup.watching.watch`."""
    global _watch
    _watch = watch


def threads() -> int:
    """How many threads compute."""
    return _count


def spent() -> float:
    """Processor seconds of the calling thread, and of those that did ranges for it."""
    return thread_time() + _here.helped


def cores() -> int:
    """Those that this process may use: as the system lets it, and no more than a container's quota."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _QUOTA.read_text(encoding="utf-8").split()
        return max(1, min(found, int(quota) // int(period)))
    except (OSError, ValueError):  # no such file, or "max"
        return found


def share(parties: int) -> int:
    """Threads for one of so many parties on this machine that compute at a time."""
    return max(1, min(MOST, cores() // max(1, parties)))


def ranges(size: int, least: int, step: int = 1) -> list[Range]:
    """0 .. size in order: a long range for each thread and then, if they are long enough, a short one for each.

    All but the first begin at a multiple of `step`; but for that they are `least` long at least. One range where there
    is one thread, or inside another range.
    """
    count = min(_count, size // max(least, 1))
    if count < 2 or _here.inside:
        return [(0, size)]
    steps = -(-size // step)
    short = steps // SHORT if size >= SHORT * _count * least else 0
    ends = [(steps - short) * i // count for i in range(1, count + 1)]
    ends += [steps - short + short * i // count for i in range(1, count + 1)]
    cuts = sorted({min(size, end * step) for end in ends} - {0})
    return list(zip([0, *cuts[:-1]], cuts, strict=True))


def each(work: Work, parts: Sequence[Range]) -> None:
    """work(low, high) for all, by the caller and by threads that are free; an error is raised when all have ended."""
    if len(parts) < 2:
        for low, high in parts:
            work(low, high)
        return
    job, workers = _Job(work, parts), _served()
    workers.put(job, min(_count, len(parts)) - 1)
    _here.inside = True
    try:
        failures = job.all()
    finally:
        _here.inside, job.work = False, None
    ended = 0
    while ended < len(job.begun):  # whatever failed: they write where the caller lets go of memory
        failed, seconds = workers.ended(job)  # perhaps of one who came late and found nothing: it has begun, too
        _here.helped += seconds
        failures += failed
        ended += 1
    if failures:
        raise failures[0]


def split(work: Work, size: int, least: int, step: int = 1) -> None:
    """work(low, high) over 0 .. size, in ranges side by side; see `ranges`."""
    if _count == 1 or size < 2 * least or _here.inside:
        work(0, size)
    else:
        each(work, ranges(size, least, step))


def _place(word: array[int]) -> int:
    return word.buffer_info()[0]


def _served() -> _Workers:
    global _workers
    with _making:
        if _workers is None:
            _workers = _Workers()
        _workers.grow(_count - 1)
        return _workers


@contextmanager
def unsplit() -> Generator[None, None, None]:
    """Meanwhile the calling thread cuts nothing: the others are for somebody else."""
    _here.inside = True
    try:
        yield
    finally:
        _here.inside = False


def credit(seconds: float) -> None:
    """Another thread has spent so many processor seconds on what the calling thread asked for."""
    _here.helped += seconds


def _forget() -> None:
    """A forked process has none of the threads, and perhaps a lock that one of them held."""
    global _workers, _making
    _workers, _making = None, threading.Lock()
    _here.inside = False


os.register_at_fork(after_in_child=_forget)
