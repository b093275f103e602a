"""Words to bits and bytes, and back, on a CPU. It writes and reads eight bytes at a time, each word over the
end of the one before, so that one loop serves every ring; little-endian, as x86-64 and arm64 are. It must not
know where the bytes go.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from puma import pool
from puma.kernels.packing.eights import EACH, EIGHTS, LAYS, LEAST, MOST, pack_eights, unpack_eights
from puma.kernels.views import compiled, lying, octets, octets_at, words_at

_LEAST = 1 << 16  # words that a thread takes at least: some 60 us
_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_BYTE = np.uint64(255)
_ROOMY = 57  # the widest word that lies within eight bytes wherever in a byte it begins


def pack(x: Tensor, bits: int) -> Tensor:
    """The reduced words as one row of bits, the lowest first, eight to a byte, zeros after the last."""
    out = torch.empty((x.numel() * bits + 7) // 8, dtype=torch.uint8)
    pack_to(x, bits, out.data_ptr())
    return out


def pack_to(x: Tensor, bits: int, place: int) -> None:
    """What `pack` writes, to an address behind which there is room for it."""
    count = x.numel()
    if not count:
        return
    x = lying(x)
    source = x.data_ptr()
    if bits % 8 == 0 and not (EIGHTS and bits <= MOST):
        _pack_bytes_to(count, source, place, bits)
    elif count < 2 * _LEAST:
        bits_packed(count, source, place) if bits == 1 else _pack(count, source, place, bits)
    elif bits == 1:
        pool.split(lambda low, high: bits_packed(high - low, source + 8 * low, place + low // 8), count, _LEAST, 8)
    else:  # eight words end with a byte
        pool.split(
            lambda low, high: _pack(high - low, source + 8 * low, place + low * bits // 8, bits), count, _LEAST, 8
        )


def unpack(buffer: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The words that `pack` wrote."""
    buffer = lying(buffer, torch.uint8)
    return unpack_from(buffer.data_ptr(), buffer.numel(), bits, shape)


