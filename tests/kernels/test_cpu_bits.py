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


@pytest.mark.parametrize("width", [0, 1, 3, 5, 6, 8])
def test_positions_are_counted(width: int) -> None:
    e = torch.randint(-(2**63), 2**63 - 1, (5, 7, 1 << max(width - 6, 0)))
    expected = torch.tensor([[bin(int(w) & ((1 << min(64, 1 << width)) - 1)).count("1") for w in row.reshape(-1)]
                             for row in e]).reshape(*e.shape).sum(-1)  # fmt: skip
    for each in (kernels, plain):
        assert torch.equal(each.population(e, width), expected)
        assert torch.equal(each.population(e.transpose(0, 1), width), expected.T)
    assert kernels.population(e[:0], width).shape == (0, 7)
    assert kernels.population(torch.empty(3, 4, 2, device="meta"), 7).shape == (3, 4)
