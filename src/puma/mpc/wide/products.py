"""Elementwise products that are opened in the ring their reader wants, however many bits are dropped on the way.

A product of which s bits are dropped needs s bits more than its result. Where both together are more than a word holds,
what is opened would have to be lifted, a round later; here the product has two words. Factors grow into it as in
`raising.py`. This file must not know what is multiplied.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from puma import kernels
from puma.kernels.shapes import broadcast
from puma.mpc import clear_forms as clear
from puma.mpc.arithmetic import before_cut, deal, reshare, truncating_cost
from puma.mpc.clear import Clear
from puma.mpc.clear_forms import in_clear
from puma.mpc.cost import Cost, Size, declares, local, message_bits
from puma.mpc.party import FIRST, Party, Protocol
from puma.mpc.raising import Raised
from puma.mpc.share import Additive, Secret, Share
from puma.mpc.wide.words import LOW, MOST, Wide, wide

WIDEST = 62  # bits of the largest ring whose shares may grow: two words of it add up in one


class Widened(Secret):
    """x in ring `bits`, up to MOST, made of a share in a ring of `low` bits.

    As of a `Raised` share the dealer's mask lacks 2^low where both `turn` are 1. An evaluator holds m, its half of the
    mask in the small ring, and `above`, its half of what is taken off that in units of 2^low. The dealer has the mask,
    and as m and `above` its two parts, which are cut each for itself.
    """

    def __init__(
        self, party: Party, m: Tensor, mask: Tensor, above: Tensor, turn: Tensor, low: int, bits: int, frac: int
    ) -> None:  # fmt: skip
        self.party, self.m, self.mask, self.above, self.turn = party, m, mask, above, turn
        self.low, self.bits, self.frac = low, bits, frac

    def __repr__(self) -> str:
        return f"Widened(shape={tuple(self.shape)}, bits={self.bits}, frac={self.frac})"

    @property
    def shape(self) -> torch.Size:
        return self.turn.shape

    @property
    def words(self) -> list[Tensor]:
        """All that this party holds."""
        return [self.m, self.mask, self.above, self.turn]

    @property
    def half(self) -> Wide:
        """An evaluator's half of the mask."""
        return wide(self.mask) - wide(self.above, self.low)

    def unsqueeze(self, dim: int) -> Widened:
        """As a tensor's; local."""
        m, mask, above, turn = (t.unsqueeze(dim) for t in self.words)
        return Widened(self.party, m, mask, above, turn, self.low, self.bits, self.frac)


def _widened_in_clear(x: Clear, bits: int) -> Clear:
    """The words stay as they are; what does not fit is noted."""
    x.party.note_range("value", x, 2.0 ** (x.bits - x.frac - 2))
    return clear.lift((x, x.bits))[0].settled()


def _narrowed_in_clear(x: Clear, bits: int) -> Clear:
    return clear.lift((x, bits))[0].settled()


def _opened_in_clear(x: Clear, y: Clear, shift: int, bits: int) -> Clear:
    words = (wide(x.signed) * wide(y.signed)).plus(1 << (shift - 1)).shifted_right(shift)
    truth, frac = x.truth * y.truth / 2.0**shift, x.frac + y.frac - shift
    return Clear(x.party, kernels.signed(words, bits), truth, bits, frac, max(x.source, y.source))


def widened_cost(x: Share | Size, bits: int) -> Cost:
    """The cost of `widened`."""
    return Cost(0, 0, message_bits(2 * x.numel(), bits - x.bits))


