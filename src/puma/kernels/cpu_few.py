"""Products of a few rows with a matrix that stays packed in six bytes a word (`pack_bytes`): each eight words are
spread in a register by one shuffle of bytes and multiplied there, so that all that counts is reading memory once.

Every further row of a reads the matrix again, from the cache; from `FEW` rows on it pays to write the words
down (cpu_packed.py). It must not know what the matrices are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from puma.kernels.tiles import FUSED, LANES, VECTOR, ZERO, Tile
from puma.kernels.views import compiled

WIDTH = 6  # bytes of a word for which there is a shuffle
FEW = 4
_SUMS = 4  # at a time, as many as a multiplier has steps
_AHEAD = 8192  # bytes: processors do not foresee that a row goes on behind a page's end
_I1, _I8, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
_OCTETS, _QUADS = ir.VectorType(_I8, 64), ir.VectorType(_I32, 16)
_LIVE = 2 * WIDTH  # groups of four bytes that hold eight words
_FLAGS = ir.Constant(ir.VectorType(_I1, 16), [int(i < _LIVE) for i in range(16)])
_PLACES = [j * WIDTH + t if t < WIDTH else 64 for j in range(LANES) for t in range(8)]


def eight_words(builder: Any, place: Any, ahead: int) -> Any:
    """Eight words of six bytes in lanes; prefetches what lies `ahead` bytes on, reads nothing behind them."""
    kind = ir.FunctionType(_QUADS, [_QUADS.as_pointer(), _I32, _FLAGS.type, _QUADS])
    masked = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16i32.p0")
    kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    # into the second-level cache, for reading; a place behind the buffer does no harm
    builder.call(prefetch, [builder.gep(place, [_I64(ahead)]), _I32(0), _I32(2), _I32(1)])
    nothing = ir.Constant(_QUADS, [0] * 16)
    raw = builder.call(masked, [builder.bitcast(place, _QUADS.as_pointer()), _I32(1), _FLAGS, nothing])
    order, zeros = ir.Constant(ir.VectorType(_I32, 64), _PLACES), ir.Constant(_OCTETS, [0] * 64)
    return builder.bitcast(builder.shuffle_vector(builder.bitcast(raw, _OCTETS), zeros, order), VECTOR)


def _intrinsic(emit: Callable[[Tile, Any, Any, Any], None]) -> Any:
    """A numba intrinsic over a (int64), w (bytes) and c (int64), each with a place to begin at.

    `emit` writes it for a CPU with and without a fused multiply-add; `narrow` picks when it runs.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        a, w, c = (
            builder.gep(context.make_array(signature.args[i])(context, builder, values[i]).data, [values[i + 1]])
            for i in (2, 4, 6)
        )
        if not FUSED:
            emit(Tile(builder, {}, values[1], fused=False), a, w, c)
            return context.get_dummy_value()
        with builder.if_else(values[0]) as (narrow, wide):
            with narrow:
                emit(Tile(builder, {}, values[1], fused=True), a, w, c)
            with wide:
                emit(Tile(builder, {}, values[1], fused=False), a, w, c)
        return context.get_dummy_value()

    @intrinsic
    def work(typing: Any, narrow, count, a, a_at, w, w_at, c, c_at):  # type: ignore
        arrays = (a, types.int64, w, types.int64, c, types.int64)
        return types.void(types.boolean, types.int64, *arrays), generate

    return work


def _dot(tile: Tile, a: Any, w: Any, c: Any) -> None:
    """c += sum_k a[k] w[k] over `count` words, a multiple of eight."""

    def step(k: Any, sums: list[Any]) -> list[Any]:
        results = []
        for i, total in enumerate(sums):
            at = tile.builder.add(k, _I64(i * LANES))
            lanes = eight_words(tile.builder, tile.after(w, tile.builder.mul(at, _I64(WIDTH))), _AHEAD)
            results.append(tile.multiply_add(total, tile.load(tile.after(a, at)), lanes))
        return results

    whole = tile.builder.and_(tile.count, _I64(-_SUMS * LANES))
    sums = tile.loop(whole, _SUMS * LANES, [ZERO] * _SUMS, step)
    rest = tile.builder.sub(tile.count, whole)
    (last,) = tile.loop(rest, LANES, sums[:1], lambda k, some: step(tile.builder.add(whole, k), some))
    for other in sums[1:]:
        last = tile.builder.add(last, other)
    tile.builder.store(tile.builder.add(tile.builder.load(c), tile.totals([last])), c)


def _axpy(tile: Tile, a: Any, w: Any, c: Any) -> None:
    """c[j] += a[0] w[j] over `count` words, a multiple of eight."""
    factor = tile.spread(a)

    def step(j: Any, _: list[Any]) -> list[Any]:
        lanes = eight_words(tile.builder, tile.after(w, tile.builder.mul(j, _I64(WIDTH))), _AHEAD)
        place = tile.after(c, j)
        tile.store(tile.multiply_add(tile.load(place), factor, lanes), place)
        return []

    tile.loop(tile.count, LANES, [], step)


_dots, _axpys = _intrinsic(_dot), _intrinsic(_axpy)


@compiled
def few_linear(narrow, a, a_stride, n, w, c, c_stride, first, k, rows):
    """c[:, first:first+rows] += a @ w^T for `rows` rows of k words, k a multiple of eight."""
    for row in range(rows):
        for i in range(n):
            _dots(narrow, k, a, i * a_stride, w, row * k * WIDTH, c, i * c_stride + first + row)


@compiled
def few_matmul(narrow, a, a_stride, n, w, c, c_stride, first, rows, columns):
    """c += a[:, first:first+rows] @ w for `rows` rows of so many columns, a multiple of eight."""
    for row in range(rows):
        for i in range(n):
            _axpys(narrow, columns, a, i * a_stride + first + row, w, row * columns * WIDTH, c, i * c_stride)
