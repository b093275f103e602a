"""Products of a few rows with a matrix that stays packed in six or five bytes a word (`pack_bytes`): each eight words
are spread in a register by shuffles of bytes and multiplied there, so that all that counts is reading memory once.

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

from puma.kernels.tiles import LANES, NARROWLY, QUARTERED, VECTOR, WIDE, ZERO, Tile, by_mode, has
from puma.kernels.views import compiled

WIDTH, SMALL = 6, 5  # bytes of a word for which there is a shuffle: of weights, and of gates
SHUFFLED = (WIDTH, SMALL)
FEW = 4
_SUMS = 4  # at a time, as many as a multiplier has steps
_AHEAD = 8192  # bytes: processors do not foresee that a row goes on behind a page's end
_I1, _I8, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
_OCTETS, _QUADS, _FLAGS = ir.VectorType(_I8, 64), ir.VectorType(_I32, 16), ir.VectorType(_I1, 16)
_NOTHING = 63  # a byte behind eight words, which is zero in a register
_SIXTEEN = ir.VectorType(_I8, 16)
ANYWHERE = has("avx512vbmi")  # whether one instruction moves bytes anywhere within 64


def eight_words(builder: Any, place: Any, ahead: Any, width: Any, anywhere: bool = ANYWHERE) -> Any:
    """Eight words of so many bytes, a value of the code and one of SHUFFLED, in lanes; prefetches what lies `ahead`
    bytes on, a number or a value of the code; reads nothing behind them."""
    there = builder.gep(place, [_I64(ahead) if isinstance(ahead, int) else ahead])
    Tile(builder, {}, None, WIDE).prefetch(there)
    return (_by_one_shuffle if anywhere else _by_halves)(builder, place, width)


def _by_halves(builder: Any, place: Any, width: Any) -> Any:
    """Where a shuffle stays within sixteen bytes (AVX2, NEON): two words to each."""
    small, fours = builder.icmp_signed("==", width, _I64(SMALL)), []
    four = builder.mul(width, _I64(4))
    for first in (_I64(0), four):
        low = builder.gep(place, [first])
        high = builder.gep(low, [builder.sub(four, _I64(16))])
        halves = (builder.load(builder.bitcast(at, _SIXTEEN.as_pointer()), align=1) for at in (low, high))
        both = builder.shuffle_vector(*halves, ir.Constant(ir.VectorType(_I32, 32), list(range(32))))
        fours.append(_within_halves(builder, both, small))
    whole = builder.shuffle_vector(*fours, ir.Constant(ir.VectorType(_I32, 64), list(range(64))))
    return builder.bitcast(whole, VECTOR)


def _within_halves(builder: Any, both: Any, small: Any) -> Any:
    """Four words in lanes, from two halves."""
    if QUARTERED:  # AVX2, whose shuffle is told where bytes lie as it runs, in a half
        places = (ir.Constant(both.type, [at & 15 if at < 32 else 128 for at in _in_halves(w)]) for w in (SMALL, WIDTH))
        shuffle = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(both.type, [both.type] * 2), "llvm.x86.avx2.pshuf.b"
        )
        return builder.call(shuffle, [both, builder.select(small, *places)])
    zeros = ir.Constant(both.type, [0] * 32)
    orders = (ir.Constant(ir.VectorType(_I32, 32), _in_halves(w)) for w in (SMALL, WIDTH))
    return builder.select(small, *(builder.shuffle_vector(both, zeros, order) for order in orders))


def _in_halves(width: int) -> list[int]:
    """Of four words: what the first and the last sixteen bytes have of them, each in its own half; 32 is nothing."""
    starts = [16 * half + (16 - 2 * width) * half + j * width for half in range(2) for j in range(2)]
    return [at + t if t < width else 32 for at in starts for t in range(8)]


def _by_one_shuffle(builder: Any, place: Any, width: Any) -> Any:
    """Where a shuffle takes bytes from anywhere (AVX-512 VBMI); the load is masked."""
    small = builder.icmp_signed("==", width, _I64(SMALL))
    flags, order = (builder.select(small, of(SMALL), of(WIDTH)) for of in (_live, _places))
    kind = ir.FunctionType(_QUADS, [_QUADS.as_pointer(), _I32, _FLAGS, _QUADS])
    masked = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.load.v16i32.p0")
    nothing = ir.Constant(_QUADS, [0] * 16)
    raw = builder.call(masked, [builder.bitcast(place, _QUADS.as_pointer()), _I32(1), flags, nothing])
    kind = ir.FunctionType(_OCTETS, [_OCTETS] * 2)
    shuffle = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.permvar.qi.512")
    return builder.bitcast(builder.call(shuffle, [builder.bitcast(raw, _OCTETS), order]), VECTOR)


def _live(width: int) -> Any:
    """Which groups of four bytes hold eight words."""
    return ir.Constant(_FLAGS, [int(i < 2 * width) for i in range(16)])


def _places(width: int) -> Any:
    """Where the bytes of eight lanes lie in eight words."""
    return ir.Constant(_OCTETS, [j * width + t if t < width else _NOTHING for j in range(LANES) for t in range(8)])


def _intrinsic(emit: Callable[[Tile, Any, Any, Any, Any], None]) -> Any:
    """A numba intrinsic over a (int64), w (bytes) and c (int64), each with a place to begin at.

    `emit` writes it for a CPU with and without a fused multiply-add; `mode` picks when it runs.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        a, w, c = (
            builder.gep(context.make_array(signature.args[i])(context, builder, values[i]).data, [values[i + 1]])
            for i in (2, 4, 6)
        )
        by_mode(builder, values[0], NARROWLY, lambda mode: emit(Tile(builder, {}, values[1], mode), a, w, c, values[8]))
        return context.get_dummy_value()

    @intrinsic
    def work(typing: Any, mode, count, a, a_at, w, w_at, c, c_at, width):  # type: ignore
        arrays = (a, types.int64, w, types.int64, c, types.int64, types.int64)
        return types.void(types.int64, types.int64, *arrays), generate

    return work


