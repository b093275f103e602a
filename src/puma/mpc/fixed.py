"""Fixed-point formats, and the one function that brings any secret into the format an operation needs.

Stay in the small ring as long as the numbers fit: truncation shrinks the ring for free, only what enters the next
matrix product is lifted. Limits are stated here and checked by the model owner before anything is shared.
It must not know which function or model a number belongs to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from puma.mpc.arithmetic import coarse_cost, lift, lift_cost, open_coarsely, open_truncate, opening_cost, truncated
from puma.mpc.cost import FREE, Cost, Size, declares
from puma.mpc.party import Protocol
from puma.mpc.raising import Operand, raised_cost, raised_to
from puma.mpc.share import Additive, Share
from puma.mpc.watch import note_lift

RING = 48  # matrix products: 32 fraction bits leave |z| < 2^15, or 2^14 before a lift
ACTIVATION = 14  # fraction bits of what enters a matrix product
WEIGHT = 18  # fraction bits of weights
RESIDUAL = 17  # fraction bits of the residual stream
RESIDUAL_RING = RING - ACTIVATION
NONLINEAR = 13  # fraction bits of what enters a spline
WEIGHT_LIMIT = 128.0  # |w| a matrix entry may have

# Reaches, unless a model's formats say otherwise: what it is about stays below 2^reach.
STREAM_REACH = 14  # |x| of the residual stream and of what is added to it
NORM_REACH = 16  # the length of a row to be normalised
ACTIVATION_REACH = 9  # gelu, silu and their like take |x| < 496: 2^9 less the lower end of the widest table
RELU_REACH = 14  # |x| that relu takes
GATED_REACH = 18  # of a product of two activations
VALUE_REACH = 9  # |v| of attention, of which VALUE_LIMIT is used
VALUE_LIMIT = 480.0  # 256 times it times exp(0.75) stays below 2^18, which is what can be lifted
SCORE_REACH = 14  # attention scores of one row lie within 2^14 of each other
LOGIT_REACH = 13  # argmax: logits of one row lie within 2^13 of each other
LOGIT_RING = ACTIVATION + LOGIT_REACH + 1

Want = tuple["Share | Additive", int, int]


def product_ring(reach: int) -> int:
    """Of products with weights, 32 fraction bits, that stay below 2^reach and may be lifted once they are opened."""
    return ACTIVATION + WEIGHT + reach + 2


def gated_ring(reach: int) -> int:
    """Of products of two activations, 28 fraction bits, that stay below 2^reach and may be lifted once opened."""
    return 2 * ACTIVATION + reach + 2


def logit_ring(reach: int) -> int:
    """Of logits with ACTIVATION fraction bits that lie within 2^reach of each other."""
    return ACTIVATION + reach + 1


def _ring_at(x: Share | Additive | Size, frac: int) -> int:
    """The ring of x once it has these fraction bits."""
    return min(64, x.bits + frac - x.frac)


def _place(x: Share | Additive | Size, frac: int, bits: int) -> tuple[int, int]:
    """Fraction and ring bits that x is opened to: no larger a ring than is wanted, or than holds it."""
    return frac, min(bits, _ring_at(x, frac))


def formatted_cost(
    *wants: tuple[Share | Additive | Size, int, int], bounded: bool = False, noted: Sequence[int] = ()
) -> Cost:  # fmt: skip
    """The cost of `formatted`, but for what is noted."""
    opening, short = list[Size](), list[tuple[Size, int]]()
    for x, frac, bits in wants:
        place = _place(x, frac, bits)
        if not isinstance(x, Share) and x.dealt is not None and place not in x.opened:
            opening.append(Size(tuple(x.shape), place[1], frac, x.dealt))
        if place[1] < bits:
            short.append((Size(tuple(x.shape), place[1]), bits))
    cost = opening_cost(*opening) if opening else FREE
    return cost + lift_cost(*short) if short else cost


@declares("open_truncate, then lift; at most 2 rounds", "section 3", formatted_cost)
def formatted(*wants: Want, bounded: bool = False, noted: Sequence[int] = ()) -> Protocol[list[Share]]:
    """Shares with the wanted fraction bits in the wanted ring: at most one round to open and one to lift.

    Each want is (secret, fraction bits, ring bits). Additives are opened once per precision, with truncation, and in no
    larger a ring than the result needs; Shares are truncated locally; rings too small are lifted, too large reduced.
    A clear party looks whether values fit, unless they are bounded by what they were made of. Of those wants that are
    `noted`, and of unproven products, what cannot be lifted is flagged.
    """
    places = [_place(x, frac, bits) for x, frac, bits in wants]
    for (x, frac, bits), (_, ring) in () if bounded else zip(wants, places, strict=True):
        x.party.note_range("value", x, 2.0 ** (ring - frac - (2 if ring < bits else 1)))
    opening = [
        (x, place)
        for (x, _, _), place in zip(wants, places, strict=True)
        if isinstance(x, Additive) and place not in x.opened
    ]
    if opening:
        opened = yield from open_truncate(*(_to_open(x, *place) for x, place in opening))
        for (x, place), share in zip(opening, opened, strict=True):
            x.opened[place] = share
    shares = [
        x.opened[place] if isinstance(x, Additive) else _rescaled(x, frac)
        for (x, frac, _), place in zip(wants, places, strict=True)
    ]
    short = [i for i, (_, _, bits) in enumerate(wants) if shares[i].bits < bits]
    for i in short:
        if i in noted or (isinstance(x := wants[i][0], Additive) and x.unproven):
            note_lift(shares[i])
    if short:
        lifted = yield from lift(*((shares[i], wants[i][2]) for i in short))
        for i, share in zip(short, lifted, strict=True):
            shares[i] = share
    return [share.reduced(bits).settled() for share, (_, _, bits) in zip(shares, wants, strict=True)]


def _for_digits_cost(x: Share | Additive | Size, frac: int, bits: int, places: int) -> Cost:
    if _dealt_whole(x, frac, bits):
        return coarse_cost(Size(tuple(x.shape), bits, frac, True), 0, places)
    return formatted_cost((x, frac, bits))


def _dealt_whole(x: Share | Additive | Size, frac: int, bits: int) -> bool:
    """Whether x is a product with a part of the dealer's that is not opened yet, and needs no lift."""
    wanted = frac, bits
    return isinstance(x, Additive) and x.dealt and _place(x, *wanted) == wanted and wanted not in x.opened


