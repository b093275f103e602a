"""Shares, products and bits: linear operations against the same arithmetic in the clear."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from puma import kernels
from puma.mpc.arithmetic import deal, public, truncated
from puma.mpc.party import Party
from puma.mpc.share import Additive, Share, cat, encode
from tests.mpc.words import edges, grid, uniform
from tests.trio import (
    added,
    bits_of,
    given,
    given_additive,
    given_bits,
    held,
    joined,
    parties,
    value,
)

RINGS = st.integers(2, 64)
few = settings(max_examples=25, deadline=None)


def words(x: Any) -> torch.Tensor:
    """The signed words of three parties' shares or products."""
    return joined(x) if isinstance(x[0], Share) else added(x)


@few
@over(RINGS, st.integers(0, 2**31))
def test_linear_operations(bits: int, seed: int) -> None:
    a, b = uniform(6, 5, seed=seed), uniform(6, 5, seed=seed + 1)
    a[0], b[:, 0] = edges(bits)[:5], edges(bits)[:6]
    c = uniform(5, bits=40, seed=seed + 2)  # public numbers pass through doubles

    def compute(party: Party) -> list[Any]:
        results = []
        for make in (given, given_additive, lambda *args: given_additive(*args, dealt=False)):
            x, y = make(party, a, bits, 0, "a"), make(party, b, bits, 0, "b")
            results += [x + y, x - y, -x, x + 7, x - 3, 4 + x, x.times(c), x.times(-5), x.shifted(c), x.shifted(-1)]
            results += [x.sum(0), x.sum(-1, keepdim=True), x[1:4, ::2], x[..., 2], x.transpose(0, 1)]
            results += [x.reshape(3, 10), x.unsqueeze(1), x[:, :1].expand(6, 5), x + c, x - c]
        return results

    plain = [a + b, a - b, -a, a + 7, a - 3, a + 4, a * c, a * -5, a + c, a - 1]
    plain += [a.sum(0), a.sum(-1, keepdim=True), a[1:4, ::2], a[..., 2], a.T]
    plain += [a.reshape(3, 10), a.unsqueeze(1), a[:, :1].expand(6, 5), a + c, a - c]
    results = parties(compute)
    for i, expected in enumerate(plain * 3):
        got = words([r[i] for r in results])
        assert torch.equal(got, kernels.signed(expected, bits)), i


@pytest.mark.parametrize(("left", "right"), [(10, 10), (10, 14), (17, 3)])
def test_fractions_are_aligned_in_every_mixture(left: int, right: int) -> None:
    a, b = torch.tensor([1.5, -2.25, 3.125]), torch.tensor([[0.5], [-0.75]])

    def compute(party: Party) -> list[Any]:
        xs = [given(party, a, 40, left, "a"), given_additive(party, a, 40, left, "za")]
        xs.append(given_additive(party, a, 40, left, "zc", dealt=False))
        ys = [given(party, b, 44, right, "b"), given_additive(party, b, 44, right, "zb")]
        ys.append(given_additive(party, b, 44, right, "zd", dealt=False))
        return [f(x, y) for x in xs for y in ys for f in (lambda p, q: p + q, lambda p, q: q - p)]

    results = parties(compute)
    for i in range(18):
        sums = [r[i] for r in results]
        assert sums[0].frac == max(left, right) and sums[0].bits <= 48
        expected = (a + b) if i % 2 == 0 else (b - a)
        assert torch.equal(words(sums).double() / 2 ** sums[0].frac, expected.double()), i
        assert tuple(sums[0].shape) == tuple(sums[1].shape) == tuple(sums[2].shape) == (2, 3)


def test_sums_keep_the_smaller_ring_and_scaling_grows_it() -> None:
    (x, y, *_), *_ = parties(lambda p: [given(p, torch.ones(2), 40, 4), given(p, torch.ones(2), 30, 4)])
    assert (x + y).bits == (y + x).bits == 30
    assert (x.scaled(8).bits, x.scaled(8).frac) == (48, 12)
    assert x.scaled(30).bits == 64
    assert x.reduced(12).bits == 12
    with pytest.raises(AssertionError):
        x.reduced(41)


