"""Relative positions as numbers of their own: a bias for each distance, or a key and a query for each.

Distances are public, so that picking a distance's number, row or score costs nothing; the numbers are the owner's, and
are secret like all parameters. This file must not know tensors from shares, nor whole models.
"""

from __future__ import annotations

import math
from typing import Annotated, Any

import torch
from msgspec import Meta, Struct

import puma.nn.modules as nn
from puma.mpc.fixed import ACTIVATION, RING, WEIGHT
from puma.nn import functional as F
from puma.nn.attention import matched, query_ring
from puma.nn.modules import Value
from puma.nn.places import Place


class Disentangled(Struct, frozen=True, kw_only=True):
    """DeBERTa's positions: a key (`keys`) and a query (`queries`) of each of 2 `span` distances, for each head.

    Distances beyond half of span are rounded to a bucket each, up to `furthest`; with `furthest` 0 none is. They are
    made of a row for each distance by matrices of their own, or by the layer's, if these are `shared`.
    """

    span: Annotated[int, Meta(ge=2, le=1 << 16)]
    furthest: Annotated[int, Meta(ge=0, le=1 << 24)] = 0
    keys: bool = True
    queries: bool = True
    shared: bool = True
    normed: bool = True  # whether the rows are

    def __post_init__(self) -> None:
        if 0 < self.furthest <= self.span // 2 + 1:
            raise ValueError("max_relative_positions is not larger than half of position_buckets")

    @property
    def terms(self) -> int:
        """How many products a score is the sum of."""
        return 1 + self.keys + self.queries


class Positions(nn.Module):
    """A number for each head and each of `count` buckets of distances up to `furthest`, which is added to scores."""

    def __init__(self, count: int, furthest: int, heads: int, both: bool = True) -> None:
        self.count, self.furthest, self.both = count, furthest, both
        self.weight: Value = nn.Parameter((count, heads))

    def __call__(self, at: nn.Layout) -> Value:
        """(prompts, heads, queries, columns)."""
        chosen = self.weight[buckets(at.distances, self.count, self.furthest, self.both)]
        return chosen.transpose(2, 3).transpose(1, 2)


def buckets(distances: torch.Tensor, count: int, furthest: int, both: bool) -> torch.Tensor:
    """The bucket of each distance from a query to a key: exact ones for near keys, wider and wider ones for far ones.

    Half of them are for keys after the query, if `both` sides are seen. Source: T5 (Raffel et al. 2020).
    """
    first, ahead = torch.zeros_like(distances), -distances
    if both:
        count //= 2
        first, ahead = count * (distances > 0).long(), distances.abs()
    ahead = ahead.clamp(min=0)
    exact = count // 2
    share = (ahead.clamp(min=1).float() / exact).log() / math.log(furthest / exact)
    far = (exact + (share * (count - exact)).long()).clamp(max=count - 1)
    return first + torch.where(ahead < exact, ahead, far)


class Table(nn.Module):
    """A row (heads * size) for each distance, which is multiplied with the queries or the keys that `scores` is of."""

    def __init__(self, rows: int, width: int, scores: Place) -> None:
        self.weight: Value = nn.Parameter((rows, width))
        self._scores = (scores,)  # in a tuple, for it is the queries' place to be named

    @property
    def ring(self) -> int:
        """As large as that of what it is multiplied with, once it has as few fraction bits."""
        return max(RING, query_ring(self._scores[0].hidden_reach) + WEIGHT - ACTIVATION)

    def __call__(self, x: Value, rows: slice, size: int) -> Value:
        """Scores (prompts, heads, n, rows) of x (prompts, heads, n, size) with some of the rows."""
        table = self.weight[rows]
        return F.scores(x, matched(table.reshape(table.shape[0], -1, size).transpose(0, 1).unsqueeze(0), x))


class Apart(nn.Module):
    """What positions add to scores, apart from contents: queries with keys of distances, keys with their queries."""

    def __init__(self, kind: Disentangled, width: int, scores: Place) -> None:
        self.kind = kind
        self.keys = Table(2 * kind.span, width, scores) if kind.keys else None
        self.queries = Table(2 * kind.span, width, scores) if kind.queries else None

    def __call__(self, q: Value, k: Value, at: nn.Layout) -> Value | None:
        """(prompts, heads, rows, rows) of queries and keys (rows, heads, size)."""
        span, size, distances = self.kind.span, q.shape[-1], at.distances
        nearest, furthest = map(int, distances.aminmax())
        far = rounded(-torch.arange(nearest, furthest + 1), self.kind)  # from a key to a query, of each distance once
        most = int(far.abs().max())
        rows = slice(max(0, span - most), min(2 * span, span + most + 1))
        index, found = ((far + span).clamp(0, 2 * span - 1) - rows.start)[distances - nearest], None
        if self.keys:
            found = picked(self.keys(at.rows.pad(q), rows, size), index)
        if self.queries:
            other = picked(self.queries(at.rows.pad(k), rows, size), index.transpose(1, 2)).transpose(2, 3)
            found = other if found is None else found + other
        return found


def rounded(distances: torch.Tensor, kind: Disentangled) -> torch.Tensor:
    """Distances of which those beyond half of the span are rounded up, ever more the further they are.

    Source: DeBERTa v2's published code (He et al. 2021), make_log_bucket_position, in float32 as there.
    """
    if not kind.furthest:
        return distances
    middle = kind.span // 2
    size = torch.where(distances.abs() < middle, torch.tensor(middle - 1), distances.abs())
    ratio = torch.log(size / middle) / torch.log(torch.tensor((kind.furthest - 1) / middle))
    far = torch.ceil(ratio * (middle - 1)) + middle
    return torch.where(size <= middle, distances.to(far.dtype), far * distances.sign()).long()


def picked(scores: Value, index: torch.Tensor) -> Any:
    """Of each row the scores (prompts, heads, n, rows) at public places (prompts, n, m): (prompts, heads, n, m)."""

    def pick(t: torch.Tensor) -> torch.Tensor:
        where = index.to(t.device).unsqueeze(1).expand(-1, t.shape[1], -1, -1)
        return t.gather(-1, where)

    return pick(scores) if isinstance(scores, torch.Tensor) else scores.apply(pick)
