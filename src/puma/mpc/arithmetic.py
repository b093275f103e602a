"""Arithmetic on shares: products, resharing, truncation into a smaller ring, lifting into a larger one.

Products are local and give an Additive; one round turns it back into a Share. Every word sent is padded with a fresh
word of a stream the receiver lacks. This file must not know what the numbers stand for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from puma import kernels
from puma.kernels import wordwise
from puma.kernels.rounds.message import SUM
from puma.mpc import clear_forms as clear
from puma.mpc import public as known
from puma.mpc.clear_forms import in_clear
from puma.mpc.cost import Bytes, Cost, Size, Words, declares, local, message_bits, message_bytes
from puma.mpc.party import DEALER, FIRST, SECOND, Message, Party, Piece, Protocol, present
from puma.mpc.public import Public
from puma.mpc.seeded import in_blocks, weighted
from puma.mpc.share import Additive, Number, Share, encode

Bilinear = Callable[[Tensor, Tensor], Tensor]
FEW_ROWS = 2


def _deal_cost(party: Party, value: Tensor | None, shape: tuple[int, ...], bits: int, purpose: str = "deal") -> Cost:
    return Cost(0, 0, message_bits(math.prod(shape), bits))


@declares("offline k", "section 2", _deal_cost)
def deal(party: Party, value: Tensor | None, shape: tuple[int, ...], bits: int, purpose: str = "deal") -> Tensor:
    """A value known to the dealer as (2,2) words: P1 draws its half from k01, P2 is sent the difference.

    Safe: what P2 receives is padded by the k01 words. Returns this evaluator's half, and the dealer's own value at the
    dealer.
    """
    half = _half(party, value, 0, 0, bits, shape, purpose)
    if party.is_dealer:
        return present(value)
    return present(half) if party.rank == FIRST else kernels.unpack(present(half), bits, shape)


def _half(
    party: Party, value: Tensor | None, before: int, shift: int, bits: int, shape: tuple[int, ...], purpose: str
) -> Tensor | None:
    """This evaluator's half of ((value + before) mod 2^bits >> shift), of which the dealer alone knows the value: P1
    draws words of k01, P2 is sent the difference, and has its bytes."""
    half = party.words(FIRST, purpose, shape)
    if party.rank == FIRST:
        return half
    count, payload = _size(party, shape, bits - shift), None
    if party.is_dealer and not party.dry:
        payload = kernels.packed_less(present(value), before, shift, bits, present(half))
    return party.correction(payload, count)


def _size(party: Party, shape: Sequence[int], bits: int) -> int:
    """Of a correction of so many words; a dry party is told which words they are."""
    numel = math.prod(shape)
    return Bytes.of(Words(numel, bits)) if party.dry else message_bytes(numel, bits)


@declares("local", "section 2", local)
@in_clear(clear.public)
def public(party: Party, value: Tensor | Number, shape: Sequence[int], bits: int, frac: int) -> Share:
    """A public constant as a share with zero masks."""
    zero = party.nothing(shape) if party.dry else torch.zeros(tuple(shape), dtype=torch.int64, device=party.device)
    return Share(party, zero, zero, bits, frac).shifted(encode(value, frac, party.device))


@declares("local", "section 3", local)
@in_clear(clear.truncated)
def truncated(x: Share, shift: int) -> Share:
    """Drop `shift` low bits locally: the ring shrinks by as much, the value errs by less than 1.5 units.

    floor(m / 2^s) - floor(l1 / 2^s) - floor(l2 / 2^s) exceeds floor(x / 2^s) by the carry of the low parts, 0 to 2;
    adding half a unit first and taking one off last centres the error, whose standard deviation is half a unit.
    """
    if shift == 0:
        return x
    if isinstance(x, Public):
        return x.truncated(shift)
    half, one = (0, 0) if x.party.is_dealer else (1 << (shift - 1), 1)  # constants are m's alone
    a, b = x.components
    a, b = kernels.cut_both(a, None, b, half, shift, x.bits, -one)
    return x.like(a, b, x.bits - shift, x.frac - shift)


@declares("local", "section 3", local)
@in_clear(clear.product)
def product(x: Share, y: Share, op: Bilinear) -> Additive:
    """x o y for any bilinear op (section 3 of docs/protocol.md); local.

    P0: (l1x + l2x) o (l1y + l2y).  P1: mx o (my - l1y) - l1x o my.  P2: -(mx o l2y) - l2x o my.
    The ring is the smaller one, fractions add. Source: products of replicated shares (Araki et al. 2016), read as
    masked values whose part of masks alone is made beforehand (ASTRA, Chaudhari et al. 2019).
    """
    rank = x.party.rank
    if rank == DEALER:
        part = op(x.mask, y.mask)
    elif rank == FIRST:
        part = wordwise("sub", op(x.m, wordwise("sub", y.m, y.mask)), op(x.mask, y.m))
    else:
        part = wordwise("neg", wordwise("add", op(x.m, y.mask), op(x.mask, y.m)))
    return Additive(x.party, part, min(x.bits, y.bits), x.frac + y.frac, dealt=True)


@declares("local", "section 3", local)
def multiply(x: Share, y: Share) -> Additive:
    """Elementwise product, broadcasting; local. With a public factor, which comes second, no part is the dealer's."""
    if isinstance(y, Public):
        return known.multiply(x, y)
    return product(x, y, _mul)


