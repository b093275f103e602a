"""Rings, the choice of kernel, and what happens on the meta device."""

from __future__ import annotations

import errno
import subprocess
import sys

import numba.core.caching
import pytest
import torch

from puma import kernels
from puma.kernels import cpu, host, plain, shapes
from puma.kernels.views import compiled
from tests.kernels.words import views, words


@pytest.mark.parametrize("bits", [1, 2, 16, 31, 48, 63, 64])
def test_rings(bits: int) -> None:
    size = 1 << bits
    x = words(200)
    integers = [int(word) % size for word in x]
    for room in (kernels, plain):
        assert [int(word) % size for word in room.reduce(x, bits)] == integers
        assert room.signed(x, bits).tolist() == [i - size if i >= size // 2 else i for i in integers]
        for shift in {0, 1, bits // 2, bits}:
            shifted = room.shift_right(x, shift, bits)
            assert [int(word) % (1 << 64) for word in shifted] == [i >> shift for i in integers], shift


def test_layouts() -> None:
    for layout, x in views(2, 5, 7).items():
        assert torch.equal(kernels.shift_right(x, 3, 40), plain.shift_right(x, 3, 40)), layout
        assert torch.equal(kernels.signed(x, 40), plain.signed(x, 40)), layout
    assert kernels.signed(words(0, 3), 40).shape == (0, 3)
    assert kernels.shift_right(words(), 1, 40).shape == ()


@pytest.mark.parametrize("width", [3, 6, 8])
def test_meta_gives_shapes_without_words(width: int) -> None:
    digit = torch.empty(2, 1, 5, dtype=torch.int64, device="meta")
    e = kernels.onehot(digit.expand(2, 3, 5), width)
    assert e.shape == (2, 3, 5, 1 << max(width - 6, 0))
    here = words(4, 1 << width)
    assert kernels.lookup(e, digit, width, here).shape == (4, 2, 3, 5)
    for result in (
        kernels.member(e, digit, width, here[0]),
        kernels.above(e, digit, width),
        kernels.hot_bit(e, digit, width),
    ):
        assert result.shape == (2, 3, 5) and result.dtype == torch.int64 and result.is_meta
    x = torch.empty(2, 3, 5, dtype=torch.int64, device="meta")
    assert kernels.unpack(kernels.pack(x, 20), 20, x.shape).shape == x.shape
    assert kernels.pack(x, 21).shape == (79,)
    assert kernels.unpack_bytes(kernels.pack_bytes(x, 20), 20, x.shape).shape == x.shape
    assert kernels.pack_bytes(x, 20).shape == (90,)
    assert kernels.unpack_bits(kernels.pack_bits(x), x.shape).shape == x.shape
    out = torch.empty(2, 3, 3, dtype=torch.int64, device="meta")
    assert kernels.matmul(x, x.transpose(1, 2), 48, out) is out
    for result in (
        kernels.parity(x),
        kernels.signed(x, 9),
        kernels.shift_right(x, 9, 9),
        kernels.reduce(x, 9),
    ):
        assert result.shape == x.shape and result.is_meta


def test_the_surface_is_the_same_in_every_file() -> None:
    computed = [name for name in kernels.__all__ if not hasattr(host, name) and name != "Stored"]
    for name in computed:
        assert all(callable(getattr(file, name)) for file in (cpu, plain, shapes))
    assert sorted(cpu.__all__) == computed
    assert set(kernels.__all__) - {*computed} == {"Stored", "from_wire", "mapped", "to_wire"}


def test_nothing_is_compiled_before_it_is_needed() -> None:
    script = "import puma.kernels, sys; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_without_a_place_for_the_compiled_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    assert compiled(_twice)(21) == 42


def test_where_the_compiled_code_cannot_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that takes a file takes no more where the disk is full; a file may have lost what was in it."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    def empty(*_: object) -> None:
        raise EOFError

    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "load", empty)
    monkeypatch.setattr(numba.core.caching.IndexDataCacheFile, "save", full)
    assert compiled(_twice)(21) == 42


def _twice(x: int) -> int:
    return 2 * x
