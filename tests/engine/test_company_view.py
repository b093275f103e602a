"""What evaluators hear of a batch of two clients, one of whom goes on from what is kept: padded, telling nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from puma.crypto.prg import fresh_secret
from puma.engine.company import Company, Member
from puma.engine.kept import Kept
from puma.mpc.party import FIRST, SECOND, Party
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Generate, Prefix
from puma.wire.steps import Item
from tests.engine.stepping import Asked, asked, engine
from tests.models import tiny
from tests.trio import parties, trio
from tests.view import limit
from tests.watch import Recorder, assert_hidden
from tests.watching.positions import watching

NAME, SERVED = b"n" * 16, (b"m", "spline", ())
FIRST_TURN, OTHER = [4, 9, 6, 11, 8], [2, 5, 7]
COPIES = 96


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1))


def jobs(clear: PlainModel, second: list[int]) -> list[Asked]:
    """The first turn of one client, the prompt of another, and the second turn of the first."""

    def one(ids: list[int], tokens: int, **named: Any) -> Asked:
        return asked(clear, [ids], lambda job: Generate(job, tokens, paced=True, **named))

    return [one(FIRST_TURN, 1, keep=NAME), one(OTHER, 3), one(second, 1, prefix=Prefix(NAME, 4))]


def batch(clear: PlainModel, asks: list[Asked], party: Party) -> None:
    kept = Kept()
    company, made = Company(party, kept), engine(clear, party)
    one, other, two = (ask.at(party) for ask in asks)
    first, beside = (
        Member.of(Item(key.encode() * 16, 1), key, SERVED, made, request) for key, request in (("a", one), ("b", other))
    )
    company.step(0, [first, beside], [5, 3])
    two.cache = kept.find("a", Prefix(NAME, 4), SERVED[:2])
    second = Member.of(Item(b"a" * 16, 2), "a", SERVED, made, two)
    company.step(1, [beside, second], [0, 1])
    company.step(2, [beside, second], [0, 2])


@pytest.mark.parametrize("rank", [FIRST, SECOND])
def test_all_that_an_evaluator_hears_is_padded(rank: int, clear: PlainModel) -> None:
    """By a key that it lacks; tests/mpc/test_view.py shows that what is not would be found."""
    asks = jobs(clear, [3, 10, 12])
    with watching():  # the same shares are read in both runs, here and nowhere else
        assert_hidden(lambda party: batch(clear, asks, party), rank)


def scores(clear: PlainModel) -> list[float]:
    """How much the bits that P1 and P2 hear tell of which of two texts the second turn was, over many copies; and the
    lowest ones of what they open."""
    secret = torch.arange(COPIES) * 40503 % 65521 % 2
    told: list[list[np.ndarray]] = [[], [], []]
    for bit in secret.tolist():
        members = trio({pair: fresh_secret() for pair in ((0, 1), (0, 2), (1, 2))})
        for member in members:
            member.links = {peer: Recorder(link) for peer, link in member.links.items()}  # type: ignore[misc]
        asks = jobs(clear, [[3, 10, 12], [7, 1, 2]][bit])
        parties(lambda party, asks=asks: batch(clear, asks, party), members)
        for rank in (FIRST, SECOND):
            heard = [frame for link in members[rank].links.values() for frame in link.received]  # type: ignore[attr-defined]
            told[rank - 1].append(np.concatenate(heard))
        both = [members[rank].links[3 - rank].received for rank in (FIRST, SECOND)]  # type: ignore[attr-defined]
        told[2].append(np.concatenate([a ^ b for a, b in zip(*both, strict=True)]))  # each sent its part of a sum
    signs = 1 - 2 * secret.numpy().astype(np.float32)
    found = []
    for each in told:
        bits = np.unpackbits(np.stack(each), axis=1)
        centred = 1 - 2 * bits.astype(np.float32)
        score = np.abs((signs - signs.mean()) @ centred) / math.sqrt(COPIES)
        found.append(float(score.max()) / limit(bits.shape[1]))
    return found


@pytest.mark.slow
def test_what_they_hear_tells_nothing_of_a_text(clear: PlainModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """And would, if words of one purpose were not padded: the check has the power to see it."""
    assert max(scores(clear)) < 1
    real = Party.own_words

    def bare(party: Party, purpose: str, shape: Any) -> Any:
        drawn = real(party, purpose, shape)
        if purpose != "mask":
            return drawn
        return tuple(map(torch.zeros_like, drawn)) if isinstance(drawn, tuple) else torch.zeros_like(drawn)

    monkeypatch.setattr(Party, "own_words", bare)
    assert max(scores(clear)) > 1
