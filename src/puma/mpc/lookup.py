"""One-hot digits: digits of a masked value, without opening anything.

The dealer knows l = l1 + l2, the evaluators know m. For a w-bit digit it deals the one-hot vector of l's digit, xor-
shared; set membership and table lookups at the public digit of m are then local. This file must not know what is
looked up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache, partial

import torch
from torch import Tensor

from puma import kernels
from puma.kernels.shapes import broadcast
from puma.mpc.cost import Bytes, Cost, Size, Words, declares, message_bits
from puma.mpc.party import FIRST, Party, present
from puma.mpc.share import Additive, Bits, Share

WHOLE = 6  # bits of a digit from which on its one-hot vector is made of whole words


class Digit:
    """One digit of a masked value: `hot` are this party's one-hot words, and the digit of m (of l at the dealer) are so
    many bits of its `words` from bit `low` on.

    The tested quantity is (digit of m - digit of l) modulo 2^width; a borrow from lower digits is the caller's.
    """

    def __init__(self, party: Party, hot: Tensor | Callable[[], Tensor], words: Tensor, low: int, width: int) -> None:
        self.party, self._hot, self.words, self.low, self.width = party, hot, words, low, width

    def __repr__(self) -> str:
        return f"Digit(shape={tuple(self.shape)}, width={self.width})"

    @property
    def shape(self) -> torch.Size:
        """Of the words."""
        return self.words.shape

    @cached_property
    def public(self) -> Tensor:
        """The digit of m (of l at the dealer); most that is asked of it is read off the words instead."""
        return kernels.cut_digits(self.words, None, ((self.low, max(self.width, 1)),))[0]

    @property
    def hot(self) -> Tensor:
        """This party's one-hot words; the dealer's, P2's half, are made when somebody looks, for a table alone."""
        if callable(self._hot):
            self._hot = self._hot()
        return self._hot

    @property
    def size(self) -> int:
        """How many values the digit can have: 2^width."""
        return 1 << self.width

    def is_in(self, members: Sequence[int]) -> Bits:
        """Whether the difference lies in a public set; local (a xor of the one-hot over the set)."""
        return each_of((self, members if isinstance(members, range) else tuple(members)))[0]

    def borrows(self) -> Bits:
        """Whether m's digit is below l's: the borrow into the next digit; local."""
        return each_of((self, None))[0]

    def wrapping(self, one: Bits) -> tuple[Bits, Bits]:
        """Of the bit that says whether the difference is 1: without a wrap, and with one (m's digit 0, l's the
        largest); local."""
        if self.party.is_dealer or self.party.dry:
            return one, one
        wrapped = Bits(self.party, None, one.row & kernels.zeros(self.words, self.low, self.width), one.shape)
        return one ^ wrapped, wrapped

    def sign(self) -> Tensor:
        """The dealer's +1 or -1 that `lookup` leaves on its results: P1's bit at the hit, not P2's (dealer only)."""
        return 1 - 2 * kernels.hot_bit(self.hot, self.public, self.width)

    def signed(self) -> Tensor:
        """At an evaluator its part of that sign, whose sum is over the integers: how many of its positions are set, or
        less that number; local. So halves agree in all places but one, and nobody is sent a word for it."""
        count = kernels.population(self.hot, self.width)
        return count if self.party.rank == FIRST else -count

    def lookup(self, tables: Tensor, bits: int, fracs: Sequence[int]) -> list[Additive]:
        """sign * tables[t][difference] as Additives in ring `bits`; local. tables: (T, 2^width) words.

        Away from the hit both one-hot halves agree, so the difference of the two sums is the entry at the hit, up to
        a sign that the dealer knows.
        """
        shape = self.shape
        if self.party.is_dealer:
            return [Additive(self.party, self.party.nothing(shape), bits, f, dealt=False) for f in fracs]
        turned = tables if self.party.rank == FIRST else -tables  # fewer words than the sums
        sums = kernels.lookup(self.hot, self.public, self.width, turned)
        return [Additive(self.party, sums[t], bits, f, dealt=False) for t, f in enumerate(fracs)]


