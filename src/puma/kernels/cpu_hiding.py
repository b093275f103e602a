"""One-hot vectors in the bytes that hide them: of each vector one bit is turned, where it lies. Vectors of up to 32
bits are taken several at a time. It must not know whose digits they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba.np.numpy_support import carray
from torch import Tensor

from puma import pool
from puma.kernels.views import compiled, lying, octets_at, pointer, words_at

_LEAST = 1 << 15  # digits that a thread takes at least: some 40 to 120 us


def hidden_hots(half: Tensor, digits: Sequence[Tensor], widths: Sequence[int]) -> Tensor:
    """The bytes xor the one-hot vectors of the digits, in their place: one bit is turned for each, or none."""
    if half.dtype is not torch.uint8 or not half.is_contiguous():
        raise ValueError("vectors are hidden in the bytes that hide them, which lie in order")
    at, to, end = 0, half.data_ptr(), half.numel()
    for digit, width in zip(digits, widths):
        digit, low = lying(digit), at
        at += ((digit.numel() << width) + 7) // 8
        if at > end:
            break
        _hide_all(digit.numel(), digit.data_ptr(), width, to + low)
    if at != end:
        raise ValueError(f"{end} bytes are not the one-hot vectors of these digits")
    return half


def _hide_all(count: int, digits: int, width: int, to: int) -> None:
    if count < 2 * _LEAST:
        _hide(0, count, digits, width, to)
    else:  # eight digits end with a byte
        pool.split(lambda low, high: _hide(low, high, digits, width, to), count, _LEAST, 8)


@compiled
def _hide(low, high, digits, width, place):
    digit = words_at(digits, high)
    if width >= 6:
        words, more, mask = words_at(place, high << (width - 6)), width - 6, (1 << width) - 1
        for i in range(low, high):
            hot = digit[i] & mask
            words[(i << more) + (hot >> 6)] ^= np.int64(1) << (hot & 63)
    elif width == 5:
        fours = carray(pointer(place), (high,), np.uint32)
        for i in range(low, high):
            fours[i] ^= np.uint32(1) << np.uint32(digit[i] & 31)
    elif width == 4:
        twos = carray(pointer(place), (high,), np.uint16)
        for i in range(low, high):
            twos[i] ^= np.uint16(np.uint32(1) << np.uint32(digit[i] & 15))
    elif width == 3:
        ones = octets_at(place, high)
        for i in range(low, high):
            ones[i] ^= np.uint8(np.uint32(1) << np.uint32(digit[i] & 7))
    else:
        _hide_parts(low, high, digit, width, octets_at(place, ((high << width) + 7) >> 3))


@compiled
def _hide_parts(low, high, digit, width, octets):
    """Where several vectors share a byte; zeros fill up the last one."""
    each = 8 >> width
    whole = high - (high - low) % each
    for i in range(low, whole, each):
        octets[(i << width) >> 3] ^= np.uint8(_hots(digit, i, each, width))
    if whole < high:
        bits, mask = _hots(digit, whole, high - whole, width), (1 << ((high - whole) << width)) - 1
        octets[octets.size - 1] = np.uint8((octets[octets.size - 1] ^ bits) & mask)


@compiled
def _hots(digit, first, count, width):
    """Vectors of so many digits one behind the other; of 0 wide ones the bits."""
    bits = np.int64(0)
    for j in range(count):
        one = digit[first + j]
        hot = np.int64(1) << (one & ((1 << width) - 1)) if width else one & 1
        bits |= hot << (j << width)
    return bits
