"""Prompts that join others under way, or leave them, get the logits that each gets alone."""

from __future__ import annotations

from itertools import chain
from pathlib import Path

import pytest
import torch

from puma.errors import UsageError
from puma.models import Cache
from tests.models import zoo
from tests.models.plain import Beside, one_hot, open_model

PROMPTS = [[2, 5, 7], [3], [4, 9, 6, 11, 8, 1, 2, 7], [5, 1]]


@pytest.mark.parametrize("name", ["t5", "mistral", "gemma2", "gemma3", "neox", "opt"])
def test_who_joins_and_who_leaves(name: str, tmp_path: Path) -> None:
    """Short ones join long ones and the other way round; after each change all that are left take two tokens."""
    checkpoint, model = open_model(zoo.write(tmp_path, name))
    beside = Beside(model, checkpoint.config, PROMPTS)
    cache = beside.read([0, 1])
    beside.go_on(cache, [0, 1])
    cache.join(beside.read([2]))
    beside.go_on(cache, [0, 1, 2])
    cache.keep([0, 1])
    beside.go_on(cache, [0, 1])
    cache.join(beside.read([3]))
    cache.keep([2, 1])
    beside.go_on(cache, [3, 1])


def test_columns_that_nobody_fills_go(tmp_path: Path) -> None:
    checkpoint, model = open_model(zoo.write(tmp_path, "mistral"))
    cache = Cache(checkpoint.config.layers, [3, 8])
    model(one_hot([*chain(PROMPTS[0], PROMPTS[2])], zoo.VOCABULARY), cache)
    cache.keep([0])
    assert cache.length == 3 and cache.layers[0].k.shape[2] == 3 and bool(cache.held.all())


def test_what_cannot_be_joined(tmp_path: Path) -> None:
    checkpoint, model = open_model(zoo.write(tmp_path, "mistral"))
    cache, other = Cache(checkpoint.config.layers, [3]), Cache(checkpoint.config.layers, [1])
    model(one_hot(PROMPTS[0], zoo.VOCABULARY), cache)
    with pytest.raises(UsageError, match="under way"):
        cache.join(other)
    model(one_hot(PROMPTS[1], zoo.VOCABULARY), other)
    other.branch(torch.zeros(2, 2))
    with pytest.raises(UsageError, match="one text of each"):
        cache.join(other)


@pytest.mark.parametrize("name", ["mistral", "gemma2", "gemma3", "neox", "opt"])
def test_prompts_in_pieces(name: str, tmp_path: Path) -> None:
    """Rows of unequal lengths behind unequal ones; what others held is gone when they part, and one goes on at will."""
    checkpoint, model = open_model(zoo.write(tmp_path, name))
    layers, long, short = checkpoint.config.layers, PROMPTS[2], PROMPTS[0]

    def rows(*ids: int) -> torch.Tensor:
        return one_hot(list(ids), zoo.VOCABULARY)

    whole = torch.cat([model(rows(*ids), Cache(layers)) for ids in (long, short)])
    one, two = Cache(layers), Cache(layers)
    model(rows(*long[:3]), one)
    model(rows(*short[:2]), two)
    one.join(two)
    one.expect([5, 1])
    torch.testing.assert_close(model(rows(*long[3:], *short[2:]), one), whole, atol=1e-5, rtol=1e-5)
    alone = one.apart([1])
    assert alone.length == len(short) and bool(alone.held.all())
    again = one.apart([0]).beginning(6)
    torch.testing.assert_close(model(rows(*long[6:]), again), whole[:1], atol=1e-5, rtol=1e-5)


def test_what_has_no_beginning(tmp_path: Path) -> None:
    checkpoint, model = open_model(zoo.write(tmp_path, "mistral"))
    cache = Cache(checkpoint.config.layers, [3, 8])
    model(one_hot([*chain(PROMPTS[0], PROMPTS[2])], zoo.VOCABULARY), cache)
    for each, columns in ((cache, 2), (cache.apart([0]), 4), (cache.apart([0]), 0)):
        with pytest.raises(UsageError, match="go on from"):
            each.beginning(columns)
