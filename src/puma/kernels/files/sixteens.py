"""Sixteen numbers of a file in a register, of every kind there is, and the words that they stand for: emitters of LLVM,
which makes of them what a processor has. A number's block begins where the caller says, and of a row of numbers
sixteen are read from any multiple of sixteen on. It must not know what is made of them.

Blocks are read in the order of their own reader's roundings (stored.py), so that each word is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from puma.kernels.tiles import WIDE, Tile

SIXTEEN = 16
MAGIC = np.float64(1.5 * 2.0**52)  # whoever adds it to a smaller number rounds that to nearest, ties to even
MAGIC_WORD = np.int64(0x4338000000000000)  # its bits
_HALF = 2.0**112  # between the exponents of a half and of a float of the same bits
_ENDLESS = 0x7C00  # the exponent of halves that are infinite or no numbers
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_FLOAT = ir.FloatType()
BYTES, SHORTS, PARTS, WORDS = (ir.VectorType(kind, SIXTEEN) for kind in (_I8, _I16, _I32, _I64))
FLOATS, _DOUBLES = (ir.VectorType(kind, SIXTEEN) for kind in (_FLOAT, ir.DoubleType()))

Read = Callable[[Any, Any, Any], Any]


def all_of(kind: Any, number: Any) -> Any:
    """A constant in every lane."""
    return ir.Constant(kind, [number] * kind.count)


def everywhere(builder: Any, scalar: Any) -> Any:
    """A number in every lane."""
    kind = ir.VectorType(scalar.type, SIXTEEN)
    nothing = ir.Constant(kind, ir.Undefined)
    first = builder.insert_element(nothing, scalar, _I32(0))
    return builder.shuffle_vector(first, nothing, all_of(PARTS, 0))


def load(builder: Any, place: Any, kind: Any) -> Any:
    """What lies so many bytes behind a pointer to bytes, wherever that is."""
    return builder.load(builder.bitcast(place, kind.as_pointer()), align=1)


def behind(builder: Any, place: Any, *offsets: Any) -> Any:
    """A place so many bytes behind another."""
    return builder.gep(place, [_sum(builder, [_I64(o) if isinstance(o, int) else o for o in offsets])])


def _sum(builder: Any, parts: list[Any]) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total = builder.add(total, part)
    return total


def _widened(builder: Any, halves: Any, kind: Any, floats: Any) -> Any:
    """Halves (as numbers of 32 bits) as floats."""
    constant = (lambda n: all_of(kind, n)) if kind is PARTS else kind
    size = builder.shl(builder.and_(halves, constant(0x7FFF)), constant(13))
    sign = builder.shl(builder.and_(halves, constant(0x8000)), constant(16))
    power = all_of(floats, _HALF) if floats is FLOATS else ir.Constant(floats, _HALF)
    bits = builder.or_(size, sign)
    endless = builder.bitcast(builder.or_(bits, constant(_ENDLESS << 13 | 0x7F800000)), floats)  # or no number
    is_one = builder.icmp_unsigned("==", builder.and_(halves, constant(_ENDLESS)), constant(_ENDLESS))
    return builder.select(is_one, endless, builder.fmul(builder.bitcast(bits, floats), power))


def _bf16(builder: Any, source: Any, k: Any) -> Any:
    read = load(builder, behind(builder, source, builder.mul(k, _I64(2))), SHORTS)
    return builder.bitcast(builder.shl(builder.zext(read, PARTS), all_of(PARTS, 16)), FLOATS)


def _f16(builder: Any, source: Any, k: Any) -> Any:
    read = load(builder, behind(builder, source, builder.mul(k, _I64(2))), SHORTS)
    return _widened(builder, builder.zext(read, PARTS), PARTS, FLOATS)


def _f32(builder: Any, source: Any, k: Any) -> Any:
    return load(builder, behind(builder, source, builder.mul(k, _I64(4))), FLOATS)


def _half(builder: Any, place: Any) -> Any:
    """The half at a place as a float."""
    return _widened(builder, builder.zext(load(builder, place, _I16), _I32), _I32, _FLOAT)


def _block(builder: Any, source: Any, k: Any, numbers: int, size: int) -> tuple[Any, Any]:
    """Where the block of a number begins, and which of its numbers it is."""
    n = builder.lshr(k, _I64(numbers.bit_length() - 1))
    return behind(builder, source, builder.mul(n, _I64(size))), builder.and_(k, _I64(numbers - 1))


def _scaled(builder: Any, whole: Any, scale: Any) -> Any:
    return builder.fmul(builder.sitofp(whole, FLOATS), everywhere(builder, scale))


def _q8_0(builder: Any, source: Any, k: Any) -> Any:
    block, inside = _block(builder, source, k, 32, 34)
    whole = builder.sext(load(builder, behind(builder, block, inside, 2), BYTES), PARTS)
    return _scaled(builder, whole, _half(builder, block))


def _bits(builder: Any, place: Any, shift: Any, mask: int) -> Any:
    """Of each byte the bits from a place on."""
    parts = builder.zext(load(builder, place, BYTES), PARTS)
    shifted = builder.lshr(parts, everywhere(builder, builder.trunc(shift, _I32)))
    return builder.and_(shifted, all_of(PARTS, mask))


def _nibbles(builder: Any, block: Any, inside: Any, begin: int) -> Any:
    """Low ones of sixteen bytes, and then the high ones."""
    return _bits(builder, behind(builder, block, begin), builder.lshr(inside, _I64(2)), 15)


def _q4_0(builder: Any, source: Any, k: Any) -> Any:
    block, inside = _block(builder, source, k, 32, 18)
    whole = builder.sub(_nibbles(builder, block, inside, 2), all_of(PARTS, 8))
    return _scaled(builder, whole, _half(builder, block))


def _q4_1(builder: Any, source: Any, k: Any) -> Any:
    block, inside = _block(builder, source, k, 32, 20)
    number = _scaled(builder, _nibbles(builder, block, inside, 4), _half(builder, block))
    return builder.fadd(number, everywhere(builder, _half(builder, behind(builder, block, 2))))


def _q4_z(builder: Any, source: Any, k: Any) -> Any:
    block, inside = _block(builder, source, k, 32, 20)
    zero = builder.zext(load(builder, behind(builder, block, 2), _I8), _I32)
    whole = builder.sub(_nibbles(builder, block, inside, 4), everywhere(builder, zero))
    return _scaled(builder, whole, _half(builder, block))


def _q4_k(builder: Any, source: Any, k: Any) -> Any:
    block, inside = _block(builder, source, k, 256, 144)
    part = builder.lshr(inside, _I64(5))
    i, later = builder.and_(part, _I64(3)), builder.icmp_unsigned(">", part, _I64(3))
    ones, twos, both = (
        builder.zext(load(builder, behind(builder, block, i, at), _I8), _I32) for at in (4, 8, 12)
    )  # six low bits of the first parts' scales and offsets, two high ones of the last parts'; and their low ones
    six, high = _I32(63), _I32(48)
    factors = []
    for early, low in ((ones, builder.and_(both, _I32(15))), (twos, builder.lshr(both, _I32(4)))):
        late = builder.or_(low, builder.and_(builder.lshr(early, _I32(2)), high))
        factors.append(builder.sitofp(builder.select(later, late, builder.and_(early, six)), _FLOAT))
    scale = builder.fmul(_half(builder, block), factors[0])
    least = builder.fmul(_half(builder, behind(builder, block, 2)), factors[1])
    begin = builder.shl(builder.lshr(part, _I64(1)), _I64(5))
    place = behind(builder, block, begin, builder.and_(inside, _I64(16)), 16)
    number = _scaled(builder, _bits(builder, place, builder.shl(builder.and_(part, _I64(1)), _I64(2)), 15), scale)
    return builder.fsub(number, everywhere(builder, least))


def _q6_k(builder: Any, source: Any, k: Any) -> Any:
    block, inside = _block(builder, source, k, 256, 210)
    part, half, here = builder.lshr(inside, _I64(4)), builder.lshr(inside, _I64(7)), builder.and_(inside, _I64(127))
    whole = builder.sitofp(load(builder, behind(builder, block, part, 192), _I8), _FLOAT)
    scale = builder.fmul(_half(builder, behind(builder, block, 208)), whole)
    lows = behind(builder, block, builder.shl(half, _I64(6)), builder.and_(here, _I64(63)))
    highs = behind(builder, block, builder.shl(half, _I64(5)), builder.and_(here, _I64(31)), 128)
    low = _bits(builder, lows, builder.shl(builder.lshr(here, _I64(6)), _I64(2)), 15)
    high = _bits(builder, highs, builder.shl(builder.lshr(here, _I64(5)), _I64(1)), 3)
    six = builder.or_(low, builder.shl(high, all_of(PARTS, 4)))
    return _scaled(builder, builder.sub(six, all_of(PARTS, 32)), scale)


# By kind: sixteen numbers from number k on, behind a place where its row or a block begins.
READ: dict[str, Read] = {
    **{"bf16": _bf16, "f16": _f16, "f32": _f32, "q8_0": _q8_0, "q4_0": _q4_0, "q4_1": _q4_1},
    **{"q4_k": _q4_k, "q6_k": _q6_k, "q4_z": _q4_z},
}


def product(builder: Any, kind: str, source: Any, factors: Any, k: Any) -> Any:
    """Numbers times factors, floats that lie behind another place, in float32."""
    factor = load(builder, behind(builder, factors, builder.mul(k, _I64(4))), FLOATS)
    return builder.fmul(READ[kind](builder, source, k), factor)


def words_of(kind: str) -> Any:
    """An intrinsic: the words of `count` numbers, a multiple of sixteen, from a byte of the source on."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        _, at, _, column, _, out_at, count = values
        data = {i: context.make_array(signature.args[i])(context, builder, values[i]).data for i in (0, 2, 4)}
        first = builder.bitcast(builder.gep(data[0], [at]), _I8.as_pointer())
        factors = builder.bitcast(builder.gep(data[2], [column]), _I8.as_pointer())
        out = builder.gep(data[4], [out_at])

        def step(k: Any, _: list[Any]) -> list[Any]:
            exact = builder.fpext(product(builder, kind, first, factors, k), _DOUBLES)
            rounded = builder.bitcast(builder.fadd(exact, all_of(_DOUBLES, float(MAGIC))), WORDS)
            found = builder.sub(rounded, all_of(WORDS, int(MAGIC_WORD)))
            builder.store(found, builder.bitcast(builder.gep(out, [k]), WORDS.as_pointer()), align=8)
            return []

        Tile(builder, {}, count, WIDE).loop(count, SIXTEEN, [], step)
        return context.get_dummy_value()

    @intrinsic
    def words(typing: Any, source, at, factors, column, out, out_at, count):  # type: ignore
        whole = types.int64
        return types.void(source, whole, factors, whole, out, whole, whole), generate

    return words
