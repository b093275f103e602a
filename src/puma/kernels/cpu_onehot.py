"""One-hot digits on a CPU: membership and borrow against a public digit. It must not know whose digit it is.

Instead of turning a set by the digit d, the one-hot is turned: after a rotation by d its position i stands for the
set's entry -i, whatever d was, and a set is a fixed mask. Below 64 positions the pattern is repeated to fill its word:
one rotation serves every width.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from puma import pool
from puma.kernels.digits.turning import ONES, aligned, per_digit, shape, turned
from puma.kernels.views import bits_set, compiled, lying, words_at

_U = np.uint64
_LEAST = 1 << 13  # digits that a thread takes at least: some 20 to 400 us
_COPIED = 1 << 16  # words of vectors that are copied at a time: 512 kB


def onehot(digit: Tensor, width: int) -> Tensor:
    """The one-hot words of every digit, along a new last dimension."""
    out, per = torch.zeros(*digit.shape, per_digit(width), dtype=torch.int64), per_digit(width)
    if digit.numel():
        digit = lying(digit)
        at, to = digit.data_ptr(), out.data_ptr()
        pool.split(
            lambda low, high: _onehot(high - low, at + 8 * low, width, to + 8 * per * low), digit.numel(), _LEAST
        )
    return out


def hot_bit(e: Tensor, digit: Tensor, width: int) -> Tensor:
    """e[digit]."""
    return _each(_hot_bit, *aligned(e, digit, width), width)


def member(e: Tensor, digit: Tensor, width: int, members: Tensor) -> Tensor:
    """The xor over j of members[digit - j] and e[j]: is the hidden digit's difference in the set?"""
    e, digit = aligned(e, digit, width)
    members = _set(members, width)
    return _each(_member, e, digit, width, members.data_ptr())


def above(e: Tensor, digit: Tensor, width: int) -> Tensor:
    """The xor of e[j] over j > digit: the borrow of digit - hidden digit."""
    return _each(_above, *aligned(e, digit, width), width)


def flags(asked: Sequence[tuple[Tensor, Tensor, int, Tensor | None]]) -> Sequence[Tensor]:
    """What `member` says of each, and `above` where there are no members: of few digits all in one call."""
    if asked[0][1].numel() >= 2 * _LEAST:
        return [_flags_of_many(*each) for each in asked]
    each = {(id(e), id(digit)): (e, digit, width) for e, digit, width, _ in asked}  # several are asked of one digit
    lie = {key: aligned(*one) for key, one in each.items()}
    shape, count = (first := next(iter(lie.values()))[1]).shape, first.numel()
    if not 0 < count < 2 * _LEAST or any(digit.shape != shape for _, digit in lie.values()):
        return [_flags_of_many(*each) for each in asked]
    places, out = array("q"), torch.empty((len(asked), *shape), dtype=torch.int64)
    sets = [None if members is None else _set(members, width) for _, _, width, members in asked]
    for (e, digit, width, _), its in zip(asked, sets):
        places.extend((*map(Tensor.data_ptr, lie[id(e), id(digit)]), width, its.data_ptr() if its is not None else 0))
    _flags(len(asked), count, places.buffer_info()[0], out.data_ptr())
    return out.unbind(0)


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


def _set(members: Tensor, width: int) -> Tensor:
    if members.shape != (1 << width,):
        raise ValueError(f"a set of shape {tuple(members.shape)} does not fit a digit of {width} bits")
    return lying(members if members.dtype is torch.int64 else members.to(torch.int64))


def parity(x: Tensor) -> Tensor:
    """The xor of the 64 bits of every word."""
    x = lying(x)
    out = torch.empty_like(x)
    if x.numel():
        source, to = x.data_ptr(), out.data_ptr()
        pool.split(lambda low, high: _parity(high - low, source + 8 * low, to + 8 * low), x.numel(), _LEAST)
    return out


