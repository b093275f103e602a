"""One-hot digits on a CPU: membership and borrow against a public digit. It must not know whose digit it is.

Instead of turning a set by the digit d, the one-hot is turned: after a rotation by d its position i stands for the
set's entry -i, whatever d was, and a set is a fixed mask. Below 64 positions the pattern is repeated to fill its word:
one rotation serves every width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from puma import pool
from puma.kernels.digits.turning import ONES, aligned, per_digit, shape, turned
from puma.kernels.views import bits_set, compiled, lying, words_at

_U = np.uint64
_LEAST = 1 << 13  # digits that a thread takes at least: some 20 to 400 us


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
    members = members_of(members, width)
    return _each(_member, e, digit, width, members.data_ptr())


def above(e: Tensor, digit: Tensor, width: int) -> Tensor:
    """The xor of e[j] over j > digit: the borrow of digit - hidden digit."""
    return _each(above_words, *aligned(e, digit, width), width, 0)


def members_of(members: Tensor, width: int) -> Tensor:
    """A set's flags as words."""
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
def chosen(width, members, mask):
    """In compiled code: the places of a set's members in a vector that was turned, as words of zeros before."""
    size = 1 << width
    flags = words_at(members, size)
    for i in range(size):
        if flags[-i & (size - 1)]:
            mask[i >> 6] |= _U(1) << _U(i & 63)


@compiled
def _member(count, hots, digits, width, members, results):
    mask = np.zeros(shape(width)[0], np.uint64)
    chosen(width, members, mask)
    member_words(count, hots, digits, width, 0, mask, results)


@compiled
def member_words(count, hots, digits, width, low, mask, results):
    """In compiled code: what `member` says of so many digits, from bit `low` on of what lies behind an address, and of
    a set that was `chosen`."""
    begin = _U(low)
    per, full, spread = shape(width)
    e, digit, out = words_at(hots, count * np.int64(per)), words_at(digits, count), words_at(results, count)
    if per == 1:  # by itself, several at a time
        only = mask[0] & full
        for i in range(count):
            word, shift = (_U(e[i]) & full) * spread, (_U(digit[i]) >> begin) & _U(63)
            out[i] = _parity_of(((word >> shift) | ((word << _U(1)) << (_U(63) - shift))) & only)
        return
    for i in range(count):
        word = _U(0)
        for k in range(per):
            word ^= turned(e, _U(i) * per, per, (_U(digit[i]) >> begin), _U(k), full, spread) & mask[_U(k)]
        out[i] = _parity_of(word)


@compiled
def above_words(count, hots, digits, width, low, results):
    """In compiled code: what `above` says of so many digits, from bit `low` on of what lies behind an address."""
    begin = _U(low)
    per, full, _ = shape(width)
    e, digit, out = words_at(hots, count * np.int64(per)), words_at(digits, count), words_at(results, count)
    last = _U((1 << width) - 1)
    if per == 1:  # by itself, several at a time
        for i in range(count):
            out[i] = _parity_of(_U(e[i]) & full & _behind((_U(digit[i]) >> begin) & last, _U(0)))
    elif per == 4:
        for i in range(count):
            place, word = (_U(digit[i]) >> begin) & last, _U(0)
            for k in range(4):
                word ^= _U(e[4 * i + k]) & _behind(place, _U(k))
            out[i] = _parity_of(word)
    else:
        for i in range(count):
            place, word = (_U(digit[i]) >> begin) & last, _U(0)
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