@declares("offline 2(k-j)", "section 3", widened_cost)
@in_clear(_widened_in_clear)
def widened(x: Share, bits: int) -> Widened:
    """x of a ring of WIDEST bits at most in one of up to MOST, 64 more at most; exact for what `lift` lifts; local.

    What `raising.raised` does; the dealer's l - 2^j (w + t) is l modulo 2^j as a signed word. Safe: what is dealt is
    padded, and nothing is sent.
    """
    party, j, shape = x.party, x.bits, tuple(x.shape)
    assert 2 <= j <= WIDEST and j < bits <= min(MOST, j + 64)
    a, b = (kernels.reduce(t, j) for t in x.shifted(1 << (j - 2)).components)
    if party.is_dealer:
        total = a + b
        carry, turn = total >> j, (total >> (j - 1)) & 1
        deal(party, torch.stack([carry + turn, carry]), (2, *shape), bits - j)
        one = a - ((carry + turn) << j)
        return Widened(party, one, one + b, b, turn, j, bits, x.frac)
    if_low, if_high = deal(party, None, (2, *shape), bits - j)
    turn = (a >> (j - 1)) & 1
    above = torch.where(turn.bool(), if_high, if_low)
    return Widened(party, a - (1 << (j - 2)), b, above, turn, j, bits, x.frac)


@declares("local", "section 3", local)
@in_clear(_narrowed_in_clear)
def narrowed(x: Widened, bits: int) -> Raised:
    """The same in a ring of at most 64 bits; local."""
    assert x.low < bits <= min(64, x.bits)
    if x.party.is_dealer:
        share = Share(x.party, x.m, x.above, bits, x.frac)
    else:
        share = Share(x.party, x.m, x.mask - (x.above << x.low), bits, x.frac)
    return Raised(share, x.turn, x.low)


def opened_cost(x: Widened, y: Widened, shift: int, bits: int) -> Cost:
    """The cost of `opened`."""
    shape, ring = tuple(broadcast(x.shape, y.shape)), bits + shift
    count = math.prod(shape)
    lacking = (message_bits(count, ring - low) for low in (x.low, y.low, x.low + y.low) if low < ring)
    return sum((Cost(0, 0, each) for each in lacking), truncating_cost((Size(shape, ring, 0, True), shift)))


@declares("online 2k, offline k and, for each factor that grew from j bits, k+s-j; 1 round", "section 3", opened_cost)
@in_clear(_opened_in_clear)
def opened(x: Widened, y: Widened, shift: int, bits: int) -> Protocol[Share]:
    """x y / 2^shift in a ring of so many bits, elementwise, broadcasting; off by less than 1.5 units.

    The product of `raising.times` in the ring of bits + shift, opened as by `open_truncate`: what is left of a part
    once it was rounded has room in one word. Safe: as there; what is dealt besides is padded.
    """
    party, shape, ring = x.party, broadcast(x.shape, y.shape), bits + shift
    assert shift > 0 and bits <= 64 and LOW < ring <= min(x.bits, y.bits)
    part = _part(x, y)
    for low, value, turn in _lacking(x, y):
        if low < ring:
            dealt = deal(party, value.expand(shape) if party.is_dealer else None, shape, ring - low)
            part = part if party.is_dealer else part + wide(turn * dealt, low)
    rounded = part.plus(before_cut(party, shift)).shifted_right(shift)
    return (yield from reshare(Additive(party, rounded, bits, x.frac + y.frac - shift, dealt=True)))[0]


def _part(x: Widened, y: Widened) -> Wide:
    """P0: lx ly.  P1: mx (my - ly) - lx my.  P2: -mx ly - lx my."""
    if x.party.is_dealer:
        return wide(x.mask) * wide(y.mask)
    mx, my, ly = wide(x.m), wide(y.m), y.half
    return mx * (my - ly if x.party.rank == FIRST else -ly) - x.half * my


def _lacking(x: Widened, y: Widened) -> list[tuple[int, Tensor, Tensor]]:
    """What the product of the dealer's masks lacks: by how much it is shifted, what the dealer deals of it (nonsense at
    an evaluator), and the bit of the evaluators that says whether."""
    both = x.turn * y.turn
    if not x.party.is_dealer:
        return [(x.low, both, x.turn), (y.low, both, y.turn), (x.low + y.low, both, both)]
    return [(x.low, x.turn * y.mask, both), (y.low, y.turn * x.mask, both), (x.low + y.low, both, both)]
