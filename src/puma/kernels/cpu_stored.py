"""Ring products with matrices that stay in their file's own numbers (`stored`): a few rows at a time become words in
the first-level cache and are multiplied there, so that memory is read once and nothing of the matrix's size is made.
Where a few rows meet floating-point numbers, these become words in registers (cpu_few_stored.py).

Two bytes a number are what most files have, quantised ones blocks of integers with their scales; a word that another
processor makes of them is the same. It must not know what the matrices are.
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
from puma.kernels.cpu_few_stored import BLOCK, FEW, STRIP, linear_few
from puma.kernels.cpu_few_stored import KINDS as FLOATING
from puma.kernels.cpu_matmul import SHALLOW, TURNED, dots, spreads, streams
from puma.kernels.files.amx import SIDE
from puma.kernels.files.cpu_bytes import able, linear_bytes
from puma.kernels.files.reading import BF16, F16, F32, laid, put
from puma.kernels.files.sixteens import MAGIC, MAGIC_WORD
from puma.kernels.stored import Stored
from puma.kernels.tiles import FUSED, LANES, NARROW_BITS, VECTOR, WIDE, Tile
from puma.kernels.views import compiled, span

_ROWS, _DEPTH = 8, 256  # words that are made at a time: half of a 32 kB cache
_MANY = 32  # rows of a that leave no room beside them
_TILED = 10  # rows of a from which on it pays to cut all into bytes
_SCRATCH = max(_ROWS * _DEPTH, SHALLOW * TURNED)
_LEAST = 1 << 17  # numbers that a thread makes words of at least: some 50 us
_WHOLE = ir.IntType(64)
_FLOATS_16, _FLOATS, _DOUBLES = (ir.VectorType(x, LANES) for x in (ir.HalfType(), ir.FloatType(), ir.DoubleType()))
_HALVES, _PARTS = (ir.VectorType(ir.IntType(bits), LANES) for bits in (16, 32))


def spread(matrix: Stored, frac: int) -> Tensor:
    """The words (rows, columns)."""
    out = torch.empty((matrix.rows, matrix.columns), dtype=torch.int64)
    if out.numel():
        _spread(*laid(matrix, frac), span(out), matrix.rows, matrix.columns)
    return out


def linear_stored(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> Tensor:
    """out += a @ w^T for the words w of the matrix."""
    _check(a, out, a.shape[-1] == matrix.columns and out.shape[-1] == matrix.rows)
    if not min(a.shape[0], matrix.rows, matrix.columns):
        return out
    a, tiled = a if a.stride(-1) == 1 else a.contiguous(), 0
    if a.shape[0] >= _TILED and matrix.rows >= SIDE and able(matrix, bits):
        tiled = matrix.rows - matrix.rows % SIDE
        linear_bytes(a, matrix.part(0, tiled), frac, bits, out)
    return _linear_words(a, matrix.part(tiled, matrix.rows), frac, bits, out, tiled)


def _linear_words(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor, at: int) -> Tensor:
    """`linear_stored` without tiles; the result begins at a column of out."""
    n, rows, columns = a.shape[0], matrix.rows, matrix.columns
    if n < FEW and matrix.kind in FLOATING and columns % BLOCK == 0:
        return _few(a, matrix, frac, bits, out, at)
    turns = FUSED and n >= _MANY and matrix.kind in FLOATING and columns % LANES == 0
    turned = rows - rows % LANES if turns else 0
    _run(linear_turned, a, matrix.part(0, turned), frac, bits, out, turned, at)
    return _run(_linear, a, matrix.part(turned, rows), frac, bits, out, rows - turned, at + turned)


def matmul_stored(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> Tensor:
    """out += a @ w."""
    _check(a, out, a.shape[-1] == matrix.rows and out.shape[-1] == matrix.columns)
    return _run(_matmul, a, matrix, frac, bits, out, matrix.columns)


def _check(a: Tensor, out: Tensor, fits: bool) -> None:
    if not (fits and a.dim() == out.dim() == 2 and a.shape[0] == out.shape[0] and out.is_contiguous()):
        raise ValueError(f"cannot multiply {tuple(a.shape)} into {tuple(out.shape)}")


def _run(work: Any, a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor, size: int, at: int = 0) -> Tensor:
    """`size` is what threads share: rows of the matrix, or columns; the result begins at a column of out."""
    if not min(a.shape[0], matrix.rows, matrix.columns):
        return out
    a = a if a.stride(-1) == 1 else a.contiguous()
    narrow, sizes, numbers = bits <= NARROW_BITS, (matrix.rows, matrix.columns), laid(matrix, frac)
    left, result = span(a), span(out)[at:]

    def part(low: int, high: int) -> None:
        scratch = np.empty(_SCRATCH, np.int64)
        work(narrow, left, a.stride(0), a.shape[0], *numbers, scratch, result, out.shape[1], *sizes, low, high)

    step = _DEPTH if work is _matmul else TURNED if work is linear_turned else _ROWS
    pool.split(part, size, -(-_LEAST * size // (matrix.rows * matrix.columns)), step)
    return out


def _few(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor, at: int) -> Tensor:
    """`_linear_words` of few rows; what is left of the matrix's rows becomes words first."""
    if not matrix.rows:
        return out
    _, source, factors = laid(matrix, frac)
    left, result = (span(a), a.stride(0), a.shape[0]), (span(out)[at:], out.shape[1])
    flagged = linear_few(matrix.kind, *left, source, factors, bits, *result)
    ends = STRIP * np.flatnonzero(np.diff(flagged, prepend=0, append=0))
    for first, stop in [*ends.reshape(-1, 2).tolist(), (STRIP * len(flagged), matrix.rows)]:
        if first < stop:
            _run(_linear, a, matrix.part(first, stop), frac, bits, out, stop - first, at + first)
    return out


