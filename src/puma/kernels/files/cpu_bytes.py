"""Products of many rows with matrices of files, byte by byte in tiles (amx.py): words of the rows are cut into octets
once, and numbers of the matrix, a strip of rows at a time, into digits that stay in the first-level cache.

A number of more than three digits makes a product with words of its piece of the strip. It must not know what the
matrices are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from puma import pool
from puma.kernels.cpu_matmul import dots
from puma.kernels.files.amx import (
    DEPTH,
    DIGITS,
    OCTETS,
    SETTINGS,
    SIDE,
    TILE,
    add_up_5,
    add_up_6,
    configure,
    granted,
    lay_5,
    lay_6,
    product_5_2,
    product_5_3,
    product_6_2,
    product_6_3,
    release,
)
from puma.kernels.files.cutting import cut_of, cut_words
from puma.kernels.files.reading import BF16, F16, F32, I32, I64, Q4_0, Q4_1, Q4_K, Q6_K, Q8_0, laid, put
from puma.kernels.stored import BLOCKS, Stored
from puma.kernels.tiles import LANES, NARROW_BITS
from puma.kernels.views import compiled, span

_ROWS = 128  # of a, whose octets stay in the second-level cache for
_BLOCKS = 16  # blocks of columns of the matrix
_LEAST = 1 << 18  # numbers that a thread makes digits of at least
_LEAST_ROWS = 2 * SIDE  # of a thread that lays octets
_cut_bf16, _cut_f16, _cut_f32 = map(cut_of, ("bf16", "f16", "f32"))
_cut_q8_0, _cut_q4_0, _cut_q4_1, _cut_q4_k, _cut_q6_k, _cut_q4_z = map(cut_of, BLOCKS)


def able(matrix: Stored, bits: int) -> bool:
    """Whether this processor can, and the ring is small enough."""
    return bits <= 8 * OCTETS[-1] and matrix.columns > 0 and matrix.columns % SIDE == 0 and granted()


def linear_bytes(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> None:
    """out += a @ w^T for the words w of a matrix of whole strips of SIDE rows, `able`."""
    numbers = laid(matrix, frac)
    for first in range(0, a.shape[0], _ROWS):
        _some_rows(a[first : first + _ROWS], matrix, numbers, bits, out[first : first + _ROWS])


def _some_rows(a: Tensor, matrix: Stored, numbers: tuple[Any, ...], bits: int, out: Tensor) -> None:
    octets = OCTETS[0] if bits <= 8 * OCTETS[0] else OCTETS[1]
    tiles, blocks = -(-a.shape[0] // SIDE), -(-matrix.columns // DEPTH)
    left, result, sizes = span(a), span(out), (a.stride(0), a.shape[0], matrix.columns, octets, blocks)
    # what lies behind the last column is multiplied, too: octets there are zeros, and digits whatever they may be
    room = (np.zeros if matrix.columns % DEPTH else np.empty)(tiles * blocks * octets * TILE + DEPTH, np.uint8)
    place = _line(room)

    def lay(low: int, high: int) -> None:
        edge = np.zeros((SIDE, LANES), np.int64)
        _lay_rows(left, *sizes, edge, place, low, high)

    def multiply(low: int, high: int) -> None:
        digits = np.empty((_BLOCKS * DIGITS + octets) * TILE + DEPTH, np.uint8)
        words, edge = np.empty((SIDE, _BLOCKS * DEPTH), np.int64), np.empty((SIDE, SIDE), np.int64)
        rooms, whither = (words, edge, _line(digits)), (result, out.stride(0))
        _linear(left, *sizes, place, bits <= NARROW_BITS, *numbers, *rooms, *whither, SETTINGS, low, high)

    pool.split(lay, tiles, _LEAST_ROWS // SIDE)
    pool.split(multiply, matrix.rows // SIDE, -(-_LEAST // (SIDE * matrix.columns)))


def _line(room: np.ndarray) -> int:
    """Where in it a line of the cache begins. Whoever asks keeps it: compiled code lets go of an array whose name it
    needs no more, whatever address was taken of it before."""
    return room.ctypes.data + (-room.ctypes.data) % DEPTH


@compiled
def _lay_rows(a, a_stride, n, k, octets, blocks, edge, place, low, high):
    """Tiles low .. high of rows as octets; rows behind the last are zeros."""
    for tile in range(low, high):
        first = tile * SIDE
        for column in range(0, k, LANES):
            to = place + (tile * blocks + column // DEPTH) * octets * TILE + (column % DEPTH // 4) * DEPTH
            begin, stride = a[first * a_stride + column :].ctypes.data, a_stride
            if first + SIDE > n:
                for r in range(n - first):
                    for i in range(LANES):
                        edge[r, i] = a[(first + r) * a_stride + column + i]
                begin, stride = edge.ctypes.data, LANES
            if octets == 5:
                lay_5(begin, to, stride)
            else:
                lay_6(begin, to, stride)


@compiled
def _linear(
    a, a_stride, n, k, octets, blocks, place, narrow, kind, source, factors, words, edge, digits, c, c_stride, settings,
    low, high
):  # fmt: skip
    sums = digits + _BLOCKS * DIGITS * TILE
    configure(settings.ctypes.data)
    for block in range(0, blocks, _BLOCKS):
        some = min(_BLOCKS, blocks - block)
        left, depth = block * DEPTH, min(some * DEPTH, k - block * DEPTH)
        for strip in range(low, high):
            row = strip * SIDE
            count = _digits(kind, source, factors, row * k + left, k, left, depth, words, digits)
            if count > DIGITS:
                for r in range(SIDE):
                    put(kind, source, factors, (row + r) * k + left, left, words[r], 0, depth)
                flat = words.reshape(-1)
                dots(narrow, a, left, a_stride, flat, 0, _BLOCKS * DEPTH, c, row, c_stride, n, depth, SIDE)
                continue
            for first in range(0, n, SIDE):
                there = place + ((first // SIDE) * blocks + block) * octets * TILE
                if octets == 5 and count == 2:
                    product_5_2(digits, there, sums, some)
                elif octets == 5:
                    product_5_3(digits, there, sums, some)
                elif count == 2:
                    product_6_2(digits, there, sums, some)
                else:
                    product_6_3(digits, there, sums, some)
                if first + SIDE <= n:
                    _added(octets, sums, c[first * c_stride + row :].ctypes.data, c_stride)
                else:
                    edge[:] = 0
                    _added(octets, sums, edge.ctypes.data, SIDE)
                    for r in range(n - first):
                        for i in range(SIDE):
                            c[(first + r) * c_stride + row + i] += edge[r, i]
    release()


@compiled
def _added(octets, sums, place, stride):
    if octets == 5:
        add_up_5(sums, place, stride)
    else:
        add_up_6(sums, place, stride)


@compiled
def _digits(kind, source, factors, at, stride, column, depth, words, place):
    """Digits of SIDE rows of so many numbers, in blocks of DIGITS tiles; how many it takes, more if they do not do."""
    seen = np.uint64(0)
    for r in range(SIDE):
        begin, to = at + r * stride, place + r * DEPTH
        if kind == BF16:
            seen |= _cut_bf16(source, 2 * begin, factors, column, to, depth)
        elif kind == F16:
            seen |= _cut_f16(source, 2 * begin, factors, column, to, depth)
        elif kind == F32:
            seen |= _cut_f32(source, 4 * begin, factors, column, to, depth)
        elif kind in (I32, I64):
            put(kind, source, factors, begin, column, words[r], 0, depth)
            seen |= cut_words(words[r], 0, factors, 0, to, depth)
        else:
            seen |= _of_block(kind, source, begin, factors, column, to, depth)
    return DIGITS + 1 if seen >> np.uint64(24) else DIGITS if seen >> np.uint64(16) else DIGITS - 1


@compiled
def _of_block(kind, source, at, factors, column, to, depth):
    if kind == Q8_0:
        return _cut_q8_0(source, at // 32 * 34, factors, column, to, depth)
    if kind == Q4_0:
        return _cut_q4_0(source, at // 32 * 18, factors, column, to, depth)
    if kind == Q4_1:
        return _cut_q4_1(source, at // 32 * 20, factors, column, to, depth)
    if kind == Q4_K:
        return _cut_q4_k(source, at // 256 * 144, factors, column, to, depth)
    if kind == Q6_K:
        return _cut_q6_k(source, at // 256 * 210, factors, column, to, depth)
    return _cut_q4_z(source, at // 32 * 20, factors, column, to, depth)