def _each(work: Any, e: Tensor, digit: Tensor, width: int, *more: int) -> Tensor:
    """A word for each digit."""
    out, per = torch.empty_like(digit), per_digit(width)
    if out.numel():
        hot, at, to, count = e.data_ptr(), digit.data_ptr(), out.data_ptr(), out.numel()
        if count < 2 * _LEAST:
            work(count, hot, at, width, *more, to)
            return out
        pool.split(
            lambda low, high: work(high - low, hot + 8 * per * low, at + 8 * low, width, *more, to + 8 * low),
            *(count, _LEAST),
        )
    return out


@compiled
def _member(count, hots, digits, width, members, results):
    size = 1 << width
    per, full, spread = shape(width)
    e, digit = words_at(hots, count * np.int64(per)), words_at(digits, count)
    flags, out = words_at(members, size), words_at(results, count)
    mask = np.zeros(per, np.uint64)
    for i in range(size):
        if flags[-i & (size - 1)]:
            mask[i >> 6] |= _U(1) << _U(i & 63)
    if per == 1:  # by itself, several at a time
        only = mask[0] & full
        for i in range(count):
            word, shift = (_U(e[i]) & full) * spread, _U(digit[i]) & _U(63)
            out[i] = _parity_of(((word >> shift) | ((word << _U(1)) << (_U(63) - shift))) & only)
        return
    for i in range(count):
        word = _U(0)
        for k in range(per):
            word ^= turned(e, _U(i) * per, per, _U(digit[i]), _U(k), full, spread) & mask[_U(k)]
        out[i] = _parity_of(word)


@compiled
def _above(count, hots, digits, width, results):
    per, full, _ = shape(width)
    e, digit, out = words_at(hots, count * np.int64(per)), words_at(digits, count), words_at(results, count)
    last = _U((1 << width) - 1)
    if per == 1:  # by itself, several at a time
        for i in range(count):
            out[i] = _parity_of(_U(e[i]) & full & _behind(_U(digit[i]) & last, _U(0)))
    elif per == 4:
        for i in range(count):
            place, word = _U(digit[i]) & last, _U(0)
            for k in range(4):
                word ^= _U(e[4 * i + k]) & _behind(place, _U(k))
            out[i] = _parity_of(word)
    else:
        for i in range(count):
            place, word = _U(digit[i]) & last, _U(0)
            for k in range(per):
                word ^= _U(e[_U(i) * per + _U(k)]) & _behind(place, _U(k))
            out[i] = _parity_of(word)


@compiled
def _behind(place, k):
    """The bits of word k of a vector that lie behind a place."""
    rest = (ONES << (place & _U(63))) << _U(1)
    at = place >> _U(6)
    return rest if k == at else ONES if k > at else _U(0)


@compiled
def _flags(flags, count, asked, results):
    places = words_at(asked, 4 * flags)
    for i in range(flags):
        hots, digits, width, members = places[4 * i], places[4 * i + 1], places[4 * i + 2], places[4 * i + 3]
        if members == 0:
            _above(count, hots, digits, width, results + 8 * count * i)
        else:
            _member(count, hots, digits, width, members, results + 8 * count * i)


@compiled
def _hot_bit(count, hots, digits, width, results):
    per = shape(width)[0]
    e, digit, out = words_at(hots, count * np.int64(per)), words_at(digits, count), words_at(results, count)
    for i in range(count):
        place = _U(digit[i]) & _U((1 << width) - 1)
        out[i] = (_U(e[_U(i) * per + (place >> _U(6))]) >> (place & _U(63))) & _U(1)


@compiled
def _onehot(count, digits, width, results):
    per = shape(width)[0]
    digit, out = words_at(digits, count), words_at(results, count * np.int64(per))
    for i in range(count):
        place = _U(digit[i]) & _U((1 << width) - 1)
        out[_U(i) * per + (place >> _U(6))] = np.int64(_U(1) << (place & _U(63)))


@compiled
def _parity(count, source, result):
    x, out = words_at(source, count), words_at(result, count)
    for i in range(count):
        out[i] = _parity_of(_U(x[i]))


@compiled
def _parity_of(word):
    return np.int64(bits_set(word) & _U(1))
