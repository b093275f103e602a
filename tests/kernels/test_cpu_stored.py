"""Products with matrices in their file's own numbers against plain ones: every kind, remainder and layout."""

from __future__ import annotations

import pytest
import torch

from puma import kernels
from puma.kernels import Stored, plain
from puma.kernels.stored import KINDS
from tests.cases import sample
from tests.kernels.words import views, words

BOTH = ["linear_stored", "matmul_stored"]


def stored(kind: str, rows: int, columns: int, factors: bool = False) -> Stored:
    """A matrix of such numbers, up to some units, with small ones and zeros among them."""
    values = sample(rows, columns, scale=3) * 2.0 ** (torch.arange(columns) % 20 - 16)
    dtype, whole = KINDS[kind]
    raw = (values * 2**18 if whole else values).to(dtype).reshape(-1).view(torch.uint8)
    return Stored(raw, kind, columns, sample(columns, seed=1).float() if factors and not whole else None)


def same(got: torch.Tensor, expected: torch.Tensor, bits: int) -> bool:
    return torch.equal(plain.reduce(got, bits), plain.reduce(expected, bits))


@pytest.mark.parametrize("factors", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_words_are_the_rounded_numbers(kind: str, factors: bool) -> None:
    for rows, columns in ((0, 3), (1, 1), (3, 7), (5, 300)):
        matrix = stored(kind, rows, columns, factors)
        assert torch.equal(kernels.spread(matrix, 18), plain.spread(matrix, 18)), (rows, columns)


def test_ties_go_to_even_and_small_halves_are_exact() -> None:
    """As torch rounds; a half of the least size, and the largest one."""
    halves = torch.tensor([0.5, 1.5, 2.5, -0.5, -2.5, 2.0**-24, -(2.0**-24), 65504.0], dtype=torch.float16)
    matrix = Stored(halves.view(torch.uint8), "f16", 8)
    assert kernels.spread(matrix, 0)[0].tolist() == [0, 2, 2, 0, -2, 0, 0, 65504]
    assert kernels.spread(matrix, 24)[0, 5:7].tolist() == [1, -1]


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("n", [0, 1, 3, 13, 40])
def test_every_remainder(name: str, n: int) -> None:
    for rows, columns in ((1, 1), (4, 7), (8, 8), (21, 40), (9, 300)):
        matrix = stored("bf16", rows, columns, factors=True)
        linear = name == "linear_stored"
        a, out = words(n, columns if linear else rows), words(n, rows if linear else columns, seed=3)
        expected = getattr(plain, name)(a, matrix, 18, 48, out.clone())
        assert getattr(kernels, name)(a, matrix, 18, 48, out) is out
        assert same(out, expected, 48), (n, rows, columns)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [34, 48, 52, 53, 64])
def test_every_kind_in_every_ring(name: str, kind: str, bits: int) -> None:
    matrix, out = stored(kind, 24, 24), torch.zeros(6, 24, dtype=torch.int64)
    for layout, a in views(6, 24).items():
        expected = getattr(plain, name)(a, matrix, 18, bits, out.clone())
        assert same(getattr(kernels, name)(a, matrix, 18, bits, out.clone()), expected, bits), layout


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bits", [34, 52, 53, 64])
def test_many_rows_meet_numbers_that_became_columns(kind: str, bits: int) -> None:
    """Rows of the matrix by 24, by 8 and what is left, deeper than is taken at a time, at any byte."""
    for n, rows, columns in ((32, 8, 8), (33, 24, 136), (45, 59, 648), (40, 3, 16)):
        matrix, a, out = stored(kind, rows, columns, factors=True), words(n, columns), words(n, rows, seed=3)
        matrix = matrix._replace(raw=torch.cat([matrix.raw[:1], matrix.raw])[1:])
        expected = plain.linear_stored(a, matrix, 18, bits, out.clone())
        assert same(kernels.linear_stored(a, matrix, 18, bits, out), expected, bits), (n, rows, columns)


def test_small_halves_are_exact_in_many_rows() -> None:
    halves = torch.tensor([2.0**-24, -(2.0**-24), 2.0**-15, 65504.0, -0.5, 1.5, 0.0, -0.0], dtype=torch.float16)
    matrix = Stored(halves.repeat(8).view(torch.uint8), "f16", 8)
    a = torch.eye(8, dtype=torch.int64).repeat(4, 1)
    got = kernels.linear_stored(a, matrix, 24, 64, torch.zeros((32, 8), dtype=torch.int64))
    assert torch.equal(got, plain.linear_stored(a, matrix, 24, 64, torch.zeros_like(got)))
    assert got[:2, 0].tolist() == [1, -1]


def test_some_of_the_rows() -> None:
    matrix = stored("bf16", 9, 5, factors=True)
    assert torch.equal(kernels.spread(matrix.part(2, 7), 18), kernels.spread(matrix, 18)[2:7])
    assert matrix.rows == 9 and matrix.part(4, 4).rows == 0


def test_what_does_not_fit_is_refused() -> None:
    matrix = stored("bf16", 4, 6)
    with pytest.raises(ValueError, match="cannot multiply"):
        kernels.linear_stored(words(2, 5), matrix, 18, 48, words(2, 4))
    with pytest.raises(ValueError, match="are not rows of 6 numbers"):
        kernels.spread(matrix._replace(raw=matrix.raw[:-1]), 18)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_of_a_file_begin_at_any_byte(kind: str) -> None:
    matrix = stored(kind, 5, 300, True)
    raw = torch.cat([matrix.raw[:1], matrix.raw])[1:]
    assert raw.data_ptr() % 2
    assert torch.equal(kernels.spread(matrix._replace(raw=raw), 18), plain.spread(matrix, 18))
