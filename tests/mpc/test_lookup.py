"""One-hot digits: exhaustive over small digits, in every width."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from puma import kernels
from puma.mpc.arithmetic import reshare
from puma.mpc.lookup import Digit, Top, digit, digits, sign_bits, signed_digits, topped
from puma.mpc.party import Party
from puma.mpc.share import Additive, Bits
from tests.mpc.words import grid, uniform
from tests.trio import added, bits_of, held, joined, parties

WIDTHS = range(1, 11)


def differences(bits: int, low: int, width: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Words and masks of a ring; the digit of m, of l."""
    x, l1, l2 = grid(bits)
    m, mask = (kernels.shift_right(t, low, bits) & ((1 << width) - 1) for t in (x + l1 + l2, l1 + l2))
    return x, l1, l2, m, mask


@pytest.mark.parametrize("low", [0, 5])
@pytest.mark.parametrize("width", WIDTHS)
def test_membership_borrow_and_lookup(width: int, low: int) -> None:
    bits, size = 31, 1 << width
    x, l1, l2, m, mask = differences(bits, low, width)
    found = (m - mask) % size
    sets = [[0], [size - 1, 0], list(range(size // 2, size)), [], list(range(size)), [-1, size, 2 * size + 1]]
    tables = torch.stack([uniform(size, bits=40), torch.arange(size)])

    def compute(party: Party) -> tuple[list[Bits], list[Additive], Any]:
        d = digit(held(party, x, l1, l2, bits), low, width)
        looked = d.lookup(tables, 40, (9, 0))
        return [d.borrows(), *(d.is_in(s) for s in sets)], looked, d.sign() if party.is_dealer else None

    results = parties(compute)
    got = [bits_of([flags[i] for flags, _, _ in results]) for i in range(len(sets) + 1)]
    assert torch.equal(got[0], (m < mask).long())
    for members, flags in zip(sets, got[1:], strict=True):
        wanted = torch.tensor(sorted({v % size for v in members}), dtype=torch.int64)
        assert torch.equal(flags, torch.isin(found, wanted).long()), members
    sign = results[0][2]
    assert set(sign.tolist()) == {1, -1}
    for t, frac in enumerate((9, 0)):
        products = [looked[t] for _, looked, _ in results]
        assert (products[0].bits, products[0].frac, products[0].dealt) == (40, frac, False)
        assert torch.equal(added(products), kernels.signed(sign * tables[t, found], 40))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_every_digit_of_every_mask(width: int) -> None:
    size = 1 << width
    m, mask = (g.reshape(-1) for g in torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij"))

    def compute(party: Party) -> list[Bits]:
        d = digit(held(party, m - mask, mask, torch.zeros_like(mask), width), 0, width)
        return [d.borrows(), *(d.is_in([v]) for v in range(size))]

    results = parties(compute)
    assert torch.equal(bits_of([r[0] for r in results]), (m < mask).long())
    for v in range(size):
        assert torch.equal(bits_of([r[1 + v] for r in results]), ((m - mask) % size == v).long())


@pytest.mark.parametrize("widths", [[1, 2], [6, 6, 5], [2, 9, 1, 3, 7], [4] * 8, [10, 10]])
def test_neighbouring_digits_in_one_correction(widths: list[int]) -> None:
    x, l1, l2, m, mask = differences(40, 3, sum(widths))

    def compute(party: Party) -> Any:
        ds = digits(held(party, x, l1, l2, 40), 3, widths)
        assert [d.width for d in ds] == widths
        assert party.ledger.total().frames_offline == party.is_dealer
        return [d.borrows() for d in ds], [d.is_in([0]) for d in ds]

    below, equal = zip(*parties(compute), strict=True)
    for i, width in enumerate(widths):
        one, other = ((t >> sum(widths[:i])) & ((1 << width) - 1) for t in (m, mask))
        assert torch.equal(bits_of([b[i] for b in below]), (one < other).long())
        assert torch.equal(bits_of([e[i] for e in equal]), (one == other).long())


@pytest.mark.parametrize("shape", [(), (0, 3), (2, 1, 3)])
@pytest.mark.parametrize("width", [2, 5, 7])
def test_digits_of_any_shape(width: int, shape: tuple[int, ...]) -> None:
    x, l1, l2 = (uniform(*shape, seed=i) for i in range(3))
    table = torch.arange(1 << width)[None]

    def compute(party: Party) -> tuple[Digit, Any]:
        d = digit(held(party, x, l1, l2, 64), 3, width)
        return d, party.run(reshare(*d.lookup(table, 16, (0,))))[0]

    results = parties(compute)
    d = results[0][0]
    assert repr(d) == f"Digit(shape={shape}, width={width})" and d.size == 1 << width
    m, mask = ((t >> 3) & (d.size - 1) for t in (x + l1 + l2, l1 + l2))
    assert torch.equal(joined([r[1] for r in results]), d.sign() * ((m - mask) % d.size))


def test_a_sign_is_shared_by_counting() -> None:
    """The positions that are set at P1, less those at P2, are the sign of every lookup."""
    for width in (1, 3, 8):
        x, l1, l2 = grid(20)

        def compute(party: Party, x: Tensor = x, l1: Tensor = l1, l2: Tensor = l2, width: int = width) -> Tensor:
            d = digit(held(party, x, l1, l2, 20), 4, width)
            return d.sign() if party.is_dealer else d.signed()

        sign, one, two = parties(compute)
        assert torch.equal(one + two, sign) and set(sign.tolist()) == {1, -1}


@pytest.mark.parametrize("widths", [[1], [4], [3, 1], [2, 3]])
def test_the_top_digit_of_a_sign_takes_half(widths: list[int]) -> None:
    """Without a borrow, and whether one would turn it: the same as of the whole digit, for every word and mask."""
    bits, top = sum(widths), widths[-1]
    m, mask = (g.reshape(-1) for g in torch.meshgrid(torch.arange(1 << bits), torch.arange(1 << bits), indexing="ij"))

    def compute(party: Party) -> dict[str, Bits]:
        x = held(party, m - mask, mask, torch.zeros_like(mask), bits)
        *lower, last = topped(signed_digits(x, 0, widths), len(widths))
        assert len(lower) == len(widths) - 1 and isinstance(last, Top)
        return sign_bits(last, {})

    results = parties(compute)
    high = (m >> (bits - top)) - (mask >> (bits - top))
    minus, turns = (bits_of([r[name] for r in results]) for name in ("minus", "turns"))
    assert torch.equal(minus, (high >> (top - 1)) & 1)
    assert torch.equal(turns, (high % (1 << (top - 1)) == 0).long())
