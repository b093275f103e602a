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
from puma.kernels.stored import BLOCKS, KINDS, Stored, bytes_of
from puma.kernels.tiles import FUSED, LANES, NARROW_BITS, VECTOR, WIDE, Tile
from puma.kernels.views import compiled, octets, span

_ROWS, _DEPTH = 8, 256  # words that are made at a time: half of a 32 kB cache
_MANY = 32  # rows of a that leave no room beside them
_SCRATCH = max(_ROWS * _DEPTH, SHALLOW * TURNED)
_LEAST = 1 << 17  # numbers that a thread makes words of at least: some 50 us
_NUMBER = {kind: i for i, kind in enumerate([*KINDS, *BLOCKS])}
_BF16, _F16, _F32, _I32, _I64, _Q8_0, _Q4_0, _Q4_1, _Q4_K, _Q6_K, _Q4_Z = _NUMBER.values()
_WHOLE = ir.IntType(64)
_FLOATS_16, _FLOATS, _DOUBLES = (ir.VectorType(x, LANES) for x in (ir.HalfType(), ir.FloatType(), ir.DoubleType()))
_HALVES, _PARTS = (ir.VectorType(ir.IntType(bits), LANES) for bits in (16, 32))
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
    if a.shape[0] < FEW and matrix.kind in FLOATING and matrix.columns > 0 and matrix.columns % BLOCK == 0:
        return _few(a, matrix, frac, bits, out)
    turns = FUSED and a.shape[0] >= _MANY and matrix.kind in FLOATING and matrix.columns % LANES == 0
    whole = matrix.rows - matrix.rows % LANES if turns else 0
    _run(linear_turned, a, matrix.part(0, whole), frac, bits, out, whole)
    return _run(_linear, a, matrix.part(whole, matrix.rows), frac, bits, out, matrix.rows - whole, whole)


def matmul_stored(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> Tensor:
    """out += a @ w."""
    _check(a, out, a.shape[-1] == matrix.rows and out.shape[-1] == matrix.columns)
    return _run(_matmul, a, matrix, frac, bits, out, matrix.columns)


def _check(a: Tensor, out: Tensor, fits: bool) -> None:
    if not (fits and a.dim() == out.dim() == 2 and a.shape[0] == out.shape[0] and out.is_contiguous()):
        raise ValueError(f"cannot multiply {tuple(a.shape)} into {tuple(out.shape)}")


def _laid(matrix: Stored, frac: int) -> tuple[Any, ...]:
    """What the loops take of a matrix: its kind and bytes, and for each column a factor that makes units of numbers.

    A power of two changes no rounding of the product with a number, unless that is nothing in units.
    """
    if matrix.raw.numel() != matrix.rows * bytes_of(matrix.kind, matrix.columns):
        raise ValueError(f"{matrix.raw.numel()} bytes are not rows of {matrix.columns} numbers")
    factors = torch.ones(matrix.columns) if matrix.factors is None else matrix.factors
    return _NUMBER[matrix.kind], octets(matrix.raw), (factors.contiguous() * 2.0**frac).numpy()


def _run(work: Any, a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor, size: int, at: int = 0) -> Tensor:
    """`size` is what threads share: rows of the matrix, or columns; the result begins at a column of out."""
    if not min(a.shape[0], matrix.rows, matrix.columns):
        return out
    a = a if a.stride(-1) == 1 else a.contiguous()
    narrow, sizes, laid = bits <= NARROW_BITS, (matrix.rows, matrix.columns), _laid(matrix, frac)
    left, result = span(a), span(out)[at:]

    def part(low: int, high: int) -> None:
        scratch = np.empty(_SCRATCH, np.int64)
        work(narrow, left, a.stride(0), a.shape[0], *laid, scratch, result, out.shape[1], *sizes, low, high)

    numbers = matrix.rows * matrix.columns
    step = _DEPTH if work is _matmul else TURNED if work is linear_turned else _ROWS
    pool.split(part, size, -(-_LEAST * size // numbers), step)
    return out


def _few(a: Tensor, matrix: Stored, frac: int, bits: int, out: Tensor) -> Tensor:
    """`linear_stored` of few rows; what is left of the matrix's rows becomes words first."""
    if not min(a.shape[0], matrix.rows):
        return out
    a = a if a.stride(-1) == 1 else a.contiguous()
    _, source, factors = _laid(matrix, frac)
    flagged = linear_few(matrix.kind, span(a), a.stride(0), a.shape[0], source, factors, bits, span(out), out.shape[1])
    ends = STRIP * np.flatnonzero(np.diff(flagged, prepend=0, append=0))
    for first, stop in [*ends.reshape(-1, 2).tolist(), (STRIP * len(flagged), matrix.rows)]:
        if first < stop:
            _run(_linear, a, matrix.part(first, stop), frac, bits, out, stop - first, first)
    return out


def _bits_as(result: Any, given: Any, kind: Any) -> Any:
    """An intrinsic: the same bits, read as another type."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.bitcast(values[0], kind)

    @intrinsic
    def read(typing: Any, bits):  # type: ignore
        return result(given), generate

    return read


def _all(kind: Any, number: Any) -> Any:
    return ir.Constant(kind, [number] * kind.count)


_float_of = _bits_as(types.float32, types.uint32, ir.FloatType())
_word_of = _bits_as(types.int64, types.float64, ir.IntType(64))


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
    rounded = builder.bitcast(builder.fadd(exact, _all(_DOUBLES, float(_MAGIC))), VECTOR)
    return builder.sub(rounded, _all(VECTOR, int(_MAGIC_WORD)))


_turn_bf16, _turn_f16, _turn_f32 = map(_turning, FLOATING)


# Loops run over slices from 0 on: an index that is added to another may be negative, as far as a compiler can tell, and
# then eight numbers at a time are one.


@compiled
def _word(number, factor):
    return _word_of(np.float64(number * factor) + _MAGIC) - _MAGIC_WORD


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
def _put(kind, source, factors, at, column, out, out_at, count):
    """Words of `count` numbers from number `at` on, the first of which lies in this column."""
    factors, out, stop = factors[column : column + count], out[out_at : out_at + count], at + count
    if kind == _BF16:
        _bf16(source.view(np.uint16)[at:stop], factors, out)
    elif kind == _F16:
        _f16(source.view(np.uint16)[at:stop], factors, out)
    elif kind == _F32:
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


@compiled
def _spread(kind, source, factors, out, rows, columns):
    for row in range(rows):
        _put(kind, source, factors, row * columns, 0, out, row * columns, columns)


@compiled
def linear_turned(narrow, a, a_stride, n, kind, source, factors, scratch, c, c_stride, rows, k, low, high):
    # as much of a as the second-level cache holds is read again and again
    size = 4 if kind == _F32 else 2
    step = size * k
    for left in range(0, k, _DEPTH):
        row = low
        while row < high:
            some = TURNED if high - row >= TURNED else LANES
            for start in range(left, min(left + _DEPTH, k), SHALLOW):
                depth = min(SHALLOW, k - start)
                for first in range(0, some, LANES):
                    at, ahead = (row + first) * step + start * size, some * step
                    if kind == _BF16:
                        _turn_bf16(depth, source, at, step, ahead, factors, start, scratch, first, some)
                    elif kind == _F16:
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
                    _put(kind, source, factors, at, start, scratch, r * deep, depth)
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
                _put(kind, source, factors, at, start, scratch, r * _DEPTH, depth)
            streams(narrow, a, row, a_stride, scratch, 0, _DEPTH, c, start, c_stride, n, some, depth)
