"""Parameters that everybody knows: the same products without a dealer's part, and secrets that stay secrets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from puma import kernels
from puma.mpc import public, raising
from puma.mpc.arithmetic import lift, linear, matmul, multiply, truncated
from puma.mpc.party import DEALER, FIRST, SECOND, Party
from puma.mpc.public import LookedUp, Public
from puma.mpc.share import Additive, Share
from puma.nn import functional as F
from tests.cases import sample
from tests.mpc.test_seeded import Notes, words_of
from tests.trio import added, given, given_additive, given_public, joined, parties

X, TABLE = sample(5, 24), sample(30, 24, seed=1)


@pytest.mark.parametrize("kept", [True, False], ids=["words", "numbers"])
@pytest.mark.parametrize("bits", [48, 41, 64])
def test_products_are_those_of_the_words_and_none_is_the_dealers(bits: int, kept: bool) -> None:
    def compute(party: Party) -> list[Any]:
        x, w = given(party, X, bits, 14), given_public(party, TABLE, bits, 18, kept)
        y = given(party, sample(2, 3, 30), bits, 0, "y")
        return [linear(x, w), matmul(y, w), multiply(x, w[:5])]

    results = parties(compute)
    x, w, y = words_of(X, 14), words_of(TABLE, 18), sample(2, 3, 30).long()
    for i, expected in enumerate([x @ w.T, y @ w, x * w[:5]]):
        products = [r[i] for r in results]
        assert torch.equal(added(products), kernels.signed(expected, bits)), i
        assert not any(z.dealt for z in products) and products[DEALER].silent


@pytest.mark.parametrize("kept", [True, False], ids=["words", "numbers"])
@pytest.mark.parametrize(("bits", "frac", "rows"), [(48, 18, 5), (28, 18, 5), (64, 40, 5), (48, 18, 1), (30, 10, 5)])
def test_a_product_begins_with_its_bias(bits: int, frac: int, rows: int, kept: bool) -> None:
    """In the ring that a sum with it has, whichever has more fraction bits, and as often as one likes."""
    bias, x = sample(30, seed=2) * 2.0**-12, X[:rows]

    def compute(party: Party) -> list[Additive]:
        w, b = given_public(party, TABLE, 48, 18, kept), given_public(party, bias, bits, frac, kept)
        share, additive = given(party, x, 48, 14), given_additive(party, x, 48, 14, dealt=False)
        own = [public.linear(each, w, b) for each in (share, additive)]
        return [*own, raising.linear(share, w, b), raising.linear(share, w) + b]

    results = parties(compute)
    *found, expected = ([r[i] for r in results] for i in range(4))
    assert {(z.bits, z.frac, z.dealt) for each in found for z in each} == {(e.bits, e.frac, e.dealt) for e in expected}
    exact = words_of(x, 14) @ words_of(TABLE, 18).T
    exact = (exact << max(0, frac - 32)) + (words_of(bias, frac) << max(0, 32 - frac))
    for each in (*found, expected):
        assert torch.equal(added(each), kernels.signed(exact, each[0].bits))


def test_a_bias_of_another_shape_is_added() -> None:
    """As it would be alone: at all parties alike."""
    x, bias = sample(2, 5, 24), sample(5, 30, seed=2)

    def compute(party: Party) -> Additive:
        w, b = given_public(party, TABLE, 48, 18), given_public(party, bias, 48, 18)
        return raising.linear(given(party, x, 48, 14), w, b)

    exact = words_of(x, 14) @ words_of(TABLE, 18).T + (words_of(bias, 18) << 14)
    assert torch.equal(added(parties(compute)), kernels.signed(exact, 48))


def test_the_dealer_holds_nothing_and_the_second_part_knows_no_input() -> None:
    """P2's part is the same whatever x is, because its masks are."""

    def compute(party: Party) -> list[Any]:
        w = given_public(party, TABLE, 48, 18)
        assert w.known is (party.rank != DEALER)
        return [linear(given(party, value, 48, 14), w).part for value in (X, 3 * X)]

    _, first, second = parties(compute)
    assert torch.equal(*second) and not torch.equal(*first)


