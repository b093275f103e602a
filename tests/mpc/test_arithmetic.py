"""Products, openings, truncation and lifting, on random and edge words of many rings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from puma import kernels
from puma.kernels import plain
from puma.mpc.arithmetic import (
    lift,
    matmul,
    multiply,
    open_coarsely,
    open_truncate,
    product,
    reshare,
    reveal,
    square,
)
from puma.mpc.fixed import formatted
from puma.mpc.party import Party, together
from puma.mpc.share import Additive
from tests.mpc.test_share import assert_near
from tests.mpc.words import edges, grid, uniform
from tests.trio import added, counted, dry, given, given_additive, held, joined, parties, trio, value

few = settings(max_examples=25, deadline=None)


@few
@over(st.integers(2, 64), st.integers(0, 2**31))
def test_what_is_shared_is_revealed(bits: int, seed: int) -> None:
    x = torch.cat([edges(bits), uniform(50, seed=seed)])
    members = trio()
    results = parties(lambda p: p.run(reveal(given(p, x, bits))), members)
    assert results[0] is None
    assert torch.equal(results[1], kernels.signed(x, bits)) and torch.equal(results[1], results[2])


@few
@over(st.integers(2, 64), st.integers(2, 64), st.integers(0, 2**31))
def test_products(left: int, right: int, seed: int) -> None:
    a, b = uniform(4, 1, 6, seed=seed), uniform(3, 6, seed=seed + 1)
    a[0, 0], b[1] = edges(left)[:6], edges(right)[-6:]
    batch = uniform(4, 6, 2, seed=seed + 2)
    bits = min(left, right)

    def compute(party: Party) -> list[Additive]:
        x, y, z = given(party, a, left), given(party, b, right, 0, "b"), given(party, batch, right, 0, "c")
        x.frac, y.frac, z.frac = 3, 5, 5
        times = product(x, y, torch.mul)
        return [multiply(x, y), times, matmul(x, z), matmul(x, y.transpose(0, 1)), square(x)]

    results = parties(compute)
    expected = [a * b, a * b, a @ batch, a @ b.T, a * a]
    for i, exact in enumerate(expected):
        products = [r[i] for r in results]
        assert products[0].dealt
        assert (products[0].bits, products[0].frac) == ((left, 6) if i == 4 else (bits, 8))
        assert torch.equal(added(products), kernels.signed(exact, products[0].bits)), i


@few
@over(st.integers(1, 64), st.booleans())
def test_reshared_is_unchanged(bits: int, dealt: bool) -> None:
    x = torch.cat([edges(bits), uniform(50)])
    y = uniform(3, 5, seed=1)

    def compute(party: Party) -> Any:
        pair = (given_additive(party, x, bits, 0, "x", dealt), given_additive(party, y, 64, 7, "y"))
        return party.run(reshare(*pair))

    results = parties(compute)
    assert torch.equal(joined([r[0] for r in results]), kernels.signed(x, bits))
    assert torch.equal(value([r[1] for r in results]) * 2**7, torch.round(y.double() * 128).long().double())


@few
@over(st.integers(2, 64), st.data())
def test_opening_truncates_into_the_smaller_ring(bits: int, data: st.DataObject) -> None:
    shifts = [0, bits - 1, data.draw(st.integers(0, bits - 1))]
    x = torch.cat([edges(bits), uniform(600)])

    def compute(party: Party) -> Any:
        return party.run(open_truncate(*((given_additive(party, x, bits, 0, f"z{s}"), s) for s in shifts)))

    results = parties(compute)
    for i, shift in enumerate(shifts):
        shares = [r[i] for r in results]
        assert (shares[0].bits, shares[0].frac) == (bits - shift, -shift)
        assert_near(joined(shares), kernels.signed(x, bits), shift, bits - shift)


@pytest.mark.parametrize(("shift", "mean", "deviation"), [(14, 0.0, 0.5), (2, 0.125, 0.484), (1, 0.25, 0.433)])
def test_what_is_dropped_leaves_no_mean_error(shift: int, mean: float, deviation: float) -> None:
    """Three parts are rounded before they leave: by half a unit as a rule in sum, and halves not all one way."""
    x = uniform(20_000, bits=40)
    results = parties(lambda p: p.run(open_truncate((given_additive(p, x, 48, 0), shift)))[0])
    errors = joined(results).double() - x.double() / 2.0**shift
    assert errors.abs().max() < 1.5 and abs(errors.mean() - mean) < 0.02 and abs(errors.std() - deviation) < 0.01


def test_nothing_of_what_is_dropped_travels() -> None:
    """Of the dealer's part neither."""
    for shift, sent in ((14, 34), (1, 47), (0, 48)):
        cost = counted(lambda p, s=shift: p.run(open_truncate((Additive(p, p.nothing((800,)), 48, 20, True), s))))
        assert (cost.rounds, cost.online, cost.offline) == (1, 2 * sent * 800, sent * 800)


