"""Lookups by permutes of registers: the sums over every subset of four neighbouring entries fill two registers of
AVX-512, and one instruction reads eight of them, one for each of eight digits, without touching memory.

Eight digits are turned at once, word by word, and written down twice, as they are and shifted by four: then a load
from the byte of a word that one wants brings the next two groups of four bits to the low end of all lanes, where alone
a permute looks. So that the sums are loaded once for `DIGITS` digits, that many go through a group one after the
other. It must not know what is looked up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from puma.kernels.digits.turning import shape
from puma.kernels.tiles import LANES, VECTOR, WIDE, ZERO, Tile, has
from puma.kernels.views import compiled

GROUP = 4  # entries per group: their sums are two registers
_BLOCKS = 8  # eights of digits that a group is looked up for at once: their sums fit the registers, for two tables
DIGITS = _BLOCKS * LANES
_TWICE = 2 * LANES  # words of a register and its shifted copy
PERMUTES = int(has("avx512f"))  # not a truth value, which takes numba longer to look at
_I1, _I8, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))


def _turn(per: int) -> Any:
    """An intrinsic: eight one-hots of `per` words, turned, each word of all of them followed by its shifted copy."""

    def emit(tile: Tile, e: Any, digit: Any, room: Any, full: Any, spread: Any) -> None:
        builder, public = tile.builder, tile.load(digit)
        words = _transposed(builder, [tile.load(tile.after(e, i * LANES)) for i in range(per)])
        if per == 1:
            words = [builder.mul(builder.and_(words[0], _all(builder, full)), _all(builder, spread))]
        for step in [1 << i for i in range(per.bit_length() - 1)]:  # by whole words
            flag = builder.icmp_unsigned("!=", builder.and_(public, _constant(64 * step)), ZERO)
            words = [builder.select(flag, words[(k + step) % per], words[k]) for k in range(per)]
        for k in range(per):
            _write(tile, words[k], words[(k + 1) % per], public, tile.after(room, k * _BLOCKS * _TWICE))

    @intrinsic
    def turn(typing: Any, e, e_at, digit, digit_at, room, room_at, full, spread):  # type: ignore
        arrays = (e, types.int64, digit, types.int64, room, types.int64)
        return types.void(*arrays, types.uint64, types.uint64), _generate(3, emit)

    return turn


def _turn_gathered() -> Any:
    """An intrinsic: the same for any number of words, a power of two, each fetched from where it lies. For few words
    that takes longer, on some processors much longer."""
    pointers, flags = ir.VectorType(_I64.as_pointer(), LANES), ir.VectorType(_I1, LANES)
    kind = ir.FunctionType(VECTOR, [pointers, _I32, flags, VECTOR])

    def emit(tile: Tile, e: Any, digit: Any, room: Any, per: Any) -> None:
        builder, public = tile.builder, tile.load(digit)
        gather = cgutils.get_or_insert_function(builder.module, kind, "llvm.masked.gather.v8i64.v8p0")
        rows = builder.mul(ir.Constant(VECTOR, [8 * lane for lane in range(LANES)]), _all(builder, per))
        rows = builder.add(rows, _all(builder, builder.ptrtoint(e, _I64)))
        first, last = builder.lshr(public, _constant(6)), _all(builder, builder.sub(per, _I64(1)))

        def word(k: Any) -> Any:
            place = builder.shl(builder.and_(builder.add(first, _all(builder, k)), last), _constant(3))
            there = builder.inttoptr(builder.add(rows, place), pointers)
            return builder.call(gather, [there, _I32(8), ir.Constant(flags, [1] * LANES), ZERO])

        def step(k: Any, carried: list[Any]) -> list[Any]:
            after = word(builder.add(k, _I64(1)))
            _write(tile, carried[0], after, public, tile.after(room, builder.mul(k, _I64(_BLOCKS * _TWICE))))
            return [after]

        tile.loop(per, 1, [word(_I64(0))], step)

    @intrinsic
    def turn(typing: Any, e, e_at, digit, digit_at, room, room_at, per):  # type: ignore
        arrays = (e, types.int64, digit, types.int64, room, types.int64)
        return types.void(*arrays, types.int64), _generate(3, emit)

    return turn


def _write(tile: Tile, word: Any, after: Any, public: Any, place: Any) -> None:
    """Words and those that come after them as words that begin at the bits that digits choose."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
    funnel = cgutils.get_or_insert_function(tile.builder.module, kind, "llvm.fshr.v8i64")
    turned = tile.builder.call(funnel, [after, word, public])
    tile.store(turned, place)
    tile.store(tile.builder.lshr(turned, _constant(GROUP)), tile.after(place, LANES))


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Of vectors that hold the words of eight digits in order all first words, all second ones, and so on."""
    if len(rows) == 1:
        return rows
    sides = []
    for first in (0, 1):  # every other word
        order = ir.Constant(ir.VectorType(_I32, LANES), list(range(first, 2 * LANES, 2)))
        halves = [builder.shuffle_vector(*pair, order) for pair in zip(rows[::2], rows[1::2])]
        sides.append(_transposed(builder, halves))
    return [word for pair in zip(*sides) for word in pair]


def _choose(tables: int) -> Any:
    """An intrinsic: for `DIGITS` digits whose turned words lie in a room, what they choose of `tables` tables."""
    kind = ir.FunctionType(VECTOR, [VECTOR] * 3)

    def emit(tile: Tile, sums: Any, room: Any, out: Any, words: Any, octets: Any, apart: Any) -> None:
        builder = tile.builder
        permute = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.avx512.vpermi2var.q.512")
        group = tables << GROUP  # words

        def step(k: Any, octet: Any, totals: list[Any]) -> list[Any]:
            here = builder.bitcast(tile.after(room, builder.mul(k, _I64(_BLOCKS * _TWICE))), _I8.as_pointer())
            here = builder.gep(here, [octet])
            there = tile.after(sums, builder.mul(builder.add(builder.mul(k, _I64(8)), octet), _I64(2 * group)))
            totals = list(totals)
            for copy in range(2):
                entries = [tile.load(tile.after(there, copy * group + i * LANES)) for i in range(2 * tables)]
                for block in range(_BLOCKS):
                    place = builder.gep(here, [_I64(8 * (block * _TWICE + copy * LANES))])
                    subset = builder.load(builder.bitcast(place, VECTOR.as_pointer()), align=1)
                    for t in range(tables):
                        found = builder.call(permute, [entries[2 * t], subset, entries[2 * t + 1]])
                        totals[t * _BLOCKS + block] = builder.add(totals[t * _BLOCKS + block], found)
            return totals

        def of_word(k: Any, totals: list[Any]) -> list[Any]:
            return tile.loop(octets, 1, totals, lambda octet, some: step(k, octet, some))

        for at, total in enumerate(tile.loop(words, 1, [ZERO] * (tables * _BLOCKS), of_word)):
            its = tile.after(out, builder.mul(apart, _I64(at // _BLOCKS)))
            tile.store(total, tile.after(its, at % _BLOCKS * LANES))

    @intrinsic
    def choose(typing: Any, sums, sums_at, room, room_at, out, out_at, words, octets, apart):  # type: ignore
        arrays = (sums, types.int64, room, types.int64, out, types.int64)
        return types.void(*arrays, *[types.int64] * 3), _generate(3, emit)

    return choose


def _sum_subsets() -> Any:
    """An intrinsic: the sums over every subset of four words, the first one's bit the lowest."""

    def emit(tile: Tile, sums: Any, *words: Any) -> None:
        builder, total = tile.builder, ZERO
        for i, word in enumerate(words[:-1]):
            flags = ir.Constant(ir.VectorType(_I1, LANES), [lane >> i & 1 for lane in range(LANES)])
            total = builder.add(total, builder.select(flags, _all(builder, word), ZERO))
        tile.store(total, sums)
        tile.store(builder.add(total, _all(builder, words[-1])), tile.after(sums, LANES))

    @intrinsic
    def sum_subsets(typing: Any, sums, sums_at, first, second, third, fourth):  # type: ignore
        return types.void(sums, *[types.int64] * 5), _generate(1, emit)

    return sum_subsets