def test_a_rehearsed_part_is_the_second_evaluators_alone() -> None:
    notes: dict[int, list[torch.Tensor]] = {0: [], 1: [], 2: []}

    def compute(party: Party, rehearsing: bool) -> Any:
        value = X if not rehearsing else 0 * X
        x, w = given(party, value, 48, 14), given_public(party, TABLE, 48, 18)
        party.precomputed = None if party.rank == DEALER else Notes(notes[party.rank], rehearsing)  # type: ignore
        return linear(x, w)

    parties(lambda party: compute(party, True))
    assert [len(notes[rank]) for rank in (DEALER, FIRST, SECOND)] == [0, 0, 1]
    products = parties(lambda party: compute(party, False))
    assert torch.equal(added(products), kernels.signed(words_of(X, 14) @ words_of(TABLE, 18).T, 48))
    assert not any(notes.values())


USES: list[Callable[[Public], Share]] = [
    lambda s: s, lambda s: s.transpose(0, 1), lambda s: s[3:9], lambda s: s[2:, :1], lambda s: s[9:3],
    lambda s: s[-4:], lambda s: s[::3], lambda s: s.reduced(34) + 1, lambda s: s[torch.tensor([4, 4, 0])],
    lambda s: -s, lambda s: s.sum(0),
]  # fmt: skip


@pytest.mark.parametrize("kept", [True, False], ids=["words", "numbers"])
def test_what_is_made_of_it_is_made_of_the_words(kept: bool) -> None:
    results = parties(lambda party: [use(given_public(party, TABLE, 48, 17, kept)) for use in USES])
    w = words_of(TABLE, 17)
    expected = [w, w.T, w[3:9], w[2:, :1], w[9:3], w[-4:], w[::3], w + 2**17, w[[4, 4, 0]], -w, w.sum(0)]
    for i, words in enumerate(expected):
        bits = 34 if i == 7 else 48
        assert torch.equal(joined([r[i] for r in results]), kernels.signed(words, bits)), i


def test_a_secret_stays_one_whatever_is_added_to_it() -> None:
    """Whichever stands first: the sum has the secret's masks, and is no parameter any more."""

    def compute(party: Party) -> list[Share]:
        x, w = given(party, X, 48, 17), given_public(party, TABLE[:5], 48, 17)
        sums = [x + w, w + x, x - w, w - x]
        assert not any(isinstance(each, Public) for each in sums)
        if party.rank != DEALER:
            assert all(torch.equal(each.mask, sign * x.mask) for each, sign in zip(sums, (1, 1, 1, -1), strict=True))
        return sums

    results = parties(compute)
    x, w = words_of(X, 17), words_of(TABLE[:5], 17)
    for i, expected in enumerate([x + w, x + w, x - w, w - x]):
        assert torch.equal(joined([r[i] for r in results]), expected), i


def test_it_is_brought_into_other_formats_as_a_share_is() -> None:
    """Rounded to nearest where bits are dropped, and lifted like any other."""

    def compute(party: Party) -> list[Share]:
        w = given_public(party, TABLE, 40, 18)
        return [truncated(w, 4), party.run(lift((w, 48)))[0]]

    results = parties(compute)
    assert torch.equal(joined([r[0] for r in results]), (words_of(TABLE, 18) + 8) >> 4)
    assert torch.equal(joined([r[1] for r in results]), words_of(TABLE, 18))


def test_rows_that_were_looked_up_or_stayed_unopened_are_the_tables() -> None:
    ids = torch.tensor([3, 0, 29])

    def compute(party: Party) -> list[Any]:
        table = given_public(party, TABLE, 48, 18)
        rows = LookedUp(given_additive(party, TABLE[ids], 34, 18, dealt=False))
        chosen = F.one_hot(given(party, ids, 5, 0), 30, True)
        assert isinstance(chosen, Additive) and not chosen.dealt
        before = party.ledger.total().rounds
        found = [F.embedding(rows[1:].joined([rows[:1]]), table), F.embedding(chosen, table)]
        assert party.ledger.total().rounds == before
        return found

    results = parties(compute)
    for i, wanted in enumerate((ids[[1, 2, 0]], ids)):
        assert torch.equal(added([r[i] for r in results]), words_of(TABLE, 18)[wanted])


def test_a_part_of_the_dealers_cannot_be_multiplied() -> None:
    def compute(party: Party) -> None:
        with pytest.raises(AssertionError, match="knows no parameter"):
            matmul(given_additive(party, X, 48, 14), given_public(party, TABLE.T, 48, 18))

    parties(compute)
