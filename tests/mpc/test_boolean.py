"""And, masked openings, selection and conversion of bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st

from puma import kernels
from puma.mpc.arithmetic import reshare
from puma.mpc.boolean import MaskedBit, and_, deal_bits, open_masked, own_bits, select, to_arithmetic
from puma.mpc.party import Party
from puma.mpc.share import Additive
from tests.cases import coins
from tests.mpc.words import edges, uniform
from tests.trio import added, bits_of, given, given_bits, given_masked, joined, parties, unmasked

few = settings(max_examples=25, deadline=None)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (64,), (3, 5, 2)])
def test_and_and_openings_of_any_shape(shape: tuple[int, ...]) -> None:
    a, b, c = coins(*shape), coins(*shape, seed=1), coins(4, seed=2)

    def compute(party: Party) -> Any:
        x, y, z = given_bits(party, a, "a"), given_bits(party, b, "b"), given_bits(party, c, "c")
        return party.run(and_((x, y), (x, ~y), (z, z))), party.run(open_masked(x, z))

    results = parties(compute)
    for i, expected in enumerate([a & b, a & (1 - b), c]):
        assert torch.equal(bits_of([products[i] for products, _ in results]), expected)
    for i, expected in enumerate([a, c]):
        assert torch.equal(unmasked([opened[i] for _, opened in results]), expected)


def test_the_truth_table_of_and() -> None:
    a, b = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    results = parties(lambda p: p.run(and_((given_bits(p, a, "a"), given_bits(p, b, "b"))))[0])
    assert bits_of(results).tolist() == [0, 0, 0, 1]


def test_dealt_and_own_bits_meet() -> None:
    value = coins(5, 7)

    def compute(party: Party) -> tuple[torch.Tensor, torch.Tensor]:
        return deal_bits(party, value if party.is_dealer else None, (5, 7)), own_bits(party, (5, 7))

    (_, rho), (one, rho1), (two, rho2) = parties(compute)
    assert torch.equal(one ^ two, value) and torch.equal(rho, rho1 ^ rho2)
    assert set(torch.cat([one, two, rho1, rho2]).flatten().tolist()) == {0, 1}


@few
@over(st.integers(1, 64), st.integers(0, 2**31))
def test_selection(bits: int, seed: int) -> None:
    x = torch.cat([edges(bits), uniform(40, seed=seed)])
    b = coins(len(x), seed=seed)

    def compute(party: Party) -> tuple[Additive, Additive, Additive]:
        share, bit = given(party, x, bits), given_masked(party, b)
        rows = given(party, x.reshape(-1, 1).expand(-1, 3), bits, 0, "rows")
        return select(bit, share), select(MaskedBit(party, bit.word.unsqueeze(-1)), rows), to_arithmetic(bit, bits)

    chosen, wide, numbers = zip(*parties(compute), strict=True)
    assert torch.equal(added(chosen), kernels.signed(x * b, bits))
    assert torch.equal(added(wide), kernels.signed(x * b, bits)[:, None].expand(-1, 3))
    assert torch.equal(added(numbers), kernels.signed(b, bits))


def test_what_is_selected_can_be_summed_and_shared() -> None:
    """if b then x else y, as b (x - y) + y, beside a number made of the bit."""
    x, y, b = uniform(30, bits=20), uniform(30, bits=20, seed=1), coins(30)

    def compute(party: Party) -> Any:
        p, q, bit = given(party, x, 20, 0, "x"), given(party, y, 20, 0, "y"), given_masked(party, b)
        return party.run(reshare(select(bit, p - q) + q, to_arithmetic(bit, 20).times(3) - p))

    results = parties(compute)
    assert torch.equal(joined([r[0] for r in results]), x.where(b == 1, y))
    assert torch.equal(joined([r[1] for r in results]), kernels.signed(3 * b - x, 20))
