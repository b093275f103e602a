"""A rehearsal beside a step: the same words leave, to the bit, and products of masks are made in waits."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
import torch
from msgspec.structs import replace
from torch import Tensor

from puma import pool
from puma.engine import rehearsing
from puma.mpc.party import DEALER, Party
from puma.mpc.waits import drawn
from puma.mpc.waits.rehearsed import LEAD, Rehearsal
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Generate
from tests.engine.stepping import Asked, asked, engine, generated, indices
from tests.models import tiny
from tests.trio import parties, trio
from tests.watch import Recorder
from tests.watching.positions import watching

PROMPTS = [[3, 17, 8, 30, 2], [1, 2, 5]]
QUICK = ("maximum", "exponentials", "inverse", "ranges", "gated", "direct")


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("model"), num_hidden_layers=2))


@pytest.fixture
def far(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Every network is slow, and a wait lasts until the rehearsal is as far as it may go; which products of the run
    found their known terms made, by rank."""
    found, take, wait = list[tuple[int, bool]](), Rehearsal.take, Rehearsal.wait
    monkeypatch.setattr(drawn, "SLOW", 0.0)
    monkeypatch.setattr(drawn, "LATE", 1)

    def patient(self: Rehearsal) -> None:
        wait(self)
        while self._thread is not None and self._thread.is_alive() and self._at - self._taken < LEAD:
            time.sleep(1e-4)

    def noted(self: Rehearsal) -> Tensor | None:
        words = take(self)
        assert self.problem is None, self.problem
        found.append((self._at, words is not None))
        return words

    monkeypatch.setattr(Rehearsal, "wait", patient)
    monkeypatch.setattr(Rehearsal, "take", noted)
    return found


def run(clear: PlainModel, first: Asked) -> tuple[list[list[int]], list[np.ndarray]]:
    """The tokens of two steps, and all that the evaluators hear."""
    members = trio()
    for member in members:
        member.links = {peer: Recorder(link) for peer, link in member.links.items()}  # type: ignore[misc]
    results = parties(lambda party: generated(clear, party, first, [], blocks=True), members)
    links: Any = [link for member in members[1:] for link in member.links.values()]
    return [indices(step) for step in zip(*results, strict=True)], [
        np.concatenate(link.received) for link in links if link.received
    ]


@pytest.mark.parametrize("quick", [(), QUICK])
def test_the_same_leaves_with_a_rehearsal_beside_and_without(
    clear: PlainModel, far: list[tuple[int, bool]], quick: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(shape: Any) -> Generate:
        return Generate(replace(shape, quick=quick), 2)

    first = asked(clear, PROMPTS, make)
    tokens, heard = run(clear, first)
    made = [there for _, there in far]
    assert len(made) == 2 * (7 * 2 + 1) and sum(made) >= len(made) - 2 * 4  # it begins with the first wait
    monkeypatch.setattr(rehearsing, "_text", lambda *_: None)
    with watching():  # the same words once more
        again, frames = run(clear, first)
    assert tokens == again and len(far) == len(made)
    for one, other in zip(heard, frames, strict=True):
        assert np.array_equal(one, other)


def test_it_is_there_for_short_prompts_that_are_new(clear: PlainModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = asked(clear, PROMPTS[:1], lambda shape: Generate(shape, 1))

    def texts(party: Party) -> list[bool]:
        found, first = engine(clear, party, blocks=True), prompt.at(party)
        told = [rehearsing._text(found, [first]) is not None]
        monkeypatch.setattr(rehearsing, "FEW", 4)
        told.append(rehearsing._text(found, [first]) is not None)
        monkeypatch.undo()
        first.given = None
        told += [rehearsing._text(found, [first]) is not None]
        told += [engine(clear, party).foreseen is None, found.foreseen is None]
        return told

    dealer, second = Party(DEALER, {}, {}), Party(2, {}, {})
    assert texts(second) == [True, False, False, True, False]
    assert texts(dealer)[-1]


def test_a_rehearsal_ends_with_the_run_and_its_time_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    def text(rehearsal: Rehearsal) -> None:
        while True:
            rehearsal.known(_busy, (1,), 64)

    beside = Rehearsal(text)
    assert beside.take() is None  # nothing has been waited for
    before = pool.spent()
    beside.wait()
    while beside._at < 1 + LEAD:
        time.sleep(1e-4)
    beside.go_on()
    assert beside.take() is not None
    beside.end()
    assert beside._thread is not None and not beside._thread.is_alive()
    assert pool.spent() - before > 0.004 and beside.problem is None


def _busy() -> Tensor:
    began = time.thread_time()
    while time.thread_time() - began < 1e-3:
        pass
    return torch.zeros(1)


def test_what_ends_a_rehearsal_early_only_makes_the_run_slower() -> None:
    def text(rehearsal: Rehearsal) -> None:
        raise ValueError("something")

    beside = Rehearsal(text)
    beside.wait()
    beside.end()
    assert isinstance(beside.problem, ValueError) and beside.take() is None
