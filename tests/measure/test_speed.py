"""What a machine's speed is made of: fitted rates, parties that share cores, and a file that is found again."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec.structs import astuple

from puma.client.session import cost_of
from puma.measure import speed as room
from puma.measure.rates import Early, Speed, Work, together, work
from puma.measure.speed import fitted, speed
from puma.models.presets import preset
from puma.wire.messages import Report, Spent
from puma.wire.parameters import KEEP_MASKS_BELOW
from puma.wire.request_shapes import shaped

ROWS = [
    Work(1000, 1e6, 0, 1e6),
    Work(80, 4e7, 0, 1e9),
    Work(100, 2e6, 6e7, 6e7),
    Work(120, 5e7, 6e7, 3e9),
]


@pytest.mark.parametrize("rates", [Work(1e-3, 2e-9, 5e-9, 1e-10), Work(1e-3, 2e-9, 0, 1e-10), Work(5e-4, 0, 0, 0)])
def test_rates_are_found_again(rates: Work) -> None:
    seconds = [sum(r * w for r, w in zip(astuple(rates), astuple(row))) for row in ROWS]
    assert astuple(fitted(ROWS, seconds)) == pytest.approx(astuple(rates), rel=1e-6, abs=1e-15)


def test_rates_are_never_negative() -> None:
    seconds = [1.0, 0.01, 2.0, 0.02]  # more work in less time
    assert all(rate >= 0 for rate in astuple(fitted(ROWS, seconds)))


@pytest.mark.parametrize(
    ("busy", "idle", "cores", "seconds"),
    [
        ((1, 2, 3), 0, 3, 3),  # a core each: the slowest
        ((1, 2, 3), 4, 3, 7),
        ((9, 2, 3), 4, 3, 9),  # the dealer alone holds the others up
        ((2, 4, 4), 0, 2, 5),  # no core ever idle: all the work by two
        ((2, 4, 4), 0, 1, 10),
        ((2, 1, 1), 99, 2, 100),  # who mostly waits leaves a core to the dealer
    ],
)
def test_parties_on_cores(busy: tuple[float, ...], idle: float, cores: int, seconds: float) -> None:
    assert together(busy, idle, cores) == pytest.approx(seconds)
    assert together(busy, idle, 9, beside=5) == max(busy[0], max(busy[1:]) + idle)


def test_others_on_the_same_cores() -> None:
    assert together((2, 4, 4), 0, 2, beside=1) == pytest.approx(5.5)
    assert together((4, 1.5, 1.5), 0.5, 2, beside=3) == pytest.approx(5), "two cores do no more than two seconds in one"


def test_nothing_is_hidden_while_the_answer_is_on_its_way() -> None:
    """Two seconds of four are left for what takes two cores two seconds, and the dealer wants them, too."""
    assert together((2, 4, 4), 4, 2, hidden=(0, 2, 2)) == pytest.approx(19 / 3)
    assert together((2, 4, 4), 4, 2, hidden=(0, 2, 2), last=2) == pytest.approx(7)
    assert together((0, 0, 0), 3, 2, last=3) == 3


def test_work_of_a_model() -> None:
    config = preset("gpt2")
    cost = cost_of([Report([Spent("other", 0.0, 9, 500, 100)], 0.0, 0.0, 0.0, 0.0)] * 3, 7)
    one, two = (work(config, shaped(config, 8, n), cost) for n in (1, 2))
    layers = 12 * 12 * 768**2
    table = 50257 * 768
    assert one.products == 8 * layers + 9 * table
    assert two.products - one.products == layers + 2 * table
    assert two.weights == 2 * one.weights > 2 * KEEP_MASKS_BELOW
    assert (one.rounds, one.bytes) == (9, 1807)
    bert = preset("bert-base", 1)
    assert work(bert, shaped(bert, 4, None), cost).weights == 0


@pytest.mark.parametrize(("name", "width", "layers"), [("gpt2-medium", 1024, 24), ("gpt2", 768, 12)])
def test_a_matrix_as_long_as_a_text_may_be_is_multiplied(name: str, width: int, layers: int) -> None:
    """It is the table of positions that is not: of GPT-2 medium both have 1024 rows."""
    config, cost = preset(name), cost_of([Report([Spent("other", 0.0, 9, 500, 100)], 0.0, 0.0, 0.0, 0.0)] * 3, 7)
    found = work(config, shaped(config, 8, 1), cost)
    assert found.products == 8 * layers * 12 * width**2 + 9 * 50257 * width


def test_rates_are_of_one_thread_and_of_the_cores_that_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """By which predictions for more threads and for more cores go."""
    asked = list[int | None]()

    class Started:
        """A trio, as far as it is asked how it began."""

        session, cost = SimpleNamespace(config=None), SimpleNamespace(cpu_by_party=[1.0, 2.0, 2.0])

        def __init__(self, progress: Any, threads: int | None = None) -> None:
            asked.append(threads)

        def __enter__(self) -> Started:
            return self

        def __exit__(self, *_: object) -> None: ...

        def share(self, *_: object) -> None: ...

    measured = iter(ROWS)
    monkeypatch.setattr(room, "Trio", Started)
    monkeypatch.setattr(room, "_measured", lambda *_: (next(measured, ROWS[0]), Started.cost, 3.0))
    monkeypatch.setattr(room, "early", Early)
    monkeypatch.setattr(room, "gains", lambda cores: asked.append(cores) or (1.0, 1.0))
    monkeypatch.setattr(room.pool, "cores", lambda: 7)
    found = room.measure(lambda *_: None)
    assert asked == [1, 7] and found.cores == 7 and found.stretch == pytest.approx(1.5)


def test_a_machine_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found, times = Speed((ROWS[0], ROWS[1], ROWS[2]), 1.1, 2), []

    def measure(progress: Any) -> Speed:
        times.append(1)
        return found

    monkeypatch.setattr(room, "measure", measure)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def ask(again: bool = False) -> Speed:
        return speed(lambda *progress: None, again)

    assert ask() == ask() == found and len(times) == 1
    assert ask(again=True) == found and len(times) == 2
    (kept,) = (tmp_path / "puma").iterdir()
    kept.write_text("{}")
    assert ask() == found and len(times) == 3
