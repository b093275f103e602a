"""Reciprocal and inverse square root of positive secrets of unknown size, one per row, and the norms built on them.

Comparisons with all powers of two (or four) find the binade; a product moves the value into one, a table of 1024 lines
inverts it, and the power of two stays as a factor of its own, so the relative error is the same over the whole range.
There are few rows, so accuracy comes before cost here.
"""

from __future__ import annotations

import math
from functools import cache

import torch

from puma.mpc.arithmetic import lift, lift_cost, multiply, open_truncate, opening_cost, reshare, square
from puma.mpc.boolean import open_masked, open_masked_cost, to_arithmetic
from puma.mpc.compare import below, below_cost
from puma.mpc.cost import Cost, Size, declares
from puma.mpc.fixed import ACTIVATION, RESIDUAL, RING, formatted, formatted_cost
from puma.mpc.party import Protocol
from puma.mpc.share import Additive, Share, truncated
from puma.nn.splines import Spline, piecewise, piecewise_cost

UNIT = 20  # fraction bits of the normalised value
ROW = 16  # fraction bits of a general argument of reciprocal and rsqrt, in ring ROW_RING: 2^-16 to 2^32
ROW_RING = 50
INVERSE_RING = 56  # what the table's 8 slope bits leave of 64
MEAN = 28  # fraction bits of 1 / n
# Relative bounds: fit, and 1.5 units (2^-20) of the table's input and of its output each.
RECIPROCAL_BOUND = 1e-5
RSQRT_BOUND = 1.5e-5


@cache
def _reciprocal_spline() -> Spline:
    return Spline(
        "reciprocal", lambda y: 1 / y, 0.25, 10, 10, RECIPROCAL_BOUND, None, False, UNIT, slope=8, bits=64,
        out_frac=UNIT,
    )  # fmt: skip


@cache
def _rsqrt_spline(scale: float) -> Spline:
    return Spline(
        "rsqrt", lambda y: scale * torch.rsqrt(y), 0.125, 10, 10, RSQRT_BOUND, None, False, UNIT, slope=8, bits=64,
        out_frac=UNIT,
    )  # fmt: skip


def _binade(x: Share, first: int, last: int, radix: int) -> Protocol[tuple[Share, Share]]:
    """radix^(last-j) in x's ring and 2^(last-j) in ring 64, where radix^j <= word of x < radix^(j+1).

    j is clamped to first .. last; the words of x must lie in [0, radix^(last+1)).
    """
    exponents = range(first + 1, last + 1)
    smaller = yield from below(x, [radix**i for i in exponents])
    (reached,) = yield from open_masked(~smaller)
    steps = to_arithmetic(reached, 64)

    def total(base: int) -> Additive:
        weights = [base ** (last - i) - base ** (last - i + 1) for i in exponents]
        constant = torch.tensor(weights, dtype=torch.int64, device=x.device)
        return steps.times(constant).sum(-1).shifted(base ** (last - first))

    factor, *roots = yield from reshare(total(radix), *([total(2)] if radix != 2 else []))
    return factor.reduced(x.bits), (roots[0] if roots else factor)


def _binade_cost(x: Share | Size, first: int, last: int, radix: int) -> Cost:
    row, all_rows = Size(tuple(x.shape), 64, dealt=False), Size((*x.shape, last - first), x.bits)
    located = below_cost(x, range(first + 1, last + 1)) + open_masked_cost(all_rows) + Cost(0, 0, 64 * all_rows.numel())
    return located + opening_cost(*[row] * (1 if radix == 2 else 2))


def _inverted(x: Share, factor: Share, root: Share, high: int, spline: Spline) -> Protocol[Share]:
    """spline(x factor / 2^high) * root: words of ring 56 with UNIT fraction bits more than root's."""
    y = multiply(x, factor)
    excess = high - UNIT
    (y,) = yield from open_truncate((y, excess) if excess >= 0 else (y.scaled(-excess), 0))
    inverse = yield from piecewise(spline, Share(y.party, *y.components, bits=UNIT, frac=UNIT))
    (result,) = yield from reshare(multiply(inverse, root))
    return result


