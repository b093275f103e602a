"""The compiled ring matmul against torch's own, in every ring and layout."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from puma import kernels
from puma.kernels import plain
from tests.kernels.words import views, words


def same(got: torch.Tensor, expected: torch.Tensor, bits: int) -> bool:
    return torch.equal(plain.reduce(got, bits), plain.reduce(expected, bits))


@pytest.mark.parametrize("n", [0, 1, 3, 4, 8, 17, 34])
@pytest.mark.parametrize("m", [0, 1, 5, 8, 31, 32, 41])
def test_every_remainder_of_rows_columns_and_depth(n: int, m: int) -> None:
    for k in (0, 1, 7, 8, 9, 40):
        a = words(n, k)
        for layout, b in views(k, m, seed=1).items():
            for bits in (64, 52, 3):
                got = kernels.matmul(a, b, bits)
                assert got.shape == (n, m) and same(got, a @ b, bits), (k, layout, bits)


@pytest.mark.parametrize("n", [2, 40])
@pytest.mark.parametrize("bits", [64, 48])
def test_more_depth_and_columns_than_one_block(n: int, bits: int) -> None:
    for layout, b in views(1100, 70).items():
        a = words(n, 1100, seed=2)
        assert same(kernels.matmul(a, b, bits), a @ b, bits), layout
    a, b = words(n, 20), words(20, 2100)
    assert same(kernels.matmul(a, b, bits), a @ b, bits)


@pytest.mark.parametrize("n", [1, 6, 20])
def test_left_factor_in_every_layout(n: int) -> None:
    for layout, a in views(n, 13).items():
        for b in (words(13, 9), words(9, 13).t()):
            assert same(kernels.matmul(a, b), a @ b, 64), layout


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ((3,), (3,)),
        ((2, 3), (2, 3)),
        ((2, 3), (3,)),
        ((3,), (2, 1)),
        ((2, 1), (1, 3)),
        ((), (2, 3)),
        ((2, 3), ()),
        ((1,), ()),
        ((0,), (0,)),
        ((2, 0), ()),
    ],
)
def test_batches_broadcast(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    for n in (2, 12):
        for a_layout, a in views(*left, n, 10).items():
            for b_layout, b in views(*right, 10, 7, seed=3).items():
                assert same(kernels.matmul(a, b), a @ b, 64), (a_layout, b_layout)


def test_heads_split_from_one_row_are_read_in_place() -> None:
    rows = words(9, 4, 16)
    query, key = rows.transpose(0, 1), rows.permute(1, 2, 0)
    assert same(kernels.matmul(query, key), query @ key, 64)
    assert same(kernels.matmul(query @ key, rows.transpose(0, 1)), (query @ key) @ query, 64)


def test_out_is_added_into_and_returned() -> None:
    a, b = words(2, 9, 12), words(2, 12, 10)
    for layout, start in views(2, 9, 10, seed=5).items():
        out = start.clone() if layout == "expanded" else start
        expected = out + a @ b
        assert kernels.matmul(a, b, 64, out) is out, layout
        assert torch.equal(out, expected), layout
    nothing = words(3, 4)
    expected = nothing.clone()
    assert torch.equal(kernels.matmul(words(3, 0), words(0, 4), out=nothing), expected)


def test_narrow_rings_ignore_what_lies_above() -> None:
    a, b = words(20, 33), words(33, 40)
    garbage = words(20, 33, seed=7) << 52
    assert same(kernels.matmul(a + garbage, b, 52), a @ b, 52)


def test_refusals() -> None:
    with pytest.raises(ValueError, match="cannot multiply"):
        kernels.matmul(words(2, 3), words(4, 5))
    with pytest.raises(ValueError, match="cannot multiply"):
        kernels.matmul(words(3), words(3, 5))
    with pytest.raises(ValueError, match="cannot add"):
        kernels.matmul(words(2, 3), words(3, 5), out=words(1, 5))
    with pytest.raises(TypeError, match="int64"):
        kernels.matmul(words(2, 3), torch.ones(3, 5))
    with pytest.raises(TypeError, match="int64"):
        kernels.matmul(words(2, 3), words(3, 5), out=torch.ones(2, 5, dtype=torch.int32))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 80), st.integers(0, 80), st.integers(1, 64), st.integers(0, 99))
def test_any_shape(n: int, k: int, m: int, bits: int, seed: int) -> None:
    a, b = words(n, k, seed=seed), words(k, m, seed=seed + 1)
    for right in (b, b.t().contiguous().t()):
        assert same(kernels.matmul(a, right, bits), a @ b, bits)
