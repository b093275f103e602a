"""Eight words of so many bits as that many bytes, and back, in registers: of AVX-512 the permutes of bytes, and the
shifts that bring any eight bits of a word into a byte, put them together in some five instructions, where words one
after the other wait for each other. Rings of 8 to 56 bits; others, and processors without, take the ways of cpu_wire.
It must not know where the bytes go.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from puma.kernels.tiles import LANES, VECTOR, WIDE, Tile, has

LEAST, MOST = 8, 56  # bits
EIGHTS = int(has("avx512vbmi"))  # not a truth value, which takes numba longer to look at
_SIZE = 8 * LANES  # bytes of a register
_SPARE = LANES - 1  # of the bytes of a word's lane, the one that holds what ends in the byte before
_I1, _I8, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 32, 64))
_BYTES, _FLAGS = ir.VectorType(_I8, _SIZE), ir.VectorType(_I1, _SIZE)

Values = list[Any]


def _lay(bits: int) -> np.ndarray:
    """How words of so many bits are put together: rows of bytes.

    Which bits of its word each byte of a lane takes; which of these a byte of the result is; and which one is added to
    it, the first bits of the word that begins in it. Apart: from which bytes on a word lies; and how far into them.
    """
    take, first, second = np.full(_SIZE, MOST), np.zeros(_SIZE), np.full(_SIZE, _SPARE)  # of no bits above 56 is zero
    found = [0] * LANES
    for byte in range(bits):
        word, begin = divmod(8 * byte, bits)
        first[byte] = at = LANES * word + found[word]
        take[at], found[word] = begin, found[word] + 1
        if begin + 8 > bits and word + 1 < LANES:
            second[byte] = at = LANES * (word + 1) + _SPARE
            take[at] = 64 - (bits - begin)  # around its ends: zeros from above, then the lowest bits
    starts = bits * np.arange(LANES)
    bytes_of = np.minimum((starts // 8)[:, None] + np.arange(8), _SIZE - 1).ravel()
    shifts = (starts % 8).astype(np.int64).view(np.uint8)
    return np.stack([row.astype(np.uint8) for row in (take, first, second, bytes_of, shifts)])


_LAYS = np.zeros((MOST + 1, 5 * _SIZE), np.uint8)
for _bits in range(LEAST, MOST + 1):
    _LAYS[_bits] = _lay(_bits).ravel()
LAYS = _LAYS.reshape(-1).view(np.int64)  # in compiled code a constant
EACH = LAYS.size // (MOST + 1)  # words of the lay of a ring


class _Emitter(Tile):
    """The builder of the loops, and instructions of bytes."""

    def __init__(self, builder: Any, lay: Any) -> None:
        super().__init__(builder, {}, None, WIDE)
        self._lay = lay

    def row(self, at: int) -> Any:
        """A row of a lay."""
        return self.load(self.after(self._lay, at * LANES))

    def shifted(self, x: Any, places: Any) -> Any:
        """In each byte the eight bits of its word from a place on, around its ends."""
        return self._bytewise("pmultishift.qb", places, x)

    def permuted(self, x: Any, places: Any) -> Any:
        """The bytes of x at these places."""
        return self._bytewise("permvar.qi", x, places)

    def _bytewise(self, name: str, x: Any, y: Any) -> Any:
        kind, cast = ir.FunctionType(_BYTES, [_BYTES] * 2), self.builder.bitcast
        call = cgutils.get_or_insert_function(self.builder.module, kind, f"llvm.x86.avx512.{name}.512")
        return cast(self.builder.call(call, [cast(x, _BYTES), cast(y, _BYTES)]), VECTOR)

    def lowest(self, bits: Any) -> Any:
        """So many ones, from 1 to 63."""
        return self.builder.sub(self.builder.shl(_I64(1), bits), _I64(1))

    def write(self, value: Any, place: Any, flags: Any) -> None:
        """The bytes that are flagged, and nothing behind them."""
        kind = ir.FunctionType(ir.VoidType(), [_BYTES, _BYTES.as_pointer(), _I32, _FLAGS])
        cast = self.builder.bitcast
        call = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.masked.store.v64i8.p0")
        self.builder.call(call, [cast(value, _BYTES), cast(place, _BYTES.as_pointer()), _I32(1), flags])

    def read(self, place: Any, flags: Any) -> Any:
        """The bytes that are flagged, and zeros behind them; no other is touched."""
        kind = ir.FunctionType(_BYTES, [_BYTES.as_pointer(), _I32, _FLAGS, _BYTES])
        cast, zeros = self.builder.bitcast, ir.Constant(_BYTES, [0] * _SIZE)
        call = cgutils.get_or_insert_function(self.builder.module, kind, "llvm.masked.load.v64i8.p0")
        return cast(self.builder.call(call, [cast(place, _BYTES.as_pointer()), _I32(1), flags, zeros]), VECTOR)


def _loop(emit: Callable[..., Any], places: int) -> Any:
    """An intrinsic: `emit` for each group of eight words. It takes how many groups there are, the bits of a word, where
    their lay begins, so many addresses, and numbers; it has places that move by eight words or their bytes."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if EIGHTS:
            groups, bits, lay, *rest = values
            tile = _Emitter(builder, builder.inttoptr(lay, _I64.as_pointer()))
            emit(tile, groups, bits, *rest)
        return context.get_dummy_value()

    whole = types.int64
    if places == 2:

        @intrinsic
        def two(typing: Any, groups, bits, lay, a, b):  # type: ignore
            return types.void(*[whole] * 5), generate

        return two

    @intrinsic
    def six(typing: Any, groups, bits, lay, a, b, c, before, left, right):  # type: ignore
        return types.void(*[whole] * 9), generate

    return six


