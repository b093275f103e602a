"""Ring products with matrices that stay in their file's own numbers (`stored`): a few rows at a time become words in
the first-level cache and are multiplied there, so that memory is read once and nothing of the matrix's size is made.

Most files have two bytes a number; a word that another processor makes of them is the same. This file must not know
what the matrices are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from puma.kernels.cpu_matmul import dots, streams
from puma.kernels.stored import KINDS, Stored, number_bytes
from puma.kernels.tiles import NARROW_BITS
from puma.kernels.views import compiled, octets, span

_ROWS, _DEPTH = 8, 256  # words that are made at a time: half of a 32 kB cache
_MANY = 32  # rows of a that leave no room beside them
_NUMBER = {kind: i for i, kind in enumerate(KINDS)}
_BF16, _F16, _F32, _I32 = (_NUMBER[kind] for kind in ("bf16", "f16", "f32", "i32"))
_HALF = np.float32(2.0**112)  # between the exponents of a half and of a float of the same bits
_MAGIC = np.float64(1.5 * 2.0**52)  # whoever adds it to a smaller number rounds that to nearest, ties to even
_MAGIC_WORD = np.int64(0x4338000000000000)  # its bits


def spread(matrix: Stored, frac: int) -> Tensor:
    """The words (rows, columns)."""
    out = torch.empty((matrix.rows, matrix.columns), dtype=torch.int64)
    if out.numel():
        _spread(*_laid(matrix, frac), span(out), matrix.rows, matrix.columns)
    return out


def linear_stored(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> Tensor:
    """out += a @ w^T for the words w of the matrix."""
    _check(a, out, a.shape[-1] == matrix.columns and out.shape[-1] == matrix.rows)
    return _run(_linear, a, matrix, frac, bits, out)


def matmul_stored(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> Tensor:
    """out += a @ w."""
    _check(a, out, a.shape[-1] == matrix.rows and out.shape[-1] == matrix.columns)
    return _run(_matmul, a, matrix, frac, bits, out)


def _check(a: Tensor, out: Tensor, fits: bool) -> None:
    if not (fits and a.dim() == out.dim() == 2 and a.shape[0] == out.shape[0] and out.is_contiguous()):
        raise ValueError(f"cannot multiply {tuple(a.shape)} into {tuple(out.shape)}")


def _laid(matrix: Stored, frac: int) -> tuple[Any, ...]:
    """What the loops take of a matrix: its kind and bytes, a factor for each column, the unit that words count in."""
    if matrix.raw.numel() != matrix.rows * matrix.columns * number_bytes(matrix.kind):
        raise ValueError(f"{matrix.raw.numel()} bytes are not rows of {matrix.columns} numbers")
    factors = torch.ones(matrix.columns) if matrix.factors is None else matrix.factors.contiguous()
    return _NUMBER[matrix.kind], octets(matrix.raw), factors.numpy(), 2.0**frac


def _run(work: Any, a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> Tensor:
    if not min(a.shape[0], matrix.rows, matrix.columns):
        return out
    a = a if a.stride(-1) == 1 else a.contiguous()
    scratch = np.empty(_ROWS * _DEPTH, np.int64)
    narrow, sizes = bits <= NARROW_BITS, (matrix.rows, matrix.columns)
    work(narrow, span(a), a.stride(0), a.shape[0], *_laid(matrix, frac), scratch, span(out), out.shape[1], *sizes)
    return out


def _bits_as(result: Any, given: Any, kind: Any) -> Any:
    """An intrinsic: the same bits, read as another type."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], kind)

    @intrinsic
    def read(typing: Any, bits):  # type: ignore
        return result(given), generate

    return read


_float_of = _bits_as(types.float32, types.uint32, ir.FloatType())
_word_of = _bits_as(types.int64, types.float64, ir.IntType(64))


@compiled
def _bf16(source, at, factors, column, unit, out, out_at, count):
    for i in range(count):
        number = _float_of(np.uint32(np.uint32(source[at + i]) << np.uint32(16))) * factors[column + i]
        out[out_at + i] = _word_of(np.float64(number) * unit + _MAGIC) - _MAGIC_WORD


@compiled
def _f16(source, at, factors, column, unit, out, out_at, count):
    for i in range(count):
        half = np.uint32(source[at + i])
        bits = ((half & np.uint32(0x7FFF)) << np.uint32(13)) | ((half & np.uint32(0x8000)) << np.uint32(16))
        number = _float_of(np.uint32(bits)) * _HALF * factors[column + i]
        out[out_at + i] = _word_of(np.float64(number) * unit + _MAGIC) - _MAGIC_WORD


@compiled
def _f32(source, at, factors, column, unit, out, out_at, count):
    for i in range(count):
        number = source[at + i] * factors[column + i]
        out[out_at + i] = _word_of(np.float64(number) * unit + _MAGIC) - _MAGIC_WORD


@compiled
def _whole(source, at, out, out_at, count):
    for i in range(count):
        out[out_at + i] = source[at + i]


@compiled
def _put(kind, source, factors, unit, at, column, out, out_at, count):
    """Words of `count` numbers from number `at` on, the first of which lies in this column."""
    if kind == _BF16:
        _bf16(source.view(np.uint16), at, factors, column, unit, out, out_at, count)
    elif kind == _F16:
        _f16(source.view(np.uint16), at, factors, column, unit, out, out_at, count)
    elif kind == _F32:
        _f32(source.view(np.float32), at, factors, column, unit, out, out_at, count)
    elif kind == _I32:
        _whole(source.view(np.int32), at, out, out_at, count)
    else:
        _whole(source.view(np.int64), at, out, out_at, count)


@compiled
def _spread(kind, source, factors, unit, out, rows, columns):
    for row in range(rows):
        _put(kind, source, factors, unit, row * columns, 0, out, row * columns, columns)


@compiled
def _linear(narrow, a, a_stride, n, kind, source, factors, unit, scratch, c, c_stride, rows, k):
    # with few rows of a, those of w are read from end to end; with many, as much of a as the cache holds is read once
    band = k if n < _MANY else _DEPTH
    for left in range(0, k, band):
        for row in range(0, rows, _ROWS):
            some = min(_ROWS, rows - row)
            for start in range(left, min(left + band, k), _DEPTH):
                depth = min(_DEPTH, k - start)
                for r in range(some):
                    at = (row + r) * k + start
                    _put(kind, source, factors, unit, at, start, scratch, r * _DEPTH, depth)
                dots(narrow, a, start, a_stride, scratch, 0, _DEPTH, c, row, c_stride, n, depth, some)


@compiled
def _matmul(narrow, a, a_stride, n, kind, source, factors, unit, scratch, c, c_stride, rows, columns):
    # rows inside columns: the part of c that a band of columns adds to stays in the second-level cache
    for start in range(0, columns, _DEPTH):
        depth = min(_DEPTH, columns - start)
        for row in range(0, rows, _ROWS):
            some = min(_ROWS, rows - row)
            for r in range(some):
                at = (row + r) * columns + start
                _put(kind, source, factors, unit, at, start, scratch, r * _DEPTH, depth)
            streams(narrow, a, row, a_stride, scratch, 0, _DEPTH, c, start, c_stride, n, some, depth)
