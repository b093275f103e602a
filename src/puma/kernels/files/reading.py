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

from puma.kernels.stored import BLOCKS, KINDS, Stored, bytes_of
from puma.kernels.views import compiled, octets

NUMBER = {kind: i for i, kind in enumerate([*KINDS, *BLOCKS])}
BF16, F16, F32, _I32, _I64, _Q8_0, _Q4_0, _Q4_1, _Q4_K, _Q6_K, _Q4_Z = NUMBER.values()
_HALF = np.float32(2.0**112)  # between the exponents of a half and of a float of the same bits
MAGIC = np.float64(1.5 * 2.0**52)  # whoever adds it to a smaller number rounds that to nearest, ties to even
MAGIC_WORD = np.int64(0x4338000000000000)  # its bits


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


# Loops run over slices from 0 on: an index that is added to another may be negative, as far as a compiler can tell, and
# then eight numbers at a time are one.


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
        out[i] = _word(_float_of(np.uint32(bits)) * _HALF, factors[i])


@compiled
def _f32(source, factors, out):
    for i in range(len(out)):
        out[i] = _word(source[i], factors[i])


@compiled
def _whole(source, out):
    for i in range(len(out)):
        out[i] = source[i]


@compiled
def _half(source, at):
    half = np.uint32(source[at]) | (np.uint32(source[at + 1]) << np.uint32(8))
    bits = ((half & np.uint32(0x7FFF)) << np.uint32(13)) | ((half & np.uint32(0x8000)) << np.uint32(16))
    return _float_of(np.uint32(bits)) * _HALF


@compiled
def _bytes(source, scale, factors, out):
    for i in range(len(out)):
        out[i] = _word(scale * np.float32(np.int8(source[i])), factors[i])


@compiled
def _nibbles(source, shift, less, scale, least, factors, out):
    for i in range(len(out)):
        out[i] = _word(scale * np.float32(((np.int32(source[i]) >> shift) & 15) - less) + least, factors[i])


@compiled
def _q8_0(source, factors, out):
    for n in range(len(out) // 32):
        block, low, high = source[34 * n : 34 * n + 34], 32 * n, 32 * n + 32
        _bytes(block[2:34], _half(block, 0), factors[low:high], out[low:high])


@compiled
def _q4(source, size, factors, out):
    """Blocks of 18 bytes, whose numbers lie around 0, or of 20, of which two more say what is added."""
    for n in range(len(out) // 32):
        block = source[size * n : size * n + size]
        scale, least = _half(block, 0), _half(block, 2) if size == 20 else np.float32(0)
        for part in range(2):
            low, high = 32 * n + 16 * part, 32 * n + 16 * part + 16
            less = np.int32(8 if size == 18 else 0)
            _nibbles(block[size - 16 : size], 4 * part, less, scale, least, factors[low:high], out[low:high])


@compiled
def _q4_z(source, factors, out):
    for n in range(len(out) // 32):
        block = source[20 * n : 20 * n + 20]
        scale, zero = _half(block, 0), np.int32(block[2])
        for part in range(2):
            low, high = 32 * n + 16 * part, 32 * n + 16 * part + 16
            _nibbles(block[4:20], 4 * part, zero, scale, np.float32(0), factors[low:high], out[low:high])


@compiled
def _q4_k(source, factors, out):
    for n in range(len(out) // 256):
        block = source[144 * n : 144 * n + 144]
        for part in range(8):
            i = part % 4
            scale, least, both = np.int32(block[4 + i]), np.int32(block[8 + i]), np.int32(block[12 + i])
            if part >= 4:
                scale, least = (both & 15) | ((scale >> 2) & 48), (both >> 4) | ((least >> 2) & 48)
            unscaled = _half(block, 0) * np.float32(scale & 63)
            offset = _half(block, 2) * np.float32(least & 63)
            begin, low = 16 + part // 2 * 32, 256 * n + 32 * part
            here, there = block[begin : begin + 32], out[low : low + 32]
            _nibbles(here, part % 2 * 4, np.int32(0), unscaled, -offset, factors[low : low + 32], there)


@compiled
def _sixes(lows, highs, low_shift, high_shift, scale, factors, out):
    for i in range(len(out)):
        whole = (((np.int32(lows[i]) >> low_shift) & 15) | (((np.int32(highs[i]) >> high_shift) & 3) << 4)) - 32
        out[i] = _word(scale * np.float32(whole), factors[i])


@compiled
def _q6_k(source, factors, out):
    for n in range(len(out) // 256):
        block = source[210 * n : 210 * n + 210]
        for part in range(16):
            scale = _half(block, 208) * np.float32(np.int8(block[192 + part]))
            half, inside, low = part // 8, part % 8 * 16, 256 * n + 16 * part
            lows, highs = 64 * half + inside % 64, 128 + 32 * half + inside % 32
            shifts, there = (inside // 64 * 4, inside // 32 * 2), out[low : low + 16]
            lows_, highs_ = block[lows : lows + 16], block[highs : highs + 16]
            _sixes(lows_, highs_, shifts[0], shifts[1], scale, factors[low : low + 16], there)


@compiled
def put(kind, source, factors, at, column, out, out_at, count):
    """Words of `count` numbers from number `at` on, the first of which lies in this column."""
    factors, out, stop = factors[column : column + count], out[out_at : out_at + count], at + count
    if kind == BF16:
        _bf16(source.view(np.uint16)[at:stop], factors, out)
    elif kind == F16:
        _f16(source.view(np.uint16)[at:stop], factors, out)
    elif kind == F32:
        _f32(source.view(np.float32)[at:stop], factors, out)
    elif kind == _I32:
        _whole(source.view(np.int32)[at:stop], out)
    elif kind == _I64:
        _whole(source.view(np.int64)[at:stop], out)
    elif kind == _Q8_0:
        _q8_0(source[at // 32 * 34 : stop // 32 * 34], factors, out)
    elif kind == _Q4_0:
        _q4(source[at // 32 * 18 : stop // 32 * 18], 18, factors, out)
    elif kind == _Q4_1:
        _q4(source[at // 32 * 20 : stop // 32 * 20], 20, factors, out)
    elif kind == _Q4_Z:
        _q4_z(source[at // 32 * 20 : stop // 32 * 20], factors, out)
    elif kind == _Q4_K:
        _q4_k(source[at // 256 * 144 : stop // 256 * 144], factors, out)
    else:
        _q6_k(source[at // 256 * 210 : stop // 256 * 210], factors, out)