def _all(kind: Any, number: Any) -> Any:
    return ir.Constant(kind, [number] * kind.count)


def _turning(kind: str) -> Any:
    """An intrinsic: the words of numbers of eight rows, `step` bytes apart, become columns; `count` comes in eights.

    out[k, :8] = words of rows[:, k] times factors[k]. What lies `ahead` bytes on is asked for.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        count, _, at, step, ahead, _, column, _, out_at, out_stride = values
        data = {i: context.make_array(signature.args[i])(context, builder, values[i]).data for i in (1, 5, 7)}
        tile, size = Tile(builder, {}, count, WIDE), _WHOLE(FLOATING[kind])
        rows = [builder.gep(data[1], [builder.add(at, builder.mul(step, _WHOLE(r)))]) for r in range(LANES)]
        scale, target = builder.gep(data[5], [column]), builder.gep(data[7], [out_at])

        def eight(k: Any, _: list[Any]) -> list[Any]:
            factor, begin = tile.load(tile.after(scale, k), _FLOATS), builder.mul(k, size)
            words = [_words_of(tile, kind, tile.after(row, begin), factor) for row in rows]
            for row in rows:
                tile.prefetch(tile.after(row, builder.add(begin, ahead)))
            for j, turned in enumerate(tile.turned(words)):
                tile.store(turned, tile.after(target, builder.mul(builder.add(k, _WHOLE(j)), out_stride)))
            return []

        tile.loop(count, LANES, [], eight)
        return context.get_dummy_value()

    @intrinsic
    def turn(typing: Any, count, source, at, step, ahead, factors, column, out, out_at, out_stride):  # type: ignore
        whole = types.int64
        return types.void(whole, source, whole, whole, whole, factors, whole, out, whole, whole), generate

    return turn


def _words_of(tile: Tile, kind: str, place: Any, factor: Any) -> Any:
    """The words of eight numbers in a register, as `_word` makes them."""
    builder, number = tile.builder, _FLOATS if kind == "f32" else _HALVES
    read = builder.load(builder.bitcast(place, number.as_pointer()), align=1)
    if kind == "bf16":
        read = builder.bitcast(builder.shl(builder.zext(read, _PARTS), _all(_PARTS, 16)), _FLOATS)
    elif kind == "f16":
        read = builder.fpext(builder.bitcast(read, _FLOATS_16), _FLOATS)
    exact = builder.fpext(builder.fmul(read, factor), _DOUBLES)
    rounded = builder.bitcast(builder.fadd(exact, _all(_DOUBLES, float(MAGIC))), VECTOR)
    return builder.sub(rounded, _all(VECTOR, int(MAGIC_WORD)))


_turn_bf16, _turn_f16, _turn_f32 = map(_turning, FLOATING)


@compiled
def _spread(kind, source, factors, out, rows, columns):
    for row in range(rows):
        put(kind, source, factors, row * columns, 0, out, row * columns, columns)


@compiled
def linear_turned(narrow, a, a_stride, n, kind, source, factors, scratch, c, c_stride, rows, k, low, high):
    # as much of a as the second-level cache holds is read again and again
    size = 4 if kind == F32 else 2
    step = size * k
    for left in range(0, k, _DEPTH):
        row = low
        while row < high:
            some = TURNED if high - row >= TURNED else LANES
            for start in range(left, min(left + _DEPTH, k), SHALLOW):
                depth = min(SHALLOW, k - start)
                for first in range(0, some, LANES):
                    at, ahead = (row + first) * step + start * size, some * step
                    if kind == BF16:
                        _turn_bf16(depth, source, at, step, ahead, factors, start, scratch, first, some)
                    elif kind == F16:
                        _turn_f16(depth, source, at, step, ahead, factors, start, scratch, first, some)
                    else:
                        _turn_f32(depth, source, at, step, ahead, factors, start, scratch, first, some)
                spreads(narrow, a, start, a_stride, scratch, some, c, row, c_stride, n, depth, some)
            row += some


@compiled
def _linear(narrow, a, a_stride, n, kind, source, factors, scratch, c, c_stride, rows, k, low, high):
    # with few rows of a, those of w are read from end to end; with many, as much of a as the cache holds is read once
    tall, deep = (_ROWS // 2, 2 * _DEPTH) if n < _MANY else (_ROWS, _DEPTH)
    band = k if n < _MANY else deep
    for left in range(0, k, band):
        for row in range(low, high, tall):
            some = min(tall, high - row)
            for start in range(left, min(left + band, k), deep):
                depth = min(deep, k - start)
                for r in range(some):
                    at = (row + r) * k + start
                    put(kind, source, factors, at, start, scratch, r * deep, depth)
                dots(narrow, a, start, a_stride, scratch, 0, deep, c, row, c_stride, n, depth, some)


@compiled
def _matmul(narrow, a, a_stride, n, kind, source, factors, scratch, c, c_stride, rows, columns, low, high):
    # rows inside columns: the part of c that a band of columns adds to stays in the second-level cache
    for start in range(low, high, _DEPTH):
        depth = min(_DEPTH, high - start)
        for row in range(0, rows, _ROWS):
            some = min(_ROWS, rows - row)
            for r in range(some):
                at = (row + r) * columns + start
                put(kind, source, factors, at, start, scratch, r * _DEPTH, depth)
            streams(narrow, a, row, a_stride, scratch, 0, _DEPTH, c, start, c_stride, n, some, depth)
