"""Table lookup against a public digit on a CPU. It must not know whose digit it is.

As in a set (cpu_onehot.py) the one-hot is turned, not the table. The sums over every subset of neighbouring entries
are made once per call. Where registers can be permuted (permutes.py) each four entries' are looked up there, for eight
digits at once. Elsewhere those of five are read from memory, 13 per word. (Which of them it reads follows the one-hot:
a process that watches this machine's caches learns about this party's own words.) For a few digits these sums would
take longer than the lookups, which then add entry by entry, each under its bit.
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
from puma.kernels.digits.permutes import PERMUTES, subsums, summed_up
from puma.kernels.digits.turning import aligned, per_digit, shape, turned
from puma.kernels.tiles import LANES
from puma.kernels.views import compiled, lying, words_at

_GROUP = 5  # entries per group in memory: the sums for two tables of 256 entries still fit a 32 kB cache
_GROUPS = -(-64 // _GROUP)
_SUMS = _GROUPS << _GROUP  # sums per 64 entries of a table
_FEW = 16  # digits that are looked up entry by entry
_WORTH = 1 << 11  # positions of all digits from which on permutes pay, after which a processor is slower for a while
_U = np.uint64
_LEAST = 1 << 13  # digits that a thread takes at least: some 20 to 400 us


def lookup(e: Tensor, digit: Tensor, width: int, table: Tensor) -> Tensor:
    """For every table t the sum over j of table[t, digit - j] e[j], modulo 2^64; the tables come first."""
    e, digit = aligned(e, digit, width)
    if table.dim() != 2 or table.shape[1] != 1 << width:
        raise ValueError(f"a table of shape {tuple(table.shape)} does not fit a digit of {width} bits")
    out = torch.empty((table.shape[0], *digit.shape), dtype=torch.int64)
    if out.numel():
        table = lying(table)
        hot, at, entries, to = e.data_ptr(), digit.data_ptr(), table.data_ptr(), out.data_ptr()
        per, tables, n = per_digit(width), table.shape[0], digit.numel()
        permuted = PERMUTES if n >= LANES and n << width >= _WORTH else 0
        if n <= _FEW and not permuted:
            _lookup_few(n, hot, at, width, entries, tables, to)
        elif n < 2 * _LEAST:
            _lookup(permuted, n, hot, at, width, entries, to, tables, n)
        else:
            pool.split(
                lambda low, high: _lookup(
                    permuted, high - low, hot + 8 * per * low, at + 8 * low, width, entries, to + 8 * low, tables, n
                ),
                *(n, _LEAST),
            )
    return out


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
def _subsums(table, first, count, size):
    """For `count` tables from the `first` on, side by side, the sums over every subset of each group."""
    per = (size + 63) // 64
    sums = np.zeros(per * _SUMS * count, np.int64)
    for i in range(size if size >= 64 else -(-size // _GROUP) * _GROUP):  # whole groups: the pattern goes on behind it
        k, place = i >> 6, i & 63
        base, with_it = (k * _SUMS + ((place // _GROUP) << _GROUP)) * count, 1 << (place % _GROUP)
        for t in range(count):
            word = table[(first + t) * size + (-i & (size - 1))] if i < size else np.int64(0)
            for subset in range(with_it):
                sums[base + (subset + with_it) * count + t] = sums[base + subset * count + t] + word
    return sums


@compiled
def _lookup(permuted, count, hots, digits, width, entries, results, tables, stride):
    size, per = 1 << width, shape(width)[0]
    e, digit = words_at(hots, count * np.int64(per)), words_at(digits, count)
    table, out = words_at(entries, tables * size), words_at(results, (tables - 1) * stride + count)
    for t in range(0, tables, 2):
        both = min(2, tables - t)
        if permuted:
            sums = subsums(table, t, both, size)
            summed_up(count, e, digit, width, sums, both, out, t * stride, stride)
        else:
            sums = _subsums(table, t, both, size)
            _by_groups(count, e, digit, width, sums, both, out, t * stride, stride)


@compiled
def _by_groups(count, e, digit, width, sums, tables, out, first, apart):
    """As `summed_up`, from memory."""
    per, full, spread = shape(width)
    if tables == 2:
        for i in range(count):
            x, y = np.int64(0), np.int64(0)
            for k in range(per):
                word = turned(e, _U(i) * per, per, _U(digit[i]), _U(k), full, spread)
                more = _two_sums(sums, _U(k) * _U(2 * _SUMS), word)
                x += more[0]
                y += more[1]
            out[first + i] = x
            out[first + apart + i] = y
    else:
        for i in range(count):
            total = np.int64(0)
            for k in range(per):
                word = turned(e, _U(i) * per, per, _U(digit[i]), _U(k), full, spread)
                total += _one_sum(sums, _U(k) * _U(_SUMS), word)[0]
            out[first + i] = total


@compiled
def _lookup_few(count, hots, digits, width, entries, tables, results):
    size = 1 << width
    per, full, spread = shape(width)
    e, digit = words_at(hots, count * np.int64(per)), words_at(digits, count)
    table, out = words_at(entries, tables * size), words_at(results, tables * count)
    places = min(size, 64)
    for i in range(count):
        for t in range(tables):
            out[t * count + i] = 0
        for k in range(np.int64(per)):
            word = turned(e, _U(i) * per, per, _U(digit[i]), _U(k), full, spread)
            for t in range(tables):
                total = np.int64(0)
                for place in range(places):
                    bit = np.int64((word >> _U(place)) & _U(1))
                    total += table[t * size + (-(64 * k + place) & (size - 1))] & -bit
                out[t * count + i] += total
