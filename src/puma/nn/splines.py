"""Piecewise linear functions on secret inputs: coefficients, error bounds and the protocol that evaluates them.

f(x) = A[i] + B[i] u with 2^width segments of length h. The segment index i and the offset u come from the public high
and low bits of m and l, without communication: i may be one too high, then u is negative, so each line is fitted over
two segments, [c_i - h, c_i + h). Outside the table f is 0 below, and 0, 1 or x above. Section 5 of docs/protocol.md. It
must not know which model asks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

import torch
from torch import Tensor

from puma.mpc import clear_forms
from puma.mpc.arithmetic import lift, open_truncate, reshare
from puma.mpc.boolean import MaskedBit, evaluate, open_masked, select, to_arithmetic
from puma.mpc.clear import Clear, ClearSum, cut
from puma.mpc.clear_forms import in_clear
from puma.mpc.cost import declares
from puma.mpc.fixed import ACTIVATION, ACTIVATION_REACH, NONLINEAR, SCORE_REACH
from puma.mpc.lookup import Digit, Top, digits, signed_digits, topped
from puma.mpc.party import Protocol, together
from puma.mpc.share import Share
from puma.mpc.watch import note_digit
from puma.mpc.zones import TOP, zone_between
from puma.nn.lines import Lines
from puma.nn.range_digits import overlapping, range_bits, range_polynomials, told, told_widths, top_widths


@dataclass(frozen=True)
class Spline:
    """A function, its table's range [low, low + 2^width * h), h = 2^-per_unit, and how it goes on outside.

    `bound` is the largest error over all inputs, approximation and fixed point together, held by a test.
    A line's height lies between two: with `mean` 1 the mean error is zero, for sums over many inputs, with 0 the
    largest is least. `bits` is the ring of A + B u and `slope` the fraction bits of B. `above`: None (the input never
    is), 0, 1 or "x".
    Inputs that are `checked` against the table's range lie in [-2^reach, 2^reach + low). `room`: so many bits more has
    the ring, in which what leaves the reach is seen and flagged (mpc/watch.py); 0 where nothing can leave it.
    `margin`: over 2^-margin of the table at its lower end, and at its upper one if anything is above, f is what it is
    outside, within the bound; 0: it is not.
    """

    name: str
    function: Callable[[Tensor], Tensor]
    low: float
    width: int
    per_unit: int
    bound: float
    above: str | int | None = None
    checked: bool = True
    frac: int = NONLINEAR
    slope: int = 8
    bits: int = 32
    out_frac: int = ACTIVATION
    reach: int = ACTIVATION_REACH
    mean: float = 0.0
    room: int = 0
    margin: int = 0

    @property
    def step(self) -> float:
        """The length of a segment."""
        return 2.0**-self.per_unit

    @cached_property
    def low_bits(self) -> int:
        """Bits of the offset in a segment."""
        return self.frac - self.per_unit

    @property
    def high(self) -> float:
        """Where the table ends."""
        return self.low + self.step * 2**self.width

    @cached_property
    def range_bits(self) -> int:
        """The ring that spans the reach, and what room there is beyond it."""
        return self.frac + self.reach + 1 + self.room

    @cached_property
    def top_widths(self) -> list[int]:
        """Digits above the index, low to high, that check the reach."""
        bits = self.range_bits - self.low_bits - self.width
        least = TOP if self.room else 1
        return list(top_widths(bits, self.above is not None, least)) if self.checked else []

    @property
    def signed(self) -> bool:
        """Whether of the topmost digit only a sign is asked."""
        return self.checked and self.above is None and not self.room

    @cached_property
    def range_digit(self) -> int:
        """Bits of the one digit that tells the range, if the function allows that."""
        return self.range_bits - self.low_bits - self.width + self.margin

    def at_once(self, quick: Sequence[str], count: int) -> tuple[int, ...]:
        """Widths of the digits that tell the range of so many inputs at once, if the function and the plan allow it."""
        return told_widths(self.range_digit, quick, count, self.above is not None) if self.margin else ()

    def inside(self, top: int) -> tuple[int, int]:
        """The lowest and highest topmost digit, of so many bits, of an input, less `low`, that keeps to the reach."""
        unit = 2.0 ** (self.reach + 1 + self.room - top)
        end = 2.0**self.reach if self.above is not None else self.high - self.low
        return -round(2.0**self.reach / unit), math.ceil(end / unit) - 1

    @property
    def ring(self) -> int:
        """The ring to bring x in: its reach and, where f is x itself, the ring of the result, to be lifted later."""
        return max(self.range_bits, self.bits - self.slope) if self.above == "x" else self.range_bits

    @cached_property
    def line_frac(self) -> int:
        """Fraction bits of A + B u."""
        return self.slope + self.frac

    @property
    def result_bits(self) -> int:
        """The ring of the result, unless x itself has a part in it."""
        return self.bits - (self.line_frac - self.out_frac)

    @cached_property
    def tables(self) -> Tensor:
        """(2, 2^width) words: A with slope + frac fraction bits, B with slope; B is rounded first, then A fitted."""
        starts = self.low + self.step * torch.arange(2**self.width, dtype=torch.float64)
        offsets = self.step * torch.linspace(-1, 1, 257, dtype=torch.float64)
        values = self.function(starts[:, None] + offsets)
        slopes = (values[:, -1] - values[:, 0]) / (2 * self.step)
        b = torch.round(slopes * 2.0**self.slope)
        rest = values - (b / 2.0**self.slope)[:, None] * offsets
        weights = 1 - offsets.abs() / self.step  # offsets are the difference of two uniform numbers: a triangle
        a = self.mean * (rest * weights).sum(1) / weights.sum()
        a += (1 - self.mean) * (rest.max(1).values + rest.min(1).values) / 2
        return torch.stack([torch.round(a * 2.0 ** (self.slope + self.frac)), b]).to(torch.int64)


def _gelu(x: Tensor) -> Tensor:
    return x * 0.5 * torch.erfc(-x / math.sqrt(2))


def _gelu_tanh(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


# Bounds: fit error h^2 max|f''| / 4 (5/12 where the mean is fitted), plus 1.5 units of the input (2^-13) times the
# slope, plus 1.5 of the output (2^-14).
GELU = Spline("gelu", _gelu, -4.0, 8, 5, bound=6e-4, above="x", slope=7, bits=30, mean=0.7)
GELU_TANH = Spline("gelu_tanh", _gelu_tanh, -4.0, 8, 5, bound=6e-4, above="x", slope=7, bits=30, mean=0.7)
SILU = Spline(
    "silu", lambda x: x * torch.sigmoid(x), -16.0, 9, 4, bound=1.1e-3, above="x", slope=7, bits=30, mean=0.7, margin=3
)
SIGMOID = Spline("sigmoid", torch.sigmoid, -16.0, 9, 4, bound=3e-4, above=1, bits=24, margin=3)
TANH_HALF = Spline("tanh_half", lambda x: torch.sigmoid(2 * x), -8.0, 9, 5, bound=3e-4, above=1, bits=24, margin=3)
FINE_BOUND = 5e-4  # of gelu and silu by tables of twice as many segments
EXP = Spline("exp", torch.exp, -15.0, 8, 4, bound=4e-3, slope=7, bits=23, reach=SCORE_REACH, margin=2)


@cache
def reaching(spline: Spline, reach: int, watched: bool = True, fine: bool = False) -> Spline:
    """The same function for |x| < 2^reach less the end of its table; the result's ring grows with x where it is x.

    What has another reach than the usual one, for which there are proofs, is `watched` unless it is proven as well. A
    `fine` table has twice as many segments, for inputs that are small as a rule.
    """
    if fine:
        spline = replace(spline, width=spline.width + 1, per_unit=spline.per_unit + 1, bound=FINE_BOUND)
    grown = reach - spline.reach if spline.above == "x" else 0
    return roomy(replace(spline, reach=reach, bits=spline.bits + grown), spline.reach, watched)


def room(reach: int, usual: int, watched: bool = True) -> int:
    """Bits more than the reach takes: one, in which what leaves it is seen, unless it is proven or the usual reach."""
    return int(watched and reach != usual)


def roomy(spline: Spline, usual: int, watched: bool = True) -> Spline:
    """With room beyond a reach that is watched, and a topmost digit of 3 bits at least that shows it."""
    if not room(spline.reach, usual, watched):
        return spline
    digits = spline.range_bits - spline.low_bits - spline.width
    return replace(spline, room=max(1, TOP - digits))


@cache
def exponential(out_frac: int, reach: int = SCORE_REACH, watched: bool = True, ring: int = 0) -> Spline:
    """EXP with its result rounded to so many fraction bits, for x > -2^reach, in a ring of so many bits at least."""
    spline = replace(EXP, out_frac=out_frac, reach=reach)
    spline = replace(spline, bits=max(spline.bits, ring + spline.line_frac - out_frac))
    return roomy(spline, SCORE_REACH, watched)


def _words(spline: Spline, x: Clear) -> Tensor:
    """How far x lies above the table's lower end; negative below a table whose range is checked."""
    x = x.shifted(-round(spline.low * 2**spline.frac)).reduced(spline.range_bits if spline.checked else x.bits)
    return x.signed if spline.checked else x.signed & ((1 << x.bits) - 1)


