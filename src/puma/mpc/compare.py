"""Comparison: sign, order, equality, maximum and its index; all from one-hot digits.

The sign of an n-bit ring element is exact: digits give "borrows" and "equal" bits locally, a tree of ands joins them.
This file must not know the meaning of a number beyond its ring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from puma import kernels
from puma.mpc.arithmetic import opening_cost, reshare
from puma.mpc.boolean import and_, and_cost, open_masked, open_masked_cost, select, select_cost
from puma.mpc.cost import FREE, Cost, Size, declares
from puma.mpc.lookup import Digit, digit_cost, digits
from puma.mpc.party import Protocol
from puma.mpc.share import Bits, Share, broadcast, cat


def split(bits: int, width: int) -> list[int]:
    """Digit widths, low to high, as even as possible and at most `width` each."""
    count = -(-bits // width)
    small, extra = divmod(bits, count)
    return [small + (i < extra) for i in range(count)]


def borrow_out(ds: list[Digit]) -> Protocol[Bits]:
    """Whether the number formed by the digits of m is below the one formed by those of l; a tree of ands.

    (below, equal) of a high part joins a low part as below_h ^ (equal_h and below_l), equal_h and equal_l.
    """
    level: list[tuple[Bits, Bits | None]] = [(d.borrows(), d.is_in([0]) if i else None) for i, d in enumerate(ds)]
    while len(level) > 1:
        pairs, joins = [], []
        for low, high in zip(level[0::2], level[1::2], strict=False):
            assert high[1] is not None
            pairs.append((high[1], low[0]))
            if low[1] is not None:
                pairs.append((high[1], low[1]))
            joins.append((high[0], low[1] is not None))
        products = iter((yield from and_(*pairs)))
        joined: list[tuple[Bits, Bits | None]] = []
        for below, keeps_equal in joins:
            joined.append((below ^ next(products), next(products) if keeps_equal else None))
        level = joined + ([level[-1]] if len(level) % 2 else [])
    return level[0][0]


def _joins(digit_count: int) -> list[int]:
    """Ands in each round that `sign` spends on this many digits: the tree of `borrow_out`, then one."""
    level, ands = [False] + [True] * (digit_count - 2), []
    while len(level) > 1:
        lows = level[0::2][: len(level) // 2]
        ands.append(sum(1 + keeps_equal for keeps_equal in lows))
        level = lows + ([level[-1]] if len(level) % 2 else [])
    return [*ands, 1] if digit_count > 1 else []


def _ands_cost(count: int, rounds: list[int]) -> Cost:
    return sum((and_cost(count * ands) for ands in rounds), FREE)


def sign_cost(x: Share | Size, width: int = 6) -> Cost:
    """The cost of `sign`."""
    widths = split(x.bits, width)
    return digit_cost(x.numel(), *widths) + _ands_cost(x.numel(), _joins(len(widths)))


def _difference(x: Share | Size, y: Share | Size) -> Size:
    """The size of x - y."""
    frac = max(x.frac, y.frac)
    bits = min(min(64, z.bits + frac - z.frac) for z in (x, y))
    return Size(broadcast(x.shape, y.shape), bits, frac)


@declares(
    "digits of w bits: offline 2^w each; a tree of ands over them, ceil(log2(digits - 1)) + 1 rounds",
    "section 4",
    sign_cost,
)
def sign(x: Share, width: int = 6) -> Protocol[Bits]:
    """The top bit of x in its ring (1: negative); exact. Digits of at most `width` bits."""
    return _negative(digits(x, 0, split(x.bits, width)))


def below_cost(x: Share | Size, thresholds: Sequence[int], width: int = 10) -> Cost:
    """The cost of `below`."""
    widths = split(x.bits, width)
    return digit_cost(x.numel(), *widths) + _ands_cost(x.numel() * len(thresholds), _joins(len(widths)))


@declares("the digits of a sign, once; its ands for each threshold", "section 4", below_cost)
def below(x: Share, thresholds: Sequence[int], width: int = 10) -> Protocol[Bits]:
    """x < t for public words t, along a new last dimension, if |x - t| < 2^(bits-1).

    Subtracting t changes m alone, so all thresholds share the one-hot digits of l.
    """
    party, low = x.party, 0
    m = None if party.is_dealer else x.m.unsqueeze(-1) - torch.tensor(thresholds, dtype=torch.int64, device=x.device)
    ds = digits(x, 0, split(x.bits, width))
    for i, d in enumerate(ds):
        if m is None:
            public = party.nothing((*x.shape, len(thresholds)))
        else:
            public = kernels.shift_right(m, low, x.bits) & (d.size - 1)
        ds[i] = Digit(party, d.hot.unsqueeze(-2), public, d.width)
        low += d.width
    return _negative(ds)


def _negative(ds: list[Digit]) -> Protocol[Bits]:
    """The sign of the difference whose digits these are, low to high."""
    top = ds[-1]
    negative = range(top.size // 2, top.size)
    without = top.is_in(negative)
    if len(ds) == 1:
        return without
    borrowed = top.is_in([v + 1 for v in negative])
    borrow = yield from borrow_out(ds[:-1])
    (change,) = yield from and_((borrow, without ^ borrowed))
    return without ^ change


@declares("sign", "section 4", lambda x, y, width=6: sign_cost(_difference(x, y), width))
def less(x: Share, y: Share, width: int = 6) -> Protocol[Bits]:
    """x < y, if |x - y| < 2^(bits-1)."""
    return sign(x - y, width)


def _equal_cost(x: Share, y: Share, width: int = 4) -> Cost:
    size = _difference(x, y)
    widths = split(size.bits, width)
    ands, left = [], len(widths)
    while left > 1:
        ands.append(left // 2)
        left -= ands[-1]
    return digit_cost(size.numel(), *widths) + _ands_cost(size.numel(), ands)


@declares("digits of w bits: offline 2^w each; a tree of ands, ceil(log2 digits) rounds", "section 4", _equal_cost)
def equal(x: Share, y: Share, width: int = 4) -> Protocol[Bits]:
    """x == y in their ring, exact: every digit of the difference is zero."""
    difference = x - y
    level = [d.is_in([0]) for d in digits(difference, 0, split(difference.bits, width))]
    while len(level) > 1:
        joined = yield from and_(*zip(level[0::2], level[1::2], strict=False))
        level = joined + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def choose_cost(condition: Bits | Size, *pairs: tuple[Share | Size, Share | Size]) -> Cost:
    """The cost of `choose`."""
    cost, chosen = open_masked_cost(condition), []
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


def _tournament_cost(lead: tuple[int, ...], entries: int, width: int, *bits: int) -> Cost:
    """Rounds of `less` on the first of these rings and `choose` on all of them, until one entry a row is left."""
    cost = FREE
    while entries > 1:
        pairs = [Size((*lead, entries // 2), k) for k in bits]
        cost += sign_cost(pairs[0], width) + choose_cost(Size(pairs[0].shape, 1), *((p, p) for p in pairs))
        entries -= entries // 2
    return cost


def maximum_cost(x: Share | Size, dim: int = -1, width: int = 6) -> Cost:
    """The cost of `maximum`."""
    lead = list(x.shape)
    entries = lead.pop(dim)
    return _tournament_cost(tuple(lead), entries, width, x.bits)


@declares("n - 1 times less and choose, in ceil(log2 n) turns", "section 5", maximum_cost)
def maximum(x: Share, dim: int = -1, width: int = 6) -> Protocol[Share]:
    """Largest element along a dimension, by tournament; differences must stay below 2^(bits-1)."""
    x = x.transpose(dim, -1)
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        left, right, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        smaller = yield from less(left, right, width)
        (won,) = yield from choose(smaller, (right, left))
        x = cat([won, rest], -1) if rest.shape[-1] else won
    return x.transpose(dim, -1).apply(lambda t: t.select(dim, 0))


def argmax_cost(x: Share | Size, index: Share | Size, width: int = 4) -> Cost:
    """The cost of `argmax`."""
    return _tournament_cost(tuple(x.shape[:-1]), x.shape[-1], width, x.bits, index.bits)


@declares("n - 1 times less and choose of both, in ceil(log2 n) turns", "section 5", argmax_cost)
def argmax(x: Share, index: Share, width: int = 4) -> Protocol[tuple[Share, Share]]:
    """Largest element along the last dimension and its entry of `index` (same shape); any one of equals."""
    while x.shape[-1] > 1:
        half = (x.shape[-1] + 1) // 2
        pairs = x.shape[-1] - half
        left, right, rest = (slice(0, pairs), slice(half, None), slice(pairs, half))
        smaller = yield from less(x[..., left], x[..., right], width)
        won, at = yield from choose(smaller, (x[..., right], x[..., left]), (index[..., right], index[..., left]))
        x, index = cat([won, x[..., rest]], -1), cat([at, index[..., rest]], -1)
    return x[..., 0], index[..., 0]
