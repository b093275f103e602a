"""The arithmetic of the protocol without sharing: one party that holds values, in the same rings and formats.

It runs the text that real parties run, on values of this file instead of shares; `clear_forms` has what a primitive
does to them. Beside its words a value carries what they would be in a ring without end; where the two part, fixed
point does not hold, and the party notes at which parameter. Nothing here is secret, nothing is sent. This file must
not know which model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from puma import kernels
from puma.errors import UsageError
from puma.mpc.party import FIRST, Party
from puma.mpc.share import Additive, Number, Secret, Share, encode

UNSHARED = "ask three parties, without --clear"
EXACT = 2.0**53  # doubles hold every whole number below
SCATTER = -7046029254386353131  # 2^64 over the golden ratio, odd: its multiples lie evenly
SLACK = 2.0**-5  # by which words may part from the truth through rounding; so may they by SLACK of the truth


class Source(NamedTuple):
    """The parameter that a value was last multiplied by, and when."""

    order: int = 0
    name: str = ""


NOWHERE = Source()


@dataclass
class Note:
    """The largest number that one place has seen, and the limit below which it must stay; `lost` entries did not."""

    where: str
    component: str
    what: str
    largest: float
    limit: float
    lost: int

    @property
    def used(self) -> float:
        """The part of the limit that was used; 1 and above does not hold."""
        return max(self.largest / self.limit, 1.0 if self.lost else 0.0)


class ClearParty(Party):
    """All parties in one, without secrets; `notes` say how near to its limits each place has come."""

    clear = True
    made = False  # whether this process has one, or had

    def __init__(self, approximation: str = "spline", device: torch.device | str = "cpu") -> None:
        ClearParty.made = True
        super().__init__(FIRST, {}, {}, device=device)
        self.approximation = approximation
        self.notes: dict[tuple[str, str, str], Note] = {}
        self.latest = Source()

    def words(self, evaluator: int, purpose: str, shape: Sequence[int]) -> Tensor | None:
        """There are no masks: a primitive that draws some has no clear form."""
        raise UsageError(f"what draws {purpose} words has no form in the clear", UNSHARED)

    def random_bytes(self, evaluator: int, purpose: str, count: int) -> Tensor | None:
        """There are no masks: a primitive that draws some has no clear form."""
        raise UsageError(f"what draws {purpose} bytes has no form in the clear", UNSHARED)

    def used(self, name: str) -> Source:
        """A product with the parameter of this name is being computed."""
        if name:
            self.latest = Source(self.latest.order + 1, name)
        return self.latest

    def note(self, what: str, source: Source, largest: float, limit: float, lost: int = 0) -> None:
        """Remember the largest number of this kind at this place."""
        where, component = (source.name or self.latest.name), self.ledger.current
        found = Note(where, component, what, largest, limit, lost + int(not largest < limit and not lost))
        known = self.notes.setdefault((where, component, what), found)
        if known is not found:
            if found.used > known.used:
                known.largest, known.limit = largest, limit
            known.lost += found.lost

    def note_range(self, what: str, x: Any, limit: float) -> None:
        """Note the largest absolute value of x beside its limit, and entries whose words have left the truth."""
        if not x.numel():
            return
        self.note(what, x.source, float(x.truth.abs().max()) / 2.0**x.frac, limit, x.parted())


class Clear(Share):
    """Words of a ring, and `truth`, what they would be without one; both in units of the last place."""

    def __init__(
        self, party: Party, words: Tensor, truth: Tensor, bits: int, frac: int, source: Source = NOWHERE,
        exact: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(party, words, truth, bits, frac)
        self.source, self.exact = source, exact  # exact: truth is the signed words

    @property
    def truth(self) -> Tensor:
        """The words without a ring, as doubles."""
        return self._b

    @property
    def signed(self) -> Tensor:
        """The words between -2^(bits-1) and 2^(bits-1)."""
        return self._a if self.exact else kernels.signed(self._a, self.bits)

    @property
    def value(self) -> Tensor:
        """The numbers."""
        return self.signed.double() / 2.0**self.frac

    def parted(self) -> int:
        """How many words are no longer the truth."""
        return 0 if self.exact else _parted(self.signed, self.truth, self.frac)

    def settled(self) -> Clear:
        """Go on with the words, whatever the truth was."""
        words = self.signed
        return self if self.exact else Clear(self.party, words, words.double(), self.bits, self.frac, self.source, True)

    def like(self, a: Tensor, b: Tensor, bits: int | None = None, frac: int | None = None) -> Clear:
        bits = self.bits if bits is None else bits
        return Clear(self.party, a, b, bits, self.frac if frac is None else frac, self.source)

    def apply(self, function: Callable[[Tensor], Tensor]) -> Clear:
        result = self.like(function(self._a), function(self._b))
        result.exact = self.exact  # words are moved only, or 0 is put between them
        return result

    def shifted(self, constant: Tensor | Number) -> Clear:
        return self.like(self._a + constant, self._b + constant)

    def scaled(self, shift: int) -> Clear:
        return self.like(self._a << shift, self._b * 2.0**shift, min(64, self.bits + shift), self.frac + shift)

    def reduced(self, bits: int) -> Clear:
        assert bits <= self.bits
        result = self.like(*self.components, bits=bits)
        result.exact = self.exact and bits == self.bits
        return result

    def sum(self, dim: int, keepdim: bool = False) -> Clear:
        return self.like(self._a.sum(dim, keepdim=keepdim), self._b.sum(dim, keepdim=keepdim))

    def additive(self) -> ClearSum:
        return ClearSum(self.party, self._a, self._b, self.bits, self.frac, self.source)

    def __neg__(self) -> Clear:
        return self.like(-self._a, -self._b)

    def __add__(self, other: Any) -> Any:
        result = super().__add__(other)
        if isinstance(other, Clear):
            result.source = max(self.source, other.source)
        return result

    __radd__ = __add__


class ClearSum(Additive):
    """An untruncated product or a sum of such: words and truth."""

    def __init__(
        self, party: Party, part: Tensor, truth: Tensor, bits: int, frac: int, source: Source = NOWHERE
    ) -> None:
        super().__init__(party, part, bits, frac, dealt=False)
        self.truth, self.source = truth, source

    def parted(self) -> int:
        """How many words are no longer the truth."""
        return _parted(kernels.signed(self.part, self.bits), self.truth, self.frac)

    def _with(self, part: Tensor, truth: Tensor, bits: int | None = None, frac: int | None = None) -> ClearSum:
        bits = self.bits if bits is None else bits
        return ClearSum(self.party, part, truth, bits, self.frac if frac is None else frac, self.source)

    def like(self, part: Tensor, bits: int | None = None, frac: int | None = None) -> ClearSum:
        assert part is self.part, "words and truth change together"
        return self._with(part, self.truth, bits, frac)

    def joined(self, others: Sequence[ClearSum]) -> ClearSum:  # type: ignore[override]
        """All below each other along the first dimension."""
        every = [self, *others]
        return self._with(torch.cat([x.part for x in every]), torch.cat([x.truth for x in every]))

    def apply(self, function: Callable[[Tensor], Tensor]) -> ClearSum:
        return self._with(function(self.part), function(self.truth))

    def scaled(self, shift: int) -> ClearSum:
        return self._with(self.part << shift, self.truth * 2.0**shift, min(64, self.bits + shift), self.frac + shift)

    def times(self, constant: Tensor | int, frac: int = 0) -> ClearSum:
        return self._with(self.part * constant, self.truth * constant, frac=self.frac + frac)

    def sum(self, dim: int, keepdim: bool = False) -> ClearSum:
        return self.apply(lambda t: t.sum(dim, keepdim=keepdim))

    def shifted(self, constant: Tensor | int) -> ClearSum:
        return self._with(self.part + constant, self.truth + constant)

    def __neg__(self) -> ClearSum:
        return self._with(-self.part, -self.truth)

    def __add__(self, other: Any) -> ClearSum:
        if isinstance(other, Clear):
            other = other.additive()
        if not isinstance(other, ClearSum):
            return self.shifted(encode(cast("Tensor | Number", other), self.frac, self.device))
        frac = max(self.frac, other.frac)
        x, y = (z.scaled(frac - z.frac) if z.frac < frac else z for z in (self, other))
        source = max(self.source, other.source)
        return ClearSum(self.party, x.part + y.part, x.truth + y.truth, min(x.bits, y.bits), frac, source)

    __radd__ = __add__


class ClearChoice(Secret):
    """Rows of an embedding table of so many, by their indices, to be retrieved in ring `bits`."""

    def __init__(self, party: Party, ids: Tensor, size: int, bits: int) -> None:
        self.party, self.ids, self.size, self.bits = party, ids, size, bits

    @property
    def shape(self) -> torch.Size:
        """That of the one-hot rows it stands for."""
        return torch.Size((len(self.ids), self.size))

    def __getitem__(self, rows: slice) -> ClearChoice:
        """Some of the rows."""
        return ClearChoice(self.party, self.ids[rows], self.size, self.bits)

    def joined(self, others: Sequence[ClearChoice]) -> ClearChoice:
        """With the rows of others below."""
        return ClearChoice(self.party, torch.cat([c.ids for c in (self, *others)]), self.size, self.bits)


def _parted(words: Tensor, truth: Tensor, frac: int) -> int:
    difference = (words.double() - truth).abs()
    return int((difference > SLACK * (2.0**frac + truth.abs()) + 2).sum())


def held(party: Party, words: Tensor, bits: int, frac: int, name: str = "") -> Clear:
    """A value; the name is that of a parameter."""
    words = kernels.signed(words, bits)
    return Clear(party, words, words.double(), bits, frac, Source(0, name), exact=True)


def cut(words: Tensor, low: int) -> tuple[Tensor, Tensor]:
    """What lies above so many low bits, and these, as digits of masked words tell them: one too high, and these less
    2^low, where a mask's carry. The mask is drawn from the word itself, so that the same number is always cut alike;
    but all low bits are met as often as under masks, and tables err in the clear as they do on shares.
    """
    high, rest = words >> low, words & ((1 << low) - 1)
    masks = (words * SCATTER >> 32) & ((1 << low) - 1)
    carry = (rest + masks) >> low
    return high + carry, rest - (carry << low)
