"""What opens numbers, compiled: a part is rounded, padded and packed in one pass, and what comes back is unpacked and
added to it in one, where each step of torch would go over all words again.

Words go through all steps a block at a time, so that each step finds them in the first-level cache. It must not know
which words are whose.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from puma import pool
from puma.kernels import plain
from puma.kernels.cpu_wire import in_eights, unpacked, write
from puma.kernels.packing.eights import EACH, LAYS, pack_eights_less
from puma.kernels.views import compiled, lying, octets_at, words_at

_LEAST = 1 << 16  # words that a thread takes at least: some 60 us
_BLOCK = 1024  # words that are finished before the next ones; eight end with a byte
_U = np.uint64
_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_BYTE = np.uint64(255)


def packed_less(x: Tensor, before: int, shift: int, bits: int, less: Tensor) -> Tensor:
    """((x + before) mod 2^bits >> shift) - less, as `pack` writes it in a ring of bits - shift."""
    width = bits - shift
    if not width:
        return plain.packed_less(x, before, shift, bits, less)
    less = lying(less)
    x, count = lying(x if x.shape == less.shape else x.expand(less.shape)), less.numel()
    out = torch.empty((count * width + 7) // 8, dtype=torch.uint8)
    source, other, to = x.data_ptr(), less.data_ptr(), out.data_ptr()
    spare, drop = _places(shift, bits)
    if count < 2 * _LEAST:
        _pack_less(count, source, other, to, before, spare, drop, width)
    else:  # eight words end with a byte
        pool.split(
            lambda low, high: _pack_less(
                high - low, source + 8 * low, other + 8 * low, to + low * width // 8, before, spare, drop, width
            ),
            *(count, _LEAST, 8),
        )
    return out


def padded(x: Tensor, before: int, shift: int, bits: int, dealt: Tensor | None, pads: Tensor) -> Tensor:
    """((x + before) mod 2^bits >> shift) + dealt + pads, `dealt` words or bytes that hold so many."""
    width = bits - shift
    if not width or (dealt is not None and dealt.dtype is not torch.uint8 and dealt.shape != pads.shape):
        return plain.padded(x, before, shift, bits, dealt, pads)
    pads = lying(pads)
    x, words, octets = lying(x if x.shape == pads.shape else x.expand(pads.shape)), 0, 0
    if dealt is not None and dealt.dtype is torch.uint8:
        dealt = lying(dealt, torch.uint8)
        _check(dealt.numel(), pads.numel(), width)
        octets = dealt.data_ptr()
    elif dealt is not None:
        dealt = lying(dealt)
        words = dealt.data_ptr()
    out = torch.empty_like(pads)
    places = x.data_ptr(), octets, words, pads.data_ptr(), out.data_ptr()
    _sum(out.numel(), places, before, *_places(shift, bits), width)
    return out


def sum_from(place: int, size: int, bits: int, x: Tensor) -> Tensor:
    """x and the words that `pack` wrote into so many bytes behind an address."""
    x = lying(x)
    _check(size, x.numel(), bits)
    out = torch.empty_like(x)
    _sum(x.numel(), (x.data_ptr(), place, 0, 0, out.data_ptr()), 0, 0, 0, bits)
    return out


def _check(size: int, count: int, bits: int) -> None:
    if size != (count * bits + 7) // 8:
        raise ValueError(f"{size} bytes are not {count} words of {bits} bits")


def _places(shift: int, bits: int) -> tuple[int, int]:
    """How far to shift up and then down, so that the bits from `shift` on are left; not at all where all are wanted."""
    return (64 - bits, 64 - bits + shift) if shift else (0, 0)


def _sum(count: int, places: tuple[int, int, int, int, int], *numbers: int) -> None:
    """All words; of words, bytes, words, words and result, those at address 0 are none."""
    if count < 2 * _LEAST:
        _add_up(count, *places, *numbers)
        return
    x, octets, words, pads, out = places
    width = numbers[-1]

    def part(low: int, high: int) -> None:
        here = octets and octets + low * width // 8
        more = (place and place + 8 * low for place in (words, pads))
        _add_up(high - low, x + 8 * low, here, *more, out + 8 * low, *numbers)

    pool.split(part, count, _LEAST, 8)


@compiled
def _pack_less(count, source, less, place, before, spare, drop, width):
    whole = in_eights(count, width)
    if whole:
        lay = LAYS[EACH * width :].ctypes.data
        pack_eights_less(whole >> 3, width, lay, source, less, place, before, spare, drop)
        source, less, place = source + 8 * whole, less + 8 * whole, place + (whole >> 3) * width
        count -= whole
    x, y, out = words_at(source, count), words_at(less, count), octets_at(place, (count * width + 7) // 8)
    first, left, right, mask = _U(before), _U(spare), _U(drop), _ONES >> _U(64 - width)
    held, filled, at = _U(0), 0, 0
    if width % 8 == 0:
        each = width // 8
        safe = max(count - 7, 0) if each < 8 else count  # a whole word would end behind the buffer
        for i in range(safe):
            write(out, i * each, (((_U(x[i]) + first) << left >> right) - _U(y[i])) & mask)
        for i in range(safe, count):
            word = (((_U(x[i]) + first) << left >> right) - _U(y[i])) & mask
            for j in range(each):
                out[i * each + j] = np.uint8((word >> _U(8 * j)) & _BYTE)
        return
    for i in range(count):
        word = (((_U(x[i]) + first) << left >> right) - _U(y[i])) & mask
        held |= word << _U(filled)
        filled += width
        if filled >= 64:
            write(out, at, held)
            at += 8
            filled -= 64
            held = (word >> _U(1)) >> _U(width - 1 - filled)  # in two steps: a shift by all 64 would be none
    for i in range(at, out.size):
        out[i] = np.uint8((held >> _U(8 * (i - at))) & _BYTE)


@compiled
def _add_up(count, source, octets, words, pads, result, before, spare, drop, width):
    first, left, right = _U(before), _U(spare), _U(drop)
    for low in range(0, count, _BLOCK):
        size = min(_BLOCK, count - low)
        x, out = words_at(source + 8 * low, size), words_at(result + 8 * low, size)
        if octets != 0:
            unpacked(size, octets + low * width // 8, result + 8 * low, width)
            for i in range(size):
                out[i] = np.int64(_U(out[i]) + ((_U(x[i]) + first) << left >> right))
        else:
            for i in range(size):
                out[i] = np.int64((_U(x[i]) + first) << left >> right)
        if words != 0:
            more = words_at(words + 8 * low, size)
            for i in range(size):
                out[i] = np.int64(_U(out[i]) + _U(more[i]))
        if pads != 0:
            last = words_at(pads + 8 * low, size)
            for i in range(size):
                out[i] = np.int64(_U(out[i]) + _U(last[i]))
