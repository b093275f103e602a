"""Reciprocal and inverse square root of positive secrets of unknown size, one per row, and the norms built on them.

Comparisons with all powers of two (or four) find the binade; a product moves the value into one, a table of 1024 lines
inverts it, and the power of two stays as a factor of its own, so the relative error is the same over the whole range.
There are few rows, so accuracy comes before cost here.
"""

from __future__ import annotations

import math
from functools import cache

import torch

from puma.mpc.arithmetic import lift, multiply, open_truncate, reshare, square
from puma.mpc.boolean import open_masked, to_arithmetic
from puma.mpc.compare import sign
from puma.mpc.fixed import ACTIVATION, RESIDUAL, RING, formatted
from puma.mpc.party import Protocol
from puma.mpc.share import Additive, Share, truncated
from puma.nn.splines import Spline, piecewise

UNIT = 20  # fraction bits of the normalised value
ROW = 16  # fraction bits of a general argument of reciprocal and rsqrt, in ring ROW_RING: 2^-16 to 2^32
ROW_RING = 50
# Relative bounds: fit 4e-6 and 6e-6, one unit of the table's input and of its output each.
RECIPROCAL_BOUND = 1e-5
RSQRT_BOUND = 1.5e-5


@cache
def _reciprocal_spline() -> Spline:
    return Spline(
        "reciprocal", lambda y: 1 / y, 0.25, 10, 10, RECIPROCAL_BOUND, None, False, UNIT, slope=8, bits=64, out_frac=UNIT
    )


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
    thresholds = torch.tensor([radix**i for i in exponents], dtype=torch.int64, device=x.device)
    below = yield from sign(x.unsqueeze(-1).shifted(-thresholds), width=4)
    (reached,) = yield from open_masked(~below)
    steps = to_arithmetic(reached, 64)

    def total(base: int) -> Additive:
        weights = [base ** (last - i) - base ** (last - i + 1) for i in exponents]
        constant = torch.tensor(weights, dtype=torch.int64, device=x.device)
        return steps.times(constant).sum(-1).shifted(base ** (last - first))

    factor, *roots = yield from reshare(total(radix), *([total(2)] if radix != 2 else []))
    return factor.reduced(x.bits), (roots[0] if roots else factor)


def _inverted(x: Share, factor: Share, root: Share, high: int, spline: Spline) -> Protocol[Share]:
    """spline(x factor / 2^high) * root: words of ring 56 with UNIT fraction bits more than root's."""
    y = multiply(x, factor)
    excess = high - UNIT
    (y,) = yield from open_truncate((y, excess) if excess >= 0 else (y.scaled(-excess), 0))
    inverse = yield from piecewise(spline, Share(y.party, *y.components, bits=UNIT, frac=UNIT))
    (result,) = yield from reshare(multiply(inverse, root))
    return result


def reciprocal(x: Share, low: int, high: int) -> Protocol[Share]:
    """1 / x for words 2^low <= x < 2^high, in ring 56; relative error RECIPROCAL_BOUND. x's ring holds high + 1 bits.

    Words below 2^low give a finite but wrong result.
    """
    factor, root = yield from _binade(x, low, high - 1, 2)
    result = yield from _inverted(x, factor, root, high, _reciprocal_spline())
    return result.like(*result.components, frac=UNIT + high - x.frac)


def rsqrt(x: Share, last: int, scale: float = 1.0) -> Protocol[Share]:
    """scale / sqrt(x) for words 1 <= x < 4^(last+1), in ring 56; relative error RSQRT_BOUND. x.frac must be even."""
    assert x.frac % 2 == 0 and x.bits > 2 * (last + 1)
    factor, root = yield from _binade(x, 0, last, 4)
    result = yield from _inverted(x, factor, root, 2 * (last + 1), _rsqrt_spline(scale))
    return result.like(*result.components, frac=UNIT + last + 1 - x.frac // 2)


def normalised(x: Share | Additive, eps: float, centre: bool) -> Protocol[Share]:
    """Rows of x over their root mean square, less their mean first if `centre`: layer norm and RMS norm, no affine.

    |x| < 2^13 and the sum of a row's squares < 2^32. The sum of squares N takes one word a row; x / sqrt(N) is at most
    1, so with c = ceil(log2 sqrt(n)) the product with 2^c-scaled root stays in ring 56 at 53 - c fraction bits.
    """
    (x,) = yield from formatted((x, RESIDUAL, 64))
    n = x.shape[-1]
    if centre:
        mean = truncated(x.sum(-1, keepdim=True).times(round(2**20 / n), 20), 20)
        (mean,) = yield from lift((mean, 64))
        x = x - mean
    squares = square(truncated(x, 4)).sum(-1) + n * eps
    (squares,) = yield from open_truncate((squares, squares.frac - ROW))
    exponent = math.ceil(math.log2(n) / 2)
    root = yield from rsqrt(squares, 23, math.sqrt(n) / 2**exponent)
    product = multiply(x.reduced(root.bits), root.unsqueeze(-1))
    product.frac -= exponent
    return (yield from formatted((product, ACTIVATION, RING)))[0]
