"""Shares that enter an elementwise product in a larger ring than their own, without the round that a lift takes.

Evaluators know the top bit of m, the dealer whether it tells of a wrap; so of x = m - l in the larger ring the mask is
one of two numbers that the dealer knows, and each evaluator can hold a half of the right one (lift's candidates). What
the dealer cannot know, which of both it was, is put right in the product by one dealt word an element. This file must
not know what is multiplied.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from puma import kernels
from puma.kernels.shapes import broadcast
from puma.mpc import arithmetic
from puma.mpc import clear_forms as clear
from puma.mpc import public as known
from puma.mpc.arithmetic import deal, multiply, square, truncated
from puma.mpc.clear_forms import in_clear
from puma.mpc.cost import FREE, Cost, Size, declares, local, message_bits
from puma.mpc.party import Party
from puma.mpc.public import Public
from puma.mpc.share import Additive, Secret, Share


class Raised(Secret):
    """x in ring `bits`, made of a share in a smaller one. `share` is right at the evaluators, m less a half of the mask
    each; the dealer's mask lacks 2^low where both `turn` are 1: its own bit, and the evaluators' public one.
    """

    def __init__(self, share: Share, turn: Tensor, low: int) -> None:
        self.party, self.share, self.turn, self.low = share.party, share, turn, low

    def __repr__(self) -> str:
        return f"Raised(shape={tuple(self.shape)}, bits={self.bits}, frac={self.frac})"

    @property
    def shape(self) -> torch.Size:
        return self.share.shape

    @property
    def bits(self) -> int:
        """Of the ring."""
        return self.share.bits

    @property
    def frac(self) -> int:
        """Fraction bits."""
        return self.share.frac

    def reduced(self, bits: int) -> Raised:
        """The same value in a smaller ring."""
        return Raised(self.share.reduced(bits), self.turn, self.low)

    def __getitem__(self, index: Any) -> Raised:
        return Raised(self.share[index], self.turn[index], self.low)

    def unsqueeze(self, dim: int) -> Raised:
        """As a tensor's; local."""
        return Raised(self.share.unsqueeze(dim), self.turn.unsqueeze(dim), self.low)

    def __sub__(self, other: Share) -> Raised:
        """Less a share of the same fraction in a ring at least as large; local."""
        less = self.share - other
        return Raised(less.reduced(self.bits), self.turn, self.low)


Operand = Share | Raised


def raised_cost(x: Share | Size, bits: int, least: int = 2) -> Cost:
    """The cost of `raised`."""
    return Cost(0, 0, message_bits(2 * x.numel(), bits - x.bits))


@declares("offline 2(k-j)", "section 3", raised_cost)
@in_clear(clear.raised)
def raised(x: Share, bits: int, least: int = 2) -> Raised:
    """x in a larger ring, for products and sums; exact for what `lift` would lift; local.

    With lift's w and t and the top bit m' of m, the mask is l - 2^j (w + t) + 2^j t m'. The dealer keeps all but the
    last term, and deals both candidates of the bracket w + t - t m'; an evaluator takes the half that m' names off
    2^j times its own. Safe: what is dealt is padded, and nothing is sent.
    """
    party, j, shape = x.party, x.bits, tuple(x.shape)
    assert least <= j < bits <= 64
    a, b = x.components
    if party.is_dealer:
        a, b, counts, turn = kernels.raised_masks(a, b, j)
        deal(party, counts, (2, *shape), bits - j)
        return Raised(x.like(a, b, bits), turn, j)
    choices = deal(party, None, (2, *shape), bits - j)
    a, b, turn = kernels.raised(a, b, 1 << (j - least), j, choices)
    return Raised(x.like(a, b, bits), turn, j)


def raised_to(x: Share, bits: int, least: int = 2) -> Operand:
    """x in this ring, raised if its own is smaller."""
    return raised(x, bits, least) if x.bits < bits else x.reduced(bits)


@declares("local", "section 3", local)
@in_clear(clear.truncated)
def cut(x: Operand, shift: int) -> Operand:
    """Drop `shift` low bits, as `truncated` does: 2^low is a multiple of what is dropped."""
    if isinstance(x, Share):
        return truncated(x, shift)
    return Raised(truncated(x.share, shift), x.turn, x.low - shift)