def _clear_words(spline: Spline, index: Tensor, offset: Tensor) -> Tensor:
    """A + B u, at an index inside the table."""
    a, b = spline.tables.to(index.device)[:, index.clamp(0, (1 << spline.width) - 1)]
    return a + b * offset


@dataclass(frozen=True)
class ClearLines:
    """The line of each element at its place: words of A + B u, a value in the ring of the spline."""

    spline: Spline
    words: Tensor

    def weighted(self, bits: MaskedBit, weights: Sequence[int]) -> ClearSum:
        """The line times the sum of weights of the bits that are set, along a first dimension."""
        factor = sum((w * v for w, v in zip(weights, bits.word, strict=True)), torch.zeros_like(self.words))
        truth, frac = self.words.double() * factor, self.spline.line_frac
        return ClearSum(bits.party, self.words * factor, truth, self.spline.bits, frac)


def _lines_in_clear(spline: Spline, x: Clear) -> ClearLines:
    return ClearLines(spline, _clear_words(spline, *cut(_words(spline, x), spline.low_bits)))


def _outside(spline: Spline, index: Tensor) -> Tensor:
    """What is flagged for certain: beyond the topmost digits inside, and those next to them."""
    lowest, highest = spline.inside(spline.top_widths[-1])
    top = index >> (spline.range_bits - spline.low_bits - spline.top_widths[-1])
    return (top > highest + 1) | (top < lowest - 1)


