"""Bits: and, openings under a dealer's mask, selection and conversion to arithmetic.

Bits are xor-shared between the evaluators; the dealer knows masks only. This file must not know where bits come from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from puma import kernels
from puma.mpc.arithmetic import deal
from puma.mpc.cost import Cost, Size, declares, message_bits
from puma.mpc.party import FIRST, Party, Piece, Protocol
from puma.mpc.share import Additive, Bits, Share, broadcast


class MaskedBit(NamedTuple):
    """v = b xor rho: `word` is the public v at the evaluators and the mask rho at the dealer."""

    party: Party
    word: Tensor


def own_bits(party: Party, shape: tuple[int, ...]) -> Tensor:
    """Fresh random bits as 0/1 words; at the dealer the xor of both evaluators'."""
    count = (math.prod(shape) + 7) // 8
    drawn = [party.random_bytes(rank, "bit", count) for rank in ((1, 2) if party.is_dealer else (party.rank,))]
    words = [kernels.unpack_bits(d, shape) for d in drawn if d is not None]
    return words[0] ^ words[1] if len(words) == 2 else words[0]


@declares("offline 1", "section 2", lambda party, value, shape: Cost(0, 0, message_bits(math.prod(shape), 1)))
def deal_bits(party: Party, value: Tensor | None, shape: tuple[int, ...]) -> Tensor:
    """Bits known to the dealer, xor-shared: P1's half from k01, the rest sent to P2."""
    count = (math.prod(shape) + 7) // 8
    half = party.random_bytes(FIRST, "bit-deal", count)
    if party.is_dealer:
        party.correction(half if party.dry else kernels.pack_bits(value) ^ half, count)  # type: ignore[operator]
        return value  # type: ignore[return-value]
    return kernels.unpack_bits(half if party.rank == FIRST else party.correction(None, count), shape)  # type: ignore[arg-type]


def and_cost(*counts: int) -> Cost:
    """The cost of `and_` on pairs of so many bits each."""
    total = message_bits(sum(counts), 1)
    return Cost(1, 4 * total, total)


@declares("online 4, offline 1; 1 round", "section 4", lambda *pairs: and_cost(*(x.numel() for x, _ in pairs)))
def and_(*pairs: tuple[Bits, Bits]) -> Protocol[list[Bits]]:
    """x and y for each pair of Bits of one shape, all in one round and as one long row of bits.

    va = x ^ a and vb = y ^ b are opened, a and b masked by both pairwise streams; the dealer deals a b:
    x y = va vb ^ va b ^ vb a ^ a b. Safe: each half sent is xored with fresh bits the receiver lacks.
    """
    party, shapes = pairs[0][0].party, [x.shape for x, _ in pairs]
    row = (sum(shape.numel() for shape in shapes),)
    a, b = own_bits(party, row), own_bits(party, row)
    ab = deal_bits(party, a & b if party.is_dealer else None, row)
    if party.is_dealer:
        yield [Piece(None, 1), Piece(None, 1)]
        return [Bits(party, party.nothing(shape)) for shape in shapes]
    x, y = (torch.cat([pair[i].part.reshape(-1) for pair in pairs]) for i in (0, 1))
    mine = (x ^ a, y ^ b)
    theirs = yield [Piece(mine[0], 1), Piece(mine[1], 1)]
    va, vb = mine[0] ^ theirs[0], mine[1] ^ theirs[1]
    part = (va & b) ^ (vb & a) ^ ab
    if party.rank == FIRST:
        part = part ^ (va & vb)
    products = part.split([shape.numel() for shape in shapes])
    return [Bits(party, product.reshape(shape)) for product, shape in zip(products, shapes, strict=True)]


def open_masked_cost(*bs: Bits | Size) -> Cost:
    """The cost of `open_masked`."""
    return Cost(1, sum(2 * message_bits(b.numel(), 1) for b in bs), 0)


@declares("online 2; 1 round", "section 4", open_masked_cost)
def open_masked(*bs: Bits) -> Protocol[list[MaskedBit]]:
    """v = b ^ rho public to the evaluators, rho known to the dealer; all in one round. Safe: rho is fresh."""
    party = bs[0].party
    rhos = [own_bits(party, tuple(b.shape)) for b in bs]
    if party.is_dealer:
        yield [Piece(None, 1) for _ in bs]
        return [MaskedBit(party, rho) for rho in rhos]
    sent = [b.part ^ rho for b, rho in zip(bs, rhos, strict=True)]
    theirs = yield [Piece(s, 1) for s in sent]
    return [MaskedBit(party, s ^ t) for s, t in zip(sent, theirs, strict=True)]


def select_cost(bit_shape: Sequence[int], x: Share | Size) -> Cost:
    """The cost of `select` for a bit of this shape."""
    shape = broadcast(tuple(bit_shape), tuple(x.shape))
    return Cost(0, 0, message_bits(2 * math.prod(shape), x.bits))


@declares("offline 2k", "section 4", lambda bit, x: select_cost(bit.word.shape, x))
def select(bit: MaskedBit, x: Share) -> Additive:
    """b * x, local once b is open under its mask.

    b = v + (1 - 2v) rho, so b x = v x + (1 - 2v)(rho m - rho l); the dealer deals rho and rho l.
    """
    party, shape = x.party, broadcast(bit.word.shape, x.shape)
    if party.is_dealer:
        rho = bit.word.expand(shape)
        deal(party, torch.stack([rho, rho * x.mask]), (2, *shape), x.bits)
        return Additive(party, party.nothing(shape), x.bits, x.frac, dealt=False)
    rho, rho_l = deal(party, None, (2, *shape), x.bits)
    v, flip = bit.word, 1 - 2 * bit.word
    own = x.m - x.mask if party.rank == FIRST else -x.mask
    return Additive(party, v * own + flip * (rho * x.m - rho_l), x.bits, x.frac, dealt=False)


@declares("offline k", "section 4", lambda bit, bits: Cost(0, 0, message_bits(bit.word.numel(), bits)))
def to_arithmetic(bit: MaskedBit, bits: int) -> Additive:
    """b as an integer in ring `bits`, local once b is open under its mask."""
    party, shape = bit.party, tuple(bit.word.shape)
    if party.is_dealer:
        deal(party, bit.word, shape, bits)
        return Additive(party, party.nothing(shape), bits, 0, dealt=False)
    rho, v = deal(party, None, shape, bits), bit.word
    part = (1 - 2 * v) * rho
    return Additive(party, part + v if party.rank == FIRST else part, bits, 0, dealt=False)
