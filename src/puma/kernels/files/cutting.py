"""Numbers of files, and words, cut into the digits that tiles of bytes multiply: sixteen at a time, as intrinsics over
addresses. A digit is a signed byte; DIGITS of them make a whole number of some 2^22 on either side of 0. It must not
know what the numbers are.

Each intrinsic tells which bits a number has above two digits: of any in 16 to 23 the third digit says something, and
with one above a number is none of so many digits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from puma.kernels.files.amx import AMX, DEPTH, DIGITS, SIDE, TILE, Emitter

_OFFSET = 0x80_80_80  # makes all digits of a number unsigned: a digit is a byte of the sum, with its top bit turned
_TOO_LARGE = 1 << 24
_BOUND = 2.0**22  # of numbers that round so:
_MAGIC = 1.5 * 2.0**23  # whoever adds it to a smaller number rounds that to nearest, ties to even
_MAGIC_BITS = 0x4B400000
_I1, _I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
_BYTES, _SHORTS, _PARTS, _WORDS = (ir.VectorType(kind, SIDE) for kind in (_I8, _I16, _I32, _I64))
_HALVES, _FLOATS = (ir.VectorType(kind, SIDE) for kind in (ir.HalfType(), ir.FloatType()))


def _all(kind: Any, number: Any) -> Any:
    return ir.Constant(kind, [number] * kind.count)


def _read(tile: Emitter, kind: str, place: Any) -> Any:
    """Sixteen numbers as they lie in a file."""
    builder, lying = tile.builder, {"bf16": _SHORTS, "f16": _HALVES, "f32": _FLOATS}[kind]
    read = builder.load(builder.bitcast(place, lying.as_pointer()), align=1)
    if kind == "bf16":
        return builder.bitcast(builder.shl(builder.zext(read, _PARTS), _all(_PARTS, 16)), _FLOATS)
    return read if kind == "f32" else builder.fpext(read, _FLOATS)


def _of_floats(kind: str, size: int) -> Callable[..., Any]:
    """Rounded products of numbers with factors, moved by the offset."""

    def moved(tile: Emitter, source: Any, factors: Any, k: Any) -> Any:
        builder = tile.builder
        number = _read(tile, kind, tile.behind(source, tile.times(k, size)))
        factor = builder.load(builder.bitcast(tile.behind(factors, tile.times(k, 4)), _FLOATS.as_pointer()), align=4)
        number = builder.fmul(number, factor)
        small = builder.and_(
            builder.fcmp_ordered("<", number, _all(_FLOATS, _BOUND)),
            builder.fcmp_ordered(">", number, _all(_FLOATS, -_BOUND)),
        )
        rounded = builder.bitcast(builder.fadd(number, _all(_FLOATS, _MAGIC)), _PARTS)
        whole = builder.add(rounded, _all(_PARTS, _OFFSET - _MAGIC_BITS))
        return builder.select(small, whole, _all(_PARTS, _TOO_LARGE))

    return moved


def _of_words(tile: Emitter, source: Any, _: Any, k: Any) -> Any:
    """Words, moved by the offset."""
    place = tile.builder.bitcast(tile.behind(source, tile.times(k, 8)), _WORDS.as_pointer())
    return tile.builder.add(tile.builder.load(place, align=8), _all(_WORDS, _OFFSET))


def _cut(moved: Callable[..., Any], lanes: Any) -> Any:
    """An intrinsic: `count` numbers, a multiple of sixteen, as a row of each of DIGITS tiles of each block."""

    def emit(tile: Emitter, source: Any, factors: Any, out: Any, count: Any) -> Any:
        builder = tile.builder

        def step(k: Any, seen: list[Any]) -> list[Any]:
            block = tile.times(builder.lshr(k, _I64(DEPTH.bit_length() - 1)), DIGITS * TILE)
            to = tile.behind(tile.behind(out, block), builder.and_(k, _I64(DEPTH - 1)))
            digits = builder.xor(moved(tile, source, factors, k), _all(lanes, _OFFSET))
            for j in range(DIGITS):
                digit = builder.trunc(builder.lshr(digits, _all(lanes, 8 * j)), _BYTES)
                builder.store(digit, builder.bitcast(tile.behind(to, j * TILE), _BYTES.as_pointer()), align=1)
            return [builder.or_(seen[0], digits)]

        (seen,) = tile.loop(count, SIDE, [_all(lanes, 0)], step)
        name = f"llvm.vector.reduce.or.v{SIDE}i{lanes.element.width}"
        found = tile.found(name, lanes.element, seen)
        return found if lanes is _WORDS else builder.zext(found, _I64)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        if not AMX:
            return _I64(0)
        source, factors, out = (builder.inttoptr(value, _I8.as_pointer()) for value in values[:3])
        return emit(Emitter(builder), source, factors, out, values[3])

    @intrinsic
    def cut(typing: Any, source, factors, out, count):  # type: ignore
        return types.uint64(*[types.int64] * 4), generate

    return cut


cut_bf16, cut_f16, cut_f32 = (_cut(_of_floats(*each), _PARTS) for each in (("bf16", 2), ("f16", 2), ("f32", 4)))
cut_words = _cut(_of_words, _WORDS)