class Top:
    """The topmost digit of a masked value as far as its sign needs it: its highest bit, and a digit of those below it;
    None where there are none.

    A vector of the whole digit would take twice as much.
    """

    def __init__(self, bit: Digit, rest: Digit | None) -> None:
        self._bit, self.rest = bit, rest

    def __repr__(self) -> str:
        return f"Top(shape={tuple(self._bit.shape)}, rest={self.rest})"

    def differs(self) -> Bits:
        """Whether the highest bits differ; local."""
        party, bit, shape = self._bit.party, self._bit, self._bit.shape
        if party.is_dealer or party.dry:
            return Bits(party, party.nothing(shape))
        part = Bits(party, bit.hot.squeeze(-1).expand(shape))
        if party.rank != FIRST:
            return part
        return ~(part ^ Bits(party, None, kernels.zeros(bit.words, bit.low, 1), shape))

    def always(self) -> Bits:
        """Ones; local."""
        party, nothing = self._bit.party, self._bit.party.nothing(self._bit.shape)
        return Bits(party, nothing + 1 if party.rank == FIRST else nothing)


Asked = tuple[Digit, Sequence[int] | None]


def sign_bits(top: Digit | Top, asked: Mapping[str, Asked]) -> dict[str, Bits]:
    """What is `asked`, and "minus", the sign without a borrow into the topmost digit, which "turns" would change.

    What is negative with a borrow and not without, or the other way round, is at an end of the negative ones.
    """
    if isinstance(top, Digit):
        half = top.size // 2
        asked = {**asked, "minus": (top, range(half, top.size)), "turns": (top, (0, half))}
        return dict(zip(asked, each_of(*asked.values()), strict=True))
    if top.rest is None:
        found = dict(zip(asked, each_of(*asked.values()), strict=True)) if asked else {}
        return found | {"minus": top.differs(), "turns": top.always()}
    asked = {**asked, "minus": (top.rest, None), "turns": (top.rest, (0,))}
    found = dict(zip(asked, each_of(*asked.values()), strict=True))
    return found | {"minus": found["minus"] ^ top.differs()}


def each_of(*asked: Asked) -> list[Bits]:
    """For each (digit, members) what `is_in` says, and `borrows` where there are no members; local."""
    party = asked[0][0].party
    if party.is_dealer or party.dry:
        return [Bits(party, party.nothing(d.shape)) for d, _ in asked]
    sets = [None if members is None else flags_of(members, d.size) for d, members in asked]
    found = kernels.flags([(d.hot, d.words, d.low, d.width, its) for (d, _), its in zip(asked, sets, strict=True)])
    return [Bits(party, None, row, _beside(d)) for (d, _), row in zip(asked, found, strict=True)]


def _beside(d: Digit) -> Sequence[int]:
    """The shape of what is asked of a digit; a vector may serve several."""
    lead, shape = d.hot.shape[:-1], d.shape
    return shape if lead == shape else broadcast(lead, shape)


@lru_cache(maxsize=1024)
def flags_of(members: Sequence[int], size: int) -> Tensor:
    """1 for each member of a public set modulo `size`, and else 0, (size,); only to be read."""
    flags = torch.zeros(size, dtype=torch.int64)
    flags[torch.tensor([v % size for v in members], dtype=torch.int64)] = 1
    return flags


# What a table of lines computes of dealt words, for the room above, which knows no kernel.
line, line_masks = kernels.line, kernels.line_masks


@lru_cache(maxsize=1024)
def column(numbers: tuple[int, ...], dims: int, device: torch.device) -> Tensor:
    """These public numbers along a first dimension before so many; only to be read."""
    return torch.tensor(numbers, device=device).reshape(-1, *(1 for _ in range(dims)))


def digit_cost(count: int, *widths: int) -> Cost:
    """The cost of digits of these widths of `count` elements; a width of 0 is a bit."""
    return Cost(0, 0, sum(message_bits(count, 1 << width) for width in widths))


def _digits_cost(x: Share | Size, low: int | Sequence[int], widths: Sequence[int]) -> Cost:
    return digit_cost(x.numel(), *widths)


@declares("offline 2^w for each width w", "section 4", _digits_cost)
def digits(x: Share, low: int | Sequence[int], widths: Sequence[int]) -> list[Digit]:
    """Digits of m and of l = l1 + l2 mod 2^bits in one correction: neighbours from bit `low` up, or those that begin at
    these bits.

    Safe: P2's half of each one-hot vector is padded by P1's, drawn from k01. Source: truth tables under a mask (Ishai
    et al. 2013); the vectors are the whole of what keys of function secret sharing (Boyle et al. 2015) would expand to.
    """
    return _dealt(x, low if isinstance(low, int) else tuple(low), tuple(widths))


def _signed_cost(x: Share | Size, low: int, widths: Sequence[int]) -> Cost:
    return digit_cost(x.numel(), *halved(widths))


