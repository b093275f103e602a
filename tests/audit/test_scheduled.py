"""Canaries beside real requests: as many as wanted, by chance, and none after a finding."""

from __future__ import annotations

import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from puma.audit import scheduled
from puma.audit.scheduled import Audited, Schedule
from puma.audit.verdict import Finding
from puma.client.canaries.asking import ask_like, usual
from puma.errors import PeerLost, ProtocolError
from puma.models.config import Llama
from puma.nn.variants import QUICK
from puma.wire.messages import Generate, Input, Pace

SAID = [[Generate(Input([n], []), 3, paced=True), Pace(True)] for n in range(1, 6)]


class Asked:
    """What canaries were asked, and what came out."""

    def __init__(self, *findings: Finding, error: Exception | None = None) -> None:
        self.shapes: list[Any] = []
        self.told: list[Any] = []
        self._findings, self._error = findings, error
        self.heard = threading.Semaphore(0)

    def one(self, ask: Any) -> Any:
        self.shapes.append(ask.keywords["said"])
        if self._error is not None:
            raise self._error
        return SimpleNamespace(findings=[*self._findings])

    def tell(self, found: Any) -> None:
        self.told.append(found)
        self.heard.release()


def test_one_in_so_many_and_like_one_that_was_asked() -> None:
    asked = Asked()
    schedule = Schedule(asked.one, 4, asked.tell)
    for i in range(400):
        schedule.over(SAID[i % 5])
    schedule.over([])
    schedule.close()
    assert 50 < len(asked.shapes) < 160  # 100 on average, with a deviation of 9
    assert Counter(len(each) for each in asked.shapes) == {2: len(asked.shapes)}
    assert all(each in SAID for each in asked.shapes) and len({each[0].input.lengths[0] for each in asked.shapes}) == 5


def test_after_a_finding_nothing_is_asked() -> None:
    asked = Asked(Finding([1], "it sent something else", 3))
    schedule = Schedule(asked.one, 1, asked.tell)
    inner = SimpleNamespace(session=SimpleNamespace(said=SAID[0], early=0, once=False), close=lambda: None)
    inner.another = lambda: inner
    cluster = Audited(inner, schedule)
    assert inner.session.once and isinstance(cluster.another(), Audited)
    cluster.close()
    assert asked.heard.acquire(timeout=10)
    with pytest.raises(ProtocolError, match="P1: it sent something else, from data frame 3 on"):
        cluster.another()
    schedule.over(SAID[1])
    schedule.close()
    assert len(asked.told) == 1


def test_a_canary_that_fails_is_told_and_the_next_one_comes() -> None:
    asked = Asked(error=PeerLost("P2 is gone"))
    schedule = Schedule(asked.one, 1, asked.tell)
    for _ in range(3):
        schedule.over(SAID[0])
    schedule.close()
    assert [str(each) for each in asked.told] == ["P2 is gone"] * 3
    schedule.check()


def test_numbers_are_drawn_evenly() -> None:
    drawn = Counter(scheduled.below(3) for _ in range(900))
    assert set(drawn) == {0, 1, 2} and min(drawn.values()) > 200


def test_a_canary_has_the_plan_of_what_it_is_like() -> None:
    config = Llama(vocab_size=20, hidden_size=8, intermediate_size=8, layers=1, heads=1)
    session: Any = SimpleNamespace(served=config, variants="auto", continued=lambda *_, **__: iter(()))
    for quick, plan in (((), "lean"), (("inverse", "norm"), "inverse,norm"), (QUICK, "quick")):
        ask_like(session, [Generate(Input([3], [], quick=quick), 2)])
        assert session.variants == plan
    assert usual(config, plan="quick")[0].input.quick == QUICK  # type: ignore[union-attr]
