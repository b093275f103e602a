"""What a party with a machine of its own gains by threads, and by what it does in waits, measured in this process."""

from __future__ import annotations

import threading
from collections import Counter

import pytest

from puma import pool
from puma.measure import alone
from puma.mpc.party import Party
from puma.mpc.waits.drawn import Foreseen


@pytest.fixture(autouse=True)
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SHAPE": (64, 64), "NUMBERS": 256, "TIMES": 1}.items():
        monkeypatch.setattr(alone, name, value)


def test_threads_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    ran, used = list[int](), pool.use
    monkeypatch.setattr(pool, "use", lambda threads: ran.append(threads) or used(threads))
    assert all(gain >= 1 for gain in alone.gains(2))
    assert ran == [1, 2, 1] and pool.threads() == 1


def test_one_thread_is_measured_while_others_compute() -> None:
    ran = Counter[int]()
    assert alone._beside(lambda: lambda: ran.update([threading.get_ident()]), 2) >= 0
    assert len(ran) == 3 and ran[threading.get_ident()] == alone.TIMES + 1
    ran.clear()
    assert alone._beside(lambda: lambda: ran.update([threading.get_ident()]), 0) >= 0
    assert {*ran} == {threading.get_ident()}


def test_every_walk_finds_its_mask_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the code that a step runs: whole masks, each taken by the walk behind its wait."""
    taken, take = list[bool](), Foreseen.take

    def noted(self: Foreseen, weight: object) -> object:
        found = take(self, weight)  # type: ignore[arg-type]
        taken.append(found is not None and found.done == found.size)
        return found

    monkeypatch.setattr(Foreseen, "take", noted)
    found = alone.early()
    assert taken == [True] * 8 and found.drawn > 0 and found.told > 0
    assert min(found.saved, found.spared) >= 0 and pool.threads() == 1


def test_nobody_hears_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    rounds, exchange = list[int](), Party.exchange
    monkeypatch.setattr(Party, "exchange", lambda self, pieces: rounds.append(self.rank) or exchange(self, pieces))
    alone._function()()
    assert set(rounds) == {1}