def unpack_from(place: int, size: int, bits: int, shape: tuple[int, ...]) -> Tensor:
    """What `unpack` reads, out of so many bytes behind an address."""
    count = prod(shape)
    if size != (count * bits + 7) // 8:
        raise ValueError(f"{size} bytes are not {count} words of {bits} bits")
    out = torch.empty(shape, dtype=torch.int64)
    if not count:
        return out
    to = out.data_ptr()
    if count < 2 * _LEAST:
        unpacked(count, place, to, bits)
    else:
        pool.split(
            lambda low, high: unpacked(high - low, place + low * bits // 8, to + 8 * low, bits), count, _LEAST, 8
        )
    return out


def unpack_runs(buffer: Tensor, bits: Sequence[int], shape: tuple[int, ...]) -> Sequence[Tensor]:
    """For each of these numbers of bits what `unpack` gives, of bytes that lie one behind the other; of few words all
    in one call, which takes longer than what is done there."""
    count, buffer = prod(shape), lying(buffer, torch.uint8)
    sizes = [(count * each + 7) // 8 for each in bits]
    if sum(sizes) != buffer.numel():
        raise ValueError(f"{buffer.numel()} bytes are not {len(sizes)} runs of {count} words")
    place = buffer.data_ptr()
    if not 0 < count < 2 * _LEAST:
        places = [place + sum(sizes[:i]) for i in range(len(sizes))]
        return [unpack_from(p, size, each, shape) for p, size, each in zip(places, sizes, bits)]
    out, lay = torch.empty((len(bits), *shape), dtype=torch.int64), _laid(tuple(bits))
    _unpack_runs(count, place, out.data_ptr(), lay.data_ptr(), len(bits))
    return out.unbind(0)


@lru_cache(maxsize=1 << 10)
def _laid(bits: tuple[int, ...]) -> Tensor:
    """These numbers; only to be read."""
    return torch.tensor(bits, dtype=torch.int64)


def pack_bytes(x: Tensor, bits: int) -> Tensor:
    """The reduced words, ceil(bits / 8) little-endian bytes each, as one row of uint8."""
    out = torch.empty(x.numel() * ((bits + 7) // 8), dtype=torch.uint8)
    x = lying(x)
    _pack_bytes_to(x.numel(), x.data_ptr(), out.data_ptr(), bits)
    return out


def _pack_bytes_to(count: int, source: int, place: int, bits: int) -> None:
    width = (bits + 7) // 8
    if count < 2 * _LEAST:
        _pack_bytes(count, source, place, width, 64 - bits)
        return
    pool.split(
        lambda low, high: _pack_bytes(high - low, source + 8 * low, place + low * width, width, 64 - bits),
        *(count, _LEAST),
    )


def unpack_bytes(buffer: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The words that `pack_bytes` wrote, reduced whatever the bytes say."""
    width, count = (bits + 7) // 8, prod(shape)
    if buffer.numel() != count * width:
        raise ValueError(f"{buffer.numel()} bytes are not {count} words of {width} bytes")
    buffer, out = lying(buffer, torch.uint8), torch.empty(shape, dtype=torch.int64)
    _unpack_bytes_to(count, buffer.data_ptr(), out.data_ptr(), bits)
    return out


def _unpack_bytes_to(count: int, place: int, to: int, bits: int) -> None:
    width = (bits + 7) // 8
    if count < 2 * _LEAST:
        _unpack_bytes(count, place, to, width, 64 - bits)
        return
    pool.split(
        lambda low, high: _unpack_bytes(high - low, place + low * width, to + 8 * low, width, 64 - bits),
        *(count, _LEAST),
    )


def pack_masked(x: Tensor, frac: int, pads: tuple[Tensor, Tensor], bits: int, out: Tensor) -> Tensor:
    """round(x 2^frac), ties to even, plus the words of both pads, as bytes; in one pass."""
    width = (bits + 7) // 8
    if x.dtype != torch.float64 or any(t.numel() != x.numel() * width for t in (*pads, out)):
        raise ValueError(f"{x.numel()} numbers of {x.dtype} do not become words of {width} bytes")
    if x.numel():
        source, target, scale = x.contiguous().numpy().reshape(-1), octets(out), 2.0**frac
        p, q = map(octets, pads)

        def part(low: int, high: int) -> None:
            these = slice(low * width, high * width)
            _pack_masked(source[low:high], scale, p[these], q[these], target[these], width, 64 - bits)

        pool.split(part, x.numel(), _LEAST)
    return out


def pack_bits(b: Tensor) -> Tensor:
    """The lowest bit of every word, eight to a byte, the first in the lowest place, zeros after the last."""
    return pack(b, 1)


def unpack_bits(buffer: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The 0/1 words that `pack_bits` wrote."""
    return unpack(buffer, 1, shape)


def _access(write: bool) -> Any:
    """An intrinsic that reads or writes the eight bytes from a place on, wherever it is."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, values[0]).data
        pointer = builder.bitcast(builder.gep(data, [values[1]]), ir.IntType(64).as_pointer())
        if not write:
            return builder.load(pointer, align=1)
        builder.store(values[2], pointer, align=1)
        return context.get_dummy_value()

    @intrinsic
    def access(typing: Any, buffer, at, value):  # type: ignore
        return (types.void if write else types.uint64)(buffer, at, types.uint64), generate

    return access


read, write = _access(write=False), _access(write=True)


@compiled
def in_eights(count, bits):
    """In compiled code: how many of so many words are put together eight at a time."""
    return count & -8 if EIGHTS and LEAST <= bits <= MOST else 0


@compiled
def _pack(count, source, place, bits):
    whole = in_eights(count, bits)
    if whole:
        pack_eights(whole >> 3, bits, LAYS[EACH * bits :].ctypes.data, source, place)
        source, place, count = source + 8 * whole, place + (whole >> 3) * bits, count - whole
    x, out = words_at(source, count), octets_at(place, (count * bits + 7) // 8)
    mask, held, filled, at = _ONES >> np.uint64(64 - bits), np.uint64(0), 0, 0
    for i in range(count):
        word = np.uint64(x[i]) & mask
        held |= word << np.uint64(filled)
        filled += bits
        if filled >= 64:
            write(out, at, held)
            at += 8
            filled -= 64
            # in two steps, because a shift by all 64 would be none
            held = (word >> np.uint64(1)) >> np.uint64(bits - 1 - filled)
    for i in range(at, out.size):
        out[i] = np.uint8((held >> np.uint64(8 * (i - at))) & _BYTE)


@compiled
def _unpack(count, place, result, bits):
    whole = in_eights(count, bits)
    if whole:
        unpack_eights(whole >> 3, bits, LAYS[EACH * bits :].ctypes.data, place, result)
        place, result, count = place + (whole >> 3) * bits, result + 8 * whole, count - whole
    buffer, out = octets_at(place, (count * bits + 7) // 8), words_at(result, count)
    mask = _ONES >> np.uint64(64 - bits)
    # the last words byte by byte: a whole read would end behind the buffer
    safe = max((8 * buffer.size - 72) // bits, 0)
    for i in range(safe):
        at, low = (i * bits) >> 3, np.uint64((i * bits) & 7)
        word = read(buffer, at, mask) >> low
        if bits > _ROOMY:
            word |= (np.uint64(buffer[at + 8]) << np.uint64(1)) << (np.uint64(63) - low)
        out[i] = np.int64(word & mask)
    for i in range(safe, count):
        word = np.uint64(0)
        for k in range(bits):
            bit = i * bits + k
            word |= ((np.uint64(buffer[bit >> 3]) >> np.uint64(bit & 7)) & np.uint64(1)) << np.uint64(k)
        out[i] = np.int64(word)


@compiled
def _pack_bytes(count, source, place, width, spare):
    x, out = words_at(source, count), octets_at(place, count * width)
    mask = _ONES >> np.uint64(spare)
    # the last words byte by byte: a whole one would end behind the buffer
    safe = max(count - 7, 0) if width < 8 else count
    for i in range(safe):
        write(out, i * width, np.uint64(x[i]) & mask)
    for i in range(safe, count):
        value = np.uint64(x[i]) & mask
        for j in range(width):
            out[i * width + j] = np.uint8((value >> np.uint64(8 * j)) & _BYTE)


@compiled
def _pack_masked(x, scale, p, q, out, width, spare):
    mask = _ONES >> np.uint64(spare)
    safe = max(x.size - 7, 0) if width < 8 else x.size
    for i in range(safe):
        at = i * width
        value = np.uint64(np.int64(np.rint(x[i] * scale))) + read(p, at, mask) + read(q, at, mask)
        write(out, at, value & mask)
    for i in range(safe, x.size):
        value = np.uint64(np.int64(np.rint(x[i] * scale)))
        for j in range(width):
            at = i * width + j
            value += (np.uint64(p[at]) + np.uint64(q[at])) << np.uint64(8 * j)
        value &= mask
        for j in range(width):
            out[i * width + j] = np.uint8((value >> np.uint64(8 * j)) & _BYTE)


@compiled
def _unpack_bytes(count, place, result, width, spare):
    buffer, out = octets_at(place, count * width), words_at(result, count)
    mask = _ONES >> np.uint64(spare)
    safe = max(count - 7, 0) if width < 8 else count
    for i in range(safe):
        out[i] = np.int64(read(buffer, i * width, mask) & mask)
    for i in range(safe, count):
        value = np.uint64(0)
        for j in range(width):
            value |= np.uint64(buffer[i * width + j]) << np.uint64(8 * j)
        out[i] = np.int64(value & mask)


def _eight(pack: bool) -> Any:
    """An intrinsic: the lowest bits of the eight words from a place on as a byte, or a byte's bits as eight words; in
    some two instructions where a processor has them."""
    lanes, flags = ir.VectorType(ir.IntType(64), 8), ir.VectorType(ir.IntType(1), 8)

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        place = builder.inttoptr(values[0], lanes.as_pointer())
        if pack:
            return builder.bitcast(builder.trunc(builder.load(place, align=8), flags), ir.IntType(8))
        builder.store(builder.zext(builder.bitcast(values[1], flags), lanes), place, align=8)
        return context.get_dummy_value()

    @intrinsic
    def packed(typing: Any, address):  # type: ignore
        return types.uint8(types.int64), generate

    @intrinsic
    def spread(typing: Any, address, byte):  # type: ignore
        return types.void(types.int64, types.uint8), generate

    return packed if pack else spread


_packed_eight, _spread_eight = _eight(pack=True), _eight(pack=False)


@compiled
def bits_packed(count, source, place):
    """In compiled code: the lowest bits of so many words behind one address, written behind another."""
    b, out, whole = words_at(source, count), octets_at(place, (count + 7) // 8), count // 8
    for i in range(whole):
        out[i] = _packed_eight(source + 64 * i)
    if 8 * whole < count:
        value = np.int64(0)
        for j in range(count - 8 * whole):
            value |= (b[8 * whole + j] & 1) << j
        out[whole] = value


@compiled
def _unpack_bits(count, place, result):
    buffer, out, whole = octets_at(place, (count + 7) // 8), words_at(result, count), count // 8
    for i in range(whole):
        _spread_eight(result + 64 * i, buffer[i])
    for j in range(8 * whole, count):
        out[j] = (np.int64(buffer[whole]) >> (j - 8 * whole)) & 1


@compiled
def unpacked(count, place, result, bits):
    """In compiled code: so many words, as `pack` wrote them behind one address, written behind another."""
    if bits == 1:
        _unpack_bits(count, place, result)
    elif bits % 8 == 0 and not (EIGHTS and bits <= MOST):
        _unpack_bytes(count, place, result, bits // 8, 64 - bits)
    else:
        _unpack(count, place, result, bits)


@compiled
def _unpack_runs(count, place, result, lay, runs):
    bits = words_at(lay, runs)
    for i in range(runs):
        unpacked(count, place, result + 8 * count * i, bits[i])
        place += (count * bits[i] + 7) // 8