def test_what_is_opened_for_digits() -> None:
    """m less the dealer's mask is the value, and what is left without low bits is a share like any other: both err as
    they do after `open_truncate` and `truncated`. P2 is sent no more than it keeps."""
    x = torch.cat([edges(40), uniform(600, bits=40)])

    def compute(party: Party) -> Any:
        return party.run(open_coarsely(given_additive(party, x, 43, 0), 15, 12))

    results = parties(compute)
    (dealer, coarse), (one, _), (two, _) = results
    assert torch.equal(plain.reduce(one.m, 28), plain.reduce(two.m, 28))
    assert (dealer.bits, dealer.frac, coarse.bits, coarse.frac) == (28, -15, 16, -27)
    assert_near(kernels.signed(one.m - dealer.mask, 28), kernels.signed(x, 43), 15, 28)
    assert_near(joined([c for _, c in results]), kernels.signed(one.m - dealer.mask, 28), 12, 16)
    cost = counted(lambda p: p.run(open_coarsely(Additive(p, p.nothing((800,)), 43, 28, True), 15, 12)))
    assert (cost.rounds, cost.online, cost.offline) == (1, 2 * 28 * 800, 16 * 800)


def test_halves_for_digits_are_uniform() -> None:
    """Whatever the dealer's part is: what P2 is sent of its half tells nothing of it."""
    zero = torch.zeros(4000, dtype=torch.int64)

    def compute(party: Party) -> Any:
        return party.run(open_coarsely(Additive(party, zero, 43, 28, True), 15, 12))[1].mask

    for half in parties(compute)[1:]:
        assert half.unique().numel() > 3500 and abs(half.double().mean() / 2**15 - 1) < 0.05


@pytest.mark.parametrize("bits", [64, 48, 33])
@pytest.mark.parametrize("shift", [1, 14, 17])
def test_products_are_truncated(bits: int, shift: int) -> None:
    a, b = uniform(40, 30, bits=12), uniform(30, 40, bits=12, seed=1)

    def compute(party: Party) -> Any:
        z = matmul(given(party, a, bits, 0, "a"), given(party, b, bits, 0, "b"))
        return party.run(open_truncate((z, shift)))[0]

    assert_near(joined(parties(compute)).reshape(-1), (a @ b).reshape(-1), shift, bits - shift)


PAIRS = [(2, 3), (2, 64), (3, 11), (8, 16), (17, 34), (31, 48), (32, 64), (48, 64), (62, 64), (63, 64), (20, 21)]


@pytest.mark.parametrize(("small", "large"), PAIRS)
def test_lifting_is_exact_up_to_the_edges(small: int, large: int) -> None:
    """All |x| < 2^(j-2), and -2^(j-2) itself, under masks at the edges of the ring."""
    x, l1, l2 = grid(small)
    bound = 1 << (small - 2)
    x = x.remainder(2 * bound) - bound
    x[:3] = torch.tensor([-bound, bound - 1, 0])
    x[-3:] = torch.tensor([-bound, bound - 1, 0])
    results = parties(lambda p: p.run(lift((held(p, x, l1, l2, small, 5), large)))[0])
    assert (results[0].bits, results[0].frac) == (large, 5)
    assert torch.equal(joined(results), x)


