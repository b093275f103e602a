"""Lookups in registers, from memory and entry by entry: each against the plain ones, for every count of digits."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest
import torch

from puma import kernels
from puma.kernels import plain
from puma.kernels.digits import cpu_lookup, permutes
from puma.kernels.digits.permutes import DIGITS
from tests.kernels.words import words

WAYS = pytest.mark.parametrize("permuted", [pytest.param(1, marks=pytest.mark.skipif(not permutes.PERMUTES,
    reason="no registers of AVX-512")), 0], ids=["in registers", "from memory"])  # fmt: skip


@WAYS
@pytest.mark.parametrize("width", range(12))
def test_every_count_of_digits(permuted: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of none to more than are taken at once, and of many; digits and the bits of a share are any words."""
    monkeypatch.setattr(cpu_lookup, "PERMUTES", permuted)
    e, digit = words(3000 + width, 1 << max(width - 6, 0), seed=1), words(3000 + width, seed=2)
    for tables in (1, 2, 3):
        table = words(tables, 1 << width, seed=tables)
        expected = plain.lookup(e, digit, width, table)
        for worth in (0, 1 << 11, 1 << 30):  # positions from which on it pays
            monkeypatch.setattr(cpu_lookup, "_WORTH", worth)
            for n in (*range(DIGITS + 7), 2 * DIGITS, 1000, len(digit)):
                assert torch.equal(kernels.lookup(e[:n], digit[:n], width, table), expected[:, :n]), (tables, n)


@WAYS
@pytest.mark.parametrize("width", [3, 6, 7, 8, 9, 11])
@pytest.mark.parametrize("n", [DIGITS + 8, DIGITS + 9, DIGITS - 1, 17, 1])
def test_nothing_behind_the_last_digit_is_touched(permuted: int, width: int, n: int) -> None:
    """One-hots, digits, entries and results each end where a page begins that nobody may touch."""
    e, digit, table = words(n, 1 << max(width - 6, 0)), words(n, seed=1), words(2, 1 << width, seed=2)
    given = [e, digit, table, torch.zeros(2, n, dtype=torch.int64)]
    regions = [mmap.mmap(-1, size(x) + mmap.PAGESIZE) for x in given]
    places = []
    for region, x in zip(regions, given, strict=True):
        place = np.frombuffer(region, dtype=np.uint8)
        behind = ctypes.c_void_p(place.ctypes.data + size(x))
        assert ctypes.CDLL(None).mprotect(behind, mmap.PAGESIZE, 0) == 0
        places.append(place[size(x) - 8 * x.numel() : size(x)].view(np.int64))
        places[-1][:] = x.reshape(-1).numpy()
    hots, digits, entries, results = (place.ctypes.data for place in places)
    cpu_lookup._lookup(permuted, n, hots, digits, width, entries, results, 2, n)
    assert torch.equal(torch.from_numpy(places[-1].copy()).view(2, n), plain.lookup(e, digit, width, table))
    del place, places
    for region in regions:
        region.close()


def size(x: torch.Tensor) -> int:
    """Bytes of whole pages that hold x."""
    return -(-8 * x.numel() // mmap.PAGESIZE) * mmap.PAGESIZE


@pytest.mark.skipif(not permutes.PERMUTES, reason="no registers of AVX-512")
def test_large_calls_go_through_registers_and_small_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    monkeypatch.setattr(cpu_lookup, "_lookup", lambda permuted, n, *_: taken.append((n, permuted)))
    for n, width in ((20, 3), (255, 3), (256, 3), (1000, 3), (7, 9), (8, 8), (8, 7)):
        kernels.lookup(words(n, 1 << max(width - 6, 0)), words(n), width, words(1, 1 << width))
    assert taken == [(20, 0), (255, 0), (256, 1), (1000, 1), (8, 1)]
