"""The measures by which answers are judged; each a few lines, on plain numbers. It must not know models."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence


def accuracy(found: Sequence[Hashable], right: Sequence[Hashable]) -> float:
    """The part of answers that are right."""
    return sum(a == b for a, b in zip(found, right, strict=True)) / len(right)


def matthews(found: Sequence[Hashable], right: Sequence[Hashable]) -> float:
    """Matthews' correlation of two labelings, of any number of classes; 0 where one of them is constant."""
    n, classes = len(right), set(found) | set(right)
    hits = sum(a == b for a, b in zip(found, right, strict=True))
    said, is_so = ({c: list(labels).count(c) for c in classes} for labels in (found, right))
    covariance = hits * n - sum(said[c] * is_so[c] for c in classes)
    spread = [n * n - sum(count[c] ** 2 for c in classes) for count in (said, is_so)]
    return covariance / math.sqrt(spread[0] * spread[1]) if min(spread) > 0 else 0.0


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """The rank correlation of two rows of numbers; equal numbers share their mean rank."""
    return pearson(ranks(a), ranks(b))


def pearson(a: Sequence[float], b: Sequence[float]) -> float:
    """The correlation of two rows of numbers; 0 where one of them is constant."""
    means = [math.fsum(x) / len(x) for x in (a, b)]
    x, y = ([value - mean for value in row] for row, mean in zip((a, b), means, strict=True))
    lengths = [math.sqrt(math.fsum(v * v for v in row)) for row in (x, y)]
    return math.fsum(v * w for v, w in zip(x, y, strict=True)) / (lengths[0] * lengths[1]) if all(lengths) else 0.0


def ranks(values: Sequence[float]) -> list[float]:
    """The rank of each, from 0; equal ones share the mean of theirs."""
    order = sorted(range(len(values)), key=values.__getitem__)
    result, first = [0.0] * len(values), 0
    while first < len(order):
        last = first
        while last + 1 < len(order) and values[order[last + 1]] == values[order[first]]:
            last += 1
        for i in order[first : last + 1]:
            result[i] = (first + last) / 2
        first = last + 1
    return result
