"""Numbers of files, and words, cut into the digits that tiles of bytes multiply: sixteen at a time, as intrinsics. A
digit is a signed byte; DIGITS of them make a whole number of some 2^22 on either side of 0. It must not know what the
numbers are.

Each intrinsic tells which bits a number has above two digits: of any in 16 to 23 the third digit says something, and
with one above a number is none of so many digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from puma.kernels.files.amx import AMX, DEPTH, DIGITS, TILE, Emitter
from puma.kernels.files.sixteens import BYTES, FLOATS, PARTS, SIXTEEN, WORDS, all_of, load, product

_OFFSET = 0x80_80_80  # makes all digits of a number unsigned: a digit is a byte of the sum, with its top bit turned
_TOO_LARGE = 1 << 24
_BOUND = 2.0**22  # of numbers that round so:
_MAGIC = 1.5 * 2.0**23  # whoever adds it to a smaller number rounds that to nearest, ties to even
_MAGIC_BITS = 0x4B400000
_I8, _I32, _I64 = (ir.IntType(bits) for bits in (8, 32, 64))

Moved = Callable[[Any, Any, Any, Any], Any]


def _of_numbers(kind: str) -> Moved:
    """Rounded products of numbers with factors, moved by the offset."""

    def moved(builder: Any, source: Any, factors: Any, k: Any) -> Any:
        number = product(builder, kind, source, factors, k)
        small = builder.and_(
            builder.fcmp_ordered("<", number, all_of(FLOATS, _BOUND)),
            builder.fcmp_ordered(">", number, all_of(FLOATS, -_BOUND)),
        )
        rounded = builder.bitcast(builder.fadd(number, all_of(FLOATS, _MAGIC)), PARTS)
        whole = builder.add(rounded, all_of(PARTS, _OFFSET - _MAGIC_BITS))
        return builder.select(small, whole, all_of(PARTS, _TOO_LARGE))

    return moved


def _of_words(builder: Any, source: Any, _: Any, k: Any) -> Any:
    """Words, moved by the offset."""
    place = builder.gep(source, [builder.mul(k, _I64(8))])
    return builder.add(load(builder, place, WORDS), all_of(WORDS, _OFFSET))


def _cut(moved: Moved, lanes: Any) -> Any:
    """An intrinsic: `count` numbers, a multiple of sixteen, from a byte of the source on, as a row of each of DIGITS
    tiles of each block at an address."""

    def emit(tile: Emitter, source: Any, factors: Any, out: Any, count: Any) -> Any:
        builder = tile.builder

        def step(k: Any, seen: list[Any]) -> list[Any]:
            block = tile.times(builder.lshr(k, _I64(DEPTH.bit_length() - 1)), DIGITS * TILE)
            to = tile.behind(tile.behind(out, block), builder.and_(k, _I64(DEPTH - 1)))
            digits = builder.xor(moved(builder, source, factors, k), all_of(lanes, _OFFSET))
            for j in range(DIGITS):
                digit = builder.trunc(builder.lshr(digits, all_of(lanes, 8 * j)), BYTES)
                builder.store(digit, builder.bitcast(tile.behind(to, j * TILE), BYTES.as_pointer()), align=1)
            return [builder.or_(seen[0], digits)]

        (seen,) = tile.loop(count, SIXTEEN, [all_of(lanes, 0)], step)
        name = f"llvm.vector.reduce.or.v{SIXTEEN}i{lanes.element.width}"
        found = tile.found(name, lanes.element, seen)
        return found if lanes is WORDS else builder.zext(found, _I64)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if not AMX:
            return _I64(0)
        _, at, _, column, out, count = values
        data = {i: context.make_array(signature.args[i])(context, builder, values[i]).data for i in (0, 2)}
        source = builder.gep(builder.bitcast(data[0], _I8.as_pointer()), [at])
        factors = builder.bitcast(builder.gep(data[2], [column]), _I8.as_pointer())
        return emit(Emitter(builder), source, factors, builder.inttoptr(out, _I8.as_pointer()), count)

    @intrinsic
    def cut(typing: Any, source, at, factors, column, out, count):  # type: ignore
        whole = types.int64
        return types.uint64(source, whole, factors, whole, whole, whole), generate

    return cut


def cut_of(kind: str) -> Any:
    """Of numbers of this kind."""
    return _cut(_of_numbers(kind), PARTS)


cut_words = _cut(_of_words, WORDS)
