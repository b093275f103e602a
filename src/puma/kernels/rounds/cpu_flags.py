"""Many bits asked of one-hot digits at once, eight to a byte: a word each would take 64 times the memory, and longer to
write than to find. It must not know whose digits they are.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from puma import pool
from puma.kernels.cpu_onehot import above, above_words, aligned, chosen, member, member_words, members_of
from puma.kernels.cpu_wire import bits_packed, pack_bits
from puma.kernels.views import compiled, lying, words_at

_LEAST = 1 << 13  # digits that a thread takes at least: some 20 to 400 us
_BLOCK = 2048  # digits of which all flags are found before the next ones; eight end with a byte
_COPIED = 1 << 16  # words of vectors that are copied at a time: 512 kB


def flags(asked: Sequence[tuple[Tensor, Tensor, int, Tensor | None]]) -> Sequence[Tensor]:
    """What `member` says of each, and `above` where there are no members, as rows of bits: all in one call, that goes
    through digits once, where they have one shape."""
    if asked[0][1].numel() >= 2 * _LEAST and any(e.shape[:-1] != digit.shape for e, digit, _, _ in asked):
        return [pack_bits(_flags_of_many(*each)) for each in asked]
    each = {(id(e), id(digit)): (e, digit, width) for e, digit, width, _ in asked}  # several are asked of one digit
    lie = {key: aligned(*one) for key, one in each.items()}
    shape, count = (first := next(iter(lie.values()))[1]).shape, first.numel()
    if not count or any(digit.shape != shape for _, digit in lie.values()):
        return [pack_bits(_flags_of_many(*each)) for each in asked]
    row = (count + 7) // 8
    places, out = array("q"), torch.empty((len(asked), row), dtype=torch.uint8)
    sets = [None if members is None else members_of(members, width) for _, _, width, members in asked]
    for (e, digit, width, _), its in zip(asked, sets):
        places.extend((*map(Tensor.data_ptr, lie[id(e), id(digit)]), width, its.data_ptr() if its is not None else 0))
    these, to = places.buffer_info()[0], out.data_ptr()
    if count < 2 * _LEAST:
        _flags(len(asked), 0, count, these, to, row)
    else:
        pool.split(lambda low, high: _flags(len(asked), low, high, these, to, row), count, _LEAST, 8)
    return out.unbind(0)


def zeros(digit: Tensor, width: int) -> Tensor:
    """Which of the digits are 0, as a row of bits."""
    digit, count = lying(digit), digit.numel()
    out = torch.empty((count + 7) // 8, dtype=torch.uint8)
    at, to = digit.data_ptr(), out.data_ptr()
    pool.split(lambda low, high: _zeros(high - low, at + 8 * low, width, to + low // 8), count, _LEAST, 8)
    return out


def _flags_of_many(e: Tensor, digit: Tensor, width: int, members: Tensor | None) -> Tensor:
    """A thing asked of digits; where a vector serves a row of them, few rows at a time, so that the copies of vectors
    stay in a cache and take no fresh memory."""
    if e.shape[:-1] == digit.shape or e.dim() != digit.dim() + 1 or e.shape[:-2] != digit.shape[:-1]:
        return above(e, digit, width) if members is None else member(e, digit, width, members)
    rows, out = digit.shape[:-1].numel(), torch.empty(digit.shape, dtype=torch.int64)
    vectors, digits, found = e.reshape(rows, *e.shape[-2:]), digit.reshape(rows, -1), out.view(rows, -1)
    step = max(1, _COPIED // (digits.shape[1] * e.shape[-1]))
    for low in range(0, rows, step):
        part = vectors[low : low + step], digits[low : low + step], width
        found[low : low + step] = above(*part) if members is None else member(*part, members)
    return out


@compiled
def _flags(flags, low, high, asked, results, row):
    places, most = words_at(asked, 4 * flags), np.int64(1)
    for i in range(flags):
        most = max(most, np.int64(1 << max(places[4 * i + 2] - 6, 0)))
    masks, found = np.zeros((flags, most), np.uint64), np.empty(_BLOCK, np.int64)
    for i in range(flags):
        if places[4 * i + 3] != 0:
            chosen(places[4 * i + 2], places[4 * i + 3], masks[i])
    for start in range(low, high, _BLOCK):  # all flags of some digits, which stay in a cache meanwhile
        count = min(_BLOCK, high - start)
        for i in range(flags):
            width = places[4 * i + 2]
            hots, digits = places[4 * i] + 8 * (1 << max(width - 6, 0)) * start, places[4 * i + 1] + 8 * start
            if places[4 * i + 3] == 0:
                above_words(count, hots, digits, width, found.ctypes.data)
            else:
                member_words(count, hots, digits, width, masks[i], found.ctypes.data)
            bits_packed(count, found.ctypes.data, results + row * i + start // 8)
    return found.size  # so that they are there until here


@compiled
def _zeros(count, digits, width, result):
    digit, found, mask = words_at(digits, count), np.empty(_BLOCK, np.int64), np.int64((1 << width) - 1)
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        for i in range(size):
            found[i] = np.int64((digit[start + i] & mask) == 0)
        bits_packed(size, found.ctypes.data, result + start // 8)
    return found.size  # so that they are there until here
