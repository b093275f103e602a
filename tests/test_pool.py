"""The pool: what it cuts, that all of it is done once, and that errors and forks leave nothing hanging."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from puma import pool


@pytest.fixture(autouse=True)
def three() -> Iterator[None]:
    pool.use(3)
    yield
    pool.use(1)


@pytest.mark.parametrize("step", [1, 8, 64])
@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 100, 1000, 1001])
def test_ranges_cover_all_and_begin_at_steps(size: int, step: int) -> None:
    parts = pool.ranges(size, 10, step)
    assert [i for low, high in parts for i in range(low, high)] == list(range(size))
    assert all(low % step == 0 for low, _ in parts) and len(parts) <= 6
    assert len(parts) == 1 or size >= 20


def test_ranges_are_side_by_side() -> None:
    together = threading.Barrier(3, timeout=10)
    names = set[int]()

    def work(low: int, high: int) -> None:
        names.add(threading.get_ident())
        together.wait()

    pool.split(work, 300, 100)
    assert len(names) == 3 and threading.get_ident() in names


def test_a_range_is_not_cut_again() -> None:
    found = []
    pool.split(lambda low, high: found.append(pool.ranges(1000, 1)), 3, 1)
    assert found == [[(0, 1000)]] * 3
    assert len(pool.ranges(1000, 1)) == 6


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_an_error_is_raised_when_all_have_ended(failing: int) -> None:
    ended = []

    def work(low: int, high: int) -> None:
        if low == failing:
            raise ValueError("this range fails")
        time.sleep(0.05)
        ended.append(low)

    with pytest.raises(ValueError, match="this range fails"):
        pool.split(work, 3, 1)
    assert sorted(ended) == sorted({0, 1, 2} - {failing})
    assert len(pool.ranges(30, 1)) == 6


def test_nobody_waits_for_threads_that_have_other_work() -> None:
    release, held = threading.Event(), threading.Barrier(4, timeout=10)

    def hold(low: int, high: int) -> None:
        held.wait()
        release.wait(10)

    other = threading.Thread(target=pool.split, args=(hold, 3, 1))
    other.start()
    held.wait()  # all workers are busy now
    done = []
    pool.split(lambda low, high: done.append(high - low), 300, 1)
    assert sum(done) == 300 and not release.is_set()
    release.set()
    other.join(10)
    assert not other.is_alive()


def test_who_comes_late_does_not_stand_for_one_who_still_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that wakes when nothing is left has ended at once: that must not be taken for another's end."""
    begun, late, ended = threading.Event(), threading.Event(), list[int]()

    class Workers(pool._Workers):
        def put(self, job: pool._Job, count: int) -> None:
            super().put(job, 1)
            threading.Thread(target=self._later, args=(job,), daemon=True).start()

        def _later(self, job: pool._Job) -> None:
            while job.work is not None:
                time.sleep(0.01)
            time.sleep(0.1)  # the caller waits for the other one by now
            super().put(job, 1)
            time.sleep(0.2)
            late.set()

    def work(low: int, high: int) -> None:
        if threading.current_thread().name == "puma computes":
            begun.set()
            assert late.wait(10)
        else:
            assert begun.wait(10)
        ended.append(low)

    monkeypatch.setattr(pool, "_workers", Workers())
    pool.split(work, 3, 1)
    assert sorted(ended) == [0, 1, 2]


def test_several_callers_at_once() -> None:
    sums = [0] * 4

    def call(which: int) -> None:
        done = [0] * 300
        for _ in range(20):
            pool.split(lambda low, high: done.__setitem__(slice(low, high), [1] * (high - low)), 300, 1)
            sums[which] += sum(done)

    callers = [threading.Thread(target=call, args=(i,)) for i in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(20)
    assert sums == [6000] * 4


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    pool.split(lambda low, high: None, 300, 1)
    child = os.fork()
    if not child:
        done = []
        pool.split(lambda low, high: done.append(high - low), 300, 1)
        os._exit(0 if sum(done) == 300 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("count", [0, -1, pool.MOST + 1])
def test_numbers_that_make_no_sense(count: int) -> None:
    with pytest.raises(ValueError, match="threads are not between"):
        pool.use(count)
    assert pool.threads() == 3


def test_cores_by_a_containers_quota(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(12)))
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr(pool, "_QUOTA", quota)
    assert (pool.cores(), pool.share(3), pool.share(1), pool.share(100)) == (12, 4, 12, 1)
    for text, expected in (("max 100000", 12), ("650000 100000", 6), ("50000 100000", 1), ("rubbish", 12)):
        quota.write_text(text)
        assert pool.cores() == expected
