"""Quantised matrices as they lie in GGUF files: the package's own numbers, and the products that plain ones give."""

from __future__ import annotations

import gguf
import pytest
import torch

from puma import kernels
from puma.kernels import Stored, plain
from puma.kernels.stored import BLOCKS, KINDS, bytes_of, fits, numbers
from tests.cases import sample
from tests.kernels.words import words

SCALES = {
    "q4_z": [0],
    "q8_0": [0],
    "q4_0": [0],
    "q4_1": [0, 2],
    "q4_k": [0, 2],
    "q6_k": [208],
}  # where a block has its halves


def blocked(kind: str, rows: int, columns: int, factors: bool = False) -> Stored:
    """A matrix of which every byte means something, with scales of many sizes, none of them among the infinite."""
    block = BLOCKS[kind]
    count = rows * columns // block.numbers
    raw = (words(count, block.size, seed=5) & 255).to(torch.uint8)
    for at in SCALES[kind]:
        halves = sample(count, 1, seed=at) * 2.0 ** (-(torch.arange(count) % 20).unsqueeze(1) - 2)
        raw[:, at : at + 2] = halves.to(torch.float16).view(torch.uint8)
    return Stored(raw.reshape(-1), kind, columns, sample(columns, seed=1).float() if factors else None)


@pytest.mark.parametrize("kind", [kind for kind in BLOCKS if kind != "q4_z"])
def test_numbers_are_those_of_the_package(kind: str) -> None:
    matrix = blocked(kind, 5, 512)
    theirs = gguf.dequantize(matrix.raw.reshape(5, -1).numpy(), gguf.GGMLQuantizationType[kind.upper()])
    assert torch.equal(numbers(matrix), torch.from_numpy(theirs))
    assert matrix.rows == 5 and torch.equal(numbers(matrix.part(1, 3)), numbers(matrix)[1:3])
    assert torch.equal(numbers(matrix.chosen(torch.tensor([4, 0, 4]))), numbers(matrix)[[4, 0, 4]])


def test_integers_around_a_zero_of_their_own() -> None:
    matrix = blocked("q4_z", 1, 64)
    scale = matrix.raw.reshape(2, 20)[:, :2].contiguous().view(torch.float16).float()
    block = matrix.raw.reshape(2, 20).int()
    expected = torch.cat([block[:, 4:] & 15, block[:, 4:] >> 4], 1) - block[:, 2:3]
    assert torch.equal(numbers(matrix), (expected * scale).reshape(1, 64))


@pytest.mark.parametrize("factors", [False, True])
@pytest.mark.parametrize("kind", BLOCKS)
def test_words_and_products_are_the_plain_ones(kind: str, factors: bool) -> None:
    for rows, columns in ((1, 256), (9, 512), (21, 768)):
        matrix = blocked(kind, rows, columns, factors)
        assert torch.equal(kernels.spread(matrix, 18), plain.spread(matrix, 18)), (rows, columns)
        for name, width, result in (("linear_stored", columns, rows), ("matmul_stored", rows, columns)):
            for n in (1, 5, 40):
                a, out = words(n, width), words(n, result, seed=3)
                expected = getattr(plain, name)(a, matrix, 18, 48, out.clone())
                found = getattr(kernels, name)(a, matrix, 18, 48, out)
                assert torch.equal(plain.reduce(found, 48), plain.reduce(expected, 48)), (name, n, rows, columns)


def test_rows_are_whole_blocks() -> None:
    """What an owner from afar says of a tensor is looked at before a kernel walks over its bytes."""
    assert fits("q8_0", (3, 64)) and fits("q4_k", (3, 256)) and fits("bf16", (7,)) and fits("i64", ())
    assert not any((fits("q8_0", (3, 40)), fits("q8_0", (64,)), fits("q4_k", (3, 128)), fits("q8_0", (3, 0))))
    assert not fits("q9", (3, 64)) and not set(BLOCKS) & set(KINDS)
    assert bytes_of("q4_0", 64) == 36 and bytes_of("f16", 3) == 6
