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
from puma.kernels.cpu_onehot import above, above_words, chosen, member, member_words, members_of
from puma.kernels.cpu_wire import bits_packed, pack_bits
from puma.kernels.digits.turning import aligned
from puma.kernels.shapes import Asked
from puma.kernels.views import compiled, lying, words_at

_LEAST = 1 << 13  # digits that a thread takes at least: some 20 to 400 us
_BLOCK = 2048  # digits of which all flags are found before the next ones; eight end with a byte
_COPIED = 1 << 16  # words of vectors that are copied at a time: 512 kB


def flags(asked: Sequence[Asked]) -> Sequence[Tensor]:
    """What `member` says of each, and `above` where there are no members, as rows of bits: all in one call, that goes
    through digits once, where they have one shape."""
    if asked[0][1].numel() >= 2 * _LEAST and any(e.shape[:-1] != x.shape for e, x, *_ in asked):
        return [pack_bits(_flags_of_many(*each)) for each in asked]
    each = {(id(e), id(x)): (e, x, width) for e, x, _, width, _ in asked}  # several are asked of one digit
    lie = {key: aligned(*one) for key, one in each.items()}
    shape, count = (first := next(iter(lie.values()))[1]).shape, first.numel()
    if not count or any(x.shape != shape for _, x in lie.values()):
        return [pack_bits(_flags_of_many(*each)) for each in asked]
    row = (count + 7) // 8
    places, out = array("q"), torch.empty((len(asked), row), dtype=torch.uint8)
    sets = [None if members is None else members_of(members, width) for *_, width, members in asked]
    for (e, x, low, width, _), its in zip(asked, sets):
        where = map(Tensor.data_ptr, lie[id(e), id(x)])
        places.extend((*where, low, width, its.data_ptr() if its is not None else 0))
    these, to = places.buffer_info()[0], out.data_ptr()
    if count < 2 * _LEAST:
        _flags(len(asked), 0, count, these, to, row)
    else:
        pool.split(lambda low, high: _flags(len(asked), low, high, these, to, row), count, _LEAST, 8)
    return out.unbind(0)


def zeros(x: Tensor, low: int, width: int) -> Tensor:
    """Which of the digits of so many bits that begin at `low` are 0, as a row of bits."""
    x, count = lying(x), x.numel()
    out = torch.empty((count + 7) // 8, dtype=torch.uint8)
    at, to, mask = x.data_ptr(), out.data_ptr(), _signed(((1 << width) - 1) << low)
    pool.split(lambda start, end: _zeros(end - start, at + 8 * start, mask, to + start // 8), count, _LEAST, 8)
    return out


def _signed(mask: int) -> int:
    return mask - (1 << 64) if mask >> 63 else mask


def _flags_of_many(e: Tensor, x: Tensor, low: int, width: int, members: Tensor | None) -> Tensor:
    """A thing asked of digits; where a vector serves a row of them, few rows at a time, so that the copies of vectors
    stay in a cache and take no fresh memory."""
    digit = x >> low if low else x
    shared = e.dim() == digit.dim() + 1 and e.shape[:-2] == digit.shape[:-1]
    if not digit.numel() or not shared or e.shape[:-1] == digit.shape:
        return above(e, digit, width) if members is None else member(e, digit, width, members)
    rows, out = digit.shape[:-1].numel(), torch.empty(digit.shape, dtype=torch.int64)
    vectors, digits, found = e.reshape(rows, *e.shape[-2:]), digit.reshape(rows, -1), out.view(rows, -1)
    step = max(1, _COPIED // (digits.shape[1] * e.shape[-1]))
    for at in range(0, rows, step):
        part = vectors[at : at + step], digits[at : at + step], width
        found[at : at + step] = above(*part) if members is None else member(*part, members)
    return out


@compiled
def _flags(flags, low, high, asked, results, row):
    places, most = words_at(asked, 5 * flags), np.int64(1)
    for i in range(flags):
        most = max(most, np.int64(1 << max(places[5 * i + 3] - 6, 0)))
    masks, found = np.zeros((flags, most), np.uint64), np.empty(_BLOCK, np.int64)
    for i in range(flags):
        if places[5 * i + 4] != 0:
            chosen(places[5 * i + 3], places[5 * i + 4], masks[i])
    for start in range(low, high, _BLOCK):  # all flags of some digits, which stay in a cache meanwhile
        count = min(_BLOCK, high - start)
        for i in range(flags):
            begin, width = places[5 * i + 2], places[5 * i + 3]
            hots, digits = places[5 * i] + 8 * (1 << max(width - 6, 0)) * start, places[5 * i + 1] + 8 * start
            if places[5 * i + 4] == 0:
                above_words(count, hots, digits, width, begin, found.ctypes.data)
            else:
                member_words(count, hots, digits, width, begin, masks[i], found.ctypes.data)
            bits_packed(count, found.ctypes.data, results + row * i + start // 8)
    return found.size  # so that they are there until here


@compiled
def _zeros(count, source, mask, result):
    x, found = words_at(source, count), np.empty(_BLOCK, np.int64)
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        for i in range(size):
            found[i] = np.int64((x[start + i] & mask) == 0)
        bits_packed(size, found.ctypes.data, result + start // 8)
    return found.size  # so that they are there until here
