"""Chains of operations against the plain ones: bit for bit, in every layout and ring, on one thread and on three."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from puma import kernels, pool
from puma.kernels import cpu_chains, plain
from tests.kernels.words import views, words

SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0, 3), (4, 33)]
CHAINS: dict[str, Callable[[Any, list[Tensor], int], Any]] = {
    "cut": lambda k, x, bits: k.cut(x[0], x[1], 1 << (bits // 2), bits // 3, bits, -1),
    "cut, one": lambda k, x, bits: k.cut(x[0], None, 0, bits // 2, bits, 0),
    "cut, all": lambda k, x, bits: k.cut(x[0], None, 5, bits, bits, 7),
    "cut, nothing": lambda k, x, bits: k.cut(x[0], x[1], -1, 0, bits, 0),
    "cut, both": lambda k, x, bits: k.cut_both(x[0], x[1], x[2], 1 << (bits // 2), bits // 3, bits, -1),
    "cut, both alone": lambda k, x, bits: k.cut_both(x[0], None, x[1], 5, bits // 2, bits, 7),
    "cut, both to nothing": lambda k, x, bits: k.cut_both(x[0], x[1], x[2], 5, bits, bits, 7),
    "cut, digits": lambda k, x, bits: k.cut_digits(x[0], x[1], [(0, 1), (1, bits - 1), (bits // 2, bits // 3 or 1)]),
    "cut, digits of one": lambda k, x, bits: k.cut_digits(x[0], None, [(0, bits), (bits - 1, 1)]),
    "joined": lambda k, x, bits: k.joined(x[0], x[1], bits - 1, -(1 << (bits - 1))),
    "joined, both": lambda k, x, bits: k.joined_both(*x[:4], bits - 1, -(1 << (bits - 1))),
    "wraps": lambda k, x, bits: k.wraps(x[0], x[1], bits),
    "picked": lambda k, x, bits: k.picked(x[0], x[1], 1 << (bits - 1), bits, torch.stack(x[2:4])),
    "raised": lambda k, x, bits: k.raised(x[0], x[1], 1 << (bits - 1), bits, torch.stack(x[2:4])),
    "raised_masks": lambda k, x, bits: k.raised_masks(x[0], x[1], bits),
    "add": lambda k, x, bits: k.wordwise("add", *x[:2]),
    "sub": lambda k, x, bits: k.wordwise("sub", *x[:2]),
    "mul": lambda k, x, bits: k.wordwise("mul", *x[:2]),
    "xor": lambda k, x, bits: k.wordwise("xor", *x[:2]),
    "neg": lambda k, x, bits: k.wordwise("neg", x[0]),
    "selected": lambda k, x, bits: k.selected(x[0] & 1, *x[1:3], torch.stack(x[3:5]), bits % 2 == 0),
    "line": lambda k, x, bits: k.line(torch.stack(x), (x[0] & 64) - 32, x[4] & 1, *x[2:4]),
    "line_masks": lambda k, x, bits: k.line_masks((x[0] & 2) - 1, x[1], (x[2], x[3]), (x[3], x[4]), x[4] & 1),
    "selecting": lambda k, x, bits: k.selecting(x[0] & 1, (x[1], x[2])),
}


@pytest.fixture(params=[1, 3], autouse=True)
def thread_count(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(cpu_chains, "_LEAST", 1)
    pool.use(request.param)
    yield
    pool.use(1)


def same(got: Any, expected: Any) -> bool:
    if isinstance(got, Tensor):
        return got.shape == expected.shape and torch.equal(got, expected)
    return all(map(same, got, expected))


@pytest.mark.parametrize("name", CHAINS)
def test_every_shape_and_ring(name: str) -> None:
    for shape in SHAPES:
        x = [words(*shape, seed=i) for i in range(5)]
        before = [each.clone() for each in x]
        for bits in (2, 3, 34, 48, 52, 63):
            assert same(CHAINS[name](kernels, x, bits), CHAINS[name](plain, x, bits)), (shape, bits)
        assert same(x, before)


@pytest.mark.parametrize("name", ["cut", "cut, one", "cut, nothing", "cut, both alone", "cut, digits of one"])
def test_whole_words(name: str) -> None:
    x = [words(9, seed=i) for i in range(3)]
    assert same(CHAINS[name](kernels, x, 64), CHAINS[name](plain, x, 64))


@pytest.mark.parametrize("name", CHAINS)
def test_every_layout(name: str) -> None:
    """What does not lie in order, or has one shape with the others only once it is spread, is still right."""
    others = [words(6, 8, seed=i) for i in range(1, 5)]
    for layout, x in views(6, 8).items():
        assert same(CHAINS[name](kernels, [x, *others], 40), CHAINS[name](plain, [x, *others], 40)), layout
        second = [others[0], x, *others[1:]]
        assert same(CHAINS[name](kernels, second, 40), CHAINS[name](plain, second, 40)), layout


def test_shapes_that_are_spread() -> None:
    v, row, x = words(4, 1) & 1, words(1, 5), words(4, 5)
    for first in (False, True):
        dealt = torch.stack([x, x])
        assert same(kernels.selected(v, row, row, dealt, first), plain.selected(v, row, row, dealt, first))
    assert same(kernels.cut(v, row, 1, 2, 40, -1), plain.cut(v, row, 1, 2, 40, -1))
    assert same(kernels.joined(row, x, 3, 1), plain.joined(row, x, 3, 1))
