"""What other processors run: words spread by shuffles within sixteen bytes, products of quarters of words, and rows
that are chosen by an `and`."""

from __future__ import annotations

import ctypes
import mmap
from typing import Any

import numpy as np
import pytest
import torch
from llvmlite import binding, ir
from numba import njit, types
from numba.extending import intrinsic

from puma import kernels
from puma.kernels import cpu_packed, plain, tiles
from puma.kernels.cpu_few import ANYWHERE, SHUFFLED, eight_words
from tests.kernels.words import words


def spreading(anywhere: bool, width: int) -> Any:
    """Eight words of so many bytes from a place, by one way or the other."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        source, target = (
            context.make_array(signature.args[i])(context, builder, values[j]).data for i, j in ((0, 0), (2, 2))
        )
        lanes = eight_words(builder, builder.gep(source, [values[1]]), 64, ir.IntType(64)(width), anywhere)
        builder.store(lanes, builder.bitcast(target, ir.VectorType(ir.IntType(64), 8).as_pointer()), align=8)
        return context.get_dummy_value()

    @intrinsic
    def spread(typing: Any, buffer, at, out):  # type: ignore
        return types.void(buffer, types.int64, out), generate

    called: Any = spread  # what it is given first is the compiler's
    return njit(lambda buffer, at, out: called(buffer, at, out))


@pytest.mark.parametrize("width", SHUFFLED)
@pytest.mark.parametrize("anywhere", [False, True] if ANYWHERE else [False])
def test_eight_words_are_spread_and_nothing_behind_is_read(anywhere: bool, width: int) -> None:
    x, spread, bits = words(24), spreading(anywhere, width), 8 * width
    with mmap.mmap(-1, 2 * mmap.PAGESIZE) as region:
        place = np.frombuffer(region, dtype=np.uint8)
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(place.ctypes.data + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
        tight = place[mmap.PAGESIZE - 24 * width : mmap.PAGESIZE]
        tight[:] = kernels.pack_bytes(x, bits).numpy()
        for first in (0, 8, 16):
            out = np.empty(8, np.int64)
            spread(tight, first * width, out)
            assert out.tolist() == plain.reduce(x, bits)[first : first + 8].tolist()
        del tight, place


@pytest.mark.parametrize("bits", [48, 60])
@pytest.mark.parametrize("n", [3, 4, 7, 64, 70])
def test_rows_are_chosen_by_and(bits: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no instruction multiplies and adds at once; the shapes leave rests in every direction."""
    monkeypatch.setattr(cpu_packed, "FUSED", False)
    for rows, columns in ((1, 1), (9, 8), (20, 35), (3, 300)):
        packed = [kernels.pack_bytes(words(rows, columns, seed=i), bits) for i in range(2)]
        a, out = words(n, rows + 5) & 1, words(n, columns, seed=3)
        for signs in ((1, 0), (0, 1), (1, -1)):
            expected = plain.chosen_packed(a, packed, signs, bits, out.clone(), 2)
            got = kernels.chosen_packed(a, packed, signs, bits, out.clone(), 2)
            assert torch.equal(plain.reduce(got, bits), plain.reduce(expected, bits)), (rows, columns, signs)


def tiled(tile: Any) -> Any:
    """A tile by itself, compiled as where AVX2 is all there is."""
    return njit(lambda mode, count, a, b, c, wide: tile(mode, count, a, 0, wide, b, 0, wide, c, 0, 4))


@pytest.mark.skipif(not binding.get_host_cpu_features().get("avx2", False), reason="quarters are multiplied by AVX2")
def test_products_of_quarters_are_right_modulo_2_to_the_48(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies above; with a rest behind the last whole vector, of which nothing is read beyond it."""
    monkeypatch.setattr(tiles, "QUARTERED", True)
    monkeypatch.setattr(tiles, "NARROWLY", [tiles.NARROW])
    a, b = words(4, 21), words(4, 21, seed=1)
    a[0], b[0, ::2], b[0, 1::2] = -1, -(2**63), 2**48 - 1
    c = np.zeros((4, 4), np.int64)
    tiled(tiles.dot_tile(4, 4))(tiles.NARROW, 21, *(x.numpy().reshape(-1) for x in (a, b)), c.reshape(-1), 21)
    assert torch.equal(plain.reduce(torch.from_numpy(c), 48), plain.reduce(a @ b.T, 48))
