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
from puma.mpc.cost import Cost, Size, declares, message_bits, wire_bits
from puma.mpc.party import FIRST, Party, Piece, Protocol
from puma.mpc.share import Additive, Bits, Share


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
    return Cost(1, sum(4 * message_bits(c, 1) for c in counts), sum(message_bits(c, 1) for c in counts))


@declares("online 4, offline 1; 1 round", "section 4", lambda *pairs: and_cost(*(x.numel() for x, _ in pairs)))
def and_(*pairs: tuple[Bits, Bits]) -> Protocol[list[Bits]]:
    """x and y for each pair of Bits of one shape, all in one round.

    va = x ^ a and vb = y ^ b are opened, a and b masked by both pairwise streams; the dealer deals a b:
    x y = va vb ^ va b ^ vb a ^ a b. Safe: each half sent is xored with fresh bits the receiver lacks.
    """
    party = pairs[0][0].party
    masks, pieces = [], []
    for x, y in pairs:
        shape = tuple(x.shape)
        a, b = own_bits(party, shape), own_bits(party, shape)
        ab = deal_bits(party, a & b if party.is_dealer else None, shape)
        masks.append((a, b, ab))
        sent = (None, None) if party.is_dealer else (x.part ^ a, y.part ^ b)
        pieces += [Piece(sent[0], 1), Piece(sent[1], 1)]
    theirs = yield pieces
    results = []
    for i, ((x, _), (a, b, ab)) in enumerate(zip(pairs, masks, strict=True)):
        if party.is_dealer:
            results.append(Bits(party, party.nothing(x.shape)))
            continue
        va, vb = (pieces[2 * i + j].words ^ theirs[2 * i + j] for j in (0, 1))  # type: ignore[operator]
        part = (va & b) ^ (vb & a) ^ ab
        results.append(Bits(party, part ^ (va & vb) if party.rank == FIRST else part))
    return results


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
    shape = torch.broadcast_shapes(tuple(bit_shape), tuple(x.shape))
    return Cost(0, 0, 2 * math.prod(shape) * wire_bits(x.bits))


@declares("offline 2k", "section 4", lambda bit, x: select_cost(bit.word.shape, x))
def select(bit: MaskedBit, x: Share) -> Additive:
    """b * x, local once b is open under its mask.

    b = v + (1 - 2v) rho, so b x = v x + (1 - 2v)(rho m - rho l); the dealer deals rho and rho l.
    """
    party, shape = x.party, tuple(torch.broadcast_shapes(bit.word.shape, x.shape))
    if party.is_dealer:
        rho = bit.word.expand(shape)
        deal(party, rho, shape, x.bits)
        deal(party, rho * x.mask, shape, x.bits)
        return Additive(party, party.nothing(shape), x.bits, x.frac, dealt=False)
    rho, rho_l = deal(party, None, shape, x.bits), deal(party, None, shape, x.bits)
    v, flip = bit.word, 1 - 2 * bit.word
    own = x.m - x.mask if party.rank == FIRST else -x.mask
    return Additive(party, v * own + flip * (rho * x.m - rho_l), x.bits, x.frac, dealt=False)


@declares("offline k", "section 4", lambda bit, bits: Cost(0, 0, bit.word.numel() * wire_bits(bits)))
def to_arithmetic(bit: MaskedBit, bits: int) -> Additive:
    """b as an integer in ring `bits`, local once b is open under its mask."""
    party, shape = bit.party, tuple(bit.word.shape)
    if party.is_dealer:
        deal(party, bit.word, shape, bits)
        return Additive(party, party.nothing(shape), bits, 0, dealt=False)
    rho, v = deal(party, None, shape, bits), bit.word
    part = (1 - 2 * v) * rho
    return Additive(party, part + v if party.rank == FIRST else part, bits, 0, dealt=False)
