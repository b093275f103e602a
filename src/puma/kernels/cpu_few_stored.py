"""Products of a few rows with a matrix in its file's own floating-point numbers: a number becomes a word in a register
and is multiplied there, so that all that counts is reading memory once, in its order.

A number times its column's factor is rounded by adding 1.5 * 2^23 in float32: below 2^22 its word is then in the low
bits, ties to even as anywhere else. What is added comes off again at the end, as a multiple of the sum of a's row.
Strips of rows with a larger number are left to others. It must not know what the matrices are.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from puma import pool
from puma.kernels.tiles import FUSED, NARROW_BITS, Tile, by_mode
from puma.kernels.views import compiled

FEW = 32  # rows of a from which on it pays to write the words down
STRIP = 4  # rows of the matrix that go by side by side
KINDS = {"bf16": 2, "f16": 2, "f32": 4}  # bytes of a number
LANES = 16 if FUSED else 8  # numbers of float32 in a vector
BLOCK = 2 * LANES  # columns that are taken at a time
_LEAST = 1 << 19  # numbers that a thread reads at least: some 50 us
_ADDED = 12582912.0  # 1.5 * 2^23
_ADDED_WORD, _FIRST_WORD = 0x4B400000, 0x4B000000  # its bits, and those of 2^23, where the sums of small numbers begin
_BEYOND = -0x800000  # bits that differ from those if a sum is not from 2^23 to 2^24
_LINE = 64  # bytes of the cache
_I16, _I32, _I64 = (ir.IntType(bits) for bits in (16, 32, 64))
_FLOATS, _PARTS = ir.VectorType(ir.FloatType(), LANES), ir.VectorType(_I32, LANES)
_WORDS = ir.VectorType(_I64, LANES // 2)
_BF16, _F16, _F32 = range(3)

Values = list[Any]


def linear_few(
    kind: str, a: np.ndarray, a_stride: int, n: int, source: np.ndarray, factors: np.ndarray, bits: int,
    c: np.ndarray, c_stride: int,
) -> np.ndarray:  # fmt: skip
    """c += a @ w^T for n rows of a (n, k) and the words w of bytes (rows, k), k a multiple of BLOCK; or not, for the
    strips of STRIP rows that are flagged in what is returned. Rows behind the last whole strip are left as they are."""
    k, size, fused = len(factors), KINDS[kind], FUSED and bits <= NARROW_BITS
    rows = len(source) // (size * k)
    left, sums = np.empty(n * k, np.int64), np.empty(n, np.int64)
    _arranged(fused, size == 2, a, a_stride, n, k, left, sums)
    if size == 2:
        factors = np.ascontiguousarray(factors.reshape(-1, LANES, 2).transpose(0, 2, 1)).reshape(-1)
    choice = 3 * fused + list(KINDS).index(kind)
    flagged = np.zeros(rows // STRIP, np.uint8)

    def strips(low: int, high: int) -> None:
        totals = np.empty(n * STRIP, np.int64)
        _strips(choice, left, n, k, source, size * k, factors, totals, sums, c, c_stride, low, high, flagged)

    pool.split(strips, len(flagged), max(1, _LEAST // (STRIP * k)))
    return flagged


@compiled
def _arranged(fused, paired, a, a_stride, n, k, out, sums):
    """Rows of a as the tiles read them, and what is to come off again.

    Lane t of half h of a block is column 2 t + h where two numbers lie in a part of 32 bits, else LANES h + t. Two
    lanes share a word. Fused: a vector of their first columns, and one of the second ones less what a product of the
    first one with the whole word has too much. Else the low halves of all, and the high ones.
    """
    for i in range(n):
        total = np.int64(0)
        for block in range(0, k, BLOCK):
            for h in range(2):
                for t in range(0, LANES, 2):
                    at = i * a_stride + block + (2 * t + h if paired else LANES * h + t)
                    x, y = a[at], a[at + (2 if paired else 1)]
                    to = i * k + block + LANES * h + t // 2
                    if fused:
                        out[to], out[to + LANES // 2] = x, y - (x << 32)
                    else:
                        out[to] = (x & 0xFFFFFFFF) | (y << 32)
                        out[to + LANES // 2] = ((x >> 32) & 0xFFFFFFFF) | ((y >> 32) << 32)
                    total += x + y
        sums[i] = total * _ADDED_WORD


@compiled
def _strips(choice, a, n, k, w, step, f, totals, sums, c, c_stride, low, high, flagged):
    for strip in range(low, high):
        row, flags, i = STRIP * strip, np.int64(0), 0
        at, blocks = row * step, k // BLOCK
        while i < n:
            if n - i >= 8 and FUSED:
                flags |= _tile_8(choice, blocks, a, i * k, k, w, at, step, f, totals, STRIP * i)
                i += 8
            elif n - i >= 4:
                flags |= _tile_4(choice, blocks, a, i * k, k, w, at, step, f, totals, STRIP * i)
                i += 4
            elif n - i >= 2:
                flags |= _tile_2(choice, blocks, a, i * k, k, w, at, step, f, totals, STRIP * i)
                i += 2
            else:
                flags |= _tile_1(choice, blocks, a, i * k, k, w, at, step, f, totals, STRIP * i)
                i += 1
        if flags != 0:
            flagged[strip] = 1
            continue
        for i in range(n):
            for r in range(STRIP):
                c[i * c_stride + row + r] += totals[STRIP * i + r] - sums[i]


def _tile(n: int) -> Any:
    """A numba intrinsic: totals[STRIP j + r] = sum over `count` blocks of a[j, k] (w[r, k] + _ADDED_WORD), for n rows
    of a; not zero if a number was too large. `choice` says how to multiply, and the kind of the numbers."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        choice, count, _, a_at, a_step, _, w_at, w_step, _, _, c_at = values
        data = {i: context.make_array(signature.args[i])(context, builder, values[i]).data for i in (2, 5, 8, 9)}
        a, w, c = (builder.gep(data[i], [at]) for i, at in ((2, a_at), (5, w_at), (9, c_at)))
        flags = cgutils.alloca_once_value(builder, _I64(0))

        def emit(mode: int) -> None:
            fused, kind = divmod(mode, 3)
            high = 1 if not fused else STRIP if n <= 2 else STRIP // 2  # sums that stay in registers
            for first in range(0, STRIP, high):
                sums = _Sums(Tile(builder, {}, count, 0), bool(fused), kind, data[8])
                left = [builder.gep(a, [builder.mul(a_step, _I64(j))]) for j in range(n)]
                rows = [builder.gep(w, [builder.mul(w_step, _I64(first + r))]) for r in range(high)]
                too_large, totals = sums.over(left, rows, builder.mul(w_step, _I64(STRIP)))
                builder.store(builder.or_(builder.load(flags), too_large), flags)
                for i, total in enumerate(totals):  # by row of a, then of the matrix
                    builder.store(total, builder.gep(c, [_I64(i // high * STRIP + first + i % high)]))

        by_mode(builder, choice, range(1, 6 if FUSED else 3), emit)
        return builder.load(flags)

    @intrinsic
    def tile(typing: Any, choice, count, a, a_at, a_step, w, w_at, w_step, f, c, c_at):  # type: ignore
        arrays = (a, types.int64, types.int64, w, types.int64, types.int64, f, c, types.int64)
        return types.int64(types.int64, types.int64, *arrays), generate

    return tile


class _Sums:
    """Writes the loop of a tile: which way to multiply, the kind of numbers, and where the columns' factors lie."""

    def __init__(self, tile: Tile, fused: bool, kind: int, factors: Any) -> None:
        self.tile, self.builder, self.fused, self.kind, self.factors = tile, tile.builder, fused, kind, factors

    def over(self, left: Values, rows: Values, ahead: Any) -> tuple[Any, Values]:
        """Whether a number is too large, and the totals of each row of a with each of the matrix."""
        chains = 2 if self.fused and len(left) * len(rows) < 8 else 1  # an instruction that takes four steps
        start = [_zeros(_WORDS)] * chains if self.fused else [_zeros(_WORDS), _zeros(_PARTS)]
        each = len(start)

        def block(i: Any, carried: Values) -> Values:
            flags, *sums = carried
            self._prefetch(rows, i, ahead)
            for half in (0, 1):
                factor = self._load(self.factors, self._columns(i, half), _FLOATS)
                words: Values = []
                for row in rows:
                    sum_ = self.builder.fadd(
                        self.builder.fmul(self._numbers(row, i, half), factor), _all(_FLOATS, _ADDED)
                    )
                    bits = self.builder.bitcast(sum_, _PARTS)
                    flags = self.builder.or_(flags, self.builder.xor(bits, _all(_PARTS, _FIRST_WORD)))
                    words.append(self.builder.bitcast(bits, _WORDS))
                for j, a in enumerate(left):
                    first, second = (self._load(a, self._columns(i, half, part), _WORDS) for part in (0, 1))
                    for r, word in enumerate(words):
                        at = (j * len(rows) + r) * each
                        sums[at : at + each] = self._added(sums[at : at + each], first, second, word)
            return [flags, *sums]

        carried = [_zeros(_PARTS), *(start * (len(left) * len(rows)))]
        flags, *sums = self.tile.loop(self.tile.count, 1, carried, block)
        flag = self.builder.and_(self._reduced("or", flags), _I32(_BEYOND))
        totals = [self._total(sums[at : at + each]) for at in range(0, len(sums), each)]
        return self.builder.zext(flag, _I64), totals

    def _added(self, sums: Values, first: Any, second: Any, word: Any) -> Values:
        """The sums, and the products of two words of a with the numbers that share this one."""
        builder, upper = self.builder, self.builder.lshr(word, _all(_WORDS, 32))
        if self.fused:
            kind = ir.FunctionType(_WORDS, [_WORDS] * 3)
            fused = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpmadd52l.uq.512")
            sums = [builder.call(fused, [sums[0], first, word]), *sums[1:]]
            return [*sums[:-1], builder.call(fused, [sums[-1], second, upper])]
        low = _all(_WORDS, 0xFFFFFFFF)
        x, y = builder.mul(builder.and_(first, low), builder.and_(word, low)), builder.lshr(first, _all(_WORDS, 32))
        total = builder.add(builder.add(sums[0], x), builder.mul(y, upper))
        high = builder.mul(builder.bitcast(second, _PARTS), builder.bitcast(word, _PARTS))
        return [total, builder.add(sums[1], high)]

    def _total(self, sums: Values) -> Any:
        if not self.fused:
            high = self.builder.zext(self._reduced("add", sums[1]), _I64)
            return self.builder.add(self._reduced("add", sums[0]), self.builder.shl(high, _I64(32)))
        return self._reduced("add", self.builder.add(*sums) if len(sums) == 2 else sums[0])

    def _numbers(self, row: Any, block: Any, half: int) -> Any:
        """LANES numbers of a row in float32, from its bytes."""
        builder = self.builder
        if self.kind == _F32:
            return self._load(row, builder.mul(self._columns(block, half), _I64(4)), _FLOATS, align=1)
        both = self._load(row, builder.mul(self._columns(block, 0), _I64(2)), _PARTS, align=1)
        if self.kind == _BF16:
            bits = builder.and_(both, _all(_PARTS, -0x10000)) if half else builder.shl(both, _all(_PARTS, 16))
            return builder.bitcast(bits, _FLOATS)
        if half:
            both = builder.lshr(both, _all(_PARTS, 16))
        size = builder.shl(builder.and_(both, _all(_PARTS, 0x7FFF)), _all(_PARTS, 13))
        sign = builder.shl(builder.and_(both, _all(_PARTS, 0x8000)), _all(_PARTS, 16))
        bits = builder.bitcast(builder.or_(size, sign), _FLOATS)
        return builder.fmul(bits, _all(_FLOATS, 2.0**112))  # between the exponents of a half and of a float

    def _columns(self, block: Any, half: int, part: int = 0) -> Any:
        """Where a half of a block begins, and a part of that."""
        return self.builder.add(self.builder.mul(block, _I64(BLOCK)), _I64(LANES * half + LANES // 2 * part))

    def _load(self, place: Any, offset: Any, kind: Any, align: int = 4) -> Any:
        at = self.builder.gep(place, [offset])
        return self.builder.load(self.builder.bitcast(at, kind.as_pointer()), align=align)

    def _prefetch(self, rows: Values, block: Any, ahead: Any) -> None:
        """What the next strip reads, into the second-level cache; a place behind the buffer does no harm."""
        size = BLOCK * (4 if self.kind == _F32 else 2)
        begins = self.builder.add(self.builder.mul(block, _I64(size)), ahead)
        for row in rows:
            for line in range(0, size, _LINE):
                self.tile.prefetch(self.builder.gep(row, [self.builder.add(begins, _I64(line))]))

    def _reduced(self, name: str, vector: Any) -> Any:
        """The sum of all lanes, or their `or`."""
        element, count = vector.type.element, vector.type.count
        called = f"llvm.vector.reduce.{name}.v{count}i{element.width}"
        kind = ir.FunctionType(element, [vector.type])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, called), [vector])


def _all(kind: Any, number: Any) -> Any:
    return ir.Constant(kind, [number] * kind.count)


def _zeros(kind: Any) -> Any:
    return _all(kind, 0)


_tile_1, _tile_2, _tile_4, _tile_8 = (_tile(n) for n in (1, 2, 4, 8))
