"""Few rows times a matrix in its file's own numbers: every kind and remainder, and numbers that are too large."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np
import pytest
import torch

from puma import kernels, pool
from puma.kernels import Stored, cpu_few_stored, plain
from puma.kernels.cpu_few_stored import BLOCK, FEW, KINDS, STRIP
from puma.kernels.stored import KINDS as TYPES
from tests.cases import sample
from tests.kernels.words import views, words


def small(kind: str, rows: int, columns: int, factors: bool = False) -> Stored:
    """A matrix of numbers below 1, with tiny ones, ties and zeros among them."""
    values = sample(rows, columns) * 2.0 ** -(torch.arange(columns) % 24) / 8
    values[:, ::7] = torch.round(values[:, ::7] * 2**19) / 2**19
    raw = values.to(TYPES[kind][0]).reshape(-1).view(torch.uint8)
    return Stored(raw, kind, columns, sample(columns, seed=1).float() if factors else None)


def agrees(a: torch.Tensor, matrix: Stored, bits: int) -> bool:
    out = words(a.shape[0], matrix.rows, seed=3)
    expected = plain.linear_stored(a, matrix, 18, bits, out.clone())
    assert kernels.linear_stored(a, matrix, 18, bits, out) is out
    return torch.equal(plain.reduce(out, bits), plain.reduce(expected, bits))


@pytest.mark.parametrize("bits", [34, 52, 53, 64])
@pytest.mark.parametrize("factors", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_every_number_of_rows(kind: str, factors: bool, bits: int) -> None:
    for n in (1, 2, 3, 4, 7, 8, 11, FEW - 1):
        for rows, blocks in ((STRIP, 1), (3 * STRIP + 3, 5)):
            matrix = small(kind, rows, blocks * BLOCK, factors)
            assert agrees(words(n, matrix.columns), matrix, bits), (n, rows, blocks)


def test_every_layout_of_rows() -> None:
    matrix = small("bf16", 2 * STRIP, 2 * BLOCK, True)
    assert all(agrees(a, matrix, 48) for a in views(3, matrix.columns).values())


@pytest.mark.parametrize("kind", KINDS)
def test_strips_with_large_numbers_become_words_first(kind: str) -> None:
    """From 2^22 units on, and what is no number that a product could be right of: only its own row is lost."""
    for large in (15.999, 16.0, -16.0, -16.001, 30000.0, float("inf"), float("nan")):
        values = sample(5 * STRIP, BLOCK).float()
        values[STRIP + 1, 3] = values[2 * STRIP, BLOCK - 1] = values[4 * STRIP + 3, 0] = large
        matrix = Stored(values.to(TYPES[kind][0]).reshape(-1).view(torch.uint8), kind, BLOCK)
        for n in (1, 3):
            a, out = words(n, BLOCK), torch.zeros(n, 5 * STRIP, dtype=torch.int64)
            found = kernels.linear_stored(a, matrix, 18, 48, out)
            whole = torch.ones(5 * STRIP, dtype=torch.bool)
            if not np.isfinite(large):
                whole[[STRIP + 1, 2 * STRIP, 4 * STRIP + 3]] = False
            expected = (a @ plain.spread(matrix, 18).T)[:, whole]
            assert torch.equal(plain.reduce(found[:, whole], 48), plain.reduce(expected, 48)), large


def test_the_largest_and_smallest_words_take_no_other_way() -> None:
    """-2^22 and 2^22 - 1 units are still small; what is next to them is flagged."""
    for units, too_large in ((2**22 - 1, False), (2**22, True), (-(2**22), False), (-(2**22) - 1, True)):
        values = torch.zeros(STRIP, BLOCK)
        values[2, 5] = units
        source, factors = values.reshape(-1).numpy().view(np.uint8), np.ones(BLOCK, np.float32)
        out = np.zeros(STRIP, np.int64)
        flagged = cpu_few_stored.linear_few(*("f32", np.arange(BLOCK), BLOCK, 1, source, factors, 48, out, STRIP))
        assert flagged.tolist() == [int(too_large)]
        assert too_large or out[2] & (2**48 - 1) == (5 * units) % 2**48


def test_threads_share_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_few_stored, "_LEAST", 1)
    pool.use(3)
    try:
        assert agrees(words(5, 3 * BLOCK), small("bf16", 11 * STRIP + 1, 3 * BLOCK), 48)
    finally:
        pool.use(1)


def test_nothing_behind_the_matrix_is_read() -> None:
    """The last row ends where a page begins that nobody may read."""
    matrix = small("bf16", STRIP, BLOCK)
    with mmap.mmap(-1, 2 * mmap.PAGESIZE) as region:
        place = np.frombuffer(region, dtype=np.uint8)
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(place.ctypes.data + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
        tight = place[mmap.PAGESIZE - matrix.raw.numel() : mmap.PAGESIZE]
        tight[:] = matrix.raw.numpy()
        assert agrees(words(1, BLOCK), matrix._replace(raw=torch.from_numpy(tight)), 48)
        del tight, place


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_a_file_begin_at_any_byte(kind: str) -> None:
    matrix = small(kind, 2 * STRIP + 1, BLOCK, True)
    raw = torch.cat([matrix.raw[:1], matrix.raw])[1:]
    assert raw.data_ptr() % 2
    assert agrees(words(3, BLOCK), matrix._replace(raw=raw), 48)
