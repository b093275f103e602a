"""Shares that grow inside a product: right for all that a lift takes, at every joint and in every pair of rings."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from puma import kernels
from puma.mpc.arithmetic import lift, truncated
from puma.mpc.party import Party
from puma.mpc.raising import cut, raised, raised_to, squared, times, whole
from puma.mpc.share import Additive
from tests.mpc.words import uniform
from tests.trio import added, counted, given, given_raised, held, joined, parties

RINGS = [(3, 4), (4, 9), (8, 13), (17, 40), (28, 57), (33, 62), (33, 64), (47, 48), (60, 64)]


def liftable(bits: int, least: int = 2) -> Tensor:
    """All that a lift takes of a small ring; of a large one both ends, 0, and what lies between."""
    low = -(1 << (bits - least))
    high = (1 << (bits - 1)) + low
    if bits < 9:
        return torch.arange(low, high)
    ends = [low, low + 1, -1, 0, 1, high - 1, high - 2]
    between = uniform(60, bits=min(bits, 62), seed=bits) % (high - low) + low
    return torch.cat([torch.tensor(ends), between])


def masks(bits: int, count: int) -> tuple[Tensor, Tensor]:
    """Masks whose sum wraps and does not, with either top bit, and such as bring m to both of its ends."""
    ends = torch.tensor([0, 1, (1 << (bits - 1)) - 1, 1 << (bits - 1), (1 << bits) - 1])
    a, b = uniform(count, bits=bits, seed=1), uniform(count, bits=bits, seed=2)
    return torch.cat([ends, a])[:count], torch.cat([b[:1], ends, b])[:count]


def product(bits: int, x: Tensor, y: Tensor) -> Tensor:
    return kernels.signed(x * y, bits)


@pytest.mark.parametrize("least", [2, 3])
@pytest.mark.parametrize(("low", "bits"), RINGS)
def test_products_sums_and_squares_are_those_of_lifted_shares(low: int, bits: int, least: int) -> None:
    if least > low:
        return
    x = liftable(low, least).repeat(4 if low < 9 else 1)
    y, other = uniform(len(x), bits=bits - 1, seed=3), liftable(max(3, low - 1))[torch.arange(len(x)) % 4]
    one, two = masks(low, len(x))

    def compute(party: Party) -> list[Additive]:
        grown = raised(held(party, x, one, two, low), bits, least)
        plain, second = given(party, y, bits, 0, "y"), raised(given(party, other, low, 0, "o"), bits)
        return [
            times(grown, plain), times(plain, grown), times(grown, second), times(grown, grown), squared(grown),
            whole(grown), squared(grown - plain), times(grown.reduced(bits - 1), plain),
        ]  # fmt: skip

    found = [added(list(each)) for each in zip(*parties(compute), strict=True)]
    wanted = [x * y, x * y, x * other, x * x, x * x, x, (x - y) * (x - y)]
    for mine, exact in zip(found, wanted, strict=False):
        assert torch.equal(mine, kernels.signed(exact, bits))
    assert torch.equal(found[-1], kernels.signed(x * y, bits - 1))


@pytest.mark.parametrize(("low", "bits", "shift"), [(20, 47, 7), (33, 62, 5), (9, 30, 1), (8, 40, 6)])
def test_what_is_cut_is_cut_as_shares_are(low: int, bits: int, shift: int) -> None:
    """The very words that a truncation of the lifted share gives, where masks are the same."""
    x = liftable(low)
    y = uniform(len(x), bits=bits - shift - 1, seed=4)
    one, two = masks(low, len(x))

    def compute(party: Party) -> list[Any]:
        share = held(party, x, one, two, low)
        short = cut(raised(share, bits), shift)
        (whole_share,) = party.run(lift((share, bits)))
        return [
            whole(short),
            times(short, given(party, y, bits - shift)),
            squared(short),
            truncated(whole_share, shift),
        ]

    sums, products, squares, reference = zip(*parties(compute), strict=True)
    found, ring = added(list(sums)), bits - shift
    exact = x.double() / 2.0**shift
    assert (found - exact).abs().max() < 1.5 and (joined(list(reference)) - exact).abs().max() < 1.5
    assert torch.equal(added(list(products)), kernels.signed(found * y, ring))
    assert torch.equal(added(list(squares)), kernels.signed(found * found, ring))


def test_a_smaller_ring_than_its_own_needs_no_correction() -> None:
    x = liftable(20)

    def compute(party: Party) -> list[Additive]:
        short = raised(given(party, x, 20), 47).reduced(18)
        return [squared(short), times(short, given(party, x, 30, 0, "y"))]

    for found in zip(*parties(compute), strict=True):
        assert torch.equal(added(list(found)), kernels.signed(x * x, 18))
    cost = counted(lambda p: squared(given_raised(p, x, 20, 47).reduced(18)))
    assert (cost.rounds, cost.online, cost.offline) == (0, 0, 0)


def test_rows_are_summed_and_multiplied_by_one_number_each() -> None:
    x, y = liftable(17)[:60].reshape(6, 10), uniform(6, bits=20, seed=5)

    def compute(party: Party) -> list[Additive]:
        grown = raised(given(party, x, 17), 50)
        row = raised_to(given(party, y, 22, 0, "y"), 50).unsqueeze(-1)
        return [whole(grown).sum(-1), squared(grown).sum(-1), times(grown, row)]

    sums, squares, products = zip(*parties(compute), strict=True)
    assert torch.equal(added(list(sums)), x.sum(-1))
    assert torch.equal(added(list(squares)), (x * x).sum(-1))
    assert torch.equal(added(list(products)), kernels.signed(x * y[:, None], 50))


def test_growing_in_a_product_costs_less_than_a_lift_and_no_round() -> None:
    x = liftable(24)
    grown = counted(lambda p: times(raised(given(p, x, 24), 48), given(p, x, 48, 0, "y")))
    lifted = counted(lambda p: times(p.run(lift((given(p, x, 24), 48)))[0], given(p, x, 48, 0, "y")))
    assert (grown.rounds, lifted.rounds) == (0, 1)
    assert grown.online + grown.offline <= 0.76 * (lifted.online + lifted.offline)
