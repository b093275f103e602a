"""Products of bytes by AMX, the tiles of Intel's processors: one instruction multiplies 16 rows of 64 bytes by 16
columns of 64 bytes and adds the products up in 32 bits. Here are its tiles as numba intrinsics over addresses, and what
brings words into tiles and sums of tiles back into words. It must not know what the bytes are.

A word is `octets` unsigned bytes, and a number that meets it up to DIGITS signed ones: of the products of both, those
that a ring of 8 `octets` bits keeps are added up by their place, a tile of sums for each. A process has to ask Linux
for the tiles, once, which from then on wants 11 kB and more for the stack of its signals (sigaltstack(2)); each call
sets them up, and gives them back.
Source: Intel 64 and IA-32 Architectures Software Developer's Manual, volume 1, chapter 18.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from puma.kernels.tiles import LANES, VECTOR, WIDE, Tile, has

SIDE, DEPTH = 16, 64  # rows of a tile, and the bytes of each: columns of sums of 32 bits, or what these are sums over
TILE = SIDE * DEPTH  # bytes
DIGITS = 3  # of numbers, at most
OCTETS = (5, 6)  # of words: with two tiles of factors, sums for six places are all that eight tiles hold
_COUNTS = (2, DIGITS)  # of digits
AMX = has("amx-tile", "amx-int8", "avx512vbmi")
_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA = 158, 0x1023, 18  # of Linux on x86-64: arch_prctl(2)
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_POINTER = _I8.as_pointer()
_HALF = ir.VectorType(_I32, LANES)
_LINE = ir.VectorType(_I32, SIDE)
_BYTES = ir.VectorType(_I8, DEPTH)

Values = list[Any]


@cache
def granted() -> bool:
    """Whether this process may use tiles: asks Linux for them."""
    if not AMX:
        return False
    try:
        return ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST_PERMISSION, _TILE_DATA) == 0
    except (AttributeError, OSError):
        return False


def _settings() -> np.ndarray:
    """Of palette 1: eight tiles of all rows and bytes."""
    settings = np.zeros(64, np.uint8)
    settings[0] = 1
    settings[16:32].view(np.uint16)[:] = DEPTH
    settings[48:56] = SIDE
    return settings


SETTINGS = _settings()


class Emitter(Tile):
    """The builder of a tile's code, and calls of instructions by name."""

    def __init__(self, builder: Any) -> None:
        super().__init__(builder, {}, None, WIDE)

    def call(self, name: str, *values: Any) -> None:
        """An instruction that gives nothing."""
        kind = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.x86.{name}"), values)

    def found(self, name: str, kind: Any, *values: Any) -> Any:
        """What an instruction gives."""
        kind = ir.FunctionType(kind, [value.type for value in values])
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, kind, name), values)

    def behind(self, pointer: Any, offset: Any) -> Any:
        """The place so many bytes behind one."""
        return self.builder.gep(pointer, [_I64(offset) if isinstance(offset, int) else offset])

    def times(self, count: Any, each: int) -> Any:
        """So many times a number of bytes."""
        return self.builder.mul(count, _I64(each))


