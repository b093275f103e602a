"""Pooling: the states of a text's tokens become one vector, of tensors in float and of secrets by protocols.

How many tokens a text has is public, or, where some are padding in secret, a sum over flags that is itself secret. It
must not know models, nor what the vector is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from puma.mpc import compare
from puma.mpc.arithmetic import multiply, truncated
from puma.mpc.cost import declares
from puma.mpc.fixed import ACTIVATION, RESIDUAL_RING, RING, formatted
from puma.mpc.share import Share
from puma.mpc.watch import note_lift
from puma.nn import functional as F
from puma.nn.layout import Rows, placed

Value = Any  # a torch tensor, a Share or an Additive

FACTOR = 14  # fraction bits of a public factor between 1/2 and 1
VECTOR_RING = 30  # of a vector with ACTIVATION fraction bits: its numbers stay below 2^15
CHUNK = 16  # rows that are added before they are opened: their sum may be lifted while states stay below 2^10
HEAVIEST = 256  # the largest weight of a weighted mean; longer texts have their weights rounded to that
MOST = 1 << 20  # a sum of weights
FINEST = 12  # a secret count is divided by up to 2^12 before it is inverted
FINER = 6  # fraction bits more of what is divided by it


class Texts:
    """Which rows of texts of these lengths count, `skip` at the beginning of each left out; all of it public."""

    def __init__(self, lengths: Sequence[int], skip: int = 0) -> None:
        self.lengths, self.counts = tuple(lengths), [length - skip for length in lengths]
        rows = Rows(lengths)
        self.firsts, self.lasts = rows.starts + skip, rows.ends
        self.places = torch.cat([torch.arange(length) for length in lengths])  # of each row in its text
        self.owners = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
        self.kept = (self.places >= skip).nonzero().squeeze(-1)

    def weights(self, weighted: bool) -> Tensor:
        """A whole number for each row (rows,): 1, or growing with its place; 0 for rows that do not count."""
        found = torch.zeros(len(self.places), dtype=torch.int64)
        heaviest = min(HEAVIEST, 2 * MOST // max(self.lengths))
        steps = [
            torch.arange(1, n + 1) if n <= heaviest else (torch.arange(1, n + 1) * heaviest / n).ceil().long()
            for n in self.lengths
        ]
        found[self.kept] = torch.cat(steps)[self.kept] if weighted else 1
        return found

    def summed(self, x: Value, rows: Tensor, step: int = 1) -> Value:
        """The sum of each text's x (count, ...), which are of these rows, one for every `step`: (texts, ...); local."""
        count, width = len(self.lengths), (max(self.lengths) - 1) // step + 1
        where = self.owners[rows] * width + self.places[rows] // step
        return placed(x, where, count * width).reshape(count, width, *x.shape[1:]).sum(1)


@declares(
    "rows opened and lifted, of sums of 16; of a maximum compared; with secret lengths 1 product a row", "section 5"
)
def pooled(
    states: Value, modes: Sequence[str], lengths: Sequence[int], skip: int = 0, padding: Share | None = None
) -> Value:
    """Vectors (texts, modes * d) of texts whose states (rows, d) lie one after the other, one part for each mode.

    "cls" is a text's first state and "lasttoken" its last, "mean", "max" and "weightedmean" (by its place, from 1) are
    over all of its states, "mean_sqrt_len_tokens" is their sum over the root of their number. The first `skip` of each
    do not count. `padding` (rows,): secret flags, 1 for rows at the end of a text that are none of its tokens; all
    `lengths` are one then. Numbers of vectors stay below 2^15, of states below 2^10.

    Source: sentence-transformers (Reimers and Gurevych 2019), module Pooling.
    """
    at = Texts(lengths, skip)
    if isinstance(states, Tensor):
        each = [rows[skip:] for rows in states.split(at.lengths)]
        return torch.cat([torch.stack([PLAIN[mode](rows, skip) for rows in each]) for mode in modes], -1)
    found = [SECURE[mode](states, at, padding) for mode in modes]
    if len(found) == 1:
        return found[0]
    return F.cat(states.party.run(formatted(*((x, ACTIVATION, VECTOR_RING) for x in found))), -1)


# -- in float ---------------------------------------------------------------------------------------------------------


def _weighted(rows: Tensor, skip: int) -> Tensor:
    weights = torch.arange(skip + 1, skip + len(rows) + 1, dtype=rows.dtype, device=rows.device)[:, None]
    return (rows * weights).sum(0) / weights.sum()


PLAIN: dict[str, Callable[[Tensor, int], Tensor]] = {
    "cls": lambda rows, _: rows[0],
    "max": lambda rows, _: rows.amax(0),
    "mean": lambda rows, _: rows.mean(0),
    "mean_sqrt_len_tokens": lambda rows, _: rows.sum(0) / math.sqrt(len(rows)),
    "weightedmean": _weighted,
    "lasttoken": lambda rows, _: rows[-1],
}

