"""Polynomials in packed bits: compiled code gives what the plain text does, over blocks and odd sizes."""

from __future__ import annotations

import pytest
import torch

from puma import kernels
from puma.kernels import plain

TERMS = torch.tensor([[0, 1, 2], [3, -1, -1], [-1, -1, -1], [2, 3, -1], [1, 1, 1]])


@pytest.mark.parametrize("width", [0, 1, 7, 4095, 4096, 9001])
@pytest.mark.parametrize("ends", [[5], [0, 2, 5], [3, 3, 4], []])
def test_as_the_plain_text(width: int, ends: list[int]) -> None:
    rows = torch.randint(0, 256, (4, width), dtype=torch.uint8)
    last = torch.tensor(ends, dtype=torch.int64)
    for each in (rows, rows.flip(0), torch.randint(0, 256, (width, 4), dtype=torch.uint8).t()):
        found = kernels.xor_of_products(each, TERMS, last)
        assert found.shape == (len(ends), width)
        assert torch.equal(found, plain.xor_of_products(each, TERMS, last))


def test_by_hand() -> None:
    rows = torch.tensor([[0b1100], [0b1010], [0b0110]], dtype=torch.uint8)
    terms = torch.tensor([[0, 1], [2, -1], [-1, -1]])
    assert kernels.xor_of_products(rows, terms, torch.tensor([1, 2, 3])).tolist() == [[0b1000], [0b0110], [255]]
    assert kernels.xor_of_products(rows, terms, torch.tensor([3])).tolist() == [[0b1000 ^ 0b0110 ^ 255]]


def test_rows_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="a row that there is not"):
        kernels.xor_of_products(torch.zeros(2, 3, dtype=torch.uint8), torch.tensor([[0, 2]]), torch.tensor([1]))


def test_shapes_alone() -> None:
    rows = torch.empty(4, 9, dtype=torch.uint8, device="meta")
    assert kernels.xor_of_products(rows, TERMS, torch.tensor([2, 5])).shape == (2, 9)
