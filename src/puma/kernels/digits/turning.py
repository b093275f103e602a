"""How one-hot digits lie in words, and how a word of one is turned by its public digit. It must not know what is
asked of it.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from puma.kernels.shapes import broadcast
from puma.kernels.views import compiled, lying

_U = np.uint64
ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def per_digit(width: int) -> int:
    """Words per one-hot."""
    return 1 << max(width - 6, 0)


def aligned(e: Tensor, digit: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """One-hots and digits of one shape, each lying in order."""
    if e.shape[-1:] != (per_digit(width),):
        raise ValueError(f"a one-hot of width {width} has {per_digit(width)} words, not shape {tuple(e.shape)}")
    lead = e.shape[:-1]
    if lead != digit.shape:
        lead = broadcast(lead, digit.shape)
        e, digit = e.expand(*lead, e.shape[-1]), digit.expand(lead)
    return lying(e), lying(digit)


@compiled
def shape(width):
    """In compiled code: words per one-hot, the bits of a word that mean something, and the factor that repeats them in
    it."""
    if width >= 6:
        return _U(1) << _U(width - 6), ONES, _U(1)
    full = (_U(1) << _U(1 << width)) - _U(1)
    return _U(1), full, ONES // full


@compiled
def turned(e, at, per, digit, k, full, spread):
    """In compiled code: word k of the one-hot that begins at `at`, rotated so that its position `digit` comes first."""
    place, shift = k + (digit >> _U(6)), digit & _U(63)
    low = (_U(e[at + (place & (per - _U(1)))]) & full) * spread
    high = (_U(e[at + ((place + _U(1)) & (per - _U(1)))]) & full) * spread
    return (low >> shift) | ((high << _U(1)) << (_U(63) - shift))