@declares("open_coarsely, else formatted; at most 2 rounds", "section 3", _for_digits_cost)
def for_digits(x: Share | Additive, frac: int, bits: int, places: int) -> Protocol[tuple[Share, Share]]:
    """x in this format, of which nothing but digits may be asked, and less so many places more, as any share."""
    if _dealt_whole(x, frac, bits):
        x.party.note_range("value", x, 2.0 ** (bits - frac - 1))
        return (yield from open_coarsely(*_to_open(cast(Additive, x), frac, bits), places))
    (share,) = yield from formatted((x, frac, bits))
    return share, truncated(share, places)


def grown_cost(*wants: tuple[Share | Additive | Size, int, int]) -> Cost:
    """The cost of `grown`, but for what is noted."""
    places = [_place(*want) for want in wants]
    cost = formatted_cost(*((x, *place) for (x, _, _), place in zip(wants, places, strict=True)))
    short = [(x, bits, place) for (x, _, bits), place in zip(wants, places, strict=True) if place[1] < bits]
    return sum((raised_cost(Size(tuple(x.shape), place[1]), bits) for x, bits, place in short), cost)


@declares("open_truncate, then raised; at most 1 round", "section 3", grown_cost)
def grown(*wants: Want) -> Protocol[list[Operand]]:
    """Factors of elementwise products in the wanted formats, as `formatted` brings them about, but rings too small grow
    inside the product, without a round. Of unproven products, what cannot be lifted is flagged.
    """
    shares = yield from formatted(*((x, *_place(x, frac, bits)) for x, frac, bits in wants))
    for share, (x, _, bits) in zip(shares, wants, strict=True):
        if share.bits < bits and isinstance(x, Additive) and x.unproven:
            note_lift(share)
    return [raised_to(share, bits) for share, (_, _, bits) in zip(shares, wants, strict=True)]


def _to_open(x: Additive, frac: int, bits: int) -> tuple[Additive, int]:
    if x.frac < frac:
        x = x.scaled(frac - x.frac)
    shift = x.frac - frac
    return x.like(x.part, bits + shift), shift


def _rescaled(x: Share, frac: int) -> Share:
    return truncated(x, x.frac - frac) if x.frac >= frac else x.scaled(frac - x.frac)


def index_bits(size: int) -> int:
    """Of the ring that holds an index below `size`."""
    return max(1, (size - 1).bit_length())
