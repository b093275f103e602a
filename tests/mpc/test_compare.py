"""Order, equality, choice and maxima, over many rings and digit widths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from puma import kernels
from puma.mpc.arithmetic import public
from puma.mpc.clear import ClearParty
from puma.mpc.clear import held as in_clear
from puma.mpc.compare import argmax, below, choose, equal, less, maximum, maximum_cost, sign, sign_of, split, widths
from puma.mpc.cost import Size
from puma.mpc.lookup import digits
from puma.mpc.party import Party
from tests.cases import coins
from tests.mpc.words import edges, grid, uniform
from tests.trio import bits_of, given, given_bits, held, joined, parties, spent

few = settings(max_examples=25, deadline=None)
RINGS = st.integers(1, 64)


def test_digits_cover_the_ring_evenly() -> None:
    for bits in range(1, 65):
        for count in range(1, bits + 1):
            parts = split(bits, count)
            assert sum(parts) == bits and len(parts) == count and max(parts) - min(parts) <= 1
        assert sum(widths(bits)) == bits


@settings(max_examples=12, deadline=None)
@over(RINGS)
def test_the_sign_is_exact(bits: int) -> None:
    x, l1, l2 = grid(bits)
    results = parties(lambda p: p.run(sign(held(p, x, l1, l2, bits))))
    assert torch.equal(bits_of(results), (kernels.signed(x, bits) < 0).long())


@pytest.mark.parametrize("bits", [1, 2, 3, 5, 6])
@pytest.mark.parametrize("count", [1, 2, 3, 6])
def test_the_sign_of_everything_in_a_small_ring(bits: int, count: int) -> None:
    """With every number of digits, not only the cheapest."""
    x, mask = (g.reshape(-1) for g in torch.meshgrid(torch.arange(1 << bits), torch.arange(1 << bits), indexing="ij"))
    parts = split(bits, min(bits, count))

    def compute(party: Party) -> Any:
        return party.run(sign_of(digits(held(party, x, mask, torch.zeros_like(mask), bits), 0, parts)))

    assert torch.equal(bits_of(parties(compute)), x >> (bits - 1))


@few
@over(st.integers(3, 64), st.integers(0, 2**31))
def test_order_and_equality(bits: int, seed: int) -> None:
    x, y = uniform(80, bits=bits - 1, seed=seed), uniform(80, bits=bits - 1, seed=seed + 1)
    y[:20] = x[:20]
    y[20:24] = x[20:24] ^ 1

    def compute(party: Party) -> Any:
        a, b = given(party, x, bits, 0, "a"), given(party, y, bits, 0, "b")
        return party.run(less(a, b)), party.run(equal(a, b))

    smaller, same = zip(*parties(compute), strict=True)
    assert torch.equal(bits_of(smaller), (x < y).long())
    assert torch.equal(bits_of(same), (x == y).long())


@few
@over(st.integers(3, 62))
def test_public_thresholds(bits: int) -> None:
    """At, below and above each threshold, and far from all of them."""
    thresholds = [0, 1, 1 << (bits // 2), (1 << (bits - 2)) - 1]
    x = torch.tensor([t + d for t in thresholds for d in (-1, 0, 1)] + [-(1 << (bits - 2)) + 1, 1 << (bits - 2)])
    results = parties(lambda p: p.run(below(given(p, x, bits, 0), thresholds)))
    assert torch.equal(bits_of(results), (x[:, None] < torch.tensor(thresholds)).long())


def test_equality_needs_no_range() -> None:
    """x - y wraps, and is zero only for equals."""
    edge = edges(30)
    x, y = torch.meshgrid(edge, edge, indexing="ij")
    results = parties(lambda p: p.run(equal(given(p, x, 30, 0, "a"), given(p, y, 30, 0, "b"))))
    assert torch.equal(bits_of(results), (kernels.signed(x - y, 30) == 0).long())


def test_formats_are_aligned_before_comparison() -> None:
    x = torch.tensor([1.5, 2.0, -3.25, 0.0, 500.0])
    y = torch.tensor([1.5, 2.0 + 2.0**-10, -3.25, -1.0, 500.0 - 2.0**-9])

    def compute(party: Party) -> Any:
        a, b = given(party, x, 20, 2, "a"), given(party, y, 40, 10, "b")
        return [party.run(p) for p in (equal(a, b), less(a, b), less(b, a))]

    results = parties(compute)
    for i, expected in enumerate([x == y, x < y, y < x]):
        assert torch.equal(bits_of([r[i] for r in results]), expected.long()), i


@pytest.mark.parametrize("shape", [(), (0,), (5, 3)])
def test_choice(shape: tuple[int, ...]) -> None:
    x, y, b = uniform(*shape, bits=20), uniform(*shape, bits=20, seed=1), coins(*shape)

    def compute(party: Party) -> Any:
        one, other = given(party, x, 20, 0, "x"), given(party, y, 24, 0, "y")
        return party.run(choose(given_bits(party, b), (one, other), (other, one), (one, one)))

    results = parties(compute)
    for i, expected in enumerate([x.where(b == 1, y), y.where(b == 1, x), x]):
        assert torch.equal(joined([r[i] for r in results]), expected)


@pytest.mark.parametrize("entries", [1, 2, 3, 5, 8, 13, 35])
@pytest.mark.parametrize("dim", [0, 1, -1])
def test_the_largest_along_any_dimension(entries: int, dim: int) -> None:
    shape = [3, 4, 2]
    shape[dim] = entries
    x = uniform(*shape, bits=15, seed=entries)
    x.select(dim, 0)[...] = torch.where(coins(*x.select(dim, 0).shape) == 1, -(1 << 14), x.select(dim, 0))
    results = parties(lambda p: p.run(maximum(given(p, x, 16), dim)))
    assert torch.equal(joined(results), x.amax(dim))


@few
@over(
    st.lists(st.integers(0, 4), max_size=3), st.integers(1, 40), st.integers(0, 3), st.booleans(), st.integers(2, 64),
    st.integers(0, 2**31),
)  # fmt: skip
def test_the_largest_of_rows_however_they_lie(
    others: list[int], entries: int, place: int, backwards: bool, bits: int, seed: int
) -> None:
    """Any number of dimensions, empty ones and ties among them, in memory in another order, and in the clear."""
    dim = min(place, len(others))
    shape = [*others[:dim], entries, *others[dim:]]
    x, order = uniform(*shape, bits=bits - 1, seed=seed), [*range(1, len(shape)), 0]
    turned, back = x.permute(order).contiguous(), [len(shape) - 1, *range(len(shape) - 1)]
    dim -= len(shape) if backwards else 0

    def compute(party: Party) -> tuple[Any, Any, Any]:
        rows = given(party, turned, bits).apply(lambda t: t.permute(back))
        party.ledger.reset()
        top = party.run(maximum(rows, dim))
        spent_on_top, last = party.ledger.total(), rows.transpose(dim, -1)
        index = public(party, torch.arange(entries), (entries,), 6, 0).expand(*last.shape)
        return top, spent_on_top, party.run(argmax(last, index))

    tops, spending, both = zip(*parties(compute), strict=True)
    assert joined(tops).shape == x.amax(dim).shape and torch.equal(joined(tops), x.amax(dim))
    assert spent(spending) == maximum_cost(Size(tuple(shape), bits), dim)
    alone = ClearParty()
    clearly: Any = alone.run(maximum(in_clear(alone, x, bits, 0), dim))
    assert torch.equal(clearly.signed, x.amax(dim))
    won, at = (joined(found) for found in zip(*both, strict=True))
    last = x.transpose(dim, -1)
    assert torch.equal(won, last.amax(-1))
    assert torch.equal(last.gather(-1, kernels.reduce(at, 6).unsqueeze(-1))[..., 0], last.amax(-1))


@pytest.mark.parametrize("entries", [1, 2, 3, 7, 16, 33])
def test_the_largest_and_its_index(entries: int) -> None:
    x = torch.stack(
        [torch.randperm(entries, generator=torch.Generator().manual_seed(i)) - entries // 2 for i in range(20)]
    )
    x[0] = torch.arange(entries)
    x[1] = torch.arange(entries).flip(0)

    def compute(party: Party) -> Any:
        index = public(party, torch.arange(entries), (entries,), 6, 0).expand(20, entries)
        return party.run(argmax(given(party, x, 12), index))

    top, at = zip(*parties(compute), strict=True)
    assert torch.equal(joined(top), x.amax(-1))
    assert torch.equal(kernels.reduce(joined(at), 6), x.argmax(-1))


def test_of_equal_entries_one_wins() -> None:
    x = torch.tensor([[5, 5, 5, 5], [1, 5, 5, 2], [0, 0, 0, -3]])

    def compute(party: Party) -> Any:
        index = public(party, torch.arange(4), (4,), 3, 0).expand(3, 4)
        return party.run(argmax(given(party, x, 8), index))

    top, at = zip(*parties(compute), strict=True)
    assert torch.equal(joined(top), x.amax(-1))
    assert torch.equal(x.gather(-1, joined(at)[:, None])[:, 0], x.amax(-1))


def test_the_sign_takes_one_round_and_a_maximum_few() -> None:
    rounds = {}
    for bits in (4, 8, 16, 32, 64):
        results = parties(lambda p, b=bits: (p.run(sign(given(p, torch.zeros(1), b))), p.ledger.total().rounds))
        rounds[bits] = results[1][1]
    assert rounds == {4: 0, 8: 1, 16: 1, 32: 1, 64: 1}
    for entries, expected in {2: 3, 4: 4, 8: 4, 16: 8, 32: 11, 128: 17}.items():
        assert maximum_cost(Size((5, entries), 16)).rounds == expected


@pytest.mark.parametrize("entries", [2, 3, 4, 5, 6, 7, 8, 9, 12, 17, 36, 37, 129])
def test_quick_maxima_of_few_and_of_many_rows(entries: int) -> None:
    """Ties, ends of the ring, and every place of the largest; many rows take other turns than few."""
    few = uniform(entries + 3, entries, bits=11, seed=entries)
    few[:entries] -= (torch.eye(entries).long() == 0) * 1  # no harm: the largest may be anywhere
    few[torch.arange(entries), torch.arange(entries)] = 1022
    few[-1] = few[-1, :1]
    many = few.repeat(-(-300 // len(few)), 1) if entries in (9, 17, 37) else few

    def compute(party: Party) -> Any:
        index = public(party, torch.arange(entries), (entries,), 9, 0).expand(*many.shape)
        x = given(party, many, 12, 0)
        return party.run(maximum(x, quick=True)), party.run(argmax(x, index, True))[1]

    largest, at = zip(*parties(compute), strict=True)
    assert torch.equal(joined(list(largest)), many.max(-1).values)
    assert torch.equal(many.gather(-1, (joined(list(at)) & 511).unsqueeze(-1)).squeeze(-1), many.max(-1).values)


def test_quick_maxima_take_fewer_rounds() -> None:
    for entries, rows, rounds in ((8, 256, 3), (129, 32, 9), (512, 16384, 12), (128, 1536, 9), (64, 4096, 9)):
        lean, quick = (maximum_cost(Size((rows, entries), 16), quick=q) for q in (False, True))
        assert quick.rounds == rounds < lean.rounds
