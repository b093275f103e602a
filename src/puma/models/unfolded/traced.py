"""What folding did to a matrix, read off what was written down of it: which rows of which stored matrix it is, and by
what each of its columns was multiplied. What else may have been done to it is no business of this file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from puma.models.deferred import Deferred, Recipe, computed

aten: Any = torch.ops.aten


@dataclass(frozen=True)
class Traced:
    """Rows `first` to `stop` of the stored matrix of this name, which has so many columns, times `factors` (columns,)
    or a `scale` of all, or both."""

    name: str
    first: int
    stop: int
    columns: int
    factors: Tensor | None = None
    scale: float = 1.0

    @property
    def multiplied(self) -> Tensor | None:
        """By what each column is multiplied, in float32; None if by nothing."""
        if self.factors is None:
            return None if self.scale == 1.0 else torch.full((self.columns,), self.scale)
        return self.factors if self.scale == 1.0 else self.factors * self.scale


def traced(value: Any) -> Traced | None:
    """How a deferred matrix lies in a stored one; None if it does not."""
    if not isinstance(value, Deferred) or value.dim() != 2:
        return None
    if value.recipe is None:
        rows, columns = value.shape
        return Traced(value.called, 0, rows, columns) if value.called else None
    step = STEPS.get(value.recipe.function)
    return step(value.recipe, value) if step else None


def _multiplied(recipe: Recipe, value: Tensor) -> Traced | None:
    one, other = recipe.arguments[:2]
    found = traced(one)
    if found is None:
        found, other = traced(other), one
    if found is None:
        return None
    if isinstance(other, int | float):
        return replace(found, scale=found.scale * other)
    if other.dim() == 0:
        return replace(found, scale=found.scale * float(computed(other)))
    if tuple(other.shape) != (found.columns,):
        return None
    factors = computed(other).to(torch.float32)
    return replace(found, factors=factors if found.factors is None else found.factors * factors)


def _sliced(recipe: Recipe, value: Tensor) -> Traced | None:
    defaults: tuple[Any, ...] = (0, None, None, 1)
    source, dim, start, end, step = (*recipe.arguments, *defaults[len(recipe.arguments) - 1 :])
    found = traced(source)
    if found is None or dim % 2 or step != 1:
        return None
    first, stop, _ = slice(start, end).indices(found.stop - found.first)
    return replace(found, first=found.first + first, stop=found.first + max(first, stop))


def _split(recipe: Recipe, value: Tensor) -> Traced | None:
    source, sizes, dim = (*recipe.arguments, *(0,)[len(recipe.arguments) - 2 :])
    found = traced(source)
    if found is None or dim % 2 or recipe.part is None:
        return None
    rows = value.shape[0]
    before = sum(sizes[: recipe.part]) if isinstance(sizes, list | tuple) else sizes * recipe.part
    return replace(found, first=found.first + before, stop=found.first + before + rows)


def _same(recipe: Recipe, value: Tensor) -> Traced | None:
    found = traced(recipe.arguments[0])
    return found if found is not None and tuple(value.shape) == (found.stop - found.first, found.columns) else None


STEPS: dict[Any, Callable[[Recipe, Tensor], Traced | None]] = {
    aten.mul.Tensor: _multiplied,
    aten.slice.Tensor: _sliced,
    aten.split.Tensor: _split,
    aten.split_with_sizes.default: _split,
    aten.view.default: _same,
    aten.clone.default: _same,
    aten.detach.default: _same,
    aten.alias.default: _same,
}
