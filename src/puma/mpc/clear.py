"""The arithmetic of the protocol without sharing: one party that holds values, in the same rings and formats.

It runs the text that real parties run; each primitive asks first whether its party is clear, and then does here what
the three would have done together. Truncation rounds to nearest, the centre of what shares can give: a secure result
differs by one unit at most. Beside its words a value carries what they would be in a ring without end; where the two
part, fixed point does not hold, and the party notes at which parameter. Nothing here is secret, nothing is sent. This
file must not know which model runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from puma import kernels
from puma.errors import UsageError
from puma.mpc.party import FIRST, Party
from puma.mpc.polynomial import Polynomial
from puma.mpc.share import Additive, Bits, Number, Secret, Share, broadcast, encode

UNSHARED = "ask three parties, without --clear"
EXACT = 2.0**53  # doubles hold every whole number below
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

    def __init__(self, approximation: str = "spline") -> None:
        super().__init__(FIRST, {}, {})
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

    def watch(self, what: str, x: Any, limit: float) -> None:
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
            return self.shifted(encode(other, self.frac, self.device))
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


def _parted(words: Tensor, truth: Tensor, frac: int) -> int:
    difference = (words.double() - truth).abs()
    return int((difference > SLACK * (2.0**frac + truth.abs()) + 2).sum())


def held(party: Party, words: Tensor, bits: int, frac: int, name: str = "") -> Clear:
    """A value; the name is that of a parameter."""
    words = kernels.signed(words, bits)
    return Clear(party, words, words.double(), bits, frac, Source(0, name), exact=True)


# -- what primitives do ---------------------------------------------------------------------------------------------


def _source(x: Any, y: Any) -> Source:
    named = next((z.source.name for z in (y, x) if z.source.name and not z.source.order), "")
    return x.party.used(named) if named else max(x.source, y.source)


def product(x: Any, y: Any, op: Callable[[Tensor, Tensor], Tensor]) -> ClearSum:
    """x o y for an elementwise product."""
    bits, frac = min(x.bits, y.bits), x.frac + y.frac
    return ClearSum(x.party, op(x.m, y.m), op(x.truth, y.truth), bits, frac, _source(x, y))


def matmul(x: Any, y: Any) -> ClearSum:
    """x @ y; in doubles where these hold every partial sum, which lengths of rows and columns tell."""
    bits, frac, source = min(x.bits, y.bits), x.frac + y.frac, _source(x, y)
    a, b = x.settled().truth, y.settled().truth
    longest = [float(t.norm(dim=d).max()) if t.numel() else 0.0 for t, d in ((a, -1), (b, -2))]
    if longest[0] * longest[1] < EXACT:
        exact = a @ b
        truth = exact if x.exact and y.exact else x.truth @ y.truth
        return ClearSum(x.party, exact.to(torch.int64), truth, bits, frac, source)
    return ClearSum(x.party, kernels.matmul(x.signed, y.signed, bits), x.truth @ y.truth, bits, frac, source)


def _rounded(words: Tensor, shift: int) -> Tensor:
    return words if shift == 0 else (words + (1 << (shift - 1))) >> shift


def truncated(x: Any, shift: int) -> Clear:
    """Drop low bits, rounding to nearest."""
    words, truth = _rounded(x.signed, shift), x.truth / 2.0**shift
    return Clear(x.party, words, truth, x.bits - shift, x.frac - shift, x.source)


def opened(z: Any, shift: int = 0) -> Clear:
    """An untruncated value less its low bits, in the smaller ring."""
    words, truth = _rounded(kernels.signed(z.part, z.bits), shift), z.truth / 2.0**shift
    return Clear(z.party, words, truth, z.bits - shift, z.frac - shift, z.source)


def lifted(x: Any, bits: int, least: int) -> Clear:
    """The same words in a larger ring; those beyond what can be lifted come out wrong, as they do from shares."""
    low = 1 << (x.bits - least)
    words = kernels.signed(x.m + low, x.bits) - low
    return Clear(x.party, words, x.truth, bits, x.frac, x.source)


def settled(x: Any) -> Clear:
    """Go on with the words of x, whatever the truth was."""
    return x.settled()


def examined(x: Any, frac: int, bits: int, lifts: bool) -> None:
    """Note how near x comes to what it is about to be opened to, with these fraction bits, in this ring."""
    x.party.watch("value", x, 2.0 ** (bits - frac - (2 if lifts else 1)))


def negative(x: Any) -> Bits:
    """The top bit of x in its ring."""
    return Bits(x.party, (x.signed < 0).to(torch.int64))


def below(x: Any, thresholds: Sequence[int]) -> Bits:
    """x < t along a new last dimension."""
    words = x.m.unsqueeze(-1) - torch.tensor(thresholds, dtype=torch.int64)
    return Bits(x.party, (kernels.signed(words, x.bits) < 0).to(torch.int64))


def evaluate(bits: Mapping[str, Bits], polynomials: Sequence[Polynomial]) -> list[Bits]:
    """Polynomials of bits."""
    party, results = next(iter(bits.values())).party, []
    shape = broadcast(*(tuple(b.shape) for b in bits.values()))
    for polynomial in polynomials:
        total = torch.zeros(shape, dtype=torch.int64)
        for monomial in polynomial:
            term = torch.ones(shape, dtype=torch.int64)
            for name in monomial:
                term = term * bits[name].part
            total = total ^ term
        results.append(Bits(party, total))
    return results


def selected(bit: Tensor, x: Any) -> ClearSum:
    """x where the bit is set, else 0."""
    return ClearSum(x.party, bit * x.m, bit * x.truth, x.bits, x.frac, x.source)


def as_number(party: Party, bit: Tensor, bits: int) -> ClearSum:
    """A bit as a number."""
    return ClearSum(party, bit, bit.double(), bits, 0)


def largest(x: Any, dim: int) -> tuple[Clear, Tensor]:
    """The largest entry along a dimension, and where it is; notes how far entries lie apart."""
    words, at = x.signed.max(dim)
    spread = (x.truth.amax(dim) - x.truth.amin(dim)).max() if x.numel() else 0.0
    x.party.note("spread of a row", x.source, float(spread) / 2.0**x.frac, 2.0 ** (x.bits - 1 - x.frac))
    return Clear(x.party, words, words.double(), x.bits, x.frac, x.source, exact=True), at


def rows(choice: ClearChoice, table: Any) -> ClearSum:
    """The chosen rows of a table."""
    source = _source(table, table)
    return ClearSum(choice.party, table.m[choice.ids], table.truth[choice.ids], choice.bits, table.frac, source)


# -- lines of a spline ----------------------------------------------------------------------------------------------


class ClearLines(NamedTuple):
    """The line of each element at its place: A + B u, with `frac` fraction bits in ring `bits`."""

    party: Party
    words: Tensor
    bits: int
    frac: int

    def weighted(self, bits: Any, weights: Sequence[int]) -> ClearSum:
        """The line times the sum of weights of the bits that are set, along a first dimension."""
        factor = sum(w * v for w, v in zip(weights, bits.word, strict=True))
        words = self.words * factor
        return ClearSum(self.party, words, self.words.double() * factor, self.bits, self.frac)


def lines(spline: Any, index: Tensor, offset: Tensor, party: Party) -> ClearLines:
    """The lines of a spline at an index inside its table."""
    a, b = spline.tables[:, index.clamp(0, (1 << spline.width) - 1)]
    return ClearLines(party, a + b * offset, spline.bits, spline.slope + spline.frac)


def placed(spline: Any, x: Any) -> tuple[Tensor, Tensor]:
    """Index and offset of x; the index is negative below a table whose range is checked, and too large above it."""
    words = x.m - round(spline.low * 2**spline.frac)
    words = kernels.signed(words, spline.range_bits) if spline.checked else kernels.reduce(words, x.bits)
    return words >> spline.low_bits, words & ((1 << spline.low_bits) - 1)


def piecewise(spline: Any, x: Any) -> Clear:
    """The spline with its out_frac fraction bits."""
    x.party.watch(f"input of {spline.name}", x, 2.0**spline.reach + spline.low)
    index, offset = placed(spline, x)
    found = lines(spline, index, offset, x.party)
    inside, above = (index >= 0) & (index < 1 << spline.width), index >= 1 << spline.width
    words, bits = torch.where(inside, found.words, 0), spline.bits
    if spline.above == "x":
        ring = min(x.bits, spline.bits - spline.slope)
        words, bits = torch.where(above, kernels.signed(x.m, ring) << spline.slope, words), ring + spline.slope
    elif spline.above == 1:
        words = torch.where(above, 1 << found.frac, words)
    z = ClearSum(x.party, words, words.double(), bits, found.frac, x.source)
    return opened(z, found.frac - spline.out_frac).settled()
