"""Reciprocal and inverse square root of positive secrets of unknown size, one per row, and the norms built on them.

A word lies in one of few intervals (powers of four). Comparisons find which one; that selects the leading bits, a table
of lines inverts them, and the interval's power is a public weight in the last product. So the relative error is alike
over the whole range, and five rounds do, or two by a plan (inverses.py). Rows are few.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from torch import Tensor

from puma.mpc.arithmetic import lift, open_truncate, reshare, truncated
from puma.mpc.boolean import open_masked, select
from puma.mpc.compare import below
from puma.mpc.cost import declares
from puma.mpc.fixed import ACTIVATION, NORM_REACH, RESIDUAL, RING, formatted, grown
from puma.mpc.party import Protocol
from puma.mpc.raising import cut, raised_to, squared, times, whole
from puma.mpc.share import Additive, Bits, Share
from puma.mpc.watch import coarse_rows, note_lift, note_rows
from puma.mpc.wide.products import WIDEST, Widened, narrowed, opened, widened
from puma.mpc.wide.words import MOST
from puma.nn.inverses import RECIPROCAL_BOUND, RSQRT_BOUND, UNIT, leading, quick_reciprocal, quick_rsqrt
from puma.nn.splines import Spline, lines_at
from puma.nn.variants import DIRECT, INVERSE, NORM

ROW = 16  # fraction bits of a general argument of reciprocal and rsqrt, in ring ROW_RING: 2^-16 to 2^32
ROW_RING = 50
MEAN = 28  # fraction bits of 1 / n


@cache
def _reciprocal_spline(intervals: int) -> Spline:
    """The ring holds the table's largest entry, 8, at the lowest of so many intervals, and the factor 4 of lifts."""
    bits = 22 + 8 + 2 * (intervals - 1) + 5
    return _table("reciprocal", lambda y: 1 / y, 10, 22, RECIPROCAL_BOUND, bits)


@cache
def _rsqrt_spline(scale: float, ring: int = 56) -> Spline:
    return _table("rsqrt", lambda y: scale * torch.rsqrt(y), 10, 20, RSQRT_BOUND, ring + 8)


def _table(name: str, function: Callable[[Tensor], Tensor], width: int, frac: int, bound: float, bits: int) -> Spline:
    """A function on [1/4, 1), and a little below and above, from `frac` leading bits."""
    return Spline(name, function, 0.125, width, width, bound, None, False, frac, slope=8, bits=bits, out_frac=UNIT)


def _thresholds(low: int, intervals: int) -> list[int]:
    """Where one interval ends and the next begins."""
    return [1 << (low + 2 * j) for j in range(1, intervals)]


def _interval_bits(smaller: Bits) -> Bits:
    """From x < threshold (last dimension), whether x lies in each interval (first dimension)."""
    party, (*lead, count) = smaller.party, smaller.shape
    if party.is_dealer:
        return Bits(party, party.nothing((count + 1, *lead)))
    below = smaller.apply(lambda t: t.movedim(-1, 0))
    return Bits(party, torch.cat([b.part for b in (below[:1], below[1:] ^ below[:-1], ~below[-1:])]))


def _inverse(x: Share, low: int, intervals: int, spline: Spline, exponent: int) -> Protocol[Share]:
    """spline(x / 2^(low + 2 intervals)), through x's interval j, counted from the top, times 2^(exponent j)."""
    smaller = yield from below(x, _thresholds(low, intervals))
    (interval,) = yield from open_masked(_interval_bits(smaller))
    (chosen,) = yield from reshare(select(interval, leading(x, low, intervals, spline.frac, 2)).sum(0))
    lines = yield from lines_at(spline, chosen)
    result = lines.weighted(interval, [1 << exponent * j for j in reversed(range(intervals))])
    return (yield from open_truncate((result, result.frac - UNIT)))[0]


