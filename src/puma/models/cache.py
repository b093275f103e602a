"""Keys and values of earlier tokens, so that a new token costs one position and not the whole prefix.

It holds whatever the model appends, tensors or shares, and knows which places hold tokens of which prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from puma.errors import UsageError
from puma.nn import functional as F
from puma.nn.layout import Rows, placed
from puma.nn.modules import Layout, Value, hiding


class LayerCache:
    """Keys (rotated already, where positions rotate) and values of one layer: (prompts, heads, length, head_dim)."""

    def __init__(self) -> None:
        self.k: Value = None
        self.v: Value = None

    def append(self, k: Value, v: Value) -> tuple[Value, Value]:
        """Add new positions and return all of them."""
        self.k = k if self.k is None else F.cat([self.k, k], 2)
        self.v = v if self.v is None else F.cat([self.v, v], 2)
        return self.k, self.v


class Blank(LayerCache):
    """A layer's cache as it will lie once `length` positions are held, for those who only ask how: zeros."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def append(self, k: Value, v: Value) -> tuple[Value, Value]:
        """The new positions behind as many zeros."""
        return k.apply(self._behind), v.apply(self._behind)

    def _behind(self, new: torch.Tensor) -> torch.Tensor:
        return torch.cat([new.new_zeros(*new.shape[:2], self.length, new.shape[3]), new], 2)


class Cache:
    """One `LayerCache` per layer of a causal model, for prompts of public lengths; for one prompt if none are given.

    What lies side by side is padded: `held` (prompts, length) is True where there is a token.
    """

    def __init__(self, layers: int, lengths: Sequence[int] | None = None) -> None:
        self.layers: list[LayerCache] = [LayerCache() for _ in range(layers)]
        self.memory: Any = None  # what an encoder made of the prompts, for models that have one
        self._lengths = lengths
        self._hidden: Value = None  # columns from the rows that come next
        self._columns: torch.Tensor | None = None  # positions of the columns, since there are branches
        self.held = torch.empty((1 if lengths is None else len(lengths), 0), dtype=torch.bool)

    @property
    def length(self) -> int:
        """How many positions are held of the longest prompt."""
        return self.held.shape[1]

    def advance(self, rows: int) -> Layout:
        """How the next rows lie: first the prompts one after the other, later as many new rows of each."""
        if self._hidden is not None:
            return self._branched(rows)
        prompts = len(self.held)
        lengths = [rows // prompts] * prompts if self.length or self._lengths is None else self._lengths
        if sum(lengths) != rows:
            raise UsageError(f"{rows} rows are not those of {prompts} prompts", "pass the lengths of all prompts")
        layout = Layout(lengths, self.held)
        self.held = layout.held
        return layout

    def branch(self, hidden: Value) -> None:
        """The next rows go on with one text each, all from the same single prompt, as a beam search has them.

        `hidden` (rows, columns since the prompt, theirs included) is 1 where a row must not see a column, because it
        belongs to another text, and 0 elsewhere. It may be secret: every token is computed once and stays where it is,
        and nobody learns whose it was.
        """
        own = self if self.memory is None else self.memory.own
        if len(own.held) != 1:
            raise UsageError(f"{len(own.held)} prompts cannot branch", "ask for one at a time")
        own._hidden = hidden

    def _branched(self, rows: int) -> Layout:
        before, hidden = self._columns, self._hidden
        before = torch.arange(self.length)[None] if before is None else before
        count = before.shape[1] + rows
        columns = placed(hidden.transpose(0, 1), torch.arange(count - hidden.shape[1], count), count)
        layout = Layout.branches(before, rows, hiding(columns.transpose(0, 1).reshape(1, 1, rows, count)))
        self.held, self._columns, self._hidden = layout.held, layout.columns, None
        return layout

    @classmethod
    def foreseen(cls, layers: int, lengths: Sequence[int], steps: int) -> Cache:
        """As it will lie after so many steps of generation, without what it will hold."""
        cache = cls(layers, lengths)
        real = Rows(lengths).real
        cache.held = torch.cat([real, torch.ones(len(real), steps - 1, dtype=torch.bool)], 1)
        cache.layers = [Blank(cache.length) for _ in range(layers)]
        return cache
