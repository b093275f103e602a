"""Ring products with matrices that stay packed as bytes (`pack_bytes`): a few rows at a time are spread into words in
the first-level cache and multiplied there, so that memory is read once and never written. This must not know what the
matrices are.

Words of six bytes, which is what weights have, are spread eight at a time by shuffles of bytes, and nothing behind
them is read; those of five, too, which is what gates have. Other widths go word by word.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from torch import Tensor

from puma import pool
from puma.kernels.cpu_eight import EIGHT, SOME, eight_linear, scratch
from puma.kernels.cpu_few import FEW, SHUFFLED, SMALL, WIDTH, eight_words, few_linear, few_matmul
from puma.kernels.cpu_matmul import SHALLOW, TURNED, dots, spreads, streams
from puma.kernels.cpu_wire import read, write
from puma.kernels.tiles import CHOOSING, FUSED, LANES, NARROW, NARROW_BITS, WIDE, Tile
from puma.kernels.views import compiled, lying, octets, octets_at, span

_ROWS, _DEPTH = 8, 256  # words that are spread at a time: half of a 32 kB cache
_AHEAD = 2 * _DEPTH * WIDTH  # bytes: processors do not foresee that a row goes on where it was left
_TALL, _WIDE = 64, 768  # words that are spread in the second-level cache: 384 kB
_MANY = 32  # rows of a that leave no room beside them in a 32 kB cache
_LEAST = 1 << 18  # words that a thread spreads at least: some 50 us
_I32, _I64 = ir.IntType(32), ir.IntType(64)
_OCTETS = ir.VectorType(ir.IntType(8), 8 * LANES)
_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)


def linear_packed(
    a: Tensor, packed: Sequence[Tensor], signs: Sequence[int], bits: int, out: Tensor, first: int = 0
) -> Tensor:
    """out[:, first:first+rows] += a @ w^T for the rows of w = sum of signs[i] * words of packed[i]."""
    k = a.shape[-1]
    rows = _counted(packed, bits, k)
    if first + rows > out.shape[-1]:
        raise ValueError(f"{rows} rows do not fit into {tuple(out.shape)} from {first} on")
    return _run(_LINEAR, a, packed, signs, bits, out, (first, k), rows)


def matmul_packed(
    a: Tensor, packed: Sequence[Tensor], signs: Sequence[int], bits: int, out: Tensor, first: int = 0
) -> Tensor:
    """out += a[:, first:first+rows] @ w for the rows of w = sum of signs[i] * words of packed[i]."""
    rows, columns = _down(a, packed, bits, out, first)
    return _run(_MATMUL, a, packed, signs, bits, out, (first, rows, columns), columns)


def chosen_packed(
    a: Tensor, packed: Sequence[Tensor], signs: Sequence[int], bits: int, out: Tensor, first: int = 0
) -> Tensor:
    """The same for a of 0 and 1, which chooses rows: an `and` for each word, where that takes less than a product."""
    if (FUSED and bits <= NARROW_BITS) or a.shape[0] < FEW:
        return matmul_packed(a, packed, signs, bits, out, first)
    rows, columns = _down(a, packed, bits, out, first)
    return _run(_CHOSEN, -a[:, first : first + rows], packed, signs, bits, out, (0, rows, columns), columns)


def taken_off(packed: Tensor, masks: Tensor, bits: int) -> Tensor:
    """masks, whose words become those of packed less theirs, with all bits of their bytes; by the calling thread."""
    width = (bits + 7) // 8
    count, rest = divmod(masks.numel(), width)
    if rest or packed.numel() != masks.numel() or not masks.is_contiguous():
        raise ValueError(f"{packed.numel()} and {masks.numel()} bytes in order are not as many words of {width} bytes")
    packed, masks = lying(packed, torch.uint8), lying(masks, torch.uint8)
    if count:
        _take_off(count, packed.data_ptr(), masks.data_ptr(), width)
    return masks


def _down(a: Tensor, packed: Sequence[Tensor], bits: int, out: Tensor, first: int) -> tuple[int, int]:
    """How many rows and columns there are to go down."""
    columns = out.shape[-1]
    rows = _counted(packed, bits, columns)
    if first + rows > a.shape[-1]:
        raise ValueError(f"{rows} rows do not fit {tuple(a.shape)} from {first} on")
    return rows, columns


def _counted(packed: Sequence[Tensor], bits: int, words: int) -> int:
    """Rows of so many words."""
    sizes = [p.numel() for p in packed]
    if min(sizes) != max(sizes):
        raise ValueError(f"matrices of different sizes, {sizes} bytes, cannot be added")
    rows, rest = divmod(sizes[0], max(words, 1) * ((bits + 7) // 8))
    if rest:
        raise ValueError(f"{sizes[0]} bytes are not rows of {words} words of {(bits + 7) // 8} bytes")
    return rows


def _run(
    kind: _Kind,
    a: Tensor,
    packed: Sequence[Tensor],
    signs: Sequence[int],
    bits: int,
    out: Tensor,
    place: tuple[int, ...],
    size: int,
) -> Tensor:
    """`place` is what the loops are told before the part of `size`, rows or columns of w, that a thread takes."""
    fits = a.dim() == out.dim() == 2 and a.shape[0] == out.shape[0] and len(packed) == len(signs) in (1, 2)
    if not fits or not out.is_contiguous():
        raise ValueError(f"cannot multiply {tuple(a.shape)} into {tuple(out.shape)}")
    terms = [(octets(p), s) for p, s in zip(packed, signs) if s]
    if not terms or not min(a.shape[0], size, *place[1:]):
        return out
    a = a if a.stride(-1) == 1 else a.contiguous()
    mode = CHOOSING if kind is _CHOSEN else NARROW if bits <= NARROW_BITS else WIDE
    result, width = span(out), out.shape[1]
    # what vectors run along comes in eights
    each = (bits + 7) // 8
    shuffled = each in SHUFFLED and (place[1] if kind is _LINEAR else size) % LANES == 0
    left, stride = span(a), a.stride(0)
    (p, p_sign), (q, q_sign) = terms[0], terms[-1] if len(terms) > 1 else (terms[0][0], 0)
    if EIGHT and shuffled and kind is _LINEAR and a.shape[0] <= SOME:
        second = p_sign * q_sign

        def part(low: int, high: int) -> None:
            sums = scratch()
            eight_linear(left, stride, a.shape[0], p, p_sign, q, second, each, sums, result, width, *place, low, high)

    elif FUSED and shuffled and kind is _LINEAR and size % LANES == 0 and a.shape[0] >= _MANY:

        def part(low: int, high: int) -> None:
            words = np.empty(SHALLOW * TURNED, np.int64)
            told = (p, p_sign, q, q_sign, each, words)
            linear_turned(mode, left, stride, a.shape[0], *told, result, width, *place, low, high)

    elif FUSED and shuffled and kind is _MATMUL and a.shape[0] >= FEW:

        def part(low: int, high: int) -> None:
            words = np.empty(_TALL * _WIDE, np.int64)
            told = (p, p_sign, q, q_sign, each, words)
            matmul_banded(mode, left, stride, a.shape[0], *told, result, width, *place, low, high)

    elif a.shape[0] < FEW and shuffled:
        lefts = [a if sign == 1 else -a for _, sign in terms]
        products = [(span(left), left.stride(0), matrix) for left, (matrix, _) in zip(lefts, terms)]

        def part(low: int, high: int) -> None:
            for left, stride, matrix in products:
                kind.few(mode, left, stride, a.shape[0], matrix, each, result, width, *place, low, high)
    else:

        def part(low: int, high: int) -> None:
            spread = np.empty(_ROWS * _DEPTH, np.int64)
            told = (p, p_sign, q, q_sign, bits, spread)
            kind.many(mode, left, stride, a.shape[0], *told, result, width, *place, low, high)

    pool.split(part, size, -(-_LEAST // place[1]), TURNED)
    return out


def _spreading(add: bool) -> Any:
    """An intrinsic: words of so many bytes, times 1 (turn 0) or -1 (turn -1), into or onto int64; in eights."""
    lanes = ir.VectorType(_I64, LANES)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        buffer, at, turn, out, out_at, count, each = values
        source = builder.gep(context.make_array(signature.args[0])(context, builder, buffer).data, [at])
        target = builder.gep(context.make_array(signature.args[3])(context, builder, out).data, [out_at])
        nothing = ir.Constant(lanes, ir.Undefined)
        turns = builder.insert_element(nothing, turn, _I32(0))
        turns = builder.shuffle_vector(turns, nothing, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))
        with cgutils.for_range_slice(builder, _I64(0), count, _I64(LANES)) as (i, _):
            place = builder.gep(source, [builder.mul(i, each)])
            spread = eight_words(builder, place, _AHEAD, each)
            value = builder.sub(builder.xor(spread, turns), turns)
            to = builder.bitcast(builder.gep(target, [i]), lanes.as_pointer())
            if add:
                value = builder.add(value, builder.load(to, align=8))
            builder.store(value, to, align=8)
        return context.get_dummy_value()

    @intrinsic
    def spread(typing: Any, buffer, at, turn, out, out_at, count, each):  # type: ignore
        number = types.int64
        return types.void(buffer, number, number, out, number, number, number), generate

    return spread


_put, _add = _spreading(add=False), _spreading(add=True)


def _turning() -> Any:
    """An intrinsic: eight rows of words of `each` bytes, `step` bytes apart, become columns; `count` comes in eights.

    out[k, :8] = words of p[:, k] times 1 (turn 0) or -1 (turn -1), and those of q if `both`. What lies `ahead` bytes on
    is asked for.
    """

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        count, _, p_turn, _, q_turn, both, each, at, step, ahead, _, out_at, out_stride = values
        p, q, out = (context.make_array(signature.args[i])(context, builder, values[i]).data for i in (1, 3, 10))
        tile, target = Tile(builder, {}, count, WIDE), builder.gep(out, [out_at])

        def turn(terms: Sequence[tuple[Any, Any]]) -> None:
            signed = [(builder.gep(data, [at]), tile.everywhere(sign)) for data, sign in terms]

            def eight(k: Any, _: list[Any]) -> list[Any]:
                rows = list[Any]()
                for r in range(LANES):
                    begin = builder.add(builder.mul(k, each), builder.mul(step, _I64(r)))
                    found = [(eight_words(builder, builder.gep(p, [begin]), ahead, each), sign) for p, sign in signed]
                    words = [builder.sub(builder.xor(word, sign), sign) for word, sign in found]
                    rows.append(builder.add(*words) if len(words) == 2 else words[0])
                for j, column in enumerate(tile.turned(rows)):
                    tile.store(column, builder.gep(target, [builder.mul(builder.add(k, _I64(j)), out_stride)]))
                return []

            tile.loop(count, LANES, [], eight)

        with builder.if_else(builder.trunc(both, ir.IntType(1))) as (two, one):
            with two:
                turn([(p, p_turn), (q, q_turn)])
            with one:
                turn([(p, p_turn)])
        return context.get_dummy_value()

    @intrinsic
    def turn(typing: Any, count, p, p_turn, q, q_turn, both, each, at, step, ahead, out, out_at, out_stride):  # type: ignore
        whole = types.int64
        return types.void(whole, p, whole, q, *[whole] * 6, out, whole, whole), generate

    return turn


_turn = _turning()


def _lessening(width: int) -> Any:
    """An intrinsic: words of so many bytes become those of another place less they, in eights."""
    order = ir.Constant(ir.VectorType(_I32, width * LANES), [8 * j + t for j in range(LANES) for t in range(width)])

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        source, target = (context.make_array(signature.args[i])(context, builder, values[i]).data for i in (0, 1))
        with cgutils.for_range_slice(builder, _I64(0), values[2], _I64(LANES)) as (i, _):
            at = builder.mul(i, _I64(width))
            place = builder.gep(target, [at])
            held, mine = (eight_words(builder, x, _AHEAD, _I64(width)) for x in (builder.gep(source, [at]), place))
            raw = builder.bitcast(builder.sub(held, mine), _OCTETS)
            packed = builder.shuffle_vector(raw, ir.Constant(_OCTETS, ir.Undefined), order)
            builder.store(packed, builder.bitcast(place, packed.type.as_pointer()), align=1)
        return context.get_dummy_value()

    @intrinsic
    def less(typing: Any, held, mine, count):  # type: ignore
        return types.void(held, mine, types.int64), generate

    return less


_less, _less_small = map(_lessening, SHUFFLED)


@compiled
def _take_off(count, place, to, width):
    held, out = octets_at(place, count * width), octets_at(to, count * width)
    mask = _ONES >> np.uint64(64 - 8 * width)
    above = _ONES ^ mask
    start = count - count % 8 if width in SHUFFLED else 0
    if width == SMALL:
        _less_small(held, out, start)
    else:
        _less(held, out, start)
    # the last words byte by byte: a whole one would end behind the buffer
    safe = max(count - 7, start) if width < 8 else count
    following = read(out, start * width, mask) if safe > start else np.uint64(0)
    for i in range(start, safe):
        at, old = i * width, following
        # before the word in front of it is written: a read over what has just been written waits for it
        following = read(out, min(i + 1, safe - 1) * width, mask)
        write(out, at, ((read(held, at, mask) - old) & mask) | (old & above))
    for i in range(safe, count):
        value = np.uint64(0)
        for j in range(i * width, (i + 1) * width):
            value += (np.uint64(held[j]) - np.uint64(out[j])) << np.uint64(8 * (j - i * width))
        for j in range(width):
            out[i * width + j] = np.uint8((value >> np.uint64(8 * j)) & np.uint64(255))


@compiled
def _spread(buffer, at, sign, bits, out, out_at, count, add):
    """out = or += sign * words."""
    width, mask = (bits + 7) // 8, _ONES >> np.uint64(64 - bits)
    whole = count - count % 8 if width in SHUFFLED else 0
    if add:
        _add(buffer, at, (sign - 1) // 2, out, out_at, whole, width)
    else:
        _put(buffer, at, (sign - 1) // 2, out, out_at, whole, width)
    for i in range(whole, count):
        place, word = at + i * width, np.uint64(0)
        if place + 8 <= buffer.size:
            word = read(buffer, place, mask) & mask
        else:
            for j in range(width):
                word |= np.uint64(buffer[place + j]) << np.uint64(8 * j)
        value = sign * np.int64(word & mask)
        out[out_at + i] = out[out_at + i] + value if add else value


@compiled
def _block(p, p_sign, q, q_sign, bits, row, rows, columns, start, depth, scratch):
    """Words start .. start + depth of some rows, _DEPTH words apart."""
    for r in range(rows):
        at = ((row + r) * columns + start) * ((bits + 7) // 8)
        _spread(p, at, p_sign, bits, scratch, r * _DEPTH, depth, False)
        if q_sign != 0:
            _spread(q, at, q_sign, bits, scratch, r * _DEPTH, depth, True)


@compiled
def linear_turned(mode, a, a_stride, n, p, p_sign, q, q_sign, each, words, c, c_stride, first, k, low, high):
    # as much of a as the second-level cache holds is read again and again
    p_turn, q_turn, step = (p_sign - 1) // 2, (q_sign - 1) // 2, k * each
    for left in range(0, k, _DEPTH):
        row = low
        while row < high:
            some = TURNED if high - row >= TURNED else LANES
            for start in range(left, min(left + _DEPTH, k), SHALLOW):
                depth, both = min(SHALLOW, k - start), 1 if q_sign != 0 else 0
                for top in range(0, some, LANES):
                    at = (row + top) * step + start * each
                    _turn(depth, p, p_turn, q, q_turn, both, each, at, step, some * step, words, top, some)
                spreads(mode, a, start, a_stride, words, some, c, first + row, c_stride, n, depth, some)
            row += some


@compiled
def matmul_banded(mode, a, a_stride, n, p, p_sign, q, q_sign, each, room, c, c_stride, first, rows, columns, low, high):
    # long pieces of rows are read in their order; their words lie by so many columns as a tile takes
    for start in range(low, high, _WIDE):
        band = min(_WIDE, high - start)
        for row in range(0, rows, _TALL):
            tall = min(_TALL, rows - row)
            for r in range(tall):
                at = ((row + r) * columns + start) * each
                column = 0
                while column < band:
                    some = TURNED if band - column >= TURNED else LANES
                    to = column * _TALL + r * some
                    _spread(p, at + column * each, p_sign, 8 * each, room, to, some, False)
                    if q_sign != 0:
                        _spread(q, at + column * each, q_sign, 8 * each, room, to, some, True)
                    column += some
            column = 0
            while column < band:
                some = TURNED if band - column >= TURNED else LANES
                b = room[column * _TALL :]
                spreads(mode, a, first + row, a_stride, b, some, c, start + column, c_stride, n, tall, some)
                column += some


@compiled
def _linear(mode, a, a_stride, n, p, p_sign, q, q_sign, bits, scratch, c, c_stride, first, k, low, high):
    # with few rows of a, those of w are read from end to end; with many, as much of a as the cache holds is read once
    band = k if n < _MANY else _DEPTH
    for left in range(0, k, band):
        for row in range(low, high, _ROWS):
            some = min(_ROWS, high - row)
            for start in range(left, min(left + band, k), _DEPTH):
                depth = min(_DEPTH, k - start)
                _block(p, p_sign, q, q_sign, bits, row, some, k, start, depth, scratch)
                dots(mode, a, start, a_stride, scratch, 0, _DEPTH, c, first + row, c_stride, n, depth, some)


@compiled
def _matmul(mode, a, a_stride, n, p, p_sign, q, q_sign, bits, scratch, c, c_stride, first, rows, columns, low, high):
    # rows inside columns: the part of c that a band of columns adds to stays in the second-level cache
    for start in range(low, high, _DEPTH):
        depth = min(_DEPTH, high - start)
        for row in range(0, rows, _ROWS):
            some = min(_ROWS, rows - row)
            _block(p, p_sign, q, q_sign, bits, row, some, columns, start, depth, scratch)
            streams(mode, a, first + row, a_stride, scratch, 0, _DEPTH, c, start, c_stride, n, some, depth)


@dataclass(frozen=True, eq=False)
class _Kind:
    """A product's loops: for few rows of a, and for many."""

    few: Any
    many: Any


_LINEAR, _MATMUL = _Kind(few_linear, _linear), _Kind(few_matmul, _matmul)
_CHOSEN = _Kind(few_matmul, _matmul)