@declares("local", "section 3", local)
@in_clear(clear.square)
def square(x: Share) -> Additive:
    """Elementwise square; local, one product a party instead of two."""
    mask = x.mask
    if x.party.rank == DEALER:
        part = _mul(mask, mask)
    elif x.party.rank == FIRST:
        part = _mul(x.m, wordwise("sub", wordwise("sub", x.m, mask), mask))
    else:
        part = wordwise("neg", _mul(x.m, wordwise("add", mask, mask)))
    return Additive(x.party, part, x.bits, 2 * x.frac, dealt=True)


def _mul(x: Tensor, y: Tensor) -> Tensor:
    return wordwise("mul", x, y)


@declares("local", "section 3", local)
@in_clear(clear.matmul)
def matmul(x: Share | Additive, y: Share) -> Additive:
    """Batched matrix product (..., n, k) @ (..., k, m); local, two ring products an evaluator, one at the dealer.

    With a public matrix it is one at each evaluator, and x may be an untruncated sum without a dealer's part.
    """
    if isinstance(y, Public):
        return known.matmul(x, y)
    assert isinstance(x, Share)
    bits = min(x.bits, y.bits)
    if in_blocks(y):
        part = weighted(x, y, kernels.matmul_packed, y.shape[-1])
    elif x.party.is_dealer:
        if x.shape[-2] <= FEW_ROWS:  # both masks are read anyway, and their sum need not be written
            left, (first, second) = x.mask, y.components
            part = kernels.matmul(left, second, bits, kernels.matmul(left, first, bits))
        else:
            part = kernels.matmul(x.mask, y.mask, bits)
    elif x.party.rank == FIRST:  # mx (my - ly) - lx my, with the difference taken where there are fewer words
        fewer = x.numel() < y.numel()
        part = kernels.matmul(x.m - x.mask, y.m, bits) if fewer else kernels.matmul(x.m, y.m - y.mask, bits)
        part = kernels.matmul(-x.m, y.mask, bits, part) if fewer else kernels.matmul(-x.mask, y.m, bits, part)
    else:
        part = kernels.matmul(-x.m, y.mask, bits)
        part = kernels.matmul(-x.mask, y.m, bits, out=part)
    return Additive(x.party, part, bits, x.frac + y.frac, dealt=True)


@declares("local", "section 3", local)
def linear(x: Share, weight: Share) -> Additive:
    """x @ weight^T for a matrix (out, in); local. No copy is made of a Seeded weight that is not kept anyway.

    A public one costs an evaluator one ring product, and the dealer none.
    """
    if isinstance(weight, Public):
        return known.linear(x, weight)
    if not in_blocks(weight):
        return matmul(x, weight.transpose(-1, -2))
    part = weighted(x, weight, kernels.linear_packed, weight.shape[0])
    return Additive(x.party, part, min(x.bits, weight.bits), x.frac + weight.frac, dealt=True)


def _masked(z: Additive, shift: int = 0) -> tuple[Message, Tensor | tuple[Tensor, Tensor]]:
    """This party's padded part of z / 2^shift, rounded for itself, ready to swap, and its fresh masks; deals the
    dealer's part first."""
    party, shape, bits, before = z.party, tuple(z.shape), z.bits - shift, before_cut(z.party, shift)
    dealt = _half(party, z.part, before, shift, z.bits, shape, "deal") if z.dealt else None
    pads = party.own_words("mask", shape)
    if isinstance(pads, tuple):  # the dealer's: both
        return [Piece(None, bits)], pads
    return [Piece(kernels.padded(z.part, before, shift, z.bits, dealt, pads), bits, joined=SUM)], pads


