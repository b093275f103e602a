"""Reciprocals and inverse roots in two rounds, for plans that spend more words on fewer rounds.

All intervals (powers of 16) are looked up at once, each in its own table, and bits say which of them holds x. They come
from digits that overlap, without borrows between them: a digit may read one too high, so an interval may take what lies
a little below it, which its table holds as well. So the bits are local; they are opened under masks while lines are,
and select among these by products of their masks. It must not know what rows are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise

import torch
from torch import Tensor

from puma.mpc import clear_forms
from puma.mpc.arithmetic import open_truncate
from puma.mpc.boolean import MaskedBit, open_masked
from puma.mpc.clear import Clear
from puma.mpc.clear_forms import in_clear
from puma.mpc.cost import declares
from puma.mpc.lookup import digit
from puma.mpc.party import Protocol, together
from puma.mpc.share import Bits, Share, stacked
from puma.nn.lines import Lines
from puma.nn.splines import ClearLines, Spline, lines_at

UNIT = 20  # fraction bits of a result in the highest interval
# Relative bounds: fit, 1.5 units of the leading bits, and 1.5 units (2^-20) of the output.
RECIPROCAL_BOUND = 1e-5
RSQRT_BOUND = 1.5e-5
QUICK_BOUND, QUICK_ROOT_BOUND = 6e-5, 3e-5  # of quick ones: their tables are coarser

STEP = 4  # bits of an interval
TWO = 2 * STEP  # bits that a digit tells two intervals of
OVERLAP = 2  # bits of a digit below its intervals: what one too much is small beside
LOWEST = 2.0**-5  # where a table begins; what is read one too high lies at 3/4 of 2^-4 or above


def _table(name: str, function: Callable[[Tensor], Tensor], frac: int, slope: int, bound: float, bits: int) -> Spline:
    """A function on [1/16, 1), and a little below and above, by 2048 lines from `frac` leading bits."""
    return Spline(name, function, LOWEST, 11, 11, bound, None, False, frac, slope=slope, bits=bits, out_frac=UNIT)


@cache
def reciprocal_table(intervals: int) -> Spline:
    """The ring holds the table's largest entry, 32, at the lowest of so many intervals, and the factor 4 of lifts."""
    bits = 24 + 8 + STEP * (intervals - 1) + 7
    return _table("quick reciprocal", lambda y: 1 / y, 24, 8, QUICK_BOUND, bits)


@cache
def rsqrt_table(scale: float, ring: int = 56) -> Spline:
    """The result lies in `ring`."""
    return _table("quick rsqrt", lambda y: scale * torch.rsqrt(y), 22, 6, QUICK_ROOT_BOUND, ring + 8)


def _leading_in_clear(x: Clear, low: int, intervals: int, frac: int, step: int) -> Clear:
    cut = [clear_forms.truncated(x, s) if s > 0 else x.times(1 << -s) for s in _shifts(low, intervals, frac, step)]
    return stacked([p.reduced(min(frac, p.bits)).like(*p.components, bits=frac, frac=frac) for p in cut])


@in_clear(_leading_in_clear)
def leading(x: Share, low: int, intervals: int, frac: int, step: int) -> Share:
    """x / 2^(low + step j) with `frac` fraction bits, for j = 1 .. intervals along a new first dimension, in ring
    `frac`: each as `truncated` gives it, all at once."""
    (a, b), shifts = x.components, _shifts(low, intervals, frac, step)
    assert frac <= x.bits - shifts[-1]
    a, b = _cuts(a, shifts, x.bits, rounded=not x.party.is_dealer), _cuts(b, shifts, x.bits, rounded=False)
    return x.like(a, b, bits=frac, frac=frac)


def _shifts(low: int, intervals: int, frac: int, step: int) -> tuple[int, ...]:
    """How many low bits each interval does without."""
    return tuple(low + step * j - frac for j in range(1, intervals + 1))


def _cuts(x: Tensor, shifts: tuple[int, ...], bits: int, rounded: bool) -> Tensor:
    """Words less so many low bits each along a new first dimension, half a unit added before and one taken off last
    where they are `rounded`; those that have too few get more."""
    more, drop, half, mask = _places(shifts, bits, x.ndim, x.device)
    cut = ((x + half if rounded else x) >> drop) & mask
    cut = cut - 1 if rounded else cut
    return torch.cat([x << more, cut]) if len(more) else cut


@cache
def _places(shifts: tuple[int, ...], bits: int, dims: int, device: torch.device) -> list[Tensor]:
    """Along a first dimension before so many, what shifts add that drop nothing; of the others what they drop, half a
    unit, and the ring that is left."""
    dropped = [s for s in shifts if s > 0]
    more, half = [-s for s in shifts if s <= 0], [1 << (s - 1) for s in dropped]
    lines = more, dropped, half, [(1 << (bits - s)) - 1 for s in dropped]
    shape = (-1, *(1 for _ in range(dims)))
    return [torch.tensor(line, dtype=torch.int64, device=device).reshape(shape) for line in lines]


