"""The digits above a table's index: whether an input lies in the table, above it or below it, by one polynomial each.

Section 5 of docs/protocol.md. This file must not know tables, nor what is looked up.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from puma.mpc.compare import split
from puma.mpc.lookup import Asked, Digit, Top, halved, sign_bits
from puma.mpc.lookup import digit as one_digit
from puma.mpc.polynomial import ONE, Polynomial, bit, multiplied, products, times
from puma.mpc.share import Bits, Share
from puma.nn.variants import RANGES, TABLES


@cache
def range_polynomials(tops: int, above: bool) -> tuple[Polynomial, ...]:
    """Whether T - b is zero (inside), T the number in so many top digits, b the index's borrow; and if it is positive.

    Digit i of m less that of l is 0 if z<i>, 1 if u<i> or, by a wrap, w<i>, negative if l<i>; v1 = z1 ^ u1 and, in the
    top digit, o = u ^ w. T is 1 with a 1 in the lowest digit and zeros above it, or a wrap there and a 1 in what is
    above. "minus" is the sign without a borrow into the top digit, which "turns" would change; what is neither inside
    nor negative is above. If no input is above, then inside is what is not negative.
    """
    borrow = bit("b")
    for i in range(1, tops):
        borrow = bit(f"l{i}") ^ times(bit(f"z{i}"), borrow)
    negative = bit("minus") ^ times(bit("turns"), borrow)
    if not above:
        return (ONE ^ negative,)
    inside = _is_zero(tops)
    return inside, ONE ^ inside ^ negative


def _is_zero(tops: int) -> Polynomial:
    if tops == 1:
        return bit("z1") ^ times(bit("b"), bit("q"))
    zero = [bit(f"z{i}") for i in range(1, tops + 1)]
    result = times(*zero) ^ times(bit("b"), bit("v1"), *zero[1:])
    wraps = [bit("b"), bit("w1")]
    for i in range(2, tops):
        result ^= times(*wraps, bit(f"u{i}"), *zero[i:])
        wraps.append(bit(f"w{i}"))
    return result ^ times(*wraps, bit("o"))


def range_bits(index: Digit, tops: Sequence[Digit | Top], above: bool) -> dict[str, Bits]:
    """The bits that `range_polynomials` is about; local."""
    *others, top = tops
    lower = [digit for digit in others if isinstance(digit, Digit)]
    asked: dict[str, Asked] = {"b": (index, None)}
    for i, digit in enumerate(lower, start=1):
        asked |= {f"z{i}": (digit, (0,)), f"l{i}": (digit, None)} | ({f"w{i}": (digit, (1,))} if above else {})
    if above:
        assert isinstance(top, Digit)
        last = len(tops)
        asked |= {f"z{last}": (top, (0,))} | ({"o": (top, (1,))} if lower else {"q": (top, (0, 1))})
    bits = sign_bits(top, asked)
    for i, digit in enumerate(lower if above else (), start=1):
        plain, wrapped = digit.wrapping(bits[f"w{i}"])
        bits |= {f"w{i}": wrapped} | ({"v1": bits["z1"] ^ plain} if i == 1 else {f"u{i}": plain})
    return bits


@cache
def top_widths(bits: int, above: bool, least: int = 1) -> tuple[int, ...]:
    """Widths of the digits above the index, low to high, that make the range check cheapest; the topmost has
    `least` at least. If that is 1 and nothing is above, only a sign is asked of it."""

    def price(widths: list[int]) -> int:
        polynomials = range_polynomials(len(widths), above)
        dealt = sum(1 << w for w in (widths if above or least > 1 else halved(widths)))
        return dealt + 2 * len(multiplied(polynomials)) + len(products(polynomials))

    found = (split(bits, n)[:: 1 if above and least == 1 else -1] for n in range(1, min(bits, 3) + 1))
    return tuple(min((widths for widths in found if widths[-1] >= least), key=price))


NARROW = 7  # bits of a digit that tells the range by itself, at most: it takes 2^7 bits an input
SINGLE, FEW = 9, 1 << 17  # the same of few inputs that may lie above the table, and how many are few
DOUBLE = 14  # of few that may not, by two digits


def told_widths(bits: int, quick: Sequence[str], count: int, above: bool) -> tuple[int, ...]:
    """Widths, low to high, of the digits that tell the range of so many inputs without polynomials, where one of so
    many bits would; none where the plan has it otherwise, or they took too many bits.

    Where nothing is above, there may be two: the higher one tells that an input is no further below the table than the
    lower one reaches.
    """
    few = RANGES in quick and count <= FEW
    most = SINGLE if few and above else NARROW if few or TABLES in quick else 0
    if bits <= most:
        return (bits,)
    return (bits // 2 + 1, bits - bits // 2) if few and not above and bits <= DOUBLE else ()


def overlapping(x: Share, begins: int, ends: int, widths: Sequence[int]) -> list[Digit]:
    """Digits of these widths, the first from one place on, and the last up to another."""
    starts = [begins, ends - widths[-1]][-len(widths) :]
    return [one_digit(x, start, width) for start, width in zip(starts, widths, strict=True)]


def told(tops: list[Digit], margin: int, above: bool) -> list[Bits]:
    """Whether an input is inside, and above if anything can be, by a digit that begins in the table, 2^margin to its
    length; or, if nothing is above, two bits that are both set inside, by two such that overlap in a bit. Local.

    A digit may read one too high, so a part at each end counts as outside, but not the upper one where nothing is
    above. An index that comes round at the table's end has such a reading, too. Of two the higher digit reads 0 or 1 as
    far below the table as half the lower one spans, or inside; there the lower one does not come round.
    """
    low, *rest = tops
    parts = 1 << margin
    inside = low.is_in(range(1, parts + (not above)))
    if rest:
        return [inside, rest[0].is_in([0, 1])]
    return [inside, low.is_in(range(parts, low.size // 2 + 1))] if above else [inside]
