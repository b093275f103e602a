"""Whoever tells two parties different things about steps makes them draw masks that have nothing in common."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from puma.engine.company import Company, Member
from puma.engine.generation import Turn
from puma.mpc.share import Share
from puma.reference.plain_model import PlainModel
from puma.wire.steps import Item, Left, Step, following
from tests.engine.test_company import paced, run
from tests.models import tiny

NOBODY = Item(b"z" * 16, 1)


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1))


def dealt_and_used(clear: PlainModel, odd: str) -> tuple[Any, Any]:
    """Masks of the flags, which have 64 bits, in a first step: what P0 would send to its client, and what P2 has
    computed under; `odd` says in what P0 was told otherwise."""
    one, other = paced(clear, [2, 5, 7], 3), paced(clear, [5, 1, 12], 3)

    def work(company: Company, member: Any) -> list[list[Share]]:
        dealer = company.party.is_dealer
        a: Member = member(one, "a")
        if odd == "whose" and dealer:
            a = member(other, "c")
        if odd == "left" and dealer:
            company.hear(Left(NOBODY))
        a.grants.append((1, b"other" if odd == "said" and dealer else b"digest"))
        return [[company.step(0, [a])[0].shares[1]]]

    ((held,),) = run(clear, work)
    return held[0].components[1], held[2].components[1]


def test_parties_that_are_told_alike_hold_the_same_masks(clear: PlainModel) -> None:
    dealt, used = dealt_and_used(clear, "")
    assert torch.equal(dealt, used)


@pytest.mark.parametrize("odd", ["whose", "left", "said"])
def test_what_one_party_gives_away_is_no_mask_of_what_another_computes(clear: PlainModel, odd: str) -> None:
    """P1 leads: it could name one client's request to P0 and another's to P2, and the first client be its own."""
    dealt, used = dealt_and_used(clear, odd)
    assert not torch.equal(dealt, used)


def test_a_turn_is_plain_if_it_changes_nothing() -> None:
    nothing: Any = object()
    assert Turn().plain and Turn(True, [], None, []).plain
    assert not any(turn.plain for turn in (Turn(leave=[0]), Turn(given=nothing), Turn(join=[nothing])))


def test_a_history_holds_every_word_in_order() -> None:
    words = [Step(0, [NOBODY], [1]), Left(NOBODY), Left(NOBODY, "why"), Step(0, [NOBODY, Item(b"y" * 16, 1)], [1, 1])]
    assert len({following(bytes(32), word) for word in words}) == 4
    there, back = (following(following(bytes(32), a), b) for a, b in (words[:2], words[1::-1]))
    assert there != back
    said = [(), (b"a",), (b"a", b"b"), (b"ab",), (b"b", b"a")]
    assert len({following(bytes(32), words[3], each) for each in said}) == 5