def _opened(pairs: Sequence[tuple[Additive, int]]) -> Protocol[list[Share]]:
    """Open z / 2^shift + r1 + r2 for each pair: the sum and the own pad at evaluators, r1 and r2 at the dealer."""
    masked = [_masked(z, shift) for z, shift in pairs]
    sums = yield [piece for message, _ in masked for piece in message]
    results: list[Share] = []
    for (z, shift), (_, pads), m in zip(pairs, masked, sums, strict=True):
        a, b = pads if isinstance(pads, tuple) else (present(m), pads)
        results.append(Share(z.party, a, b, z.bits - shift, z.frac - shift))
    return results


def opening_cost(*zs: Additive | Size) -> Cost:
    """One round that opens padded products: the cost of `reshare`."""
    online = sum(2 * message_bits(z.numel(), z.bits) for z in zs)
    return Cost(1, online, sum(message_bits(z.numel(), z.bits) for z in zs if z.dealt))


@declares("online 2k, offline k if dealt; 1 round", "sections 2 and 3", opening_cost)
@in_clear(clear.reshare)
def reshare(*zs: Additive) -> Protocol[list[Share]]:
    """Additives back to Shares of the same rings, all in one round.

    Draw l1 from k01 and l2 from k02; P1 sends z1 + l1, P2 sends z2 + l2; the sum is m. Safe: each message is padded
    by words the receiver lacks. Source: the openings of ASTRA, in rings of any size.
    """
    return (yield from _opened([(z, 0) for z in zs]))


def truncating_cost(*pairs: tuple[Additive | Size, int]) -> Cost:
    """The cost of `open_truncate`."""
    return opening_cost(*(Size(tuple(z.shape), z.bits - s, 0, z.dealt) for z, s in pairs))


def before_cut(party: Party, shift: int) -> int:
    """What a party adds to its part of a sum before it drops so many bits: half a unit, and at P2 a last place less.

    So halves are rounded up by two and down by one: where few bits are dropped their mean would count, and all three
    never err by half a unit the same way.
    """
    return (1 << (shift - 1)) - (party.rank == SECOND) if shift else 0


@declares("online 2(k-s), offline k-s if dealt; 1 round", "section 3", truncating_cost)
@in_clear(clear.open_truncate)
def open_truncate(*pairs: tuple[Additive, int]) -> Protocol[list[Share]]:
    """Additives z to Shares of z / 2^s in the smaller ring k - s, all in one round; off by less than 1.5 units.

    Each party rounds its part to the places that are kept: what a wrap of their sum would change lies above the smaller
    ring, so only three roundings of half a unit are lost, whose sum has a standard deviation of half a unit. So what
    is dropped is neither dealt nor sent. Safe: as reshare, which does the rest. Source: the local truncation of
    SecureML (Mohassel and Zhang 2017), which stays inside its ring and fails with a small probability; here the ring
    shrinks, and nothing fails.
    """
    return (yield from _opened(pairs))


def coarse_cost(z: Additive | Size, shift: int, places: int) -> Cost:
    """The cost of `open_coarsely`."""
    bits, count = z.bits - shift, z.numel()
    return Cost(1, 2 * message_bits(count, bits), message_bits(count, bits - places))


@declares("online 2(k-s), offline k-s-c; 1 round", "section 3", coarse_cost)
@in_clear(clear.open_coarsely)
def open_coarsely(z: Additive, shift: int, places: int) -> Protocol[tuple[Share, Share]]:
    """z / 2^s as `open_truncate` gives it, in ring k - s, and that without `places` more, as `truncated` does.

    The former is for digits alone, which ask evaluators for nothing but m: the dealer's part joins the mask, l = r1 +
    r2 - z0, instead of what is sent, and nobody else has parts of that. Those that the latter needs are a1, from k01,
    and a2 = l - a1, without their low bits. Safe: m is padded as in reshare; P2 is sent of a2 alone, which a1 pads.
    """
    assert z.dealt
    party, shape, before = z.party, tuple(z.shape), before_cut(z.party, shift)
    bits, frac = z.bits - shift, z.frac - shift
    left, less = bits - places, frac - places
    count = _size(party, shape, left)
    pads, own = party.own_words("mask", shape), party.words(FIRST, "coarse", shape)
    if isinstance(pads, tuple):
        part = kernels.cut(z.part, None, before, shift, z.bits, 0) if shift else z.part
        first, second = pads[0] - part, pads[1]
        rest, coarse = kernels.cut_both(first - present(own), second, present(own), 0, places, bits, 0)
        party.correction(None if party.dry else kernels.pack(rest, left), count)
        yield [Piece(None, bits)]
        return Share(party, first, second, bits, frac), Share(party, coarse, rest, left, less)
    if party.rank == FIRST:
        coarse = kernels.shift_right(present(own), places, bits)
    else:
        coarse = kernels.unpack(present(party.correction(None, count)), left, shape)
    (m,) = yield [Piece(kernels.padded(z.part, before, shift, z.bits, None, pads), bits, joined=SUM)]
    high = kernels.cut(m, None, 1 << (places - 1), places, bits, -1)
    return Share(party, m, party.nothing(shape), bits, frac), Share(party, high, coarse, left, less)


