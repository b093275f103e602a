"""Open a folder for the plain run, and follow a causal one step by step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.testing import assert_close

from puma.errors import RangeError
from puma.models import Cache, architecture
from puma.models.architecture import Params
from puma.models.checkpoint import Checkpoint, load
from puma.models.config import Config
from puma.models.formats import Formats, places
from puma.models.ranges import bounds, check_weights


def open_model(folder: Path) -> tuple[Checkpoint, Any]:
    """A checkpoint and its model on tensors."""
    checkpoint = load(folder)
    return checkpoint, architecture(checkpoint.config).model(checkpoint.config, checkpoint.fold())


def usual(config: Config) -> Any:
    """The same config with the formats of a model that has no plan."""
    return msgspec.structs.replace(config, formats=Formats())


def check_usual(config: Config, params: Params) -> None:
    """RangeError if some input could leave the formats of a model that has no plan."""
    check_weights(params)
    found = places(architecture(config).model(usual(config)))
    for name, bound, what in bounds(config, params):
        limit = found[name].limit if name in found else math.inf  # what is added to the stream has no limit of its own
        if not bound < limit:
            raise RangeError(f"{name} can give {what} of {bound:.4g}, beyond {limit:g}", "")


def one_hot(ids: list[int], size: int) -> torch.Tensor:
    """One row per token."""
    return torch.nn.functional.one_hot(torch.tensor(ids), size).float()


def continues(model: Any, config: Config, ids: list[int], expected: Any, near: Callable[[Any, Any], None]) -> None:
    """At the prompt and at every cached step the model gives what transformers gave for nine ids."""
    rows, cache = one_hot(ids, config.vocab_size), Cache(config.layers)
    near(model(rows)[0], expected.logits[0, -1])
    near(model.hidden(rows), expected.hidden_states[-1][0])
    near(model(rows[:4], cache)[0], expected.logits[0, 3])
    near(model(rows[4:7], cache)[0], expected.logits[0, 6])  # several tokens after a cached prefix
    for i in (7, 8):
        near(model(rows[i : i + 1], cache)[0], expected.logits[0, i])
    assert cache.length == len(ids)


class Beside:
    """Prompts in caches that they share get the logits that each gets in a cache of its own."""

    def __init__(self, model: Any, config: Config, prompts: Sequence[list[int]]) -> None:
        self._model, self._config, self._prompts = model, config, prompts
        self._alone, self._token = [Cache(config.layers) for _ in prompts], 3

    def read(self, prompts: Sequence[int], width: int = 0) -> Cache:
        """A cache of these prompts; with a `width` each stands behind padding, which is hidden."""
        ids = [self._prompts[i] for i in prompts]
        cache = Cache(self._config.layers, [width or len(mine) for mine in ids])
        if width:
            flags = [i < width - len(mine) for mine in ids for i in range(width)]
            cache.hide(torch.tensor(flags).float())
        padded = [[0] * (width - len(mine)) + mine for mine in ids]
        for i in prompts:
            self._alone[i] = Cache(self._config.layers)
        self._same(cache, prompts, padded, ids)
        return cache

    def go_on(self, cache: Cache, prompts: Sequence[int]) -> None:
        """Two more tokens of each, in the order in which they lie there."""
        for _ in range(2):
            self._token += 1
            each = [[self._token + i] for i in prompts]
            self._same(cache, prompts, each, each)
        assert cache.prompts == len(prompts)

    def _same(self, cache: Cache, prompts: Sequence[int], fed: list[list[int]], own: list[list[int]]) -> None:
        found = self._model(one_hot([*chain(*fed)], self._config.vocab_size), cache)
        alone = zip(prompts, own, strict=True)
        each = [self._model(one_hot(ids, self._config.vocab_size), self._alone[i]) for i, ids in alone]
        assert_close(found, torch.cat(each), atol=1e-5, rtol=0)
