"""What a decoder reads of an encoder: the states of prompts, and their keys and values, which are computed once.

This file must not know tensors from shares, nor what an encoder's layers are.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch

import puma.nn.modules as nn
from puma.models.architectures.decoder import Attention
from puma.models.begun import parted
from puma.models.cache import Cache, LayerCache
from puma.nn import functional as F
from puma.nn.belonging import belonging
from puma.nn.layout import placed
from puma.nn.modules import Value


class Memory(NamedTuple):
    """What the decoder reads of the prompts: states (rows, hidden_size), which only the first pass reads, how they lie,
    and keys and values of both."""

    states: Value
    rows: nn.Rows
    own: Cache
    cross: list[LayerCache]

    @classmethod
    def of(cls, states: Value, rows: nn.Rows, layers: int, begun: int = 1) -> Memory:
        """Of an encoder's states of prompts; answers begin with so many tokens, in a decoder of so many layers."""
        own = Cache(layers, [begun] * len(rows.lengths))
        return cls(states, rows, own, [LayerCache() for _ in range(layers)])

    def joined(self, other: Memory) -> Memory:
        """With the prompts of another below."""
        self.own.join(other.own)
        cross = [
            _crossing(F.cat([a.k, b.k], 0), F.cat([a.v, b.v], 0)) for a, b in zip(self.cross, other.cross, strict=True)
        ]
        return Memory(None, nn.Rows([*self.rows.lengths, *other.rows.lengths]), self.own, cross)

    def chosen(self, prompts: torch.Tensor) -> Memory:
        """With these prompts alone; this one stays as it is."""
        own, starts, lengths = self.own.apart(prompts.tolist()), self.rows.starts, self.rows.lengths
        rows = torch.cat([torch.arange(lengths[i]) + starts[i] for i in prompts.tolist()])
        cross = [_crossing(c.k[rows], c.v[rows]) for c in self.cross]
        return Memory(None, nn.Rows([lengths[i] for i in prompts.tolist()]), own, cross)


def entering(
    given: Value, cache: Cache, first: Callable[[int], Value], embedded: Callable[[Value], Value],
    read: Callable[[Value, int], Memory],
) -> tuple[Value, nn.Layout, Memory]:  # fmt: skip
    """What the decoder reads in the next pass, how it lies, and what it reads of the prompts.

    In the first pass `given` are prompts, perhaps with tokens that their answers begin with: they are `read`, with how
    many tokens each answer begins with, and `first` gives the rows that so many answers begin with in any case. Later
    `given` are tokens of answers. Either are `embedded`.
    """
    if cache.memory is None:
        prompts, begun = parted(given)
        x = beginning(first(cache.prompts), None if begun is None else embedded(begun), cache.prompts)
        cache.memory = read(prompts, x.shape[0] // cache.prompts)
    else:
        x = embedded(given)
    memory = cache.memory
    assert isinstance(memory, Memory)
    return x, memory.own.advance(x.shape[0]), memory


def beginning(first: Value, begun: Value | None, prompts: int) -> Value:
    """The rows of what the answers to so many prompts begin with, one prompt's after the other's: as many `first` ones
    of each, which everybody knows, and behind them those that a client chose, if any."""
    if begun is None:
        return first
    known, count = first.shape[0] // prompts, (first.shape[0] + begun.shape[0]) // prompts
    places = torch.arange(prompts * count)
    own = places % count < known
    return placed(first, places[own], len(places)) + placed(begun, places[~own], len(places))


def watched(x: Value, at: nn.Layout) -> AbstractContextManager[None]:
    """Meanwhile the rows of an answer belong to its prompt: there may be several, where answers begin."""
    return nullcontext() if at.branched else belonging(x, at.rows)


def _crossing(k: Value, v: Value) -> LayerCache:
    cache = LayerCache()
    cache.k, cache.v = k, v
    return cache


def crossed(attention: Attention, x: Value, at: nn.Layout, memory: Memory, cache: LayerCache) -> Value:
    """Attention of x to the prompts, whose keys and values are computed once."""
    if cache.k is None:
        cache.k, cache.v = attention.k_proj(memory.states), attention.v_proj(memory.states)
    at, q = at.across(memory.rows), attention.q_proj(x)
    with belonging(q, memory.rows):  # of these values are watched, and of none of the queries' rows
        q, k, v = nn.heads(q, cache.k, cache.v, attention.head_dim, attention.limits, at)
    cache.k, cache.v = (t.reshape(t.shape[0], -1) for t in (k, v))
    keys, values = memory.rows.pad(k), memory.rows.pad(v)
    return attention.o_proj(nn.attend(q, keys, values, at, limits=attention.limits))
