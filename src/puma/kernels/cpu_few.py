"""Products of a few rows with a matrix that stays packed in six bytes a word (`pack_bytes`): each eight words are
spread in a register by shuffles of bytes and multiplied there, so that all that counts is reading memory once.

Every further row of a reads the matrix again, from the cache; from `FEW` rows on it pays to write the words
down (cpu_packed.py). It must not know what the matrices are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

from puma.kernels.tiles import LANES, NARROWLY, VECTOR, ZERO, Tile, by_mode
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
_SIXTEEN = ir.VectorType(_I8, 16)
# of four words: what two loads of sixteen bytes, the second one from byte 8 on, have of them, each in its own half
_IN_HALVES = [
    16 * half + 4 * half + j * WIDTH + t if t < WIDTH else 32 for half in range(2) for j in range(2) for t in range(8)
]
# whether one instruction moves bytes anywhere within 64; numba may be told to compile for another CPU than this one
ANYWHERE = not getattr(config, "CPU_NAME", None) and bool(binding.get_host_cpu_features().get("avx512vbmi", False))


def eight_words(builder: Any, place: Any, ahead: Any, anywhere: bool = ANYWHERE) -> Any:
    """Eight words of six bytes in lanes; prefetches what lies `ahead` bytes on, a number or a value of the code; reads
    nothing behind them."""
    kind = ir.FunctionType(ir.VoidType(), [_I8.as_pointer(), _I32, _I32, _I32])
    prefetch = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    # into the second-level cache, for reading; a place behind the buffer does no harm
    there = builder.gep(place, [_I64(ahead) if isinstance(ahead, int) else ahead])
    builder.call(prefetch, [there, _I32(0), _I32(2), _I32(1)])
    return _by_one_shuffle(builder, place) if anywhere else _by_halves(builder, place)


def _by_halves(builder: Any, place: Any) -> Any:
    """Where a shuffle stays within sixteen bytes (AVX2, NEON): two words to each."""
    fours = []
    for first in (0, 4 * WIDTH):
        low, high = (
            builder.load(builder.bitcast(builder.gep(place, [_I64(first + at)]), _SIXTEEN.as_pointer()), align=1)
            for at in (0, 8)
        )
        both = builder.shuffle_vector(low, high, ir.Constant(ir.VectorType(_I32, 32), list(range(32))))
        zeros = ir.Constant(both.type, [0] * 32)
        fours.append(builder.shuffle_vector(both, zeros, ir.Constant(ir.VectorType(_I32, 32), _IN_HALVES)))
    whole = builder.shuffle_vector(*fours, ir.Constant(ir.VectorType(_I32, 64), list(range(64))))
    return builder.bitcast(whole, VECTOR)


def _by_one_shuffle(builder: Any, place: Any) -> Any:
    """Where a shuffle takes bytes from anywhere (AVX-512 VBMI); the load is masked."""
    kind = ir.FunctionType(_QUADS, [_QUADS.as_pointer(), _I32, _FLAGS.type, _QUADS])
    masked = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16i32.p0")
    nothing = ir.Constant(_QUADS, [0] * 16)
    raw = builder.call(masked, [builder.bitcast(place, _QUADS.as_pointer()), _I32(1), _FLAGS, nothing])
    order, zeros = ir.Constant(ir.VectorType(_I32, 64), _PLACES), ir.Constant(_OCTETS, [0] * 64)
    return builder.bitcast(builder.shuffle_vector(builder.bitcast(raw, _OCTETS), zeros, order), VECTOR)


def _intrinsic(emit: Callable[[Tile, Any, Any, Any], None]) -> Any:
    """A numba intrinsic over a (int64), w (bytes) and c (int64), each with a place to begin at.

    `emit` writes it for a CPU with and without a fused multiply-add; `mode` picks when it runs.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        a, w, c = (
            builder.gep(context.make_array(signature.args[i])(context, builder, values[i]).data, [values[i + 1]])
            for i in (2, 4, 6)
        )
        by_mode(builder, values[0], NARROWLY, lambda mode: emit(Tile(builder, {}, values[1], mode), a, w, c))
        return context.get_dummy_value()

    @intrinsic
    def work(typing: Any, mode, count, a, a_at, w, w_at, c, c_at):  # type: ignore
        arrays = (a, types.int64, w, types.int64, c, types.int64)
        return types.void(types.int64, types.int64, *arrays), generate

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
def few_linear(mode, a, a_stride, n, w, c, c_stride, first, k, low, high):
    """c[:, first+low:first+high] += a @ w^T for the rows low .. high of k words, k a multiple of eight."""
    for row in range(low, high):
        for i in range(n):
            _dots(mode, k, a, i * a_stride, w, row * k * WIDTH, c, i * c_stride + first + row)


@compiled
def few_matmul(mode, a, a_stride, n, w, c, c_stride, first, rows, columns, low, high):
    """c[:, low:high] += a[:, first:first+rows] @ w for `rows` rows of so many columns; low and high in eights."""
    for row in range(rows):
        for i in range(n):
            at = (row * columns + low) * WIDTH
            _axpys(mode, high - low, a, i * a_stride + first + row, w, at, c, i * c_stride + low)
