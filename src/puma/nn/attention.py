"""Softmax over secret scores under a public mask, and attention's weighted sum.

A coarse maximum keeps exp in range (softmax does not change when one number is subtracted everywhere), exp is a spline
over the allowed pairs only, and the row is divided once, after the product with the values.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from puma.mpc.arithmetic import matmul, multiply, open_truncate
from puma.mpc.compare import maximum
from puma.mpc.fixed import ACTIVATION, NONLINEAR, RING, SCORE_REACH, formatted
from puma.mpc.party import Protocol, together
from puma.mpc.share import Additive, Share, truncated
from puma.nn.roots import reciprocal
from puma.nn.splines import EXP, piecewise

COARSE = 1  # fraction bits of the maximum: within 1 of the true one
SCORE_RING = NONLINEAR + SCORE_REACH + 1
LEAST_SUM = 13  # the largest score gives at least exp(-0.5) with ACTIVATION fraction bits, more than 2^13
INVERSE = 26  # fraction bits of 1 / row sum
QUOTIENT_RING = 56


def exponentials(scores: Share | Additive, mask: Tensor) -> Protocol[tuple[Share, Share]]:
    """exp(scores - coarse row maximum) where the mask allows, 0 elsewhere, in ring RING; and the row sums.

    Scores of one row must lie within 2^SCORE_REACH of each other.
    """
    mask = mask.expand(scores.shape)
    (x,) = yield from formatted((scores, NONLINEAR, SCORE_RING))
    coarse = truncated(x, NONLINEAR - COARSE)
    top = yield from maximum(_filled(coarse, mask))
    x = x - top.unsqueeze(-1).scaled(NONLINEAR - COARSE)
    where = None if bool(mask.all()) else mask.reshape(-1).nonzero().squeeze(-1)
    e = yield from piecewise(EXP, x.reshape(-1) if where is None else x.reshape(-1)[where])
    (e,) = yield from formatted((e, ACTIVATION, RING))
    if where is not None:
        e = e.apply(lambda t: torch.zeros(mask.numel(), dtype=t.dtype, device=t.device).index_copy(0, where.to(t.device), t))
    e = e.reshape(*mask.shape)
    return e, e.sum(-1)


def _filled(x: Share, mask: Tensor) -> Share:
    """x with every masked entry replaced by the first allowed one of its row, so that the maximum ignores it."""
    if bool(mask.all()):
        return x
    here = torch.arange(mask.shape[-1]).expand(mask.shape)
    index = torch.where(mask, here, mask.to(torch.int8).argmax(-1, keepdim=True))
    return x.apply(lambda t: t.gather(-1, index.to(t.device)))


def _inverse(sums: Share, count: int) -> Protocol[Share]:
    high = ACTIVATION + math.ceil(math.log2(count * math.e)) + 1
    inverse = yield from reciprocal(sums.reduced(high + 2), LEAST_SUM, high)
    return truncated(inverse, inverse.frac - INVERSE) if inverse.frac > INVERSE else inverse


def attend(scores: Share | Additive, values: Share | Additive, mask: Tensor) -> Protocol[Share]:
    """softmax(scores) @ values; scores (..., n, s), values (..., s, d), mask broadcasts to the scores."""
    (values,) = yield from formatted((values, ACTIVATION, RING))
    e, sums = yield from exponentials(scores, mask)
    weighted = matmul(e, values)
    weighted, inverse = yield from together(
        formatted((weighted, ACTIVATION, QUOTIENT_RING)), _inverse(sums, mask.shape[-1])
    )
    return (yield from _quotient(weighted[0], inverse))


def softmax(scores: Share | Additive, mask: Tensor) -> Protocol[Share]:
    """softmax(scores) over the last dimension."""
    e, sums = yield from exponentials(scores, mask)
    lifted, inverse = yield from together(formatted((e, ACTIVATION, RING)), _inverse(sums, mask.shape[-1]))
    return (yield from _quotient(lifted[0], inverse))


def _quotient(x: Share, inverse: Share) -> Protocol[Share]:
    bits = min(x.bits, inverse.bits)
    product = multiply(x.reduced(bits), inverse.reduced(bits).unsqueeze(-1))
    (result,) = yield from open_truncate((product, product.frac - ACTIVATION))
    return result