def _read(x: Share, low: int, intervals: int) -> tuple[list[Bits], list[Bits]]:
    """Of each interval from 2^low on whether a digit of two of them reads it, and of each digit but the lowest whether
    what it tells of is below both; local.

    A digit begins OVERLAP bits below its intervals and ends one bit above: whatever all higher ones call below, plus
    the one that may be read too much, keeps inside.
    """
    reads, aboves = list[Bits](), list[Bits]()
    for first in range(0, intervals, 2):
        begins = low + STEP * first
        start = max(0, begins - OVERLAP)
        d = digit(x, start, min(begins + TWO + 1, low + STEP * intervals + 1) - start)
        edges = [0 if first == 0 else 1 << (begins - start), 1 << (begins + STEP - start), d.size]
        if first + 1 == intervals:
            edges[1:] = [d.size]
        if first:
            aboves.append(d.is_in(range(edges[0])))
        reads += [d.is_in(range(*pair)) for pair in pairwise(edges)]
    return reads, aboves


def _at_once_in_clear(x: Clear, low: int, intervals: int, spline: Spline, exponent: int) -> Clear:
    smaller = clear_forms.below(x, [1 << (low + STEP * j) for j in range(1, intervals)]).part
    ends = torch.ones((*x.shape, 1), dtype=torch.int64, device=x.device)
    inside = torch.cat([smaller, ends], -1) - torch.cat([0 * ends, smaller], -1)
    leads = leading(x, low, intervals, spline.frac, STEP)
    index_and_offset = lines_at.form(spline, leads)  # type: ignore[attr-defined]
    assert isinstance(index_and_offset, ClearLines)
    each = index_and_offset.weighted(MaskedBit(x.party, inside.movedim(-1, 0).unsqueeze(0)), [1])
    result = each.times(_powers(x, intervals, exponent)).sum(0)
    return clear_forms.open_truncate((result, result.frac - UNIT))[0]


def _powers(x: Share, intervals: int, exponent: int) -> Tensor:
    weights = [1 << exponent * j for j in reversed(range(intervals))]
    return torch.tensor(weights, device=x.device).reshape(-1, *(1 for _ in x.shape))


@in_clear(_at_once_in_clear)
def _at_once(x: Share, low: int, intervals: int, spline: Spline, exponent: int) -> Protocol[Share]:
    """spline(x / 2^(low + STEP intervals)), through x's interval j, counted from the top, times 2^(exponent j)."""
    reads, aboves = _read(x, low, intervals)
    lines, masked = yield from together(
        lines_at(spline, leading(x, low, intervals, spline.frac, STEP)), open_masked(*reads, *aboves)
    )
    assert isinstance(lines, Lines)
    own, above = masked[: len(reads)], masked[len(reads) :]
    factors = [[own[j], *above[j // 2 :]] for j in range(intervals)]
    result = lines.chosen(factors, [1 << exponent * j for j in reversed(range(intervals))])
    return (yield from open_truncate((result, result.frac - UNIT)))[0]


def _intervals(bits: int) -> int:
    """How many powers of 16 so many bits are."""
    return max(1, -(-bits // STEP))


@declares("for 4 bits of the range a lookup of 2^11 and 3 words for each product of masks; 2 rounds", "section 5")
def quick_reciprocal(x: Share, low: int, high: int) -> Protocol[Share]:
    """1 / x for words 2^low <= x < 2^high, high - low < 28; relative error QUICK_BOUND.

    x's ring holds a bit more than high. The lowest table reaches down to 2^(low - 1), at 4 times the bound.
    """
    intervals = _intervals(high - low)
    spline = reciprocal_table(intervals)
    result = yield from _at_once(x, high - STEP * intervals, intervals, spline, STEP)
    return result.like(*result.components, frac=UNIT + high - x.frac)


@declares("for 4 bits of the range a lookup of 2^11 and 3 words for each product of masks; 2 rounds", "section 5")
def quick_rsqrt(x: Share, last: int, scale: float = 1.0, ring: int = 56) -> Protocol[Share]:
    """scale / sqrt(x) for words 1 <= x < 4^(last+1), in a ring of 23 + last to 56 bits; error QUICK_ROOT_BOUND.

    x.frac must be even.
    """
    assert x.frac % 2 == 0
    bits = 2 * last + 2
    intervals = _intervals(bits)
    result = yield from _at_once(x, bits - STEP * intervals, intervals, rsqrt_table(scale, ring), STEP // 2)
    return result.like(*result.components, frac=UNIT + last + 1 - x.frac // 2)
