"""Masked places of several prompts as rows of one matrix, and what was found there, prompt by prompt again.

It knows numbers only; what stands at a place is nobody's business here.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from puma.errors import InputError


def places(prompts: Sequence[Sequence[int]], masked: Sequence[Sequence[int]], width: int = 0) -> list[int]:
    """The rows of masked tokens among those of all prompts, which take their lengths or all the same `width`.

    InputError for a place that is not in its prompt.
    """
    starts = [0, *accumulate(width or len(ids) for ids in prompts)]
    if any(not 0 <= i < len(ids) for ids, mine in zip(prompts, masked, strict=True) for i in mine):
        raise InputError("a masked place is not among the tokens", "places count from 0 in each prompt")
    return [start + i for start, mine in zip(starts, masked, strict=False) for i in mine]


def by_place(found: Sequence[Sequence[int]], masked: Sequence[Sequence[int]]) -> list[list[list[int]]]:
    """From the best token of each row, the second best of each and so on: of each place of each prompt its tokens."""
    ranked = iter(zip(*found, strict=True))
    return [[list(next(ranked)) for _ in mine] for mine in masked]