@declares("offline 2^w for each width w, but 2^(w-1) + 1 for the last", "section 4", _signed_cost)
def signed_digits(x: Share, low: int, widths: Sequence[int]) -> list[Digit]:
    """The same for a sign: of the topmost digit only what that needs, a digit of what lies below its highest bit and
    that bit, 0 wide. `topped` makes one of the two."""
    return _dealt(x, low, halved(widths))


def halved(widths: Sequence[int]) -> tuple[int, ...]:
    """The widths of what is dealt for a sign: of the topmost digit what lies below its highest bit, if anything, and
    that bit, which is 0 wide."""
    *lower, top = widths
    return (*lower, top - 1, 0) if top > 1 else (*lower, 0)


def topped(parts: Sequence[Digit], count: int) -> list[Digit | Top]:
    """What was dealt for a sign as so many digits, low to high; local."""
    *lower, bit = parts
    rest = lower.pop() if len(lower) == count else None
    return [*lower, Top(bit, rest)]


def _dealt(x: Share, low: int | tuple[int, ...], widths: tuple[int, ...]) -> list[Digit]:
    """Digits of these widths in one correction. A bit is 0 wide: instead of a vector parts of the bit itself are dealt,
    as 0/1 words."""
    party, shape = x.party, tuple(x.shape)
    words, lows = x.mask if party.is_dealer else x.m, [at for at, _ in spans(low, widths)]
    counts, total, order = _laid(math.prod(shape), widths)
    half = party.random_bytes(FIRST, "one-hot", sum(counts))
    if party.is_dealer:
        if not party.dry:  # P2's half, where P1's was drawn
            half = kernels.hidden_hots(present(half), words, [(lows[i], widths[i]) for i in order])
        party.correction(half, total)
        later = [partial(_hot_at, half, shape, widths, counts, order, i) for i in range(len(widths))]
        return [Digit(party, later[i], words, lows[i], w) for i, w in enumerate(widths)]
    received = half if party.rank == FIRST else party.correction(None, total)
    hots = _split_hots(received, shape, widths, counts, order)
    return [Digit(party, hots[i], words, lows[i], w) for i, w in enumerate(widths)]


def _hot_at(
    buffer: Tensor | None,
    shape: tuple[int, ...],
    widths: Sequence[int],
    counts: Sequence[int],
    order: list[int],
    i: int,
) -> Tensor:
    """The words of one digit alone: the dealer looks at that of a table, not at those beside it."""
    at = sum(counts[other] for other in order[: order.index(i)])
    mine = present(buffer)[at : at + counts[i]]
    if widths[i] < WHOLE:
        return kernels.unpack(mine, 1 << widths[i], (*shape, 1))
    return _unpack_hot(mine, shape, widths[i])


@lru_cache(maxsize=1 << 12)
def spans(low: int | tuple[int, ...], widths: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    """Where each digit begins, neighbours from one place up or at these, and how many bits it takes: at least one."""
    lows = [low + sum(widths[:i]) for i in range(len(widths))] if isinstance(low, int) else low
    return tuple((at, max(width, 1)) for at, width in zip(lows, widths, strict=True))


@lru_cache(maxsize=1 << 12)
def _laid(count: int, widths: tuple[int, ...]) -> tuple[list[int], Bytes, list[int]]:
    """The bytes of each digit of so many elements, those of all, and the order in which they lie: wide ones first, so
    that whole words stay aligned."""
    each = [Words(count, 1 << w) for w in widths]
    return [Bytes.of(w) for w in each], Bytes.of(*each), sorted(range(len(widths)), key=lambda i: -widths[i])


def digit(x: Share, low: int, width: int) -> Digit:
    """Bits low .. low+width-1 of m and of l; offline 2^width."""
    return digits(x, low, [width])[0]


def _split_hots(
    buffer: Tensor | None, shape: tuple[int, ...], widths: Sequence[int], counts: Sequence[int], order: list[int]
) -> dict[int, Tensor]:
    found, at = dict[int, Tensor](), 0
    for i in (i for i in order if widths[i] >= WHOLE):
        found[i] = _unpack_hot(present(buffer)[at : at + counts[i]], shape, widths[i])
        at += counts[i]
    if rest := order[len(found) :]:
        lying = present(buffer)[at:] if at else present(buffer)
        found |= zip(rest, kernels.unpack_runs(lying, [1 << widths[i] for i in rest], (*shape, 1)), strict=True)
    return found


def _unpack_hot(buffer: Tensor, shape: tuple[int, ...], width: int) -> Tensor:
    if not buffer.numel():
        return torch.zeros((*shape, 1 << (width - WHOLE)), dtype=torch.int64, device=buffer.device)
    return buffer.view(torch.int64).reshape(*shape, 1 << (width - WHOLE))
