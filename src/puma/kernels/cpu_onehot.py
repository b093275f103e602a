"""One-hot digits on a CPU: membership, borrow and table lookup against a public digit. It must not know whose
digit it is.

Instead of turning the table by the digit d, the one-hot is turned: after a rotation by d its position i
stands for the table's entry -i, whatever d was. Sets become fixed masks, and the sums over every subset of
five neighbouring entries are made once per call, so that a lookup adds 13 of them per word. (Which of them it
reads follows the one-hot: a process that watches this machine's caches learns about this party's own words.)
For a few digits these sums would take longer than the lookups, which then add entry by entry, each under its bit.
Below 64 positions the pattern is repeated to fill its word: one rotation serves every width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from puma import pool
from puma.kernels.shapes import broadcast
from puma.kernels.views import bits_set, compiled, lying, words_at

_GROUP = 5  # entries per group: the sums for two tables of 256 entries still fit a 32 kB cache
_GROUPS = -(-64 // _GROUP)
_SUMS = _GROUPS << _GROUP  # sums per 64 entries of a table
_FEW = 16  # digits that are looked up entry by entry
_U = np.uint64
_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_LEAST = 1 << 13  # digits that a thread takes at least: some 20 to 400 us


def onehot(digit: Tensor, width: int) -> Tensor:
    """The one-hot words of every digit, along a new last dimension."""
    out, per = torch.zeros(*digit.shape, _per(width), dtype=torch.int64), _per(width)
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


def lookup(e: Tensor, digit: Tensor, width: int, table: Tensor) -> Tensor:
    """For every table t the sum over j of table[t, digit - j] e[j], modulo 2^64; the tables come first."""
    e, digit = aligned(e, digit, width)
    if table.dim() != 2 or table.shape[1] != 1 << width:
        raise ValueError(f"a table of shape {tuple(table.shape)} does not fit a digit of {width} bits")
    out = torch.empty((table.shape[0], *digit.shape), dtype=torch.int64)
    if out.numel():
        table = lying(table)
        hot, at, entries, to = e.data_ptr(), digit.data_ptr(), table.data_ptr(), out.data_ptr()
        per, tables, n = _per(width), table.shape[0], digit.numel()
        if n <= _FEW:
            _lookup_few(n, hot, at, width, entries, tables, to)
        elif n < 2 * _LEAST:
            _lookup(n, hot, at, width, entries, to, tables, n)
        else:
            pool.split(
                lambda low, high: _lookup(
                    high - low, hot + 8 * per * low, at + 8 * low, width, entries, to + 8 * low, tables, n
                ),
                *(n, _LEAST),
            )
    return out


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
    out, per = torch.empty_like(digit), _per(width)
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


def _per(width: int) -> int:
    """Words per one-hot."""
    return 1 << max(width - 6, 0)


def aligned(e: Tensor, digit: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Vectors and digits of one shape, each in order."""
    if e.shape[-1:] != (_per(width),):
        raise ValueError(f"a one-hot of width {width} has {_per(width)} words, not shape {tuple(e.shape)}")
    lead = e.shape[:-1]
    if lead != digit.shape:
        lead = broadcast(lead, digit.shape)
        e, digit = e.expand(*lead, e.shape[-1]), digit.expand(lead)
    return lying(e), lying(digit)


def _sum_of_groups(tables: int) -> Any:
    """An intrinsic: for each of `tables` tables the sum of the entries that the bits of a word choose."""
    lanes, word_type = ir.VectorType(ir.IntType(64), tables), ir.IntType(64)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, values[0])
        base = builder.gep(array.data, [values[1]])
        parts = []
        for g in range(_GROUPS):
            bits = builder.lshr(values[2], word_type(g * _GROUP))
            subset = builder.and_(bits, word_type((1 << _GROUP) - 1))
            at = builder.mul(builder.or_(subset, word_type(g << _GROUP)), word_type(tables))
            pointer = builder.bitcast(builder.gep(base, [at]), lanes.as_pointer())
            parts.append(builder.load(pointer, align=8))
        total = parts[0]
        for part in parts[1:]:
            total = builder.add(total, part)
        sums = [builder.extract_element(total, ir.IntType(32)(t)) for t in range(tables)]
        return context.make_tuple(builder, signature.return_type, sums)

    @intrinsic
    def sum_of_groups(typing: Any, sums, at, word):  # type: ignore
        return types.UniTuple(types.int64, tables)(sums, types.uint64, types.uint64), generate

    return sum_of_groups


_one_sum, _two_sums = _sum_of_groups(1), _sum_of_groups(2)


@compiled
def _shape(width):
    """Words per one-hot, the bits of a word that mean something, and the factor that repeats them in it."""
    if width >= 6:
        return _U(1) << _U(width - 6), _ONES, _U(1)
    full = (_U(1) << _U(1 << width)) - _U(1)
    return _U(1), full, _ONES // full


