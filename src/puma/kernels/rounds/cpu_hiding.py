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


def hidden_hots(half: Tensor, x: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
    """The bytes xor the one-hot vectors of digits of words, in their place: one bit is turned for each, or none."""
    if half.dtype is not torch.uint8 or not half.is_contiguous():
        raise ValueError("vectors are hidden in the bytes that hide them, which lie in order")
    at, to, end = 0, half.data_ptr(), half.numel()
    x = lying(x)
    for low, width in places:
        start = at
        at += ((x.numel() << width) + 7) // 8
        if at > end:
            break
        _hide_all(x.numel(), x.data_ptr(), low, width, to + start)
    if at != end:
        raise ValueError(f"{end} bytes are not the one-hot vectors of these digits")
    return half


def _hide_all(count: int, source: int, begin: int, width: int, to: int) -> None:
    if count < 2 * _LEAST:
        _hide(0, count, source, begin, width, to)
    else:  # eight digits end with a byte
        pool.split(lambda low, high: _hide(low, high, source, begin, width, to), count, _LEAST, 8)


@compiled
def _hide(low, high, source, begin, width, place):
    x = words_at(source, high)
    if width >= 6:
        words, more, mask = words_at(place, high << (width - 6)), width - 6, (1 << width) - 1
        for i in range(low, high):
            hot = (x[i] >> begin) & mask
            words[(i << more) + (hot >> 6)] ^= np.int64(1) << (hot & 63)
    elif width == 5:
        fours = carray(pointer(place), (high,), np.uint32)
        for i in range(low, high):
            fours[i] ^= np.uint32(1) << np.uint32((x[i] >> begin) & 31)
    elif width == 4:
        twos = carray(pointer(place), (high,), np.uint16)
        for i in range(low, high):
            twos[i] ^= np.uint16(np.uint32(1) << np.uint32((x[i] >> begin) & 15))
    elif width == 3:
        ones = octets_at(place, high)
        for i in range(low, high):
            ones[i] ^= np.uint8(np.uint32(1) << np.uint32((x[i] >> begin) & 7))
    else:
        _hide_parts(low, high, x, begin, width, octets_at(place, ((high << width) + 7) >> 3))


@compiled
def _hide_parts(low, high, x, begin, width, octets):
    """Where several vectors share a byte; zeros fill up the last one."""
    each = 8 >> width
    whole = high - (high - low) % each
    for i in range(low, whole, each):
        octets[(i << width) >> 3] ^= np.uint8(_hots(x, i, each, begin, width))
    if whole < high:
        bits, mask = _hots(x, whole, high - whole, begin, width), (1 << ((high - whole) << width)) - 1
        octets[octets.size - 1] = np.uint8((octets[octets.size - 1] ^ bits) & mask)


@compiled
def _hots(x, first, count, begin, width):
    """Vectors of so many digits one behind the other; of 0 wide ones the bits."""
    bits = np.int64(0)
    for j in range(count):
        one = x[first + j] >> begin
        hot = np.int64(1) << (one & ((1 << width) - 1)) if width else one & 1
        bits |= hot << (j << width)
    return bits
