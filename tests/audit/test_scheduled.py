"""Canaries beside real requests: as many as wanted, each like the one beside it, and none after a finding."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from puma.audit import scheduled
from puma.audit.scheduled import Audited, Like, Schedule
from puma.audit.verdict import Finding
from puma.errors import PeerLost, ProtocolError
from puma.wire.messages import Encode, Generate, Input, Pace

WANTED = Generate(Input([5], []), 8, paced=True)
POOLED = Encode(Input([3, 4], []), "pooled")


class Asked:
    """What canaries were asked, and what came out; each takes until it is `let`."""

    def __init__(self, *findings: Finding, error: Exception | None = None) -> None:
        self.likes: list[Like] = []
        self.told: list[Any] = []
        self._findings, self._error = findings, error
        self.heard, self.let = threading.Semaphore(0), threading.Event()
        self.gate = threading.Event()
        for each in (self.let, self.gate):
            each.set()

    def one(self, ask: Any) -> Any:
        self.likes.append(ask.keywords["like"])
        if self._error is not None:
            raise self._error
        self.gate.wait(10)
        ask.keywords["like"].asked.set()
        self.let.wait(10)
        return SimpleNamespace(findings=[*self._findings])

    def tell(self, found: Any) -> None:
        self.told.append(found)
        self.heard.release()


def until(schedule: Schedule) -> None:
    """The canary under way has been judged."""
    while schedule._busy:
        time.sleep(0.0005)


def test_one_in_so_many_and_like_the_one_beside_it() -> None:
    asked = Asked()
    schedule = Schedule(asked.one, 4, asked.tell)
    for i in range(1, 401):
        schedule.about(Generate(Input([i], []), 3), "quick" if i % 2 else "lean")
        until(schedule)
    schedule.close()
    assert 50 < len(asked.likes) < 160  # 100 on average, with a deviation of 9
    lengths = [each.said[0].input.lengths[0] for each in asked.likes]  # type: ignore[union-attr]
    assert len(set(lengths)) == len(lengths), "each is like a request of its own"
    assert all(each.variants == ("quick" if n % 2 else "lean") for n, each in zip(lengths, asked.likes, strict=True))


@pytest.mark.parametrize("first", [True, False])
def test_a_canary_comes_before_its_request_or_after_it(first: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked()
    asked.gate.clear()
    schedule = Schedule(asked.one, 1, asked.tell)
    monkeypatch.setattr(schedule, "_first", lambda: first)
    leaves = threading.Thread(target=schedule.about, args=(POOLED,))
    leaves.start()
    leaves.join(0.05 if first else 10)
    assert leaves.is_alive() == first
    asked.gate.set()
    leaves.join(10)
    until(schedule)
    schedule.close()
    assert len(asked.likes) == 1 and not leaves.is_alive()


def test_of_two_alike_the_second_is_a_canary_as_often_as_any() -> None:
    """Before its request most often: else whoever deviates in requests of a new shape alone would not be found."""
    for every, share in ((1, 0.5), (2, 0.5), (10, 0.9)):
        schedule = Schedule(Asked().one, every, print)
        first = sum(schedule._first() for _ in range(2000)) / 2000
        schedule.close()
        assert abs(first - share) < 0.06


def test_how_far_an_answer_goes_is_drawn_from_those_of_late() -> None:
    asked = Asked()
    schedule = Schedule(asked.one, 1, asked.tell)
    for count in (2, 3, 30):
        schedule.over([WANTED, *[Pace(True)] * count, Pace(False)], 1)
    schedule.over([POOLED])
    schedule.over([])
    for _ in range(60):
        schedule.about(WANTED)
        until(schedule)
    schedule.about(POOLED)
    until(schedule)
    schedule.close()
    *generated, pooled = asked.likes
    assert {len(each.said) for each in generated} == {3, 4, 8}, "and never further than the request may go"
    assert {each.early for each in generated} == {1} and pooled.said == [POOLED]


def test_one_that_is_due_while_another_is_judged_comes_later() -> None:
    asked = Asked()
    asked.let.clear()
    schedule = Schedule(asked.one, 1, asked.tell)
    for length in (1, 2, 3):
        schedule.about(Generate(Input([length], []), 3))
    assert [each.said[0].input.lengths for each in asked.likes] in ([[1]], [])  # type: ignore[union-attr]
    asked.let.set()
    until(schedule)
    schedule.about(Generate(Input([4], []), 3))
    until(schedule)
    schedule.close()
    assert [each.said[0].input.lengths for each in asked.likes] == [[1], [4]]  # type: ignore[union-attr]


def test_after_a_finding_nothing_is_asked() -> None:
    asked = Asked(Finding([1], "it sent something else", 3))
    schedule = Schedule(asked.one, 1, asked.tell)
    session = SimpleNamespace(said=[], early=0, once=False, before=[], variants="lean")
    cluster = Audited(SimpleNamespace(session=session, close=lambda: None), schedule)
    assert session.once
    (hears,) = session.before
    with pytest.raises(ProtocolError, match="P1: it sent something else, from data frame 3 on"):
        for _ in range(2):
            hears(WANTED)
            assert asked.heard.acquire(timeout=10)
            until(schedule)
    cluster.close()
    schedule.close()
    assert len(asked.told) == 1


def test_a_canary_that_fails_is_told_keeps_nobody_waiting_and_the_next_one_comes() -> None:
    asked = Asked(error=PeerLost("P2 is gone"))
    schedule = Schedule(asked.one, 1, asked.tell)
    for _ in range(3):
        schedule.about(WANTED)
        until(schedule)
    schedule.close()
    assert [str(each) for each in asked.told] == ["P2 is gone"] * 3
    schedule.check()


def test_a_fault_in_the_auditor_is_told_and_audits_go_on() -> None:
    asked = Asked(error=KeyError("nobody thought of it"))
    schedule = Schedule(asked.one, 1, asked.tell)
    for _ in range(2):
        schedule.about(WANTED)
        until(schedule)
    schedule.close()
    assert ["nobody thought of it" in str(each) for each in asked.told] == [True, True]


def test_numbers_are_drawn_evenly() -> None:
    drawn = Counter(scheduled.below(3) for _ in range(900))
    assert set(drawn) == {0, 1, 2} and min(drawn.values()) > 200