def _behind(builder: Any, address: Any, k: Any, each: Any) -> Any:
    """The place of group k, of so many bytes a group."""
    return builder.inttoptr(builder.add(address, builder.mul(k, each)), _I64.as_pointer())


def _packing(tile: _Emitter, groups: Any, bits: Any, to: Any, words: Callable[[Any], Any]) -> None:
    """Bytes of the words that there are for each group."""
    builder, mask = tile.builder, tile.everywhere(tile.lowest(bits))
    flags = builder.bitcast(tile.lowest(bits), _FLAGS)
    take, first, second = (tile.row(at) for at in range(3))

    def step(k: Any, _: Values) -> Values:
        parts = tile.shifted(builder.and_(words(k), mask), take)
        both = builder.or_(tile.permuted(parts, first), tile.permuted(parts, second))
        tile.write(both, _behind(builder, to, k, bits), flags)
        return []

    tile.loop(groups, 1, [], step)


def _pack(tile: _Emitter, groups: Any, bits: Any, source: Any, to: Any) -> None:
    _packing(tile, groups, bits, to, lambda k: tile.load(_behind(tile.builder, source, k, _I64(_SIZE))))


def _pack_less(
    tile: _Emitter, groups: Any, bits: Any, source: Any, less: Any, to: Any, before: Any, left: Any, right: Any
) -> None:
    builder, (before, left, right) = tile.builder, map(tile.everywhere, (before, left, right))

    def words(k: Any) -> Any:
        x, y = (tile.load(_behind(builder, address, k, _I64(_SIZE))) for address in (source, less))
        return builder.sub(builder.lshr(builder.shl(builder.add(x, before), left), right), y)

    _packing(tile, groups, bits, to, words)


def _unpack(tile: _Emitter, groups: Any, bits: Any, source: Any, to: Any) -> None:
    builder, mask = tile.builder, tile.everywhere(tile.lowest(bits))
    flags = builder.bitcast(tile.lowest(bits), _FLAGS)
    places, shifts = tile.row(3), tile.row(4)

    def step(k: Any, _: Values) -> Values:
        words = tile.permuted(tile.read(_behind(builder, source, k, bits), flags), places)
        tile.store(builder.and_(builder.lshr(words, shifts), mask), _behind(builder, to, k, _I64(_SIZE)))
        return []

    tile.loop(groups, 1, [], step)


pack_eights, unpack_eights, pack_eights_less = _loop(_pack, 2), _loop(_unpack, 2), _loop(_pack_less, 6)