def test_scalars_and_empty_shapes() -> None:
    def compute(party: Party) -> list[Any]:
        scalar, empty = given(party, torch.tensor(2.5), 32, 8, "s"), given(party, torch.zeros(0, 3), 32, 8, "e")
        return [scalar + scalar, scalar - 1, scalar.reshape(1, 1), empty + 1, empty.sum(0), empty.transpose(0, 1)]

    results = [value([r[i] for r in zipped]) for zipped in [parties(compute)] for i in range(6)]
    assert results[0] == 5 and results[1] == 1.5 and results[2].shape == (1, 1)
    assert results[3].shape == (0, 3) and torch.equal(results[4], torch.zeros(3)) and results[5].shape == (3, 0)


def test_concatenation_needs_one_ring() -> None:
    a, b = uniform(2, 3, bits=20), uniform(2, 2, bits=20, seed=1)
    results = parties(lambda p: cat([given(p, a, 20, 0, "a"), given(p, b, 20, 0, "b")], -1))
    assert torch.equal(joined(results), torch.cat([a, b], -1))
    for other in ((21, 0), (20, 1)):
        with pytest.raises(ValueError, match="one ring"):
            parties(lambda p, o=other: cat([given(p, a, 20, 0, "a"), given(p, b, *o, "b")], -1))


def test_constants_become_shares_without_masks() -> None:
    (dealer, _, _) = results = parties(lambda p: public(p, torch.tensor([0.5, -1.25]), (3, 2), 16, 4))
    assert torch.equal(value(results), torch.tensor([[0.5, -1.25]] * 3).double())
    assert not any(part.any() for part in dealer.components)
    assert encode(0.3, 2) == 1 and encode(torch.tensor([0.3, -0.4]), 2).tolist() == [1, -2]


@few
@over(RINGS, st.data())
def test_local_truncation_errs_by_less_than_one_and_a_half_units(bits: int, data: st.DataObject) -> None:
    shift = data.draw(st.integers(0, bits - 1))
    x, l1, l2 = grid(bits)
    results = parties(lambda p: truncated(held(p, x, l1, l2, bits, 20), shift))
    assert (results[0].bits, results[0].frac) == (bits - shift, 20 - shift)
    assert_near(joined(results), kernels.signed(x, bits), shift, bits - shift)


def assert_near(got: torch.Tensor, exact: torch.Tensor, shift: int, bits: int) -> None:
    """got = exact / 2^shift in ring `bits`, less than 1.5 units off; exactly equal without a shift."""
    whole, low = exact >> shift, exact & ((1 << shift) - 1)
    error = kernels.signed(got - whole, bits).double() - low.double() / 2.0**shift
    limit = 1.5 if shift <= 50 else math.nextafter(1.5, 2)  # beyond, what is a hair less rounds to it
    if bits <= 2:  # in so small a ring an error of two units is one of minus two
        error = error.where(error < limit, error - 2.0**bits).where(error > -limit, error + 2.0**bits)
    assert error.abs().max() < limit if shift else not error.any()
    if bits > 4 and shift > 4:
        assert abs(error[-400:].mean()) < 0.15 and abs(error[-400:].std() - 0.5) < 0.06


def test_bits_are_added_and_inverted() -> None:
    a, b = torch.randint(0, 2, (5, 9)), torch.randint(0, 2, (5, 9))

    def compute(party: Party) -> list[Any]:
        x, y = given_bits(party, a, "a"), given_bits(party, b, "b")
        return [x ^ y, ~x, x ^ 1, 1 ^ x, x ^ 0, x[:, 2:4], x.reshape(9, 5), x.transpose(0, 1)]

    results = parties(compute)
    plain = [a ^ b, 1 - a, 1 - a, 1 - a, a, a[:, 2:4], a.reshape(9, 5), a.T]
    for i, expected in enumerate(plain):
        assert torch.equal(bits_of([r[i] for r in results]), expected)


def test_a_sum_with_a_dealt_product_is_dealt() -> None:
    def compute(party: Party) -> list[Additive]:
        dealt, free = (given_additive(party, torch.ones(3), 32, 4, n, d) for n, d in (("a", True), ("b", False)))
        return [dealt + free, free + dealt, free + free, free - given(party, torch.ones(3), 32, 4)]

    results = parties(compute)
    assert [z.dealt for z in results[0]] == [True, True, False, False]
    assert [[words([r[i] for r in results])[0].item() for i in range(4)]] == [[32, 32, 32, 0]]


def test_dealt_values_are_the_dealer_s() -> None:
    dealt = parties(lambda p: deal(p, uniform(4, 3, seed=5) if p.is_dealer else None, (4, 3), 40))
    assert torch.equal(kernels.signed(dealt[1] + dealt[2], 40), kernels.signed(dealt[0], 40))