def _dot(tile: Tile, a: Any, w: Any, c: Any, width: Any) -> None:
    """c += sum_k a[k] w[k] over `count` words, a multiple of eight."""

    def step(k: Any, sums: list[Any]) -> list[Any]:
        results = []
        for i, total in enumerate(sums):
            at = tile.builder.add(k, _I64(i * LANES))
            lanes = eight_words(tile.builder, tile.after(w, tile.builder.mul(at, width)), _AHEAD, width)
            results.append(tile.multiply_add(total, tile.load(tile.after(a, at)), lanes))
        return results

    whole = tile.builder.and_(tile.count, _I64(-_SUMS * LANES))
    sums = tile.loop(whole, _SUMS * LANES, [ZERO] * _SUMS, step)
    rest = tile.builder.sub(tile.count, whole)
    (last,) = tile.loop(rest, LANES, sums[:1], lambda k, some: step(tile.builder.add(whole, k), some))
    for other in sums[1:]:
        last = tile.builder.add(last, other)
    tile.builder.store(tile.builder.add(tile.builder.load(c), tile.totals([last])), c)


def _axpy(tile: Tile, a: Any, w: Any, c: Any, width: Any) -> None:
    """c[j] += a[0] w[j] over `count` words, a multiple of eight."""
    factor = tile.spread(a)

    def step(j: Any, _: list[Any]) -> list[Any]:
        lanes = eight_words(tile.builder, tile.after(w, tile.builder.mul(j, width)), _AHEAD, width)
        place = tile.after(c, j)
        tile.store(tile.multiply_add(tile.load(place), factor, lanes), place)
        return []

    tile.loop(tile.count, LANES, [], step)


_dots, _axpys = _intrinsic(_dot), _intrinsic(_axpy)


@compiled
def few_linear(mode, a, a_stride, n, w, width, c, c_stride, first, k, low, high):
    """c[:, first+low:first+high] += a @ w^T for the rows low .. high of k words, k a multiple of eight."""
    for row in range(low, high):
        for i in range(n):
            _dots(mode, k, a, i * a_stride, w, row * k * width, c, i * c_stride + first + row, width)


@compiled
def few_matmul(mode, a, a_stride, n, w, width, c, c_stride, first, rows, columns, low, high):
    """c[:, low:high] += a[:, first:first+rows] @ w for `rows` rows of so many columns; low and high in eights."""
    for row in range(rows):
        for i in range(n):
            at = (row * columns + low) * width
            _axpys(mode, high - low, a, i * a_stride + first + row, w, at, c, i * c_stride + low, width)