def _intervals(low: int, high: int) -> int:
    """How many powers of four lead from 2^low to 2^high; at least two."""
    return max(2, (high - low + 1) // 2)


@declares("a lookup, and a comparison, a selection and 3 words for each power of 4 in the range; 5 rounds", "section 5")
def reciprocal(x: Share, low: int, high: int) -> Protocol[Share]:
    """1 / x for words 2^low <= x < 2^high, high - low < 28, with `inverse_format`; relative error RECIPROCAL_BOUND.

    x's ring holds 2 bits more than high. The table reaches down to words of 2^(low - 1), at 4 times the bound (from
    0.9 2^low on at 1.4 times); below, the result is finite but wrong.
    """
    if INVERSE in x.party.quick:
        return (yield from quick_reciprocal(x, low, high))
    intervals = _intervals(low, high)
    result = yield from _inverse(x, low, intervals, _reciprocal_spline(intervals), 2)
    return result.like(*result.components, frac=inverse_format(x.frac, low, high)[0])


def inverse_format(frac: int, low: int, high: int) -> tuple[int, int]:
    """Fraction and ring bits of the lean `reciprocal` of words from 2^low to 2^high with so many fraction bits."""
    intervals = _intervals(low, high)
    return UNIT + low + 2 * intervals - frac, _reciprocal_spline(intervals).result_bits


@declares("a lookup, and a comparison, a selection and 3 words for each power of 4 in the range; 5 rounds", "section 5")
def rsqrt(x: Share, last: int, scale: float = 1.0, ring: int = 56) -> Protocol[Share]:
    """scale / sqrt(x) for words 1 <= x < 4^(last+1), in a ring of 23 + last to 56 bits; relative error RSQRT_BOUND.

    x.frac must be even.
    """
    assert x.frac % 2 == 0
    if INVERSE in x.party.quick:
        return (yield from quick_rsqrt(x, last, scale, ring))
    intervals = _intervals(0, 2 * last + 2)
    result = yield from _inverse(x, 0, intervals, _rsqrt_spline(scale, ring), 1)
    return result.like(*result.components, frac=UNIT + intervals - x.frac // 2)


@dataclass(frozen=True)
class RowFormat:
    """Of rows to be normalised whose length, the root of their squares' sum, stays below 2^reach.

    Rows have F fraction bits: 17 up to reach 16, and one less for each power of two beyond, so that no ring grows and
    what gets lost is in proportion to the longest row; one more for each below SHORT, where rings would no longer
    shrink by much and faint rows need them. Squares are taken of words without their last S bits, in ring W - S: N,
    their sum, then has a mean error of n d^2 / 4, d = 2^(S - F), that is 2^-12 or, beyond reach 16, 2^(reach - 28).
    Rows of root mean square q so come out with a relative error of d^2 / (8 q^2) at most, and each entry with one of
    1.5 * 2^-F / q more, besides RSQRT_BOUND, half a unit of N and 1.5 units of the result.
    """

    reach: int

    @cached_property
    def frac(self) -> int:
        """F: fraction bits of a row's entries."""
        return min(RESIDUAL, RESIDUAL + NORM_REACH - self.reach) + self._finer

    @property
    def _finer(self) -> int:
        return max(0, SHORT - self.reach)

    @cached_property
    def product(self) -> int:
        """The ring of x / sqrt(N), which is at most 1."""
        return self.frac + self.reach + UNIT + 3

    @cached_property
    def wide(self) -> int:
        """W: the ring to which rows are lifted, for their squares and for the product."""
        return max(self.product, 2 * (self.frac + self.reach) + 1 - SQUARED)

    @cached_property
    def squared(self) -> int:
        """S: fraction bits that squares do without."""
        return 2 * (self.frac + self.reach) + 1 - self.wide

    @property
    def step(self) -> float:
        """d: the last place of what is squared."""
        return 2.0 ** (self.squared - self.frac)

    @cached_property
    def sum_frac(self) -> int:
        """Fraction bits of N: even, and no more than squares have."""
        return min(ROW + 2 * self._finer, 2 * (self.frac - self.squared))

    @cached_property
    def last(self) -> int:
        """N lies below 4^(last + 1) units."""
        return self.reach + self.sum_frac // 2 - 1

    def dropped(self, exponent: int) -> int:
        """Fraction bits cut off x times a root of CUT bits less that is 2^exponent times as large: ACTIVATION stay."""
        return self.frac + UNIT + self.last + 1 - self.sum_frac // 2 - CUT - exponent - ACTIVATION

    def lengths(self, opened: int, n: int) -> tuple[float, float]:
        """How long rows of n entries are that begin to be flagged, and how long they could be at most, where entries
        come out of a ring of `opened` bits.

        What begins to be flagged is so for certain at 1.15 times that length. It is a little more than 2^reach, or, if
        that is shorter, a little less than twice the largest number that can be lifted: a lift of what is up to twice
        too large is either right or off by four times that limit. So a row that is not flagged is right, unless it came
        round the ring.
        """
        limit = 2.0 ** (opened - self.frac - 2)
        return min(1.05 * 2.0**self.reach, 1.74 * limit), 8 * limit * math.sqrt(n)

    def mean(self, opened: int, n: int) -> tuple[int, int]:
        """Fraction bits of 1 / n and the ring W, for the mean of entries that fit a ring of `opened` bits.

        The mean errs by 2^-12 of itself at most, unless that took a ring beyond 64 bits.
        """
        wide = min(64, max(self.wide, opened + MEAN_ERROR + (n - 1).bit_length()))
        return min(MEAN, wide - opened), wide


@cache
def row_format(reach: int) -> RowFormat:
    """One of each."""
    return RowFormat(reach)


SQUARED = 5  # fraction bits that squares do without, at most
SHORT = 6  # the reach below which rows get finer, by as much as they are shorter
MEAN_ERROR = 11
CUT = 3  # bits of a root that a product of two words does without: 2^-17 of it are left at the longest rows


@declares("2k + k, lift, and an rsqrt a row", "section 5")
def normalised(
    x: Share | Additive, eps: float, centre: bool, count: int = 0, reach: int = NORM_REACH, ring: int = RING,
    grows: bool = False,
) -> Protocol[Any]:  # fmt: skip
    """Rows of x over their root mean square, less their mean first if `centre`: layer norm and RMS norm, no affine.

    The mean of squares is their sum over `count`, or over the row's length. Rows, less their mean, have a length below
    2^reach, at most 2^23; `RowFormat` says what is lost of short ones. The sum of squares N takes one word a row;
    x / sqrt(N) is at most 1, so with c = ceil(log2 sqrt(n)) the product with 2^c-scaled root stays in its ring at
    F + reach + 20 - c fraction bits. The result has ACTIVATION fraction bits in `ring`: it is lifted to that, or opened
    there where the plan has DIRECT, or raised if it `grows` in products with public matrices.
    """
    form = row_format(reach)
    opened_bits = min(64, x.bits + form.frac - x.frac)
    n = count or x.shape[-1]
    exponent = math.ceil(math.log2(n) / 2)
    rows = yield from (_centred(x, form) if centre else _small(x, form))
    rows = rows.reduced(min(rows.bits, form.wide))
    tall = _tall(rows, form, exponent, ring) if DIRECT in x.party.quick and not grows else None
    wide = raised_to(rows, form.wide) if tall is None or rows.bits == form.wide else narrowed(tall, form.wide)
    squares = squared(cut(wide, form.squared)).sum(-1) + n * eps
    opening = [(squares, squares.frac - form.sum_frac)]
    if x.party.on_watch is None:
        (squares,) = yield from open_truncate(*opening)
    else:
        coarse, drop, off = coarse_rows(wide, *form.lengths(opened_bits, x.shape[-1]))
        squares, sums = yield from open_truncate(*opening, (squared(coarse).sum(-1), drop))
        note_rows(sums, off)
    squares.party.note_range("sum of a row's squares", squares, 4.0**reach)
    root = yield from rsqrt(squares, form.last, math.sqrt(n) / 2**exponent, form.product)
    if tall is not None:
        root = widened(truncated(root, CUT), tall.bits).unsqueeze(-1)
        result = yield from opened(tall, root, form.dropped(exponent), ring)
        result.frac -= exponent
        return result
    product = times(wide.reduced(root.bits), root.unsqueeze(-1))
    product.frac -= exponent
    result = grown((product, ACTIVATION, ring)) if grows else formatted((product, ACTIVATION, ring), bounded=True)
    return (yield from result)[0]


def _tall(rows: Share, form: RowFormat, exponent: int, ring: int) -> Widened | None:
    """Rows in a ring in which their product with a root is opened in `ring`; None where it needs no lift anyway, or no
    ring is as large."""
    needed = ring + form.dropped(exponent)
    if not form.product < needed <= min(MOST, rows.bits + 64) or rows.bits > WIDEST:
        return None
    return widened(rows, max(needed, form.wide + 1))


def _small(x: Share | Additive, form: RowFormat) -> Protocol[Share]:
    """Rows in no larger a ring than holds them, to grow afterwards. What cannot is flagged where it is unproven."""
    bits = min(form.wide, 64, x.bits + form.frac - x.frac)
    (rows,) = yield from formatted((x, form.frac, bits))
    if bits < form.wide and isinstance(x, Additive) and x.unproven:
        note_lift(rows)
    return rows


def _centred(x: Share | Additive, form: RowFormat) -> Protocol[Share]:
    """Rows less their mean, at least in ring W: lifted before, or, where the plan has NORM, such as grow afterwards,
    which takes two lifts out of the rounds and two more words to let the mean's terms grow."""
    n, entries = x.shape[-1], min(64, x.bits + form.frac - x.frac)
    if isinstance(x, Share):
        entries = min(entries, form.frac + max(form.reach, NORM_REACH))
    places, ring = form.mean(entries, n)
    factor = round(2**places / n)
    if NORM not in x.party.quick:
        (wide,) = yield from formatted((x, form.frac, ring))
        mean = truncated(wide.sum(-1, keepdim=True).times(factor, places), places)
        return wide - (yield from lift((mean, ring)))[0]
    (wide,) = yield from grown((x, form.frac, min(64, entries + places)))
    (mean,) = yield from open_truncate((whole(wide).sum(-1, keepdim=True).times(factor, places), places))
    (rows,) = yield from formatted((x, form.frac, entries))
    return rows - mean
