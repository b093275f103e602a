"""Words to bytes and back: the compiled kernels against the plain ones, and against Python's own integers."""

from __future__ import annotations

import ctypes
import mmap

import pytest
import torch

from puma import kernels
from puma.kernels import cpu_wire, plain
from tests.kernels.words import views, words


@pytest.mark.parametrize("bits", range(1, 65))
def test_words_cross_the_wire_in_every_ring(bits: int) -> None:
    for count in (0, 1, 2, 7, 8, 9, 100):
        x = words(count)
        for pack, unpack, size in (
            ("pack", "unpack", (count * bits + 7) // 8),
            ("pack_bytes", "unpack_bytes", count * ((bits + 7) // 8)),
        ):
            sent = getattr(kernels, pack)(x, bits)
            assert sent.numel() == size
            assert torch.equal(sent, getattr(plain, pack)(x, bits))
            got = getattr(kernels, unpack)(sent, bits, (count,))
            assert torch.equal(got, getattr(plain, unpack)(sent, bits, (count,)))
            assert torch.equal(got, plain.reduce(x, bits))


@pytest.mark.parametrize("bits", range(1, 65))
def test_nothing_is_written_behind_the_last_byte(bits: int) -> None:
    for count in (1, 8, 9, 64, 67):
        size = (count * bits + 7) // 8
        room = torch.full((size + 80,), 0xA5, dtype=torch.uint8)
        cpu_wire.pack_to(words(count), bits, room.data_ptr())
        assert torch.equal(room[:size], plain.pack(words(count), bits)) and bool((room[size:] == 0xA5).all()), count
        out = torch.full((count + 10,), 7)
        cpu_wire.unpacked(count, room.data_ptr(), out.data_ptr(), bits)
        assert torch.equal(out[:count], plain.reduce(words(count), bits)) and bool((out[count:] == 7).all()), count


def test_nothing_behind_the_last_byte_is_read() -> None:
    """Where a page ends that nobody may read on from, as far as the system can tell."""
    page, room = mmap.PAGESIZE, mmap.mmap(-1, 2 * mmap.PAGESIZE)
    view = torch.frombuffer(room, dtype=torch.uint8)
    assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(view.data_ptr() + page), page, 0) == 0
    for bits in range(1, 65):
        for count in (1, 8, 9, 64, 67):
            sent = kernels.pack(words(count), bits)
            there = view[page - sent.numel() : page]
            there.copy_(sent)
            assert torch.equal(kernels.unpack(there, bits, (count,)), plain.reduce(words(count), bits)), (bits, count)
            cpu_wire.pack_to(words(count, seed=1), bits, there.data_ptr())
            assert torch.equal(there, plain.pack(words(count, seed=1), bits)), (bits, count)


@pytest.mark.parametrize("bits", [3, 8, 20, 48, 63])
def test_bytes_are_those_of_the_reduced_integer(bits: int) -> None:
    for word in words(40).tolist():
        sent = bytes(kernels.pack_bytes(torch.tensor([word]), bits).tolist())
        assert sent == (word % (1 << bits)).to_bytes((bits + 7) // 8, "little")


@pytest.mark.parametrize("bits", [3, 8, 20, 48, 63])
def test_bits_are_those_of_one_long_integer(bits: int) -> None:
    x = words(41)
    row = sum((word % (1 << bits)) << (i * bits) for i, word in enumerate(x.tolist()))
    assert bytes(kernels.pack(x, bits).tolist()) == row.to_bytes((41 * bits + 7) // 8, "little")


@pytest.mark.parametrize("bits", [12, 61, 64])
def test_layouts_and_shapes(bits: int) -> None:
    for layout, x in views(3, 5, 6).items():
        assert torch.equal(kernels.pack(x, bits), plain.pack(x, bits)), layout
        assert torch.equal(kernels.pack_bytes(x, bits), plain.pack_bytes(x, bits)), layout
        assert torch.equal(kernels.pack_bits(x), plain.pack_bits(x)), layout
    for pack, unpack in ((kernels.pack, kernels.unpack), (kernels.pack_bytes, kernels.unpack_bytes)):
        sent = pack(words(), bits)
        assert torch.equal(unpack(sent, bits, ()), plain.reduce(words(), bits))
        assert unpack(sent[:0], bits, (2, 0)).shape == (2, 0)


def test_garbage_above_the_ring_is_dropped() -> None:
    noise = words(30).view(torch.uint8)[: 30 * 2]
    assert int(kernels.unpack_bytes(noise, 12, (30,)).max()) < 1 << 12


def test_packing_never_shares_memory() -> None:
    x = words(10)
    sent = kernels.pack(x, 64)
    x.zero_()
    assert int(sent.sum()) > 0
    got = kernels.unpack(sent, 64, (10,))
    sent.zero_()
    assert bool(got.any())


@pytest.mark.parametrize("bits", [7, 24, 41, 48, 64])
def test_numbers_are_masked_on_their_way_into_bytes(bits: int) -> None:
    for count in (0, 1, 7, 8, 50):
        x = torch.linspace(-100, 100, 2 * count, dtype=torch.float64)[::2]
        pads = (kernels.pack_bytes(words(count), bits), kernels.pack_bytes(words(count, seed=1), bits))
        out = torch.empty_like(pads[0])
        assert kernels.pack_masked(x, 9, pads, bits, out) is out
        assert torch.equal(out, plain.pack_masked(x, 9, pads, bits, torch.empty_like(out)))
        expected = torch.round(x * 512).long() + words(count) + words(count, seed=1)
        assert torch.equal(kernels.unpack_bytes(out, bits, (count,)), plain.reduce(expected, bits))
    halves = torch.tensor([0.5, 1.5, -0.5, -1.5], dtype=torch.float64)
    zeros = torch.zeros(4 * ((bits + 7) // 8), dtype=torch.uint8)
    out = kernels.pack_masked(halves, 0, (zeros, zeros), bits, zeros.clone())
    assert kernels.signed(kernels.unpack_bytes(out, bits, (4,)), bits).tolist() == [0, 2, 0, -2]


@pytest.mark.parametrize("bits", [7, 12, 24, 41, 48, 53, 64])
def test_masks_are_taken_off_where_they_lie(bits: int) -> None:
    """Whatever the bytes say above the ring, and nothing behind them is touched."""
    width = (bits + 7) // 8
    for count in (0, 1, 7, 8, 9, 50):
        noise = [words(count + 2, seed=seed).view(torch.uint8)[: (count + 1) * width].clone() for seed in (1, 2)]
        packed, masks = (each[: count * width] for each in noise)
        both = [int.from_bytes(bytes(each[i : i + width].tolist()), "little") for each in noise for i in (0, width)]
        behind, plainly = noise[1][count * width :].clone(), plain.taken_off(packed, masks.clone(), bits)
        assert kernels.taken_off(packed, masks, bits) is masks
        assert torch.equal(masks, plainly) and torch.equal(noise[1][count * width :], behind)
        if count > 1:
            expected = [(both[i] - both[i + 2]) % (1 << 8 * width) for i in (0, 1)]
            found = [int.from_bytes(bytes(masks[i : i + width].tolist()), "little") for i in (0, width)]
            assert found == expected


@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 64, 1001])
def test_bits(count: int) -> None:
    x = words(count)
    sent = kernels.pack_bits(x)
    assert torch.equal(sent, plain.pack_bits(x))
    assert torch.equal(kernels.unpack_bits(sent, (count,)), x & 1)
    assert torch.equal(plain.unpack_bits(sent, (count,)), x & 1)


@pytest.mark.parametrize("bits", [1, 13, 40, 59])
def test_unaligned_and_strided_buffers(bits: int) -> None:
    x = words(20)
    sent = kernels.pack(x, bits)
    behind = torch.cat([torch.zeros(3, dtype=torch.uint8), sent])[3:]
    spread = torch.stack([sent, sent], 1)[:, 0]
    for buffer in (behind, spread):
        assert torch.equal(kernels.unpack(buffer, bits, (4, 5)), plain.reduce(x, bits).view(4, 5))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="11 bytes are not 2 words"):
        kernels.unpack(torch.zeros(11, dtype=torch.uint8), 48, (2,))
    with pytest.raises(ValueError, match="12 bytes are not 2 words of 43 bits"):
        kernels.unpack(torch.zeros(12, dtype=torch.uint8), 43, (2,))
    with pytest.raises(ValueError, match="3 bytes are not 2 words of 1 bits"):
        kernels.unpack_bits(torch.zeros(3, dtype=torch.uint8), (2,))
    row = torch.zeros(12, dtype=torch.uint8)
    for x, out in ((torch.zeros(2), row), (torch.zeros(2).double(), row[1:])):
        with pytest.raises(ValueError, match="do not become"):
            kernels.pack_masked(x, 0, (row, row), 48, out)
    for packed, masks in ((row, row[1:]), (row[:6], row), (row[:5], row[:5]), (row[:6], row[::2])):
        with pytest.raises(ValueError, match="words of 6 bytes"):
            kernels.taken_off(packed, masks, 48)
    with pytest.raises(TypeError, match="uint8"):
        kernels.unpack(words(2), 8, (2,))
