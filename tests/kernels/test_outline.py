"""An outline has the shape that torch would give, whatever is done to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from puma.kernels.outline import Outline

WORDS = torch.arange(24).reshape(2, 3, 4)
CHOSEN = torch.tensor([[1, 0], [2, 2]])
OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "sum with a number": lambda x: 3 + x * 2 - 1,
    "sum with another": lambda x: x + x[:1],
    "sum with less": lambda x: x[0] ^ x,
    "sum with what torch holds": lambda x: torch.arange(4) + x,
    "difference": lambda x: torch.arange(3)[:, None] - x,
    "product": lambda x: torch.mul(x, x[..., :1]),
    "shifts": lambda x: (x << 3) >> torch.arange(4),
    "negated": lambda x: -~x,
    "compared": lambda x: x == 0,
    "row": lambda x: x[1],
    "last": lambda x: x[-1],
    "rows": lambda x: x[:1],
    "every other": lambda x: x[..., ::2],
    "many places": lambda x: x[None, 1, ..., None, 2:],
    "columns": lambda x: x[:, :, CHOSEN],
    "columns of all": lambda x: x[..., torch.tensor([3, 3, 0, 1, 1])],
    "listed": lambda x: x[[1, 0, 1]],
    "two lists": lambda x: x[torch.tensor([0, 1]), torch.tensor([2, 0])],
    "reshaped": lambda x: x.reshape(-1, 2, 3),
    "reshaped by a size": lambda x: x.reshape(torch.Size([6, 4])),
    "viewed": lambda x: x.view(24),
    "expanded": lambda x: x[:, :1].expand(2, 5, 4),
    "expanded ahead": lambda x: x.expand(7, 2, 3, 4),
    "expanded where it is known": lambda x: x[None].expand(5, -1, -1, 4),
    "expanded as another": lambda x: x[0].expand_as(x),
    "turned": lambda x: x.transpose(-1, 0),
    "turned by name": lambda x: x[0].T,
    "unsqueezed": lambda x: x.unsqueeze(-2),
    "squeezed": lambda x: x[:, :1].squeeze(1),
    "summed": lambda x: x.sum(1),
    "summed and kept": lambda x: x.sum(-1, keepdim=True),
    "selected": lambda x: x.select(1, 0),
    "zeros": lambda x: x.new_zeros(5, 2),
    "zeros of a shape": lambda x: x.new_zeros((5, 2)),
    "gathered": lambda x: x[0].gather(-1, torch.zeros(3, 2, dtype=torch.int64)),
    "split": lambda x: x.split_with_sizes([1, 1])[1],
    "first of all": lambda x: next(iter(x)),
    "stacked": lambda x: torch.stack([x, x], -1),
    "joined": lambda x: torch.cat([x, x[:, :1]], 1),
    "multiplied": lambda x: torch.matmul(x, x.transpose(1, 2)),
    "multiplied by one": lambda x: torch.matmul(x, torch.ones(4, 6, dtype=torch.int64)),
    "where": lambda x: torch.where(torch.ones(3, 1, dtype=torch.bool), x, 0),
    "like it": lambda x: torch.zeros_like(x),
    "flipped": lambda x: x.flip(0),
    "repeated": lambda x: x.repeat(2, 1, 3),
    "maximum": lambda x: torch.maximum(x, x[0]),
    "split by torch": lambda x: torch.split(x, 2, dim=2)[1],
}  # fmt: skip


@pytest.mark.parametrize("name", OPERATIONS)
def test_shapes(name: str) -> None:
    found = OPERATIONS[name](Outline(WORDS.shape))
    assert isinstance(found, Outline) and found.is_meta and not found.is_cpu
    assert tuple(found.shape) == tuple(OPERATIONS[name](WORDS).shape)
    assert found.numel() == OPERATIONS[name](WORDS).numel() and found.dim() == found.ndim == len(found.shape)


def test_bytes_are_seen_as_words() -> None:
    octets = Outline((48,), torch.uint8)
    assert (octets ^ octets).dtype == torch.uint8
    words = octets.view(torch.int64)
    assert tuple(words.shape) == (6,) and words.dtype == torch.int64 and tuple(words.view(torch.uint8).shape) == (48,)


def test_a_mask_knows_what_it_allows() -> None:
    mask = Outline((1, 1, 3, 4), torch.bool, count=6)
    assert mask.expand(2, 5, 3, 4).count == 60 and mask.expand(1, 1, 3, 4).count == 6
    assert mask.reshape(12).count is None


def test_nobody_looks_into_it() -> None:
    outline = Outline((3,))
    assert repr(outline) == "Outline(shape=(3,))" and len(outline) == 3
    with pytest.raises(TypeError, match="no words"):
        bool(outline)
    with pytest.raises(AssertionError):
        outline.reshape(4)
    with pytest.raises(AttributeError):
        outline.nothing_of_the_kind  # noqa: B018
