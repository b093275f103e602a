"""Comparison: sign, order, equality, maximum and its index; all from one-hot digits.

The sign of an n-bit ring element is exact: digits give "borrows" and "equal" bits locally, a tree of ands joins them.
This file must not know the meaning of a number beyond its ring.
"""

from __future__ import annotations

from puma.mpc.arithmetic import reshare
from puma.mpc.boolean import and_, open_masked, select
from puma.mpc.cost import Cost, declares
from puma.mpc.lookup import Digit, digit
from puma.mpc.party import Protocol
from puma.mpc.share import Bits, Share, cat


def split(bits: int, width: int) -> list[int]:
    """Digit widths, low to high, as even as possible and at most `width` each."""
    count = -(-bits // width)
    small, extra = divmod(bits, count)
    return [small + (i < extra) for i in range(count)]


def digits(x: Share, width: int) -> list[Digit]:
    """All digits of x, low to high."""
    result, low = [], 0
    for w in split(x.bits, width):
        result.append(digit(x, low, w))
        low += w
    return result


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


def _joins(digit_count: int) -> tuple[int, int]:
    """Ands and rounds that `sign` spends on this many digits: the tree of `borrow_out`, then one."""
    if digit_count == 1:
        return 0, 0
    level, ands, rounds = [False] + [True] * (digit_count - 2), 1, 1
    while len(level) > 1:
        lows = level[0::2][: len(level) // 2]
        ands += sum(1 + keeps_equal for keeps_equal in lows)
        rounds += 1
        level = lows + ([level[-1]] if len(level) % 2 else [])
    return ands, rounds


def _sign_cost(x: Share, width: int = 6) -> Cost:
    widths = split(x.bits, width)
    ands, rounds = _joins(len(widths))
    count = x.numel()
    packed = 8 * ((count + 7) // 8)
    hot = sum(count << w if w >= 3 else 8 * (((count << w) + 7) // 8) for w in widths)
    return Cost(rounds, 4 * packed * ands, hot + packed * ands)


@declares("12 bits: online 4, offline 129; 32 bits in 4-bit digits: online 48, offline 140", "section 4", _sign_cost)
def sign(x: Share, width: int = 6) -> Protocol[Bits]:
    """The top bit of x in its ring (1: negative); exact. Digits of at most `width` bits."""
    ds = digits(x, width)
    top = ds[-1]
    negative = range(top.size // 2, top.size)
    without = top.is_in(negative)
    if len(ds) == 1:
        return without
    borrowed = top.is_in([v + 1 for v in negative])
    borrow = yield from borrow_out(ds[:-1])
    (change,) = yield from and_((borrow, without ^ borrowed))
    return without ^ change


def less(x: Share, y: Share, width: int = 6) -> Protocol[Bits]:
    """x < y, if |x - y| < 2^(bits-1)."""
    return sign(x - y, width)


def equal(x: Share, y: Share, width: int = 4) -> Protocol[Bits]:
    """x == y in their ring, exact: every digit of the difference is zero."""
    level = [d.is_in([0]) for d in digits(x - y, width)]
    while len(level) > 1:
        joined = yield from and_(*zip(level[0::2], level[1::2], strict=False))
        level = joined + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def choose(condition: Bits, *pairs: tuple[Share, Share]) -> Protocol[list[Share]]:
    """x where the condition holds, else y, for each pair (x, y); two rounds. Online 2 + 2k, offline 2k."""
    (bit,) = yield from open_masked(condition)
    chosen = [select(bit, x - y) + y for x, y in pairs]
    return (yield from reshare(*chosen))


def maximum(x: Share, dim: int = -1, width: int = 6) -> Protocol[Share]:
    """Largest element along a dimension, by tournament; differences must stay below 2^(bits-1)."""
    x = x.transpose(dim, -1)
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        left, right, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
        smaller = yield from less(left, right, width)
        (won,) = yield from choose(smaller, (right, left))
        x = cat([won, rest], -1) if rest.shape[-1] else won
    return x[..., 0]


def argmax(x: Share, index: Share, width: int = 4) -> Protocol[tuple[Share, Share]]:
    """Largest element along the last dimension and its entry of `index` (same shape)."""
    while x.shape[-1] > 1:
        half = (x.shape[-1] + 1) // 2
        pairs = x.shape[-1] - half
        left, right, rest = (slice(0, pairs), slice(half, None), slice(pairs, half))
        smaller = yield from less(x[..., left], x[..., right], width)
        won, at = yield from choose(smaller, (x[..., right], x[..., left]), (index[..., right], index[..., left]))
        x, index = cat([won, x[..., rest]], -1), cat([at, index[..., rest]], -1)
    return x[..., 0], index[..., 0]
