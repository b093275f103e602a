"""Reciprocal and inverse square root of positive secrets of unknown size, one per row, and the norms built on them.

A word lies in one of few binades (powers of four). All of them are tried at once: each takes its own leading bits as an
index into a table of lines, comparisons with the powers of four meanwhile find the one that counts, and its line alone
is opened. So the relative error is the same over the whole range, and three rounds do. Rows are few.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor

from puma.mpc.arithmetic import lift, lift_cost, multiply, open_truncate, opening_cost, square
from puma.mpc.boolean import open_masked, open_masked_cost
from puma.mpc.compare import below, below_cost
from puma.mpc.cost import Cost, Size, declares
from puma.mpc.fixed import ACTIVATION, RESIDUAL, RING, formatted, formatted_cost
from puma.mpc.party import Protocol, together
from puma.mpc.share import Additive, Bits, Share, stacked, truncated
from puma.nn.splines import Spline, chosen_cost, indexed, looked_up, looked_up_cost

UNIT = 20  # fraction bits of a result in the highest binade
ROW = 16  # fraction bits of a general argument of reciprocal and rsqrt, in ring ROW_RING: 2^-16 to 2^32
ROW_RING = 50
MEAN = 28  # fraction bits of 1 / n
WIDE = 62  # the ring of a row to be normalised: its squares keep 24 fraction bits in ring 57
# Relative bounds: fit, 1.5 units of the leading bits, and 1.5 units (2^-20) of the output.
RECIPROCAL_BOUND = 1e-5
RSQRT_BOUND = 1.5e-5


@cache
def _reciprocal_spline() -> Spline:
    return _binade("reciprocal", lambda y: 1 / y, 10, 22, RECIPROCAL_BOUND)


@cache
def _rsqrt_spline(scale: float) -> Spline:
    return _binade("rsqrt", lambda y: scale * torch.rsqrt(y), 9, 21, RSQRT_BOUND)


def _binade(name: str, function: Callable[[Tensor], Tensor], width: int, frac: int, bound: float) -> Spline:
    """A function on [1/4, 1), and a little below and above, from `frac` leading bits."""
    return Spline(name, function, 0.125, width, width, bound, None, False, frac, slope=8, bits=64, out_frac=UNIT)


RECIPROCAL_RING = _reciprocal_spline().result_bits
RSQRT_RING = _rsqrt_spline(1.0).result_bits


def _leading(x: Share, first: int, last: int, frac: int) -> Share:
    """x / 4^(j+1) with `frac` fraction bits, for j = first .. last along a new first dimension, in ring `frac`."""
    shifts = [2 * (j + 1) - frac for j in range(first, last + 1)]
    parts = [truncated(x, s).reduced(frac) if s > 0 else _shifted_left(x, -s, frac) for s in shifts]
    return stacked([p.like(*p.components, bits=frac, frac=frac) for p in parts])


def _shifted_left(x: Share, shift: int, bits: int) -> Share:
    return x.apply(lambda t: t << shift).reduced(min(bits, x.bits))


def _binade_bits(smaller: Bits) -> Bits:
    """From x < 4^i for i = first + 1 .. last (last dimension), whether x lies in binade first .. last (first one)."""
    flags = [smaller[..., i] for i in range(smaller.shape[-1])]
    return stacked([flags[0], *(a ^ b for a, b in zip(flags[1:], flags[:-1], strict=True)), ~flags[-1]])


def _inverse(x: Share, first: int, last: int, spline: Spline, exponent: int) -> Protocol[Share]:
    """Words of spline(x / 4^(last+1)) for x's binade j, times 2^(exponent (last - j)), with UNIT fraction bits."""
    if first == last:
        raise ValueError("a range of one binade only")
    index, _, offset = indexed(spline, _leading(x, first, last, spline.frac))
    lines, smaller = yield from together(
        looked_up(spline, index, offset),
        below(x, [4**i for i in range(first + 1, last + 1)]),
    )
    (masked,) = yield from open_masked(_binade_bits(smaller))
    steps = torch.tensor([1 << exponent * (last - j) for j in range(first, last + 1)], device=x.device)
    result = lines.chosen(masked).times(steps.reshape(-1, *[1] * x.ndim)).sum(0)
    return (yield from open_truncate((result, result.frac - UNIT)))[0]


def _inverse_cost(x: Share | Size, first: int, last: int, spline: Spline) -> Cost:
    binades = Size((last - first + 1, *x.shape), spline.frac)
    thresholds = below_cost(x, [4**i for i in range(first + 1, last + 1)])
    cost = looked_up_cost(spline, binades).beside(thresholds) + open_masked_cost(binades)
    return cost + chosen_cost(spline, binades) + opening_cost(Size(tuple(x.shape), spline.bits, dealt=False))