def _intrinsic(places: int, numbers: int, emit: Callable[..., None]) -> Any:
    """An intrinsic of so many addresses, and whole numbers behind them; without AMX it does nothing."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if AMX:
            addresses = [builder.inttoptr(value, _POINTER) for value in values[:places]]
            emit(Emitter(builder), *addresses, *values[places:])
        return context.get_dummy_value()

    kind = types.void(*[types.int64] * (places + numbers))

    def none(typing: Any):  # type: ignore
        return kind, generate

    def one(typing: Any, a):  # type: ignore
        return kind, generate

    def three(typing: Any, a, b, c):  # type: ignore
        return kind, generate

    def four(typing: Any, a, b, c, d):  # type: ignore
        return kind, generate

    return intrinsic({0: none, 1: one, 3: three, 4: four}[places + numbers])


def _product(octets: int, digits: int) -> Any:
    """An intrinsic: the sums of a tile's products, one tile for each place, to out.

    Of each block of DEPTH there lie DIGITS tiles of digits, their rows those of the result, and `octets` tiles of
    octets, whose rows hold four bytes of each column.
    """

    def emit(tile: Emitter, left: Any, right: Any, out: Any, blocks: Any) -> None:
        line, x, y = _I64(DEPTH), _I8(6), _I8(7)
        for place in range(octets):
            tile.call("tilezero", _I8(place))

        def step(k: Any, _: Values) -> Values:
            numbers, words = (
                tile.behind(left, tile.times(k, DIGITS * TILE)),
                tile.behind(right, tile.times(k, octets * TILE)),
            )
            for j in range(digits):
                tile.call("tileloadd64", x, tile.behind(numbers, j * TILE), line)
                for i in range(octets - j):
                    tile.call("tileloadd64", y, tile.behind(words, i * TILE), line)
                    tile.call("tdpbsud", _I8(i + j), x, y)
            return []

        tile.loop(blocks, 1, [], step)
        for place in range(octets):
            tile.call("tilestored64", _I8(place), tile.behind(out, place * TILE), line)

    return _intrinsic(3, 1, emit)


def _turned(tile: Emitter, rows: Values) -> Values:
    """Sixteen vectors of as many parts: their columns."""
    for distance in (1, 2, 4, 8):
        swapped = list(rows)
        for low in (i for i in range(SIDE) if not i & distance):
            x, y = rows[low], rows[low + distance]
            for at, more in ((low, 0), (low + distance, distance)):
                order = [lane + more if not lane & distance else lane - distance + SIDE + more for lane in range(SIDE)]
                swapped[at] = tile.builder.shuffle_vector(x, y, ir.Constant(_LINE, order))
        rows = swapped
    return rows


def _lay(octets: int) -> Any:
    """An intrinsic: eight words of each of SIDE rows, `stride` words apart, as two rows of each of so many tiles."""

    def emit(tile: Emitter, words: Any, out: Any, stride: Any) -> None:
        builder, rows = tile.builder, []
        order = ir.Constant(ir.VectorType(_I32, DEPTH), [8 * word + octet for octet in range(8) for word in range(8)])
        for r in range(SIDE):
            there = tile.behind(words, tile.times(builder.mul(stride, _I64(r)), 8))
            read = builder.bitcast(tile.load(there), _BYTES)
            rows.append(builder.bitcast(builder.shuffle_vector(read, read, order), _LINE))
        for at, line in enumerate(_turned(tile, rows)[: 2 * octets]):
            octet, half = divmod(at, 2)
            tile.store(line, tile.behind(out, octet * TILE + half * DEPTH))

    return _intrinsic(2, 1, emit)


def _add_up(octets: int) -> Any:
    """An intrinsic: sums of bytes by place, to which the words of `out` are added, turned: its rows, `stride` words
    apart, are the columns of sums."""

    def emit(tile: Emitter, sums: Any, out: Any, stride: Any) -> None:
        builder = tile.builder
        for first in (0, LANES):
            for column in (0, LANES):
                rows = []
                for r in range(first, first + LANES):
                    total = None
                    for place in range(octets):
                        there = tile.behind(sums, place * TILE + r * DEPTH + 4 * column)
                        part = builder.sext(tile.load(there, _HALF), VECTOR)
                        part = builder.shl(part, ir.Constant(VECTOR, [8 * place] * LANES))
                        total = part if total is None else builder.add(total, part)
                    rows.append(total)
                for n, total in enumerate(tile.turned(rows)):
                    there = tile.behind(out, tile.times(builder.mul(stride, _I64(column + n)), 8))
                    there = tile.behind(there, 8 * first)
                    tile.store(builder.add(tile.load(there), total), there)

    return _intrinsic(2, 1, emit)


configure = _intrinsic(1, 0, lambda tile, settings: tile.call("ldtilecfg", settings))
release = _intrinsic(0, 0, lambda tile: tile.call("tilerelease"))
product_5_2, product_5_3, product_6_2, product_6_3 = (_product(o, d) for o in OCTETS for d in _COUNTS)
lay_5, lay_6 = map(_lay, OCTETS)
add_up_5, add_up_6 = map(_add_up, OCTETS)