def _inverted_cost(x: Share | Size, high: int) -> Cost:
    shape = tuple(x.shape)
    moved = opening_cost(Size(shape, min(64, x.bits + max(0, UNIT - high)), dealt=True))
    inverted = piecewise_cost(_reciprocal_spline(), Size(shape, UNIT))
    return moved + inverted + opening_cost(Size(shape, INVERSE_RING, dealt=True))


def reciprocal_cost(x: Share | Size, low: int, high: int) -> Cost:
    """The cost of `reciprocal`."""
    return _binade_cost(x, low, high - 1, 2) + _inverted_cost(x, high)


@declares("high - low - 1 signs, 3 products, 1 lookup; rounds of sign + 6", "section 5", reciprocal_cost)
def reciprocal(x: Share, low: int, high: int) -> Protocol[Share]:
    """1 / x for words 2^low <= x < 2^high, in ring 56; relative error RECIPROCAL_BOUND. x's ring holds high + 1 bits.

    The table reaches down to words of 2^(low - 1), at 1.4 times the bound; below, the result is finite but wrong.
    """
    factor, root = yield from _binade(x, low, high - 1, 2)
    result = yield from _inverted(x, factor, root, high, _reciprocal_spline())
    return result.like(*result.components, frac=UNIT + high - x.frac)


def rsqrt_cost(x: Share | Size, last: int, scale: float = 1.0) -> Cost:
    """The cost of `rsqrt`."""
    return _binade_cost(x, 0, last, 4) + _inverted_cost(x, 2 * (last + 1))


@declares("`last` signs, 4 products, 1 lookup; rounds of sign + 6", "section 5", rsqrt_cost)
def rsqrt(x: Share, last: int, scale: float = 1.0) -> Protocol[Share]:
    """scale / sqrt(x) for words 1 <= x < 4^(last+1), in ring 56; relative error RSQRT_BOUND. x.frac must be even."""
    assert x.frac % 2 == 0 and x.bits > 2 * (last + 1)
    factor, root = yield from _binade(x, 0, last, 4)
    result = yield from _inverted(x, factor, root, 2 * (last + 1), _rsqrt_spline(scale))
    return result.like(*result.components, frac=UNIT + last + 1 - x.frac // 2)


def normalised_cost(x: Share | Additive | Size, eps: float, centre: bool) -> Cost:
    """The cost of `normalised`."""
    rows, n = tuple(x.shape[:-1]), x.shape[-1]
    cost = formatted_cost((x, RESIDUAL, 64))
    if centre:
        cost += lift_cost((Size(rows, 64 - MEAN), 64))
    squares = Size(rows, 60, 2 * (RESIDUAL - 4), dealt=True)
    cost += opening_cost(squares) + rsqrt_cost(Size(rows, squares.bits + ROW - squares.frac), 23)
    frac = RESIDUAL + UNIT + 24 - ROW // 2 - math.ceil(math.log2(n) / 2)
    return cost + formatted_cost((Size(tuple(x.shape), INVERSE_RING, frac, dealt=True), ACTIVATION, RING))


@declares("lift, 2k + k, lift, and an rsqrt a row", "section 5", normalised_cost)
def normalised(x: Share | Additive, eps: float, centre: bool) -> Protocol[Share]:
    """Rows of x over their root mean square, less their mean first if `centre`: layer norm and RMS norm, no affine.

    |x| < 2^13 and the sum of a row's squares < 2^32. The sum of squares N takes one word a row; x / sqrt(N) is at most
    1, so with c = ceil(log2 sqrt(n)) the product with 2^c-scaled root stays in ring 56 at 53 - c fraction bits.
    """
    (wide,) = yield from formatted((x, RESIDUAL, 64))
    n = wide.shape[-1]
    if centre:
        mean = truncated(wide.sum(-1, keepdim=True).times(round(2**MEAN / n), MEAN), MEAN)
        (mean,) = yield from lift((mean, 64))
        wide = wide - mean
    squares = square(truncated(wide, 4)).sum(-1) + n * eps
    (squares,) = yield from open_truncate((squares, squares.frac - ROW))
    exponent = math.ceil(math.log2(n) / 2)
    root = yield from rsqrt(squares, 23, math.sqrt(n) / 2**exponent)
    product = multiply(wide.reduced(root.bits), root.unsqueeze(-1))
    product.frac -= exponent
    return (yield from formatted((product, ACTIVATION, RING)))[0]
