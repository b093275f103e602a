"""The dealer's products with parameters, for several steps of a request in one walk over the parameter.

Masks come from streams and never depend on what a product gives, so the dealer can look at a later step: run its text
with products left out, noting whose masks would have been multiplied. When the present step comes to a parameter, the
masks of all foreseen steps are multiplied with it at once, and the later steps find their products made. A walk draws
the parameter's masks, which for one new token costs far more than the product. This file must not know models.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

Key = tuple[int, Any, int]  # which parameter, which product, for the how manieth time in the step
Multiply = Callable[[Tensor], Tensor]  # rows (n, k) to rows (n, columns)


class Lookahead:
    """Products of the steps of one request, each step with the same parameters in the same order."""

    def __init__(self) -> None:
        self._noted: dict[Key, dict[int, Tensor]] = {}
        self._made: dict[tuple[int, Key], Tensor] = {}
        self._seen: Counter[tuple[int, Any]] = Counter()
        self._step, self._looking_ahead = 0, False

    @contextmanager
    def looking_ahead(self, step: int) -> Generator[None, None, None]:
        """Meanwhile products of a later step are only noted."""
        self._step, self._looking_ahead = step, True
        self._seen.clear()
        try:
            yield
        finally:
            self._looking_ahead = False

    def begin(self, step: int) -> None:
        """From now on products are those of this step."""
        self._step = step
        self._seen.clear()

    def product(self, parameter: object, kind: Any, left: Tensor, columns: int, multiply: Multiply) -> Tensor:
        """left (..., k) times a parameter (..., columns); zeros while looking_ahead."""
        self._seen[id(parameter), kind] += 1
        key = (id(parameter), kind, self._seen[id(parameter), kind])
        rows = left.reshape(-1, left.shape[-1])
        if self._looking_ahead:
            self._noted.setdefault(key, {})[self._step] = rows
            result = rows.new_zeros((rows.shape[0], columns))
        else:
            result = self._made.pop((self._step, key), None)
            if result is None:
                result = self._together(key, rows, multiply)
        return result.reshape(*left.shape[:-1], columns)

    def _together(self, key: Key, rows: Tensor, multiply: Multiply) -> Tensor:
        noted = self._noted.pop(key, {})
        later = {step: rows for step, rows in noted.items() if step > self._step}
        product = multiply(torch.cat([rows, *later.values()]))
        parts = product.split_with_sizes([rows.shape[0], *map(len, later.values())])
        self._made |= {(step, key): part for step, part in zip(later, parts[1:], strict=True)}
        return parts[0]