@few
@over(st.data())
def test_lifting_many_at_once(data: st.DataObject) -> None:
    pairs = data.draw(
        st.lists(
            st.integers(2, 63).flatmap(lambda j: st.tuples(st.just(j), st.integers(j + 1, 64))), min_size=1, max_size=4
        )
    )
    values = [uniform(30, bits=small - 1, seed=i) for i, (small, _) in enumerate(pairs)]

    def compute(party: Party) -> Any:
        shares = [given(party, v, j, 0, str(i)) for i, (v, (j, _)) in enumerate(zip(values, pairs, strict=True))]
        return party.run(lift(*((s, k) for s, (_, k) in zip(shares, pairs, strict=True))))

    members = trio()
    results = parties(compute, members)
    for i, (v, (_, large)) in enumerate(zip(values, pairs, strict=True)):
        assert torch.equal(joined([r[i] for r in results]), v) and results[0][i].bits == large
    assert members[1].ledger.total().rounds == 1


def test_a_ring_cannot_be_lifted_into_itself() -> None:
    with pytest.raises(AssertionError):
        parties(lambda p: p.run(lift((given(p, torch.zeros(2), 48), 48))), dry())


def test_formatted_brings_anything_anywhere() -> None:
    x = torch.linspace(-100, 100, 57).reshape(3, 19)
    wants = [(14, 48), (20, 30), (31, 64), (2, 12)]

    def compute(party: Party) -> Any:
        made = [given(party, x, 40, 20, "a"), given_additive(party, x, 48, 31, "b")]
        made += [given_additive(party, x, 30, 8, "c", dealt=False), given_additive(party, x, 64, 31, "d")]
        results = party.run(formatted(*((m, f, b) for m, (f, b) in zip(made, wants, strict=True))))
        assert party.ledger.total().rounds == (0 if party.is_dealer else 2)
        again = party.run(formatted(*((m, f, made[0].bits) for m, (f, _) in zip(made[:1], wants, strict=False))))
        assert again[0].bits == 40
        return results

    results = parties(compute)
    for i, (frac, bits) in enumerate(wants):
        shares = [r[i] for r in results]
        assert (shares[0].frac, shares[0].bits) == (frac, bits)
        assert (value(shares) - x.double()).abs().max() <= 1.5 * 2.0**-frac + 2.0**-8


def test_a_product_is_opened_once_at_one_precision() -> None:
    def compute(party: Party) -> list[int]:
        z, rounds = given_additive(party, torch.ones(4), 48, 31), []
        for frac in (14, 14, 12, 14):
            party.run(formatted((z, frac, 20)))
            rounds.append(party.ledger.total().rounds)
        return rounds

    assert parties(compute)[1] == [1, 1, 2, 2]


def test_protocols_in_lockstep_share_their_rounds() -> None:
    x = uniform(10, bits=20)

    def compute(party: Party) -> Any:
        long = formatted((given_additive(party, x, 40, 0, "a"), 0, 64))  # two rounds
        short = reshare(given_additive(party, x, 30, 0, "b"))
        none = formatted((given(party, x, 30, 0, "c"), 0, 30))
        (a,), (b,), (c,) = party.run(together(long, short, none))
        return [a, b, c]

    members = trio()
    results = parties(compute, members)
    for i in range(3):
        assert torch.equal(joined([r[i] for r in results]), x)
    assert members[1].ledger.total().rounds == 2
    assert parties(lambda p: p.run(together()), members) == [[], [], []]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0, 2), (2, 3)])
def test_any_shape_goes_through(shape: tuple[int, ...]) -> None:
    def compute(party: Party) -> Any:
        x = given(party, torch.ones(shape), 30, 8)
        return party.run(formatted((multiply(x, x), 6, 40)))[0]

    results = parties(compute)
    assert results[0].shape == shape
    assert (value(results) - 1).abs().sum() < 0.03 * torch.ones(shape).sum() + 1e-9
