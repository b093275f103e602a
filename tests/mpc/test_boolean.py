"""Polynomials, masked openings, selection and conversion of bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from puma import kernels
from puma.mpc.arithmetic import reshare
from puma.mpc.boolean import MaskedBit, evaluate, open_masked, own_bits, select, to_arithmetic
from puma.mpc.party import FIRST, SECOND, Party
from puma.mpc.polynomial import ONE, bit, times
from puma.mpc.share import Additive, Bits
from tests.cases import coins
from tests.mpc.words import edges, uniform
from tests.trio import added, bits_of, given, given_bits, given_masked, joined, parties, unmasked

few = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (64,), (3, 5, 2)])
def test_polynomials_and_openings_of_any_shape(shape: tuple[int, ...]) -> None:
    a, b, c = coins(*shape), coins(*shape, seed=1), coins(4, seed=2)
    x, y = bit("x"), bit("y")

    def compute(party: Party) -> Any:
        p, q, r = given_bits(party, a, "a"), given_bits(party, b, "b"), given_bits(party, c, "c")
        return party.run(evaluate({"x": p, "y": q}, times(x, y), times(x, y ^ ONE))), party.run(open_masked(p, r))

    results = parties(compute)
    for i, expected in enumerate([a & b, a & (1 - b)]):
        assert torch.equal(bits_of([products[i] for products, _ in results]), expected)
    for i, expected in enumerate([a, c]):
        assert torch.equal(unmasked([opened[i] for _, opened in results]), expected)


@pytest.mark.parametrize("degree", [2, 3, 5])
def test_the_truth_table_of_a_product(degree: int) -> None:
    table = torch.cartesian_prod(*[torch.arange(2)] * degree)
    names = [f"x{i}" for i in range(degree)]
    product = times(*map(bit, names))

    def compute(party: Party) -> Any:
        shares = {n: given_bits(party, table[:, i], n) for i, n in enumerate(names)}
        return party.run(evaluate(shares, product, product ^ bit("x0") ^ ONE, bit("x1")))

    results = list(zip(*parties(compute), strict=True))
    expected = table.prod(1)
    assert torch.equal(bits_of(results[0]), expected)
    assert torch.equal(bits_of(results[1]), expected ^ table[:, 0] ^ 1)
    assert torch.equal(bits_of(results[2]), table[:, 1])


def test_bits_broadcast() -> None:
    a, b = coins(5, 1), coins(1, 9, seed=1)
    product = times(bit("x"), bit("y"))
    results = parties(lambda p: p.run(evaluate({"x": given_bits(p, a), "y": given_bits(p, b, "c")}, product))[0])
    assert torch.equal(bits_of(results), a & b)


def test_own_bits_meet() -> None:
    """With nothing behind the last one: a row is sent as it is."""
    rho, rho1, rho2 = parties(lambda p: own_bits(p, (5, 7)))
    assert torch.equal(rho, rho1 ^ rho2) and rho1.shape == (5,) and int(rho1[-1] | rho2[-1]) < 8
    assert set(kernels.unpack_bits(torch.cat([rho1, rho2]), (2, 40)).flatten().tolist()) == {0, 1}


def test_bits_are_the_same_in_both_forms() -> None:
    """Words and rows, whichever there was, and whatever is done to them."""
    a, b = coins(3, 7, seed=1), coins(3, 7, seed=2)
    for rank in (FIRST, SECOND):
        party = Party(rank, {})
        words = [Bits(party, x) for x in (a, b)]
        rows = [Bits(party, None, kernels.pack_bits(x), x.shape) for x in (a, b)]
        expected = 1 - (a ^ b) if rank == FIRST else a ^ b
        for x in (words[0], rows[0]):
            for y in (words[1], rows[1]):
                found = ~(x ^ y)
                assert found.shape == (3, 7) and torch.equal(found.part, expected)
                assert torch.equal(found.row, kernels.pack_bits(expected))
        for x in (words[0], rows[0]):
            assert torch.equal(x[1].part, a[1]) and torch.equal((x ^ 0).part, a)
        assert torch.equal((rows[0] ^ Bits(party, b[:1])).part, a ^ b[:1])


@few
@over(st.integers(1, 64), st.integers(0, 2**31))
def test_selection(bits: int, seed: int) -> None:
    x = torch.cat([edges(bits), uniform(40, seed=seed)])
    b = coins(len(x), seed=seed)

    def compute(party: Party) -> tuple[Additive, Additive, Additive]:
        share, masked = given(party, x, bits), given_masked(party, b)
        rows = given(party, x.reshape(-1, 1).expand(-1, 3), bits, 0, "rows")
        return (
            select(masked, share),
            select(MaskedBit(party, masked.word.unsqueeze(-1)), rows),
            to_arithmetic(masked, bits),
        )

    chosen, wide, numbers = zip(*parties(compute), strict=True)
    assert torch.equal(added(chosen), kernels.signed(x * b, bits))
    assert torch.equal(added(wide), kernels.signed(x * b, bits)[:, None].expand(-1, 3))
    assert torch.equal(added(numbers), kernels.signed(b, bits))


def test_what_is_selected_can_be_summed_and_shared() -> None:
    """if b then x else y, as b (x - y) + y, beside a number made of the bit."""
    x, y, b = uniform(30, bits=20), uniform(30, bits=20, seed=1), coins(30)

    def compute(party: Party) -> Any:
        p, q, masked = given(party, x, 20, 0, "x"), given(party, y, 20, 0, "y"), given_masked(party, b)
        return party.run(reshare(select(masked, p - q) + q, to_arithmetic(masked, 20).times(3) - p))

    results = parties(compute)
    assert torch.equal(joined([r[0] for r in results]), x.where(b == 1, y))
    assert torch.equal(joined([r[1] for r in results]), kernels.signed(3 * b - x, 20))


def test_nothing_is_sent_behind_the_last_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mask lies there: what was written into it would go out as it is."""
    sent, exchange = [], Party.exchange

    def heard(party: Party, pieces: Any) -> Any:
        sent.extend(piece.words for piece in pieces if not party.is_dealer)
        return exchange(party, pieces)

    monkeypatch.setattr(Party, "exchange", heard)
    parties(lambda p: p.run(open_masked(given_bits(p, torch.ones(5, 7, dtype=torch.int64)))))
    assert len(sent) == 2 and all(row.shape == (1, 5) and int(row[0, -1]) < 8 for row in sent)
