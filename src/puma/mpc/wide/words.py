"""Whole numbers modulo 2^95 as pairs of int64 words: what a few lines of torch do where a ring has no room in one.

Dry runs pass outlines through. It must not know what is secret.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

LOW = 31  # bits of the lower word: two of them multiply without loss
MOST = LOW + 64
_BELOW = (1 << LOW) - 1


@dataclass(frozen=True, slots=True)
class Wide:
    """low + 2^LOW high, with 0 <= low < 2^LOW and high modulo 2^64."""

    low: Tensor
    high: Tensor

    def __add__(self, other: Wide) -> Wide:
        return _carried(self.low + other.low, self.high + other.high)

    def __sub__(self, other: Wide) -> Wide:
        return _carried(self.low - other.low, self.high - other.high)

    def __neg__(self) -> Wide:
        return _carried(-self.low, -self.high)

    def __mul__(self, other: Wide) -> Wide:
        high = self.low * other.high + self.high * other.low + ((self.high * other.high) << LOW)
        return _carried(self.low * other.low, high)

    def plus(self, constant: int) -> Wide:
        """A public number from 0 on added."""
        return _carried(self.low + (constant & _BELOW), self.high + (constant >> LOW))

    def shifted_right(self, shift: int) -> Tensor:
        """Without its `shift` low bits, modulo 2^64."""
        if shift >= LOW:
            return self.high >> (shift - LOW)
        return (self.high << (LOW - shift)) + (self.low >> shift)


def wide(x: Tensor, shift: int = 0) -> Wide:
    """x 2^shift of signed words."""
    if shift >= LOW:
        return Wide(x & 0, x << (shift - LOW))
    return Wide((x << shift) & _BELOW, x >> (LOW - shift))


def _carried(low: Tensor, high: Tensor) -> Wide:
    """Any low word, of which what lies beyond LOW bits, or below 0, goes up."""
    return Wide(low & _BELOW, high + (low >> LOW))