@compiled
def _turned(e, at, per, digit, k, full, spread):
    """Word k of the one-hot that begins at `at`, rotated so that its position `digit` comes first."""
    place, shift = k + (digit >> _U(6)), digit & _U(63)
    low = (_U(e[at + (place & (per - _U(1)))]) & full) * spread
    high = (_U(e[at + ((place + _U(1)) & (per - _U(1)))]) & full) * spread
    return (low >> shift) | ((high << _U(1)) << (_U(63) - shift))


@compiled
def _subsums(table, first, count, size):
    """For `count` tables from the `first` on, side by side, the sums over every subset of each group."""
    per = (size + 63) // 64
    sums = np.zeros(per * _SUMS * count, np.int64)
    for i in range(size):
        k, place = i >> 6, i & 63
        base, bit = (k * _SUMS + ((place // _GROUP) << _GROUP)) * count, 1 << (place % _GROUP)
        entry = -i & (size - 1)
        for subset in range(1 << _GROUP):
            if subset & bit:
                for t in range(count):
                    sums[base + subset * count + t] += table[(first + t) * size + entry]
    return sums


@compiled
def _lookup(count, hots, digits, width, entries, results, tables, stride):
    size, n = 1 << width, count
    per, full, spread = _shape(width)
    e, digit = words_at(hots, count * np.int64(per)), words_at(digits, count)
    table, out = words_at(entries, tables * size), words_at(results, (tables - 1) * stride + count)
    for t in range(0, tables - 1, 2):
        sums = _subsums(table, t, 2, size)
        for i in range(n):
            first, second = np.int64(0), np.int64(0)
            for k in range(per):
                word = _turned(e, _U(i) * per, per, _U(digit[i]), _U(k), full, spread)
                x, y = _two_sums(sums, _U(k) * _U(2 * _SUMS), word)
                first += x
                second += y
            out[t * stride + i] = first
            out[(t + 1) * stride + i] = second
    if tables % 2:
        t = tables - 1
        sums = _subsums(table, t, 1, size)
        for i in range(n):
            total = np.int64(0)
            for k in range(per):
                word = _turned(e, _U(i) * per, per, _U(digit[i]), _U(k), full, spread)
                total += _one_sum(sums, _U(k) * _U(_SUMS), word)[0]
            out[t * stride + i] = total


@compiled
def _lookup_few(count, hots, digits, width, entries, tables, results):
    size = 1 << width
    per, full, spread = _shape(width)
    e, digit = words_at(hots, count * np.int64(per)), words_at(digits, count)
    table, out = words_at(entries, tables * size), words_at(results, tables * count)
    places = min(size, 64)
    for i in range(count):
        for t in range(tables):
            out[t * count + i] = 0
        for k in range(np.int64(per)):
            word = _turned(e, _U(i) * per, per, _U(digit[i]), _U(k), full, spread)
            for t in range(tables):
                total = np.int64(0)
                for place in range(places):
                    bit = np.int64((word >> _U(place)) & _U(1))
                    total += table[t * size + (-(64 * k + place) & (size - 1))] & -bit
                out[t * count + i] += total


@compiled
def chosen(width, members, mask):
    """The places of a set's members in a vector that was turned, as words."""
    size = 1 << width
    flags = words_at(members, size)
    for i in range(size):
        if flags[-i & (size - 1)]:
            mask[i >> 6] |= _U(1) << _U(i & 63)


@compiled
def _member(count, hots, digits, width, members, results):
    mask = np.zeros(_shape(width)[0], np.uint64)
    chosen(width, members, mask)
    member_words(count, hots, digits, width, 0, mask, results)


@compiled
def member_words(count, hots, digits, width, low, mask, results):
    """In compiled code: what `member` says of so many digits, from bit `low` on of what lies behind an address, and of
    a set that was `chosen`."""
    begin = _U(low)
    per, full, spread = _shape(width)
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
            word ^= _turned(e, _U(i) * per, per, _U(digit[i]) >> begin, _U(k), full, spread) & mask[_U(k)]
        out[i] = _parity_of(word)


@compiled
def above_words(count, hots, digits, width, low, results):
    """In compiled code: what `above` says of so many digits, from bit `low` on of what lies behind an address."""
    begin = _U(low)
    per, full, _ = _shape(width)
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
    rest = (_ONES << (place & _U(63))) << _U(1)
    at = place >> _U(6)
    return rest if k == at else _ONES if k > at else _U(0)


@compiled
def _hot_bit(count, hots, digits, width, results):
    per = _shape(width)[0]
    e, digit, out = words_at(hots, count * np.int64(per)), words_at(digits, count), words_at(results, count)
    for i in range(count):
        place = _U(digit[i]) & _U((1 << width) - 1)
        out[i] = (_U(e[_U(i) * per + (place >> _U(6))]) >> (place & _U(63))) & _U(1)


@compiled
def _onehot(count, digits, width, results):
    per = _shape(width)[0]
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
