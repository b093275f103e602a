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
    one.further([5, 1])
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


@pytest.mark.parametrize("name", ["t5", "mistral", "gemma2", "neox", "opt"])
def test_several_rows_of_each_and_what_is_cut_off_again(name: str, tmp_path: Path) -> None:
    """All rows of an unequal pass ask, see what is theirs, and leave no trace once they are cut off."""
    checkpoint, model = open_model(zoo.write(tmp_path, name))
    config, size, prompts = checkpoint.config, zoo.VOCABULARY, PROMPTS[:3]

    def alone(prompt: list[int], text: list[int]) -> torch.Tensor:
        cache = Cache(config.layers, [len(prompt)])
        rows = [model(one_hot(prompt, size), cache), *(model(one_hot([token], size), cache) for token in text)]
        return torch.cat(rows)

    told: list[list[int]] = [[], [], []]
    cache = Cache(config.layers, [len(ids) for ids in prompts])
    model(one_hot([*chain(*prompts)], size), cache)
    for texts, cut in (
        ([[9, 8, 7], [6], [5, 4]], [2, 0, 1]),
        ([[3, 2], [1, 2, 3], [4]], [1, 3, 0]),
        ([[7], [8], [9]], [0, 0, 0]),
    ):
        counts = [len(text) for text in texts]
        cache.expect([range(count - 1) for count in counts])
        found = model(one_hot([*chain(*texts)], size), cache).split(counts)
        for prompt, before, text, rows in zip(prompts, told, texts, found, strict=True):
            torch.testing.assert_close(rows, alone(prompt, [*before, *text])[-len(text) :], atol=1e-5, rtol=0)
        cache.cut(cut)
        for before, text, gone in zip(told, texts, cut, strict=True):
            before += text[: len(text) - gone]
    own = cache._own
    assert bool(own.held[:, -1].all()) and own.length == max(map(int, own.held.sum(1)))


@pytest.mark.parametrize("name", ["t5", "mistral", "opt"])
def test_rows_side_by_side_see_none_of_each_other(name: str, tmp_path: Path) -> None:
    """Two continuations of one prompt and three of another, of which the middle rows are kept."""
    checkpoint, model = open_model(zoo.write(tmp_path, name))
    config, size, prompts = checkpoint.config, zoo.VOCABULARY, PROMPTS[:2]
    cache = Cache(config.layers, [len(ids) for ids in prompts])
    model(one_hot([*chain(*prompts)], size), cache)
    texts, parents = [[9, 8, 7, 6, 5], [4, 3, 2, 9]], [[0, 0, 1, 2], [0, 0, 0]]
    paths = [[[9], [9, 8], [9, 7], [9, 8, 6], [9, 7, 5]], [[4], [4, 3], [4, 2], [4, 9]]]
    cache.expect(parents)
    found = model(one_hot([*chain(*texts)], size), cache).split([5, 4])

    def alone(prompt: list[int], path: list[int]) -> torch.Tensor:
        own = Cache(config.layers, [len(prompt)])
        model(one_hot(prompt, size), own)
        return torch.cat([model(one_hot([token], size), own) for token in path])[-1]

    for prompt, mine, rows in zip(prompts, paths, found, strict=True):
        for path, row in zip(mine, rows, strict=True):
            torch.testing.assert_close(row, alone(prompt, path), atol=1e-5, rtol=0)
    cache.cut([5, 4], [[0, 2, 4], [0, 2]])
    after = model(one_hot([1, 2], size), cache)
    for prompt, path, row in zip(prompts, ([9, 7, 5, 1], [4, 2, 2]), after, strict=True):
        torch.testing.assert_close(row, alone(prompt, path), atol=1e-5, rtol=0)


def test_what_cannot_be_cut(tmp_path: Path) -> None:
    checkpoint, model = open_model(zoo.write(tmp_path, "mistral"))
    cache = Cache(checkpoint.config.layers, [3])
    model(one_hot(PROMPTS[0], zoo.VOCABULARY), cache)
    for rows in ([3], [-1]):
        with pytest.raises(UsageError, match="cannot be cut off"):
            cache.cut(rows)
    cache.cut([2])
    assert cache.length == 1
