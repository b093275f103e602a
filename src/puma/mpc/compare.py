"""Comparison: sign, order, equality, maximum and its index; all from one-hot digits.

The sign of an n-bit ring element is exact: digits give "borrows" and "equal" bits locally, one polynomial joins them.
This file must not know the meaning of a number beyond its ring.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, lru_cache, reduce
from typing import NamedTuple

import torch
from torch import Tensor

from puma.kernels.shapes import broadcast
from puma.mpc import clear_forms as clear
from puma.mpc.arithmetic import opening_cost, reshare
from puma.mpc.boolean import (
    evaluate,
    evaluate_cost,
    flipped,
    open_masked,
    open_masked_cost,
    select,
    select_all,
    select_all_cost,
    select_cost,
)
from puma.mpc.clear_forms import in_clear
from puma.mpc.cost import FREE, Cost, Size, declares
from puma.mpc.lookup import Asked, Digit, Top, digit_cost, digits, halved, sign_bits, signed_digits, topped
from puma.mpc.party import Protocol, together
from puma.mpc.polynomial import ONE, Polynomial, bit, multiplied, products, times
from puma.mpc.share import Bits, MaskedBit, Share, stacked


def split(bits: int, count: int) -> list[int]:
    """Widths of so many digits, low to high, as even as possible."""
    small, extra = divmod(bits, count)
    return [small + (i < extra) for i in range(count)]


@cache
def widths(bits: int, thresholds: int = 1) -> tuple[int, ...]:
    """The digits that make the sign of a ring element, or its comparison with so many thresholds, cheapest."""

    def price(parts: list[int]) -> int:
        sign = negative(len(parts))
        dealt = sum(1 << w for w in halved(parts))
        return dealt + thresholds * (2 * len(multiplied([sign])) + len(products([sign])))

    # the topmost digit is one bit longer: that one does not count
    found = (split(bits - 1, n) for n in range(-(-(bits - 1) // 12), min(bits - 1, 9) + 1))
    return tuple(min(([*lower, top + 1] for *lower, top in found), key=price)) if bits > 1 else (1,)


@cache
def borrow(count: int) -> Polynomial:
    """The borrow out of so many digits: b<i> says that m's digit is below l's, e<i> that they are equal."""
    result = bit("b0")
    for i in range(1, count):
        result = bit(f"b{i}") ^ times(bit(f"e{i}"), result)
    return result


@cache
def negative(count: int) -> Polynomial:
    """The sign of so many digits: "minus" without a borrow into the top one, which "turns" would change."""
    return bit("minus") ^ times(bit("turns"), borrow(count - 1)) if count > 1 else bit("minus")


def digit_bits(ds: Sequence[Digit | Top]) -> dict[str, Bits]:
    """The bits that `negative` is about; local."""
    *lower, top = ds
    asked: dict[str, Asked] = {f"b{i}": (d, None) for i, d in enumerate(lower) if isinstance(d, Digit)}
    asked |= {f"e{i}": (d, (0,)) for i, d in enumerate(lower) if i and isinstance(d, Digit)}
    return sign_bits(top, asked)


def sign_of(ds: Sequence[Digit | Top]) -> Protocol[Bits]:
    """The sign of the difference whose digits these are, low to high."""
    bits = digit_bits(ds)
    if len(ds) == 1:
        return bits["minus"]
    return (yield from evaluate(bits, negative(len(ds))))[0]


def _sign_of_cost(count: int, digit_widths: Sequence[int], thresholds: int = 1) -> Cost:
    cost = digit_cost(count, *halved(digit_widths))
    return cost if len(digit_widths) == 1 else cost + evaluate_cost(count * thresholds, negative(len(digit_widths)))


def sign_cost(x: Share | Size) -> Cost:
    """The cost of `sign`."""
    return _sign_of_cost(x.numel(), widths(x.bits))


def _difference(x: Share | Size, y: Share | Size) -> Size:
    """The size of x - y."""
    frac = max(x.frac, y.frac)
    bits = min(min(64, z.bits + frac - z.frac) for z in (x, y))
    return Size(broadcast(x.shape, y.shape), bits, frac)


@declares(
    "digits of w bits: offline 2^w each, the last 2^(w-1) + 1; n + 1: online 4 n, offline 3 2^n - 2n - 3; 1 round",
    "section 4",
    sign_cost,
)
@in_clear(clear.sign)
def sign(x: Share) -> Protocol[Bits]:
    """The top bit of x in its ring (1: negative); exact.

    Source: comparison of what is open under a mask with the mask, digit by digit (Damgård et al. 2006); digits are
    one-hot here, so that only the borrow between them takes a round.
    """
    each = widths(x.bits)
    return (yield from sign_of(topped(signed_digits(x, 0, each), len(each))))


def below_cost(x: Share | Size, thresholds: Sequence[int]) -> Cost:
    """The cost of `below`."""
    return _sign_of_cost(x.numel(), widths(x.bits, len(thresholds)), len(thresholds))


@declares("the digits of a sign, once; its bits for each threshold; 1 round", "section 4", below_cost)
@in_clear(clear.below)
def below(x: Share, thresholds: Sequence[int]) -> Protocol[Bits]:
    """x < t for public words t, along a new last dimension, if |x - t| < 2^(bits-1).

    Subtracting t changes m alone, so all thresholds share the one-hot digits of l.
    """
    party, each = x.party, widths(x.bits, len(thresholds))
    parts = signed_digits(x, 0, each)
    if party.is_dealer:
        nothing = party.nothing((*x.shape, len(thresholds)))
        again = [Digit(party, nothing, nothing, d.low, d.width) for d in parts]
    else:
        m = x.m.unsqueeze(-1) - _row(tuple(thresholds), x.device)
        again = [Digit(party, d.hot.unsqueeze(-2), m, d.low, d.width) for d in parts]
    return (yield from sign_of(topped(again, len(each))))


@lru_cache(maxsize=1 << 8)
def _row(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    """These public numbers; only to be read."""
    return torch.tensor(numbers, dtype=torch.int64, device=device)


def _less_cost(x: Share | Size, y: Share | Size) -> Cost:
    return sign_cost(_difference(x, y))


@declares("sign", "section 4", _less_cost)
def less(x: Share, y: Share) -> Protocol[Bits]:
    """x < y, if |x - y| < 2^(bits-1)."""
    return sign(x - y)


EQUAL_WIDTH, EQUAL_FACTORS = 4, 4  # bits of a digit, and digits that one round multiplies


def _equal_cost(x: Share, y: Share) -> Cost:
    size = _difference(x, y)
    left = -(-size.bits // EQUAL_WIDTH)
    cost = digit_cost(size.numel(), *split(size.bits, left))
    while left > 1:
        groups = split(left, -(-left // EQUAL_FACTORS))
        parts = [evaluate_cost(size.numel(), _all(n)) for n in groups if n > 1]
        cost, left = cost + reduce(Cost.beside, parts), len(groups)
    return cost


@cache
def _all(count: int) -> Polynomial:
    return times(*(bit(f"x{i}") for i in range(count)))


@declares("digits of w bits: offline 2^w each; products of four, ceil(log4 digits) rounds", "section 4", _equal_cost)
@in_clear(clear.equal)
def equal(x: Share, y: Share) -> Protocol[Bits]:
    """x == y in their ring, exact: every digit of the difference is zero."""
    difference = x - y
    level = [d.is_in([0]) for d in digits(difference, 0, split(difference.bits, -(-difference.bits // EQUAL_WIDTH)))]
    while len(level) > 1:
        parts = iter(level)
        groups = [[next(parts) for _ in range(n)] for n in split(len(level), -(-len(level) // EQUAL_FACTORS))]
        joined = yield from together(*(_conjunction(group) for group in groups))
        level = joined
    return level[0]


def _conjunction(bits: list[Bits]) -> Protocol[Bits]:
    if len(bits) == 1:
        return bits[0]
    return (yield from evaluate({f"x{i}": b for i, b in enumerate(bits)}, _all(len(bits))))[0]


def choose_cost(condition: Bits | Size, *pairs: tuple[Share | Size, Share | Size]) -> Cost:
    """The cost of `choose`."""
    cost, chosen = open_masked_cost(condition), list[Size]()
    for x, y in pairs:
        size = _difference(x, y)
        shape = broadcast(condition.shape, size.shape)
        cost += select_cost(shape, size)
        chosen.append(replace(size, shape=shape))
    return cost + opening_cost(*chosen)


@declares("online 2 + 2k, offline 2k; 2 rounds", "section 4", choose_cost)
def choose(condition: Bits, *pairs: tuple[Share, Share]) -> Protocol[list[Share]]:
    """x where the condition holds, else y, for each pair (x, y)."""
    (bit,) = yield from open_masked(condition)
    chosen = [select(bit, x - y) + y for x, y in pairs]
    return (yield from reshare(*chosen))


HALVES, QUARTERS = 16, 8  # above these many entries a turn compares in twos, in fours; below, all with all
SIXES, EIGHTS, FEW = 6, 8, 256  # of quick turns: how many entries meet, at most; how many rows are few
COMPARED, WORD = 80, 16  # about how many bits a comparison takes, and a word: where turns of quick maxima are weighed


class Meeting(NamedTuple):
    """A turn of a maximum: how many entries meet, and whether the winner is selected by products of the bits of all
    comparisons, which saves a round, instead of by a bit of its own."""

    radix: int
    at_once: bool


def _lean(entries: int) -> int:
    """How many entries are compared with each other: few comparisons while there are many, few rounds at the end."""
    return 2 if entries > HALVES else 4 if entries > QUARTERS else entries


@cache
def turns(entries: int) -> tuple[int, ...]:
    """How many entries meet in each turn of a maximum of so many."""
    radix = _lean(entries)
    return (radix, *turns(-(-entries // radix))) if entries > 1 else ()


@cache
def meetings(entries: int, rows: int, quick: bool) -> tuple[Meeting, ...]:
    """The turns of a maximum of so many entries in each of so many rows: lean ones, or as few as turns of fours before
    the last eight would be, of sixes if rows are few, and of these the cheapest."""
    if not quick:
        return tuple(Meeting(radix, radix == 2) for radix in turns(entries))
    size, left, count = (SIXES if rows <= FEW else 4), entries, 1
    while left > EIGHTS:
        left, count = -(-left // size), count + 1
    return tuple(Meeting(radix, True) for radix in _cheapest(entries, count)[1])


@cache
def _cheapest(entries: int, count: int) -> tuple[int, tuple[int, ...]]:
    """Bits of a row, and how many entries meet in each of so many turns."""
    if entries <= 1:
        return 0, ()
    found = list[tuple[int, tuple[int, ...]]]()
    for radix in range(2, EIGHTS + 1):
        groups = -(-entries // radix)
        if groups > EIGHTS ** (count - 1):
            continue
        bits, rest = _cheapest(groups, count - 1)
        words = 2 * (radix - 1) * ((1 << (radix - 1)) - 1)
        each = COMPARED * radix * (radix - 1) // 2 + WORD * words
        found.append((groups * each + bits, (radix, *rest)))
    return min(found)


@cache
def _wins(radix: int) -> tuple[Polynomial, ...]:
    """Entry i is the largest if it is less than no later one, and no earlier one is not less: l<i>,<j> is x_i < x_j."""

    def won(i: int) -> Polynomial:
        later = [bit(f"l{i},{j}") ^ ONE for j in range(i + 1, radix)]
        return times(*later, *(bit(f"l{j},{i}") for j in range(i)))

    return tuple(won(i) for i in range(radix))


def _tournament_cost(lead: tuple[int, ...], entries: int, quick: bool, *bits: int) -> Cost:
    """Turns of comparisons in the first of these rings and choices in all of them, until one entry a row is left."""
    cost, rows = FREE, math.prod(lead)
    for radix, at_once in meetings(entries, rows, quick):
        groups = -(-entries // radix)
        count, pairs = rows * groups, radix * (radix - 1) // 2
        cost += sign_cost(Size((count * pairs,), bits[0]))
        if not at_once:
            cost += evaluate_cost(count, *_wins(radix)[1:])
        cost += open_masked_cost(Size(((pairs if at_once else radix - 1) * count,), 1))
        factors, sizes = radix - 1 if at_once else 1, [Size(((radix - 1) * count,), k) for k in bits]
        cost += sum((select_all_cost([Size(size.shape, 1)] * factors, size) for size in sizes), FREE)
        cost += opening_cost(*(Size((count,), k, dealt=False) for k in bits))
        entries = groups
    return cost


def _tournament(shares: list[Share], quick: bool) -> Protocol[list[Share]]:
    """The entry of each share where the first is largest, along the last dimension."""
    *lead, entries = shares[0].shape
    for radix, at_once in meetings(entries, math.prod(lead), quick):
        columns = _columns(shares[0].shape[-1], radix, shares[0].device)
        shares = yield from best([[x[..., c] for c in columns] for x in shares], at_once)
    return shares


@lru_cache(maxsize=1 << 8)
def _columns(entries: int, radix: int, device: torch.device) -> list[slice | Tensor]:
    """Columns g, g + groups, ... meet; the first stands in for one that is missing, and ties go to the earlier one."""
    groups = -(-entries // radix)

    def places(low: int) -> slice | Tensor:
        if low + groups <= entries:
            return slice(low, low + groups)
        columns = torch.arange(low, low + groups)
        return torch.where(columns < entries, columns, columns % groups).to(device)

    return [places(low) for low in range(0, radix * groups, groups)]


def best(rivals: list[list[Share]], at_once: bool) -> Protocol[list[Share]]:
    """For each list of rivals (same shapes) the one at whose place the first list is largest."""
    first = rivals[0]
    pairs = [(i, j) for i in range(len(first)) for j in range(i + 1, len(first))]
    if len(first) == 2:
        smaller = yield from sign(first[0] - first[1])
        return (yield from choose(smaller, *((b, a) for a, b in rivals)))
    smaller = yield from sign(stacked([first[i] - first[j] for i, j in pairs]))
    if at_once:
        return (yield from _selected(rivals, pairs, smaller))
    names = {f"l{i},{j}": smaller[n] for n, (i, j) in enumerate(pairs)}
    wins = yield from evaluate(names, *_wins(len(first))[1:])
    (won,) = yield from open_masked(stacked(wins))
    return (yield from reshare(*(select(won, _less_first(xs)).sum(0) + xs[0] for xs in rivals)))


def _less_first(xs: list[Share]) -> Share:
    """All but the first, less it: what is added to the first where another one wins."""
    return stacked(xs[1:]) - xs[0]


def _selected(rivals: list[list[Share]], pairs: list[tuple[int, int]], smaller: Bits) -> Protocol[list[Share]]:
    """The rivals that lose to no other, by all bits at once: entry i is less than no later one, and each earlier one
    is less than it."""
    (masked,) = yield from open_masked(smaller)
    count, at = len(rivals[0]), {pair: n for n, pair in enumerate(pairs)}
    bits = [MaskedBit(masked.party, masked.word[n]) for n in range(len(pairs))]

    def beats(i: int, j: int) -> Tensor:
        return flipped(bits[at[i, j]]).word if i < j else bits[at[j, i]].word

    others = [[j for j in range(count) if j != i] for i in range(1, count)]
    factors = [
        MaskedBit(masked.party, torch.stack([beats(i, rest[k]) for i, rest in enumerate(others, start=1)]))
        for k in range(count - 1)
    ]
    return (yield from reshare(*(select_all(factors, _less_first(xs)).sum(0) + xs[0] for xs in rivals)))


def maximum_cost(x: Share | Size, dim: int = -1, quick: bool = False) -> Cost:
    """The cost of `maximum`."""
    lead = list(x.shape)
    entries = lead.pop(dim)
    return _tournament_cost(tuple(lead), entries, quick, x.bits)


@declares("about n comparisons and choices in turns of 3 rounds, the last two of 4", "section 5", maximum_cost)
@in_clear(clear.maximum)
def maximum(x: Share, dim: int = -1, quick: bool = False) -> Protocol[Share]:
    """Largest element along a dimension, by tournament; differences must stay below 2^(bits-1). `quick`: in fewer
    rounds, with more words."""

    def only(t: torch.Tensor) -> torch.Tensor:
        return t.select(dim, 0)

    (won,) = yield from _tournament([x.transpose(dim, -1)], quick)
    return won.transpose(dim, -1).apply(only)


def argmax_cost(x: Share | Size, index: Share | Size, quick: bool = False) -> Cost:
    """The cost of `argmax`."""
    return _tournament_cost(tuple(x.shape[:-1]), x.shape[-1], quick, x.bits, index.bits)


@declares("as maximum, with two choices each", "section 5", argmax_cost)
@in_clear(clear.argmax)
def argmax(x: Share, index: Share, quick: bool = False) -> Protocol[tuple[Share, Share]]:
    """Largest element along the last dimension and its entry of `index` (same shape); any one of equals."""
    won, at = yield from _tournament([x, index], quick)
    return won[..., 0], at[..., 0]