@declares("local", "section 2", local)
@in_clear(clear.whole)
def whole(x: Operand) -> Additive:
    """x as an additive number, of which the dealer has no part; local."""
    return (x if isinstance(x, Share) else x.share).additive()


def _corrections(x: Operand, y: Operand) -> list[int]:
    """Bits of the words that put the product of x and y right; a public factor has no mask, and needs none."""
    if isinstance(y, Public):
        return []
    bits, lows = min(x.bits, y.bits), [z.low for z in (x, y) if isinstance(z, Raised)]
    return [b for b in (*(bits - low for low in lows), bits - sum(lows) if len(lows) == 2 else 0) if b > 0]


def times_cost(x: Operand, y: Operand) -> Cost:
    """The cost of `times`."""
    count = math.prod(broadcast(x.shape, y.shape))
    return sum((Cost(0, 0, message_bits(count, bits)) for bits in _corrections(x, y)), FREE)


@declares("offline k-j for each factor that was raised from j bits", "section 3", times_cost)
@in_clear(clear.times)
def times(x: Operand, y: Operand) -> Additive:
    """The elementwise product, broadcasting; local.

    Of the product of masks, the dealer's term lacks 2^j t m' l_y: he deals t l_y, and evaluators take it where m' is 1.
    Safe: what is dealt is padded.
    """
    party, shape = x.party, broadcast(x.shape, y.shape)
    bits = min(x.bits, y.bits)
    a, b = (z if isinstance(z, Share) else z.share for z in (x, y))
    result = multiply(a, b)
    if isinstance(y, Public):
        return result
    for one, other in ((x, b), (y, a)):
        if isinstance(one, Raised) and one.low < bits:
            value = one.turn * other.mask if party.is_dealer else None
            result = result + _turned(party, value, one.turn, shape, one.low, bits, result.frac)
    if isinstance(x, Raised) and isinstance(y, Raised) and x.low + y.low < bits:
        both = x.turn * y.turn
        result = result + _turned(party, both, both, shape, x.low + y.low, bits, result.frac)
    return result


@declares("local", "section 3", local)
def linear(x: Operand, weight: Share, bias: Share | None = None) -> Additive:
    """x @ weight^T + bias for a matrix (out, in), which is public if x was raised; local.

    Then halves of the right mask are all that it takes: the dealer, who lacks a term of the mask, has no part.
    """
    if isinstance(weight, Public) and isinstance(bias, Public):
        return known.linear(x if isinstance(x, Share) else whole(x), weight, bias)
    if isinstance(x, Share):
        result = arithmetic.linear(x, weight)
    else:
        assert isinstance(weight, Public), "what grows in a product with a secret matrix has to be lifted before"
        result = known.linear(whole(x), weight)
    return result if bias is None else result + bias


def squared_cost(x: Operand) -> Cost:
    """The cost of `squared`."""
    more = x.bits - x.low - 1 if isinstance(x, Raised) else 0
    return Cost(0, 0, message_bits(x.numel(), more)) if more > 0 else FREE


@declares("offline k-j-1 if raised from j bits", "section 3", squared_cost)
@in_clear(clear.squared)
def squared(x: Operand) -> Additive:
    """x x, elementwise; local. With l the dealer's mask, (l + 2^j t m')^2 = l^2 + m' 2^(j+1) t (l + 2^(j-1))."""
    if isinstance(x, Share):
        return square(x)
    party, result, shape = x.party, square(x.share), tuple(x.shape)
    if x.low + 1 >= x.bits:
        return result
    value = x.turn * (x.share.mask + (1 << (x.low - 1))) if party.is_dealer else None
    return result + _turned(party, value, x.turn, shape, x.low + 1, x.bits, result.frac)


def _turned(
    party: Party, value: Tensor | None, turn: Tensor, shape: tuple[int, ...], low: int, bits: int, frac: int
) -> Additive:
    """2^low times what the dealer deals, where the evaluators' bit is 1."""
    dealt = deal(party, value, shape, bits - low)
    part = party.nothing(shape) if party.is_dealer else (turn * dealt) << low
    return Additive(party, part, bits, frac, dealt=False)