def _generate(count: int, emit: Callable[..., None]) -> Callable[..., Any]:
    """Code of an intrinsic of so many arrays, each with a place to begin at, and numbers; none for a CPU without
    permutes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if PERMUTES:
            arrays = [context.make_array(signature.args[2 * i])(context, builder, values[2 * i]) for i in range(count)]
            places = [builder.gep(array.data, [values[2 * i + 1]]) for i, array in enumerate(arrays)]
            emit(Tile(builder, {}, None, WIDE), *places, *values[2 * count :])
        return context.get_dummy_value()

    return generate


def _constant(word: int) -> Any:
    return ir.Constant(VECTOR, [word] * LANES)


def _all(builder: Any, scalar: Any) -> Any:
    """A word in every lane."""
    nothing = ir.Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(nothing, scalar, _I32(0))
    return builder.shuffle_vector(first, nothing, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES))


_turn_one, _turn_two, _turn_four, _turn_many = _turn(1), _turn(2), _turn(4), _turn_gathered()
_of_one, _of_two, _subsets = _choose(1), _choose(2), _sum_subsets()


@compiled
def _lines(count):
    """So many words from the beginning of a line of the cache on, so that a register lies in one."""
    words = np.empty(count + LANES - 1, np.int64)
    at = (-words.ctypes.data & 63) >> 3
    return words[at : at + count]


@compiled
def subsums(table, first, count, size):
    """For `count` tables from the `first` on the sums over every subset of each four entries, table by table in a
    group; position i of a turned one-hot stands for entry -i."""
    groups, nothing = -(-size // GROUP), np.int64(0)
    sums = _lines(max(2, groups) * count << GROUP)  # of whole octets
    for t in range(count):
        begin, end, at = (first + t) * size, (first + t + 1) * size, t << GROUP
        if size < GROUP:
            _subsets(sums, at, table[begin], table[begin + 1] if size == 2 else nothing, nothing, nothing)
        else:
            _subsets(sums, at, table[begin], table[end - 1], table[end - 2], table[end - 3])
        if groups == 1:
            _subsets(sums, at + (count << GROUP), nothing, nothing, nothing, nothing)
        for g in range(1, groups):
            i = end - GROUP * g
            _subsets(sums, at + (g * count << GROUP), table[i], table[i - 1], table[i - 2], table[i - 3])
    return sums


@compiled
def summed_up(count, e, digit, width, sums, tables, out, first, apart):
    """What digits choose of one table or two that have these `subsums`, from out[first] and out[first + apart] on."""
    per, full, spread = shape(width)
    each, octets = np.int64(per), min(8, max(1, (1 << width) >> 3))
    # behind the turned words there is what a load from the last one's last byte goes on to, then what a last few
    # digits find, and these themselves
    found = each * _BLOCKS * _TWICE + LANES
    few = found + 2 * DIGITS
    hot = few + LANES
    room = _lines(hot + LANES * each)
    for low in range(0, count, DIGITS):
        here = min(DIGITS, count - low)
        for block in range(here // LANES):
            at = low + block * LANES
            _turned(e, at * each, digit, at, room, block * _TWICE, each, full, spread)
        rest = here % LANES
        if rest:  # not to read behind the last
            at = low + here - rest
            for i in range(rest):
                room[few + i] = digit[at + i]
            for i in range(rest * each):
                room[hot + i] = e[at * each + i]
            _turned(room, hot, room, few, room, here // LANES * _TWICE, each, full, spread)
        to, to_at, to_apart = (out, first + low, apart) if here == DIGITS else (room, found, DIGITS)
        if tables == 2:
            _of_two(sums, 0, room, 0, to, to_at, each, octets, to_apart)
        else:
            _of_one(sums, 0, room, 0, to, to_at, each, octets, to_apart)
        if here < DIGITS:
            for t in range(tables):
                for i in range(here):
                    out[first + t * apart + low + i] = room[found + t * DIGITS + i]


@compiled
def _turned(e, e_at, digit, at, room, room_at, per, full, spread):
    """The words of eight digits into a room."""
    if per == 1:
        _turn_one(e, e_at, digit, at, room, room_at, full, spread)
    elif per == 2:
        _turn_two(e, e_at, digit, at, room, room_at, full, spread)
    elif per == 4:
        _turn_four(e, e_at, digit, at, room, room_at, full, spread)
    else:
        _turn_many(e, e_at, digit, at, room, room_at, per)