def _piecewise_in_clear(spline: Spline, x: Clear, owners: Tensor | None = None) -> Clear:
    x.party.note_range(f"input of {spline.name}", x, 2.0**spline.reach + spline.low)
    words = _words(spline, x)
    index, offset = cut(words, spline.low_bits)
    inside, above = (index >= 0) & (index < 1 << spline.width), index >= 1 << spline.width
    if spline.room and x.party.on_watch is not None:
        x.party.on_watch.count(_outside(spline, words >> spline.low_bits).to(torch.int64), owners)
    words, bits, frac = torch.where(inside, _clear_words(spline, index, offset), 0), spline.bits, spline.line_frac
    if spline.above == "x":
        ring = min(x.bits, spline.bits - spline.slope)
        words, bits = torch.where(above, x.reduced(ring).signed << spline.slope, words), ring + spline.slope
    elif spline.above == 1:
        words = torch.where(above, 1 << frac, words)
    z = ClearSum(x.party, words, words.double(), bits, frac, x.source)
    return clear_forms.open_truncate((z, frac - spline.out_frac))[0].settled()


def indexed(spline: Spline, x: Share, at_once: Sequence[int] = ()) -> tuple[Digit, Sequence[Digit | Top], Tensor]:
    """The index of x, the digits above it or those that tell the range at once, and the public or dealer's offset."""
    x = x.shifted(-round(spline.low * 2**spline.frac)).reduced(spline.range_bits if spline.checked else x.bits)
    widths = [spline.width, *([] if at_once else spline.top_widths)]
    if spline.signed and not at_once:
        index, *tops = topped(signed_digits(x, spline.low_bits, widths), len(widths))
    else:
        index, *tops = digits(x, spline.low_bits, widths)
    assert isinstance(index, Digit)
    if at_once:  # the lowest begins in the table
        tops = overlapping(x, spline.low_bits + spline.width - spline.margin, spline.range_bits, at_once)
    return index, tops, index.words & ((1 << spline.low_bits) - 1)