def lift_cost(*pairs: tuple[Share | Size, int], least: int = 2) -> Cost:
    """The cost of `lift`."""
    online = sum(2 * message_bits(x.numel(), k - x.bits) for x, k in pairs)
    return Cost(1, online, sum(message_bits(2 * x.numel(), k - x.bits) for x, k in pairs))


@declares("online 2(k-j), offline 2(k-j); 1 round", "section 3", lift_cost)
@in_clear(clear.lift)
def lift(*pairs: tuple[Share, int], least: int = 2) -> Protocol[list[Share]]:
    """Shares from ring j into larger rings k, exactly, if |x| < 2^(j-2); all in one round.

    With another `least`, -2^(j-least) <= x < 2^(j-1) - 2^(j-least), for what is hardly negative. Add 2^(j-least): then
    0 <= x < 2^(j-1). With l = l1 + l2 over the integers, w = l >> j and t the top bit of l mod 2^j,
    x = m - l1 - l2 + 2^j (w + t (1 - top bit of m)). The dealer deals both candidates of the wrap in ring k - j, the
    evaluators pick by the top bit of m, which both know, and reshare. Safe: picked words are dealt, sums are padded.
    """
    prepared = [_wrap(x, k, least) for x, k in pairs]
    tops = yield from reshare(*(top for _, _, top in prepared))
    results: list[Share] = []
    for (x, k), (low, high, _), top in zip(pairs, prepared, tops, strict=True):
        j, (a, b) = x.bits, top.components
        back = 0 if x.party.is_dealer else -(1 << (j - least))
        results.append(x.like(*kernels.joined_both(low, a, high, b, j, back), bits=k))
    return results


def _wrap(x: Share, bits: int, least: int) -> tuple[Tensor, Tensor, Additive]:
    """Canonical components of x + 2^(j-least), and its wrap count as an Additive in ring bits - j."""
    party, j, shape = x.party, x.bits, tuple(x.shape)
    assert least <= j < bits <= 64
    a, b = x.components
    if party.is_dealer:
        a, b, counts = kernels.wraps(a, b, j)
        deal(party, counts, (2, *shape), bits - j)
        part = party.nothing(shape)
    else:
        choices = deal(party, None, (2, *shape), bits - j)
        a, b, part = kernels.picked(a, b, 1 << (j - least), j, choices)
    return a, b, Additive(party, part, bits - j, 0, dealt=False)


@declares("local: every component is drawn by the two parties that hold it", "section 2", local)
def random_share(party: Party, shape: tuple[int, ...], bits: int) -> Share:
    """A uniform number that no party knows, with 0 fraction bits: m from k12, l1 from k01, l2 from k02."""
    pads = party.own_words("random", shape)
    if isinstance(pads, tuple):
        return Share(party, *pads, bits, 0)
    return Share(party, party.common_words("random", shape), pads, bits, 0)


def _reveal_cost(x: Share | Size) -> Cost:
    return Cost(1, 2 * message_bits(x.numel(), x.bits), 0)


@declares("online 2k; 1 round", "section 2", _reveal_cost)
def reveal(x: Share) -> Protocol[Tensor | None]:
    """Open x to both evaluators (a deliberate opening: for tests and diagnosis only). None at the dealer."""
    party = x.party
    if party.is_dealer:
        yield [Piece(None, x.bits)]
        return None
    (other,) = yield [Piece(x.mask, x.bits)]
    return kernels.signed(x.m - x.mask - present(other), x.bits)
