"""Where the zones of the out-of-range flag lie in digits of a masked value. Bookkeeping: it must not know shares."""

from __future__ import annotations

TOP = 3  # bits of the digit that shows whether a number fits into a quarter of its ring on either side of 0
# Of rows: the zone begins at 8 units of 2^EIGHTH, digits are WIDTH bits wide and STEP bits apart, so that they overlap.
EIGHTH, WIDTH, STEP = 4, 6, 4


def zone_between(width: int, lowest: int, highest: int) -> range:
    """The digits of `width` bits beyond those from lowest (0 or negative) to highest, which a borrow may raise by 1."""
    return range(highest + 2, (1 << width) + lowest)


def row_digits(bits: int) -> list[int]:
    """Where the digits of a row's sum of squares begin; the last one ends with the ring."""
    return [*range(EIGHTH, bits - WIDTH, STEP), bits - WIDTH]


def certain_lift(bits: int) -> int:
    """From here on a number of so large a ring is flagged for certain: half as much again as can be lifted."""
    return 3 << (bits - TOP)


CERTAIN_ROW = 9 << EIGHTH  # the same of a row's sum, less what is taken off it
