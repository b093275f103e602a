"""How numbers that lie in a file become words, in compiled code: some numbers of a row at a time, of every kind there
is. It must not know what is made of the words.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from puma.kernels.files.sixteens import MAGIC, MAGIC_WORD, SIXTEEN, words_of
from puma.kernels.stored import BLOCKS, KINDS, Stored, bytes_of
from puma.kernels.views import compiled, octets

NUMBER = {kind: i for i, kind in enumerate([*KINDS, *BLOCKS])}
BF16, F16, F32, I32, I64, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K, _Q4_Z = NUMBER.values()
_HALF = np.float32(2.0**112)  # between the exponents of a half and of a float of the same bits
_words_bf16, _words_f16, _words_f32 = map(words_of, ("bf16", "f16", "f32"))
_words_q8_0, _words_q4_0, _words_q4_1, _words_q4_k, _words_q6_k, _words_q4_z = map(words_of, BLOCKS)


def laid(matrix: Stored, frac: int) -> tuple[Any, ...]:
    """What the loops take of a matrix: its kind and bytes, and for each column a factor that makes units of numbers.

    A power of two changes no rounding of the product with a number, unless that is nothing in units.
    """
    if matrix.raw.numel() != matrix.rows * bytes_of(matrix.kind, matrix.columns):
        raise ValueError(f"{matrix.raw.numel()} bytes are not rows of {matrix.columns} numbers")
    factors = torch.ones(matrix.columns) if matrix.factors is None else matrix.factors
    return NUMBER[matrix.kind], octets(matrix.raw), (factors.contiguous() * 2.0**frac).numpy()


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


# What is left of a row behind its sixteens. Loops run over slices from 0 on: an index that is added to another may be
# negative, as far as a compiler can tell, and then eight numbers at a time are one.


@compiled
def _word(number, factor):
    return _word_of(np.float64(number * factor) + MAGIC) - MAGIC_WORD


@compiled
def _bf16(source, factors, out):
    for i in range(len(out)):
        out[i] = _word(_float_of(np.uint32(np.uint32(source[i]) << np.uint32(16))), factors[i])


@compiled
def _f16(source, factors, out):
    for i in range(len(out)):
        half = np.uint32(source[i])
        bits = ((half & np.uint32(0x7FFF)) << np.uint32(13)) | ((half & np.uint32(0x8000)) << np.uint32(16))
        endless = (half & np.uint32(0x7C00)) == np.uint32(0x7C00)  # infinite, or no number
        number = _float_of(np.uint32(bits | np.uint32(0x7F800000))) if endless else _float_of(np.uint32(bits)) * _HALF
        out[i] = _word(number, factors[i])


@compiled
def _f32(source, factors, out):
    for i in range(len(out)):
        out[i] = _word(source[i], factors[i])


@compiled
def _whole(source, out):
    for i in range(len(out)):
        out[i] = source[i]


@compiled
def put(kind, source, factors, at, column, out, out_at, count):
    """Words of `count` numbers from number `at` on, the first of which lies in this column; of numbers that lie in
    blocks whole ones."""
    if kind == Q8_0:
        _words_q8_0(source, at // 32 * 34, factors, column, out, out_at, count)
    elif kind == Q4_0:
        _words_q4_0(source, at // 32 * 18, factors, column, out, out_at, count)
    elif kind == Q4_1:
        _words_q4_1(source, at // 32 * 20, factors, column, out, out_at, count)
    elif kind == _Q4_Z:
        _words_q4_z(source, at // 32 * 20, factors, column, out, out_at, count)
    elif kind == Q4_K:
        _words_q4_k(source, at // 256 * 144, factors, column, out, out_at, count)
    elif kind == Q6_K:
        _words_q6_k(source, at // 256 * 210, factors, column, out, out_at, count)
    else:
        _put_numbers(kind, source, factors, at, column, out, out_at, count)


@compiled
def _put_numbers(kind, source, factors, at, column, out, out_at, count):
    whole = count - count % SIXTEEN if kind in (BF16, F16, F32) else 0
    if kind == BF16:
        _words_bf16(source, 2 * at, factors, column, out, out_at, whole)
    elif kind == F16:
        _words_f16(source, 2 * at, factors, column, out, out_at, whole)
    elif kind == F32:
        _words_f32(source, 4 * at, factors, column, out, out_at, whole)
    if whole == count:
        return
    factors, out, stop = factors[column + whole : column + count], out[out_at + whole : out_at + count], at + count
    at += whole
    if kind == BF16:
        _bf16(source.view(np.uint16)[at:stop], factors, out)
    elif kind == F16:
        _f16(source.view(np.uint16)[at:stop], factors, out)
    elif kind == F32:
        _f32(source.view(np.float32)[at:stop], factors, out)
    elif kind == I32:
        _whole(source.view(np.int32)[at:stop], out)
    else:
        _whole(source.view(np.int64)[at:stop], out)
