"""The out-of-range flag: of each prompt of a pass one word, which is 0 unless some number of it left its reach.

What is watched is a digit of a masked value. A table over the digit, 1 in the zone beyond the reach and 0 elsewhere, is
looked up for free where a digit has been dealt anyway, and leaves s f, f the flag and s = +1 or -1 a sign that the
dealer alone knows. Sums of these under weights that the evaluators alone know are 0 if no flag is set, and otherwise 0
with probability 2^-60 at most; nobody can tell from such a word which flag, or how many, it is made of. No message and
no round. The sum is reshared once a pass by whoever emits it, to the client alone. Where a zone begins is for those who
watch; this file must not know what is computed.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

from puma.mpc import clear_forms as clear
from puma.mpc.clear import ClearParty, ClearSum
from puma.mpc.clear_forms import in_clear
from puma.mpc.cost import Cost, Size, declares
from puma.mpc.lookup import Digit, digit, digit_cost, digits, flags_of
from puma.mpc.party import Party
from puma.mpc.raising import Operand, cut
from puma.mpc.share import Additive, Share
from puma.mpc.zones import EIGHTH, TOP, WIDTH, row_digits, zone_between

FLAG_RING = 64
FEW, MANY = 1024, 1 << 14  # elements that wait for their weights to be drawn together, and how many wait at most
PURPOSE = "watch"  # of the stream of weights between the evaluators; nothing else is drawn from it


class Watch:
    """The flags of one pass over prompts of so many rows each. Rows of what is watched are those of all prompts one
    after the other, or one of each prompt, unless they are said to lie otherwise (`lying`)."""

    def __init__(self, party: Party, lengths: Sequence[int]) -> None:
        self.party, self.prompts = party, len(lengths)
        self._owners: dict[int, Tensor] = {}
        self._lie(_owners(lengths))
        self._lie(torch.arange(self.prompts))
        self._sum = party.nothing((self.prompts,))
        self._waiting: list[tuple[Tensor, Tensor]] = []  # elements, and the prompt of each
        self._few = 0

    def __repr__(self) -> str:
        return f"Watch(prompts={self.prompts})"

    @property
    def words(self) -> Additive:
        """Of each prompt (prompts,) its word, in ring FLAG_RING; at a clear party the number of flags."""
        if isinstance(self.party, ClearParty):
            return ClearSum(self.party, self._sum, self._sum.double(), FLAG_RING, 0)
        self._weigh()
        part = self.party.nothing((self.prompts,)) if self.party.is_dealer else self._sum
        return Additive(self.party, part, FLAG_RING, 0, dealt=False)

    @contextmanager
    def lying(self, owners: Tensor) -> Generator[None]:
        """Meanwhile as many rows belong to these prompts, one by one; other numbers of them lie as before."""
        before = self._owners
        self._owners = before | {len(owners): owners}
        try:
            yield
        finally:
            self._owners = before

    def owners(self, rows: int) -> Tensor:
        """To which prompt each of so many rows belongs."""
        return self._owners[rows]

    def add(self, flags: Tensor, owners: Tensor | None = None) -> None:
        """This evaluator's part of s f for elements (rows, ...), whose rows belong to these prompts.

        Each row and each column of the elements has a fresh weight, and a flag the product of both: sums of some of
        these products with signs vanish for 2^-60 of all weights. Where elements are few each has a weight of its own,
        for which it waits: drawing a dozen words costs as much as drawing a thousand.
        """
        if self.party.is_dealer or self.party.dry:
            return
        rows = flags.reshape(len(flags), -1)
        if rows.numel() <= FEW:
            self._wait(rows, owners)
            return
        down = self.party.common_words(PURPOSE, (len(rows),))
        across = self.party.common_words(PURPOSE, (rows.shape[1],))
        self.count(rows * across * down[:, None], owners)

    def _wait(self, rows: Tensor, owners: Tensor | None) -> None:
        owners = self._owners[len(rows)] if owners is None else owners
        each = rows.shape[1]
        self._waiting.append((rows.reshape(-1), owners if each == 1 else owners.repeat_interleave(each)))
        self._few += rows.numel()
        if self._few > MANY:
            self._weigh()

    def _weigh(self) -> None:
        """Give what waits its weights."""
        if self._waiting:
            flags, owners = (torch.cat(each) for each in zip(*self._waiting, strict=True))
            self._waiting, self._few = [], 0
            self.count(flags * self.party.common_words(PURPOSE, (len(flags),)), owners)

    def count(self, flags: Tensor, owners: Tensor | None = None) -> None:
        """Add what has its weight, or in the clear is 1 for each flag."""
        owners = self._owners[len(flags)] if owners is None else owners
        self._sum = self._sum.index_add(0, owners.to(self._sum.device), flags.reshape(len(flags), -1).sum(1))

    def _lie(self, owners: Tensor) -> None:
        self._owners[len(owners)] = owners


def _owners(lengths: Sequence[int]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths, dtype=torch.int64))


@contextmanager
def watching(party: Party, lengths: Sequence[int]) -> Generator[Watch]:
    """Meanwhile what a party computes is watched."""
    before, party.on_watch = party.on_watch, Watch(party, lengths)
    try:
        yield party.on_watch
    finally:
        party.on_watch = before


def note_digit(d: Digit, zone: range, owners: Tensor | None = None) -> None:
    """Flag what has a digit in the zone; local. A borrow from lower digits may add 1 to a digit: see `zone_between`."""
    party = d.party
    if party.on_watch is None or party.is_dealer:
        return
    (found,) = d.lookup(flags_of(zone, d.size)[None], FLAG_RING, (0,))
    party.on_watch.add(found.part, owners)


# -- numbers about to be lifted ---------------------------------------------------------------------------------------


def _lift_cost(x: Share | Size, owners: Tensor | None = None) -> Cost:
    return digit_cost(x.numel(), TOP)


@declares("offline 8", "section 11", _lift_cost)
@in_clear(clear.note_lift)
def note_lift(x: Share, owners: Tensor | None = None) -> None:
    """Flag what cannot be lifted, |x| >= 2^(bits - 2): never below that, always from half as much again up to the end
    of the ring and beyond it to half as much less."""
    if x.party.on_watch is not None:
        note_digit(digit(x, x.bits - TOP, TOP), zone_between(TOP, -2, 1), owners)


# -- rows ----------------------------------------------------------------------------------------------------------

# Bits of a row's length where the zone begins: what is cut off a row's entries is small beside them. So many as a rule;
# fewer where long rows would wrap, but so many that what is cut off stays a fiftieth of them.
FINE, COARSE, COARSE_ROWS = 13, 8, 3


def coarse_rows(wide: Operand, length: float, most: float) -> tuple[Operand, int, int]:
    """What shows whether rows (..., d) are longer than `length`: entries to be squared and summed, how many fraction
    bits of the sum to drop when it is opened, and what `note_rows` takes off then.

    Entries lose so many places that rows of the length `most` do not wrap, if the ring holds that; if not, of rows that
    do one in 2^13 at most looks as if it were inside.
    """
    places, ring, drop, off = _coarse(wide.frac, wide.bits, wide.shape[-1], length, most)
    return cut(wide, places).reduced(min(ring, wide.bits - places)), drop, off


@lru_cache(maxsize=256)
def _coarse(frac: int, bits: int, columns: int, length: float, most: float) -> tuple[int, int, int, int]:
    """Places that entries of so many fraction bits lose, the ring of what is squared, and the last two of the above."""
    words, whole = length * 2.0**frac, 2.0 * math.log2(most * 2.0**frac) + 2
    least = max(COARSE, COARSE_ROWS + math.ceil(math.log2(columns) / 2))
    fine = max(least, min(FINE, math.floor(math.log2(words)) - math.ceil(whole - bits)))
    places = max(0, math.floor(math.log2(words)) - fine)
    begins = (words / 2.0**places) ** 2
    drop = math.floor(math.log2(begins / 8)) - EIGHTH
    ring = drop + EIGHTH + 5 + math.ceil(2 * max(1.0, math.log2(most / length)))
    return places, ring, drop, round(begins / 2.0**drop) - (8 << EIGHTH)


def _rows_cost(sums: Share | Size, off: int) -> Cost:
    return digit_cost(sums.numel(), *(WIDTH for _ in row_digits(sums.bits)))


@declares("offline 64 for each digit of 6 bits, which overlap", "section 11", _rows_cost)
@in_clear(clear.note_rows)
def note_rows(sums: Share, off: int) -> None:
    """Flag rows whose coarse sums of squares, opened as `coarse_rows` says, are beyond the zone's beginning.

    Of the lowest digit 8 units and a borrow are inside; of the others a borrow, and one below 0.
    """
    if sums.party.on_watch is None:
        return
    sums, lows = sums.shifted(-off), row_digits(sums.bits)
    first, *others = digits(sums, lows, [WIDTH] * len(lows))
    note_digit(first, zone_between(WIDTH, *((-9, 7) if lows[0] == EIGHTH else (-1, 0))))
    if others and not (sums.party.is_dealer or sums.party.dry):
        hot, public = (torch.stack(each, -1) for each in zip(*((d.hot[..., 0], d.public) for d in others), strict=True))
        note_digit(Digit(sums.party, hot.unsqueeze(-1), public, 0, WIDTH), zone_between(WIDTH, -1, 0))