def _binades(low: int, high: int) -> tuple[int, int]:
    """First and last binade of words from 2^low to 2^high."""
    first = low // 2
    return first, max(first + 1, (high - 1) // 2)


def reciprocal_cost(x: Share | Size, low: int, high: int) -> Cost:
    """The cost of `reciprocal`."""
    return _inverse_cost(x, *_binades(low, high), _reciprocal_spline())


@declares("a lookup and a comparison for each power of 4 in the range; 3 rounds", "section 5", reciprocal_cost)
def reciprocal(x: Share, low: int, high: int) -> Protocol[Share]:
    """1 / x for words 2^low <= x < 2^high, in ring RECIPROCAL_RING; relative error RECIPROCAL_BOUND.

    x's ring holds 2 bits more than high. The table reaches down to words of 2^(low - 1), at 1.4 times the bound; below,
    the result is finite but wrong.
    """
    first, last = _binades(low, high)
    result = yield from _inverse(x, first, last, _reciprocal_spline(), 2)
    return result.like(*result.components, frac=inverse_frac(x.frac, high))


def inverse_frac(frac: int, high: int) -> int:
    """Fraction bits of the `reciprocal` of words below 2^high with so many fraction bits."""
    return UNIT + 2 * (_binades(0, high)[1] + 1) - frac


def rsqrt_cost(x: Share | Size, last: int, scale: float = 1.0) -> Cost:
    """The cost of `rsqrt`."""
    return _inverse_cost(x, 0, max(1, last), _rsqrt_spline(scale))


@declares("a lookup and a comparison for each power of 4 in the range; 3 rounds", "section 5", rsqrt_cost)
def rsqrt(x: Share, last: int, scale: float = 1.0) -> Protocol[Share]:
    """scale / sqrt(x) for words 1 <= x < 4^(last+1), in RSQRT_RING; relative error RSQRT_BOUND. x.frac must be even."""
    last = max(1, last)
    assert x.frac % 2 == 0
    result = yield from _inverse(x, 0, last, _rsqrt_spline(scale), 1)
    return result.like(*result.components, frac=UNIT + last + 1 - x.frac // 2)


def normalised_cost(x: Share | Additive | Size, eps: float, centre: bool) -> Cost:
    """The cost of `normalised`."""
    rows, n = tuple(x.shape[:-1]), x.shape[-1]
    cost = formatted_cost((x, RESIDUAL, WIDE))
    if centre:
        cost += lift_cost((Size(rows, WIDE - MEAN), WIDE))
    squares = Size(rows, WIDE - SQUARED, 2 * (RESIDUAL - SQUARED), dealt=True)
    cost += opening_cost(squares) + rsqrt_cost(Size(rows, squares.bits + ROW - squares.frac), 23)
    frac = RESIDUAL + UNIT + 24 - ROW // 2 - math.ceil(math.log2(n) / 2)
    return cost + formatted_cost((Size(tuple(x.shape), RSQRT_RING, frac, dealt=True), ACTIVATION, RING))


SQUARED = 5  # fraction bits that squares do without


@declares("lift, 2k + k, lift, and an rsqrt a row", "section 5", normalised_cost)
def normalised(x: Share | Additive, eps: float, centre: bool) -> Protocol[Share]:
    """Rows of x over their root mean square, less their mean first if `centre`: layer norm and RMS norm, no affine.

    |x| < 2^13 and the sum of a row's squares < 2^32. The sum of squares N takes one word a row; x / sqrt(N) is at most
    1, so with c = ceil(log2 sqrt(n)) the product with 2^c-scaled root stays in RSQRT_RING at 53 - c fraction bits.
    """
    (wide,) = yield from formatted((x, RESIDUAL, WIDE))
    n = wide.shape[-1]
    if centre:
        mean = truncated(wide.sum(-1, keepdim=True).times(round(2**MEAN / n), MEAN), MEAN)
        (mean,) = yield from lift((mean, WIDE))
        wide = wide - mean
    squares = square(truncated(wide, SQUARED)).sum(-1) + n * eps
    (squares,) = yield from open_truncate((squares, squares.frac - ROW))
    exponent = math.ceil(math.log2(n) / 2)
    root = yield from rsqrt(squares, 23, math.sqrt(n) / 2**exponent)
    product = multiply(wide.reduced(root.bits), root.unsqueeze(-1))
    product.frac -= exponent
    return (yield from formatted((product, ACTIVATION, RING)))[0]
