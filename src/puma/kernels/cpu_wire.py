"""Words to bits and bytes, and back, on a CPU. It writes and reads eight bytes at a time, each word over the
end of the one before, so that one loop serves every ring; little-endian, as x86-64 and arm64 are. It must not
know where the bytes go.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from torch import Tensor

from puma.kernels.views import compiled, octets, words

_ONES = np.uint64(0xFFFF_FFFF_FFFF_FFFF)
_BYTE = np.uint64(255)
_ROOMY = 57  # the widest word that lies within eight bytes wherever in a byte it begins


def pack(x: Tensor, bits: int) -> Tensor:
    """The reduced words as one row of bits, the lowest first, eight to a byte, zeros after the last."""
    if bits % 8 == 0:
        return pack_bytes(x, bits)
    if bits == 1:
        return pack_bits(x)
    out = torch.empty((x.numel() * bits + 7) // 8, dtype=torch.uint8)
    if x.numel():
        _pack(words(x), out.numpy(), bits)
    return out


def unpack(buffer: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The words that `pack` wrote."""
    if bits % 8 == 0:
        return unpack_bytes(buffer, bits, shape)
    if bits == 1:
        return unpack_bits(buffer, shape)
    count = prod(shape)
    if buffer.numel() != (count * bits + 7) // 8:
        raise ValueError(f"{buffer.numel()} bytes are not {count} words of {bits} bits")
    out = torch.empty(count, dtype=torch.int64)
    if count:
        _unpack(octets(buffer), out.numpy(), bits)
    return out.view(shape)


def pack_bytes(x: Tensor, bits: int) -> Tensor:
    """The reduced words, ceil(bits / 8) little-endian bytes each, as one row of uint8."""
    width = (bits + 7) // 8
    out = torch.empty(x.numel() * width, dtype=torch.uint8)
    if x.numel():
        _pack_bytes(words(x), out.numpy(), width, 64 - bits)
    return out


def unpack_bytes(buffer: Tensor, bits: int, shape: tuple[int, ...]) -> Tensor:
    """The words that `pack_bytes` wrote, reduced whatever the bytes say."""
    width, count = (bits + 7) // 8, prod(shape)
    if buffer.numel() != count * width:
        raise ValueError(f"{buffer.numel()} bytes are not {count} words of {width} bytes")
    out = torch.empty(count, dtype=torch.int64)
    if count:
        _unpack_bytes(octets(buffer), out.numpy(), width, 64 - bits)
    return out.view(shape)


def pack_masked(x: Tensor, frac: int, pads: tuple[Tensor, Tensor], bits: int, out: Tensor) -> Tensor:
    """round(x 2^frac), ties to even, plus the words of both pads, as bytes; in one pass."""
    width = (bits + 7) // 8
    if x.dtype != torch.float64 or any(t.numel() != x.numel() * width for t in (*pads, out)):
        raise ValueError(f"{x.numel()} numbers of {x.dtype} do not become words of {width} bytes")
    if x.numel():
        p, q = map(octets, pads)
        _pack_masked(x.contiguous().numpy().reshape(-1), 2.0**frac, p, q, octets(out), width, 64 - bits)
    return out


def pack_bits(b: Tensor) -> Tensor:
    """The lowest bit of every word, eight to a byte, the first in the lowest place, zeros after the last."""
    out = torch.empty((b.numel() + 7) // 8, dtype=torch.uint8)
    if b.numel():
        _pack_bits(words(b), out.numpy())
    return out


def unpack_bits(buffer: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The 0/1 words that `pack_bits` wrote."""
    count = prod(shape)
    if buffer.numel() != (count + 7) // 8:
        raise ValueError(f"{buffer.numel()} bytes do not hold {count} bits")
    out = torch.empty(count, dtype=torch.int64)
    if count:
        _unpack_bits(octets(buffer), out.numpy())
    return out.view(shape)


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
def _pack(x, out, bits):
    mask, held, filled, at = _ONES >> np.uint64(64 - bits), np.uint64(0), 0, 0
    for i in range(x.size):
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
def _unpack(buffer, out, bits):
    mask = _ONES >> np.uint64(64 - bits)
    # the last words byte by byte: a whole read would end behind the buffer
    safe = max((8 * buffer.size - 72) // bits, 0)
    for i in range(safe):
        at, low = (i * bits) >> 3, np.uint64((i * bits) & 7)
        word = read(buffer, at, mask) >> low
        if bits > _ROOMY:
            word |= (np.uint64(buffer[at + 8]) << np.uint64(1)) << (np.uint64(63) - low)
        out[i] = np.int64(word & mask)
    for i in range(safe, out.size):
        word = np.uint64(0)
        for place in range(bits):
            bit = i * bits + place
            word |= ((np.uint64(buffer[bit >> 3]) >> np.uint64(bit & 7)) & np.uint64(1)) << np.uint64(place)
        out[i] = np.int64(word)


@compiled
def _pack_bytes(x, out, width, spare):
    mask = _ONES >> np.uint64(spare)
    # the last words byte by byte: a whole one would end behind the buffer
    safe = max(x.size - 7, 0) if width < 8 else x.size
    for i in range(safe):
        write(out, i * width, np.uint64(x[i]) & mask)
    for i in range(safe, x.size):
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
def _unpack_bytes(buffer, out, width, spare):
    mask = _ONES >> np.uint64(spare)
    safe = max(out.size - 7, 0) if width < 8 else out.size
    for i in range(safe):
        out[i] = np.int64(read(buffer, i * width, mask) & mask)
    for i in range(safe, out.size):
        value = np.uint64(0)
        for j in range(width):
            value |= np.uint64(buffer[i * width + j]) << np.uint64(8 * j)
        out[i] = np.int64(value & mask)


@compiled
def _pack_bits(b, out):
    whole = b.size // 8
    for i in range(whole):
        value = np.int64(0)
        for j in range(8):
            value |= (b[8 * i + j] & 1) << j
        out[i] = value
    if whole < out.size:
        value = np.int64(0)
        for j in range(b.size - 8 * whole):
            value |= (b[8 * whole + j] & 1) << j
        out[whole] = value


@compiled
def _unpack_bits(buffer, out):
    whole = out.size // 8
    for i in range(whole):
        value = np.int64(buffer[i])
        for j in range(8):
            out[8 * i + j] = (value >> j) & 1
    for j in range(8 * whole, out.size):
        out[j] = (np.int64(buffer[whole]) >> (j - 8 * whole)) & 1