def looked_up(spline: Spline, index: Digit, offset: Tensor) -> Protocol[Lines]:
    """The lines at an index; one round."""
    party = index.party
    tables = party.nothing((2, 1 << spline.width)) if party.dry else spline.tables  # these take longer than a dry run
    a, b = index.lookup(tables, spline.bits, (spline.line_frac, spline.slope))
    e, b = yield from reshare(a + b.times(offset, spline.frac), b)
    return Lines(spline.bits, spline.line_frac, index, e, b, offset)


@in_clear(_lines_in_clear)
def lines_at(spline: Spline, x: Share) -> Protocol[Lines | ClearLines]:
    """The lines of a table whose range x is known to keep, for `Lines.weighted`; one round."""
    index, _, offset = indexed(spline, x)
    return (yield from looked_up(spline, index, offset))


@declares(
    "online 6k + flags, offline 2^w + 2^tops + 5k + flags and, above the table, k or 2k; 3 rounds",
    "section 5",
)
@in_clear(_piecewise_in_clear)
def piecewise(spline: Spline, x: Share, owners: Tensor | None = None) -> Protocol[Share]:
    """spline(x) with spline.out_frac fraction bits; x has spline.frac fraction bits.

    What leaves the reach is flagged, where there is room: for the prompts that elements belong to, or as rows do.
    Three rounds: the lines are opened while the range flags are computed, the flags, and the result. Where the plan
    has it that digits tell the flags, they are opened with the lines: two rounds.
    """
    assert x.frac == spline.frac and spline.checked
    at_once, above = spline.at_once(x.party.quick, x.numel()), spline.above is not None
    index, tops, offset = indexed(spline, x, at_once)
    whole = [digit for digit in tops if isinstance(digit, Digit)]
    if spline.room:
        note_digit(whole[-1], zone_between(whole[-1].width, *spline.inside(whole[-1].width)), owners)
    if at_once:
        flags = open_masked(*told(whole, spline.margin, above))
        lines, masked = yield from together(looked_up(spline, index, offset), flags)
    else:
        polynomials = range_polynomials(len(tops), above)
        lines, ranges = yield from together(
            looked_up(spline, index, offset), evaluate(range_bits(index, tops, above), *polynomials)
        )
        masked = yield from open_masked(*ranges)
    alone = MaskedBit(x.party, masked[0].word.unsqueeze(0))
    result = lines.within(masked) if len(at_once) == 2 else lines.weighted(alone, [1])
    if spline.above == "x":
        result = result + select(masked[1], x.reduced(min(x.bits, spline.bits - spline.slope))).scaled(spline.slope)
    elif spline.above == 1:
        result = result + to_arithmetic(masked[1], spline.bits).times(1 << result.frac, result.frac)
    (opened,) = yield from open_truncate((result, result.frac - spline.out_frac))
    return opened


LEAST = 9  # results lie above -2^(j-9) in their ring j: none of the functions is far below zero


def least(spline: Spline) -> int:
    """Of the lift of a result: above -2^(j-9), and above -1/2 where x itself is the result and has an unusual reach."""
    fitted = max(spline.range_bits - spline.room, spline.bits - spline.slope) - spline.out_frac + 1
    return LEAST if spline.above != "x" or LEAST <= fitted <= LEAST + 2 else fitted


@declares("piecewise, lift", "section 5")
def lifted(spline: Spline, x: Share, bits: int, owners: Tensor | None = None) -> Protocol[Share]:
    """spline(x) in a ring larger than its own; x in ring spline.ring. `owners` are as for `piecewise`."""
    result = yield from piecewise(spline, x, owners)
    return (yield from lift((result, bits), least=least(spline)))[0]
