"""Products with packed matrices against plain ones: every remainder, width and place, and nothing read behind."""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

import numpy as np
import pytest
import torch

from puma import kernels
from puma.kernels import cpu_eight, cpu_packed, plain
from puma.kernels.cpu_eight import SOME
from tests.kernels.words import views, words

BITS = [48, 39]  # of six and five bytes, for which there are shuffles
BOTH = ["linear_packed", "matmul_packed"]


def same(got: torch.Tensor, expected: torch.Tensor, bits: int) -> bool:
    return torch.equal(plain.reduce(got, bits), plain.reduce(expected, bits))


def check(name: str, n: int, rows: int, columns: int, bits: int, signs: tuple[int, ...]) -> None:
    """A block of rows in the middle of a matrix, added onto what is there."""
    packed = [kernels.pack_bytes(words(rows, columns, seed=i), bits) for i in range(len(signs))]
    if name == "linear_packed":
        a, out = words(n, columns), words(n, rows + 5, seed=3)
    else:
        a, out = words(n, rows + 5), words(n, columns, seed=3)
    expected = getattr(plain, name)(a, packed, signs, bits, out.clone(), 2)
    assert getattr(kernels, name)(a, packed, signs, bits, out, 2) is out
    assert same(out, expected, bits), (n, rows, columns, bits, signs)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("n", [0, 1, 3, 8, 13])
def test_every_remainder(name: str, n: int) -> None:
    for rows in (0, 1, 4, 7, 8, 21):
        for columns in (1, 7, 8, 9, 40, 300):
            check(name, n, rows, columns, 48, (1, -1))


@pytest.mark.parametrize("n", [1, 2, 4, 5, 8, 11, SOME, SOME + 1])
@pytest.mark.parametrize("bits", BITS)
def test_rows_that_meet_words_in_registers(n: int, bits: int) -> None:
    """As many as fit and one more; of the matrix as many as go side by side, and other counts; longer than a piece."""
    for rows in (1, 2, 3, 7):
        for columns in (8, cpu_eight._DEPTH + 16):
            for signs in ((-1,), (1, 1), (1, -1), (-1, -1)):
                check("linear_packed", n, rows, columns, bits, signs)


@pytest.mark.parametrize("n", [SOME + 1, SOME + 9, 67])
@pytest.mark.parametrize("bits", BITS)
def test_many_rows_meet_words_that_became_columns(n: int, bits: int) -> None:
    """Rows of the matrix by 24 and by 8, or in a number that is no multiple; deeper than is taken at a time."""
    for rows, columns in ((8, 8), (24, 136), (59, 648), (64, 648), (16, 9)):
        for signs in ((-1,), (1, 1), (1, -1), (-1, -1)):
            check("linear_packed", n, rows, columns, bits, signs)


@pytest.mark.parametrize("n", [1, 4, 8, 15, 33])
@pytest.mark.parametrize("bits", BITS)
def test_rows_of_a_matrix_go_by_in_bands(n: int, bits: int) -> None:
    """More columns than a band has, and rows than go by at a time, by 24 and by 8."""
    for rows, columns in ((1, 8), (70, 56), (64, 808), (130, 792)):
        for signs in ((-1,), (1, 1), (1, -1), (-1, -1)):
            check("matmul_packed", n, rows, columns, bits, signs)


@pytest.mark.parametrize("n", [1, 3, 8])
def test_as_on_a_processor_that_cannot(n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_packed, "SOME", 0)
    for rows in (1, 7, 8, 21):
        for columns in (8, 9, 40, 296):
            check("linear_packed", n, rows, columns, 48, (1, -1))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("bits", range(1, 65))
def test_every_ring(name: str, bits: int) -> None:
    check(name, 5, 9, 19, bits, (1, 1))


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("signs", [(1,), (-1,), (0,), (1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (0, -1), (0, 0)])
def test_every_sign(name: str, signs: tuple[int, ...]) -> None:
    check(name, 4, 17, 35, 48, signs)


@pytest.mark.parametrize("name", BOTH)
def test_left_factor_in_every_layout(name: str) -> None:
    for layout, a in views(6, 24).items():
        packed = [kernels.pack_bytes(words(24, 24), 48)]
        expected = getattr(plain, name)(a, packed, [1], 48, torch.zeros(6, 24, dtype=torch.int64))
        assert same(getattr(kernels, name)(a, packed, [1], 48, torch.zeros_like(expected)), expected, 48), layout


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("n", [2, 8, SOME + 1])
@pytest.mark.parametrize("bits", BITS)
def test_nothing_behind_the_last_word_is_read(name: str, n: int, bits: int) -> None:
    """The words end where a page begins that nobody may read: one byte more would end the process."""
    rows, columns = 8, 8 * 19
    size = (bits + 7) // 8 * rows * columns
    with mmap.mmap(-1, 3 * mmap.PAGESIZE) as region:
        place = np.frombuffer(region, dtype=np.uint8)
        forbidden = place.ctypes.data + 2 * mmap.PAGESIZE
        assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(forbidden), mmap.PAGESIZE, 0) == 0
        tight = torch.from_numpy(place[2 * mmap.PAGESIZE - size : 2 * mmap.PAGESIZE])
        tight.copy_(kernels.pack_bytes(words(rows, columns), bits))
        a = words(n, columns if name == "linear_packed" else rows)
        out = torch.zeros(n, rows if name == "linear_packed" else columns, dtype=torch.int64)
        expected = getattr(plain, name)(a, [tight], [1], bits, out.clone())
        assert same(getattr(kernels, name)(a, [tight], [1], bits, out), expected, bits)
        del tight, place


def test_a_map_that_cannot_be_written_is_read_in_place(tmp_path: Path) -> None:
    path = tmp_path / "words"
    path.write_bytes(kernels.pack_bytes(words(4, 8), 48).numpy().tobytes())
    mapped = torch.from_dlpack(np.memmap(path, dtype=np.uint8, mode="r"))
    got = kernels.linear_packed(words(2, 8), [mapped], [1], 48, torch.zeros(2, 4, dtype=torch.int64))
    assert same(got, words(2, 8) @ words(4, 8).T, 48)


@pytest.mark.parametrize("name", BOTH)
def test_refusals(name: str) -> None:
    work, out = getattr(kernels, name), torch.zeros(2, 8, dtype=torch.int64)
    with pytest.raises(ValueError, match="95 bytes are not rows of 8 words"):
        work(words(2, 8), [torch.zeros(95, dtype=torch.uint8)], [1], 48, out)
    with pytest.raises(ValueError, match="cannot multiply"):
        work(words(2, 8), [torch.zeros(96, dtype=torch.uint8)], [1, 1], 48, out)
    with pytest.raises(ValueError, match="cannot multiply"):
        work(words(2, 8), [torch.zeros(96, dtype=torch.uint8)], [1], 48, out.T)
    with pytest.raises(ValueError, match="do not fit"):
        work(words(2, 8), [torch.zeros(48 * 9, dtype=torch.uint8)], [1], 48, out)
    with pytest.raises(ValueError, match="different sizes"):
        work(words(2, 8), [torch.zeros(48, dtype=torch.uint8), torch.zeros(96, dtype=torch.uint8)], [1, 1], 48, out)
