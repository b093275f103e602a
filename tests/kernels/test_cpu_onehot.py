"""The compiled one-hot kernels against the plain ones, and the plain ones against what they are for."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from puma import kernels
from puma.kernels import plain
from tests.kernels.words import words

WIDTHS = range(1, 10)


def hot(*lead: int, width: int, seed: int = 0) -> torch.Tensor:
    """A share of a one-hot: every bit random, those above the last position too."""
    return words(*lead, 1 << max(width - 6, 0), seed=seed)


@pytest.mark.parametrize("room", [kernels, plain])
@pytest.mark.parametrize("width", WIDTHS)
def test_shares_of_a_one_hot_meet_the_digit(room: Any, width: int) -> None:
    size = 1 << width
    hidden = words(500, seed=1) & (size - 1)
    public = words(500, seed=2) & (size - 1)
    table, members = words(3, size), words(size) & 1
    share = hot(500, width=width)
    other = share ^ room.onehot(hidden, width)
    difference = (public - hidden) & (size - 1)
    assert torch.equal(
        room.member(share, public, width, members) ^ room.member(other, public, width, members),
        members[difference],
    )
    assert torch.equal(room.above(share, public, width) ^ room.above(other, public, width), (hidden > public).long())
    assert torch.equal(
        room.hot_bit(share, public, width) ^ room.hot_bit(other, public, width), (hidden == public).long()
    )
    sign = 1 - 2 * room.hot_bit(share, hidden, width)
    found = room.lookup(other, public, width, table) - room.lookup(share, public, width, table)
    assert torch.equal(found, sign * table[:, difference])


@pytest.mark.parametrize("width", WIDTHS)
def test_equal_to_plain_bit_for_bit(width: int) -> None:
    e, digit = hot(7, 11, width=width), words(7, 11, seed=4)
    members = words(1 << width) & 1
    check(e, digit, width, members)
    check(e.transpose(0, 1), digit.t(), width, members.bool())
    check(e[::2, 1:], digit[::2, 1:], width, torch.zeros_like(members))
    check(e[:0], digit[:0], width, torch.ones_like(members))
    check(e[0], digit, width, members)
    check(e, digit[:, :1], width, members)
    check(e[0, 0], digit[0, 0], width, members)


@pytest.mark.parametrize("width", [3, 8])
@pytest.mark.parametrize("rows", [(3001,), (7, 500), (0,), (2, 0)])
def test_flags_of_rows_that_share_vectors(width: int, rows: tuple[int, ...]) -> None:
    """Many digits, of which each row asks the same vector: more than are copied at a time."""
    e, digit = hot(*rows, 1, width=width), words(*rows, 24, seed=5)
    asked = [(e, digit, 9, width, words(1 << width) & 1), (e, digit, 0, width, None)]
    for got, expected in zip(kernels.flags(asked), plain.flags(asked), strict=True):
        assert got.shape == expected.shape and torch.equal(got, expected)


def check(e: torch.Tensor, digit: torch.Tensor, width: int, members: torch.Tensor) -> None:
    for tables in (0, 1, 2, 3, 4):
        table = words(2 * tables, 1 << width, seed=tables)[::2]
        assert torch.equal(kernels.lookup(e, digit, width, table), plain.lookup(e, digit, width, table)), tables
    assert torch.equal(kernels.member(e, digit, width, members), plain.member(e, digit, width, members))
    asked = [(e, digit, 0, width, members), (e, digit, 7, width, None), (e, digit, 3, width, 1 - members.long())]
    for got, expected in zip(kernels.flags(asked), plain.flags(asked), strict=True):
        assert got.shape == expected.shape and torch.equal(got, expected)
    assert torch.equal(kernels.above(e, digit, width), plain.above(e, digit, width))
    assert torch.equal(kernels.hot_bit(e, digit, width), plain.hot_bit(e, digit, width))
    assert torch.equal(kernels.onehot(digit, width), plain.onehot(digit, width))
    half = words(2 * (((digit.numel() << width) + 7) // 8)).to(torch.uint8)
    hidden = [room.hidden_hots(half, digit, [(0, width), (11, width)]) for room in (kernels, plain)]
    assert torch.equal(*hidden)


@pytest.mark.parametrize("width", WIDTHS)
def test_every_digit_with_every_single_position(width: int) -> None:
    size = 1 << width
    position = torch.arange(size)
    e, digit = kernels.onehot(position, width)[:, None], position.expand(size, size)
    assert torch.equal(kernels.hot_bit(e, digit, width), torch.eye(size, dtype=torch.int64))
    assert torch.equal(kernels.above(e, digit, width), (position[:, None] > position).long())
    table = words(2, size)
    assert torch.equal(kernels.lookup(e, digit, width, table), table[:, (digit - position[:, None]) % size])


def test_parity() -> None:
    x = words(6, 50)
    expected = torch.tensor([[(int(word) & (1 << 64) - 1).bit_count() & 1 for word in row] for row in x])
    for room in (kernels, plain):
        assert torch.equal(room.parity(x), expected)
        assert torch.equal(room.parity(x.t()), expected.t())
        assert room.parity(x[:0]).shape == (0, 50)


def test_refusals() -> None:
    e, digit = hot(5, width=8), words(5)
    with pytest.raises(ValueError, match="width 7 has 2 words"):
        kernels.above(e, digit, 7)
    with pytest.raises(ValueError, match="table"):
        kernels.lookup(e, digit, 8, words(2, 255))
    with pytest.raises(ValueError, match="set"):
        kernels.member(e, digit, 8, words(2, 256))
    with pytest.raises(TypeError, match="int64"):
        kernels.lookup(e, digit.int(), 8, words(2, 256))