# -- on secrets -------------------------------------------------------------------------------------------------------


def _first(states: Value, at: Texts, padding: Share | None) -> Value:
    return states[at.firsts]


def _last(states: Value, at: Texts, padding: Share | None) -> Value:
    """With secret lengths the row after which padding begins: its flag is 0 and the next one's is 1."""
    if padding is None:
        return states[at.lasts]
    inner = torch.ones(len(at.places), dtype=torch.bool).index_fill(0, at.lasts, False).nonzero().squeeze(-1)
    following = placed(padding[inner + 1], inner, len(at.places))
    ends = torch.zeros(len(at.places), dtype=torch.int64).index_fill(0, at.lasts, 1)
    last = (following - padding).shifted(ends.to(padding.device))
    return at.summed(F.mul(states, last.unsqueeze(-1)), torch.arange(len(at.places)))


def _largest(states: Value, at: Texts, padding: Share | None) -> Value:
    """Rows that do not count are replaced by the text's first: where this is public, before anything is compared."""
    first = at.firsts[at.owners]
    if padding is not None:
        states = states + F.mul(states[first] - states, padding.unsqueeze(-1))
    ring = min(states.bits - states.frac + ACTIVATION, RESIDUAL_RING)
    (x,) = states.party.run(formatted((states, ACTIVATION, ring)))
    here = torch.arange(max(at.counts))
    chosen = at.firsts[:, None] + here * (here < torch.tensor(at.counts)[:, None])
    return x.party.run(compare.maximum(x[chosen], dim=1))


def _mean(states: Value, at: Texts, padding: Share | None, weighted: bool = False, root: bool = False) -> Value:
    """Sums by public weights, then over their sum, or its root."""
    weights = at.weights(weighted)
    count = at.summed(weights, torch.arange(len(weights)))
    most = max(0, int(count.max()) - 1).bit_length()
    if padding is not None:
        here = (F.times(padding, -1) + 1).unsqueeze(-1)
        states = F.mul(states, here)
        total = _total(states, at, weights if weighted else None, VECTOR_RING + most)
        number = at.summed(here.times(weights[:, None].to(here.device)), torch.arange(len(weights)))
        return _over_secret(total, number, most, root)
    places = FACTOR + (most + 1) // 2 if root else FACTOR + most
    total = _total(states, at, weights if weighted else None, VECTOR_RING + max(places, most))
    factor = 2.0**places / (count.double().sqrt() if root else count.double())
    scaled = total.times(torch.round(factor).to(torch.int64)[:, None].to(total.device), places)
    return truncated(scaled, places).reduced(VECTOR_RING)


def _total(x: Value, at: Texts, weights: Tensor | None, ring: int) -> Share:
    """The sum of each text's rows that count, with ACTIVATION fraction bits in a ring (texts, d).

    Sums of a few rows are opened, or with weights each row, and flagged where they cannot be lifted; the rest is local.
    """
    rows, ring = at.kept, min(64, ring)
    step = CHUNK if weights is None else 1
    if weights is None:
        chunk = at.owners[rows] * (max(at.lengths) // CHUNK + 1) + at.places[rows] // CHUNK
        new = chunk.diff(prepend=chunk[:1] - 1) != 0
        where = (new.cumsum(0) - 1) * CHUNK + at.places[rows] % CHUNK
        x, rows = placed(x[rows], where, int(new.sum()) * CHUNK), rows[new]
        x = x.reshape(len(rows), CHUNK, -1).sum(1)
    else:
        x = x[rows]
    (opened,) = x.party.run(formatted((x, ACTIVATION, min(x.bits - x.frac + ACTIVATION, RESIDUAL_RING))))
    note_lift(opened, at.owners[rows])
    (opened,) = x.party.run(formatted((opened, ACTIVATION, ring)))
    if weights is not None:
        opened = opened.times(weights[rows][:, None].to(opened.device))
    return at.summed(opened, rows, step)


def _over_secret(total: Share, number: Share, most: int, root: bool) -> Value:
    """total over a secret number (texts, 1) of at most 2^most, or over its root: the power of two is public."""
    places = min(most // 2 * 2 if root else most, FINEST)
    inverse = F.rsqrt if root else F.reciprocal
    small = inverse(number.like(*number.components, frac=places))
    taken = places // 2 if root else places
    scaled = truncated(total.like(*total.components, frac=total.frac + taken), max(0, taken - FINER))
    ring = RING + FINER
    wants = (scaled, ACTIVATION + min(taken, FINER), ring), (small, ACTIVATION, ring)
    return multiply(*total.party.run(formatted(*wants)))


SECURE: dict[str, Callable[[Value, Texts, Share | None], Value]] = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": lambda states, at, padding: _mean(states, at, padding, root=True),
    "weightedmean": lambda states, at, padding: _mean(states, at, padding, weighted=True),
    "lasttoken": _last,
}
