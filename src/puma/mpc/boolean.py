"""Bits: polynomials, openings under a dealer's mask, selection and conversion to arithmetic.

Bits are xor-shared between the evaluators; the dealer knows masks only. This file must not know where bits come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from puma import kernels
from puma.kernels.shapes import broadcast
from puma.mpc import clear_forms as clear
from puma.mpc.arithmetic import deal
from puma.mpc.clear_forms import in_clear
from puma.mpc.cost import Bytes, Cost, Size, Words, declares, message_bits
from puma.mpc.party import FIRST, SECOND, Party, Piece, Protocol, present
from puma.mpc.polynomial import Polynomial, multiplied, products, products_of, shares_of
from puma.mpc.share import Additive, Bits, MaskedBit, Share


def own_bits(party: Party, shape: tuple[int, ...]) -> Tensor:
    """A row of fresh random bits, with zeros behind the last; at the dealer the xor of both evaluators'."""
    size = math.prod(shape)
    row = _mask_rows(party, 1, (size + 7) // 8).view(-1)
    if size % 8 and not party.dry:
        row[-1:] &= (1 << size % 8) - 1
    return row


def evaluate_cost(count: int, *polynomials: Polynomial) -> Cost:
    """The cost of `evaluate` on `count` elements."""
    row = message_bits(count, 1)
    return Cost(1, 2 * row * len(multiplied(polynomials)), row * len(products(polynomials)))


def _evaluate_cost(bits: Mapping[str, Bits | Size], *polynomials: Polynomial) -> Cost:
    return evaluate_cost(math.prod(_common(bits)), *polynomials)


def _common(bits: Mapping[str, Bits | Size]) -> tuple[int, ...]:
    return broadcast(*(b.shape for b in bits.values()))


@declares(
    "online 2 for each bit that is multiplied, offline 1 for each product of masks; 1 round",
    "section 4",
    _evaluate_cost,
)
@in_clear(clear.evaluate)
def evaluate(bits: Mapping[str, Bits], *polynomials: Polynomial) -> Protocol[list[Bits]]:
    """Polynomials of any degree in named bits (shapes broadcast), all in one round.

    Each bit x that is multiplied is opened as v = x ^ a under a mask a of both pairwise streams; the dealer deals every
    product of masks that a monomial holds, and a product of x is the xor over all subsets U of prod(v outside U)
    prod(a in U). Safe: each half sent is xored with fresh bits the receiver lacks, and the products are dealt.
    Source: gates of many inputs from dealt products of masks (ABY2.0, Patra et al. 2021), on xor shares.
    """
    party, shape = next(iter(bits.values())).party, _common(bits)
    names = multiplied(polynomials)
    size = math.prod(shape)
    row = (size + 7) // 8
    masks = _mask_rows(party, len(names), row)
    if party.is_dealer:
        _deal_rows(party, masks, polynomials, size)
        yield [Piece(None, 8)]
        return [Bits(party, party.nothing(shape)) for _ in polynomials]
    dealt = _deal_rows(party, None, polynomials, size)
    assert dealt is not None
    ordered = [*names, *(name for name in bits if name not in names)]
    packed = torch.stack([_spread(bits[name], shape).row for name in ordered])
    mine = packed[: len(names)] ^ masks
    (theirs,) = yield [Piece(mine, 8, size)]
    terms = shares_of(polynomials, ordered, party.rank == FIRST)
    results = kernels.opened_products(mine, theirs, (masks, dealt, packed), *terms, size)
    return [Bits(party, None, row, shape) for row in results]


def _spread(b: Bits, shape: tuple[int, ...]) -> Bits:
    return b if b.shape == shape else b.expand(*shape)


def _mask_rows(party: Party, count: int, row: int) -> Tensor:
    """Fresh masks (count, row) of packed bits; at the dealer the xor of both evaluators'."""
    if party.is_dealer:
        first, second = (present(party.random_bytes(rank, "bit", count * row)) for rank in (FIRST, SECOND))
        return (first ^ second).view(count, row)
    return present(party.random_bytes(party.rank, "bit", count * row)).view(count, row)


def _deal_rows(party: Party, masks: Tensor | None, polynomials: Sequence[Polynomial], size: int) -> Tensor | None:
    """Products of masks of so many bits, packed, a row each, xor-shared: P1's half from k01, the rest sent to P2."""
    rows = len(products(polynomials))
    row = (size + 7) // 8
    count = Bytes.of(Words(size, 1, rows)) if party.dry else rows * row
    half = party.random_bytes(FIRST, "bit-deal", count)
    if masks is not None:
        value = kernels.xor_of_products(masks, *products_of(polynomials)) ^ present(half).reshape(rows, row)
        party.correction(value.reshape(-1), count)
        return None
    if party.rank != FIRST:
        half = party.correction(None, count)
    return present(half).reshape(rows, row)


def open_masked_cost(*bs: Bits | Size) -> Cost:
    """The cost of `open_masked`."""
    return Cost(1, sum(2 * message_bits(b.numel(), 1) for b in bs), 0)


@declares("online 2; 1 round", "section 4", open_masked_cost)
@in_clear(clear.open_masked)
def open_masked(*bs: Bits) -> Protocol[list[MaskedBit]]:
    """v = b ^ rho public to the evaluators, rho known to the dealer; all in one round. Safe: rho is fresh."""
    party = bs[0].party
    rhos = [own_bits(party, tuple(b.shape)) for b in bs]
    if party.is_dealer:
        yield [Piece(None, 8) for _ in bs]
        return [MaskedBit(party, kernels.unpack_bits(rho, tuple(b.shape))) for b, rho in zip(bs, rhos, strict=True)]
    mine = [(b.row ^ rho).unsqueeze(0) for b, rho in zip(bs, rhos, strict=True)]
    theirs = yield [Piece(row, 8, b.numel()) for b, row in zip(bs, mine, strict=True)]
    opened = [(row ^ other).view(-1) for row, other in zip(mine, theirs, strict=True)]
    return [MaskedBit(party, kernels.unpack_bits(v, tuple(b.shape))) for b, v in zip(bs, opened, strict=True)]


def select_cost(bit_shape: Sequence[int], x: Share | Size) -> Cost:
    """The cost of `select` for a bit of this shape."""
    shape = broadcast(tuple(bit_shape), tuple(x.shape))
    return Cost(0, 0, message_bits(2 * math.prod(shape), x.bits))


def _select_cost(bit: MaskedBit, x: Share) -> Cost:
    return select_cost(bit.word.shape, x)


@declares("offline 2k", "section 4", _select_cost)
@in_clear(clear.select)
def select(bit: MaskedBit, x: Share) -> Additive:
    """b * x, local once b is open under its mask.

    b = v + (1 - 2v) rho, so b x = v x + (1 - 2v)(rho m - rho l); the dealer deals rho and rho l.
    Source: a bit times a number, as in ABY3 (Mohassel and Rindal 2018), read as masked values.
    """
    party, shape = x.party, broadcast(bit.word.shape, x.shape)
    if party.is_dealer:
        deal(party, kernels.selecting(bit.word, x.components), (2, *shape), x.bits)
        return Additive(party, party.nothing(shape), x.bits, x.frac, dealt=False)
    dealt = deal(party, None, (2, *shape), x.bits)
    part = kernels.selected(bit.word, x.mask, x.m, dealt, party.rank == FIRST)
    return Additive(party, part, x.bits, x.frac, dealt=False)


def select_all_cost(bits: Sequence[MaskedBit | Size], x: Share | Size) -> Cost:
    """The cost of `select_all`."""
    shapes = [tuple(bit.word.shape) if isinstance(bit, MaskedBit) else bit.shape for bit in bits]
    words = 2 * ((1 << len(bits)) - 1) * math.prod(broadcast(*shapes, tuple(x.shape)))
    return Cost(0, 0, message_bits(words, x.bits))


@declares("offline 2 (2^n - 1) k for n bits", "section 4", select_all_cost)
@in_clear(clear.select_all)
def select_all(bits: Sequence[MaskedBit], x: Share) -> Additive:
    """x where all of these bits are set, else 0; local once they are open under their masks.

    The product of v + (1 - 2v) rho is a sum over the subsets of masks: the dealer deals each product of masks, plain
    and times l, as `select` does for one. Safe: what is dealt is padded.
    """
    party, shape = x.party, broadcast(*(tuple(bit.word.shape) for bit in bits), tuple(x.shape))
    subsets = (1 << len(bits)) - 1
    if party.is_dealer:
        masks = torch.stack([p.expand(shape) for p in mask_products(bits)[1:]])
        deal(party, torch.stack([masks, masks * x.mask]), (2, subsets, *shape), x.bits)
        return Additive(party, party.nothing(shape), x.bits, x.frac, dealt=False)
    rho, rho_l = deal(party, None, (2, subsets, *shape), x.bits)
    first, *others = coefficients(bits)
    part = first * (x.m - x.mask if party.rank == FIRST else -x.mask)
    for c, plain, times_l in zip(others, rho, rho_l, strict=True):
        part = part + c * (plain * x.m - times_l)
    return Additive(party, part, x.bits, x.frac, dealt=False)


def mask_products(bits: Sequence[MaskedBit]) -> list[Any]:
    """At the dealer, the products of the masks of every subset of bits; that of none, 1, first."""
    products: list[Any] = [1]
    for bit in bits:
        products += [p * bit.word for p in products]
    return products


def coefficients(bits: Sequence[MaskedBit]) -> list[Any]:
    """At evaluators, by what the product of all bits takes each of these products, in the same order."""
    factors: list[Any] = [1]
    for bit in bits:
        factors = [f * bit.word for f in factors] + [f * (1 - 2 * bit.word) for f in factors]
    return factors


def flipped(bit: MaskedBit) -> MaskedBit:
    """Its complement; local: the mask stays what it is."""
    return bit if bit.party.is_dealer else bit._replace(word=1 - bit.word)


def _to_arithmetic_cost(bit: MaskedBit, bits: int) -> Cost:
    return Cost(0, 0, message_bits(bit.word.numel(), bits))


@declares("offline k", "section 4", _to_arithmetic_cost)
@in_clear(clear.to_arithmetic)
def to_arithmetic(bit: MaskedBit, bits: int) -> Additive:
    """b as an integer in ring `bits`, local once b is open under its mask."""
    party, shape = bit.party, tuple(bit.word.shape)
    if party.is_dealer:
        deal(party, bit.word, shape, bits)
        return Additive(party, party.nothing(shape), bits, 0, dealt=False)
    rho, v = deal(party, None, shape, bits), bit.word
    part = (1 - 2 * v) * rho
    return Additive(party, part + v if party.rank == FIRST else part, bits, 0, dealt=False)
