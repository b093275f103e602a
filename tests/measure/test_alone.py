"""What a party that has a machine to itself gains by threads, measured in this process."""

from __future__ import annotations

import pytest

from puma import pool
from puma.measure import alone
from puma.mpc.party import Party


def test_a_mask_takes_time_and_threads_are_left_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SHAPE": (64, 64), "NUMBERS": 256, "DRAWN": 1 << 20, "TIMES": 1}.items():
        monkeypatch.setattr(alone, name, value)
    ran, used = list[int](), pool.use
    monkeypatch.setattr(pool, "use", lambda threads: ran.append(threads) or used(threads))
    assert 0 < alone.drawing() < 1e-5
    assert all(gain >= 1 for gain in alone.gains(2))
    assert ran == [1, 2, 1] and pool.threads() == 1


def test_nobody_hears_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alone, "NUMBERS", 64)
    rounds, exchange = list[int](), Party.exchange
    monkeypatch.setattr(Party, "exchange", lambda self, pieces: rounds.append(self.rank) or exchange(self, pieces))
    alone._function()()
    assert set(rounds) == {1}
