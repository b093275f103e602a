"""Softmax over secret scores under a public mask, and attention's weighted sum.

A coarse maximum keeps exp in range (softmax does not change when one number is subtracted everywhere), exp is a spline
over the allowed pairs only, and the row is divided once, after the product with the values. It must not know which
model the scores are of.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from puma.mpc.arithmetic import lift, matmul, open_truncate, public, truncated
from puma.mpc.compare import maximum
from puma.mpc.cost import declares
from puma.mpc.fixed import ACTIVATION, NONLINEAR, RESIDUAL, RING, SCORE_REACH, VALUE_REACH, for_digits, formatted, grown
from puma.mpc.party import Protocol, together
from puma.mpc.raising import Operand, raised_to, times
from puma.mpc.share import Additive, Share, cat
from puma.mpc.watch import note_lift
from puma.mpc.wide.products import opened, widened
from puma.nn import paper
from puma.nn.roots import reciprocal
from puma.nn.splines import EXP, exponential, least, piecewise, room
from puma.nn.variants import DIRECT, EXPONENTIALS, MAXIMUM

COARSE = 1  # fraction bits of the maximum: within 0.75 of the true one
LARGEST = math.exp(0.75) + EXP.bound
INVERSE_FRACTION = 25  # fraction bits of 1 / row sum
FINER = 16  # of these of a sum of one entry where the quotient has two words: one more for each doubling


def score_ring(reach: int, watched: bool = True) -> int:
    """Of scores with NONLINEAR fraction bits that lie within 2^reach of each other, and of what is seen beyond."""
    return NONLINEAR + reach + 1 + room(reach, SCORE_REACH, watched)


def query_ring(reach: int, watched: bool = True) -> int:
    """Of queries and keys: their products lose the places between two activations' fraction bits and NONLINEAR."""
    return score_ring(reach, watched) + 2 * ACTIVATION - NONLINEAR


def matched(table: Tensor | Share, x: Tensor | Share) -> Tensor | Share:
    """A parameter in the format of what it is multiplied with; local. Its ring is larger than that of x by at least
    what it has more of fraction bits.
    """
    if isinstance(table, Tensor) or isinstance(x, Tensor):
        return table
    return truncated(table, table.frac - x.frac).reduced(x.bits)


def value_ring(reach: int) -> int:
    """Of values, which meet exponentials in sums below 2^(reach + 9), 28 fraction bits, that may be lifted."""
    return 2 * ACTIVATION + reach + 9 + 2


def quotient_ring(values: int) -> int:
    """Where a row's sum meets its inverse: |softmax(scores) @ values| < 2^values, 50 bits at the usual reach."""
    return INVERSE_FRACTION + ACTIVATION + values + 2


class Exponentials(NamedTuple):
    """exp(scores - row maximum) of the allowed pairs, and where these lie among all of them (None: everywhere)."""

    chosen: Share
    where: Tensor | None
    mask: Tensor
    least: int  # of the lift that brings them into the ring in which they meet the values

    def placed(self, e: Share) -> Share:
        """The pairs in their places, and 0 elsewhere."""
        if self.where is not None:
            where = self.where
            e = e.apply(lambda t: t.new_zeros(self.mask.numel()).index_copy(0, where.to(t.device), t))
        return e.reshape(*self.mask.shape)


def _looked_up(
    scores: Share | Additive, mask: Tensor, reach: int, values: int, watched: bool, by_rows: bool, room_for: int = 0
) -> Protocol[Exponentials]:
    """The exponentials, by our table in a ring of `room_for` bits at least; PUMA's where they meet the values."""
    published, quick = paper.approximation_of(scores) == paper.PUMA, MAXIMUM in scores.party.quick
    places = 0 if published else NONLINEAR - COARSE
    mask = mask.expand(scores.shape)
    want = scores, NONLINEAR, score_ring(reach, watched)
    if published:
        (x,) = yield from formatted(want)
        coarse = x
    else:
        x, coarse = yield from for_digits(*want, places)
    # a mixture's router asks by rows, and takes what it takes of experts in the same rounds
    top = yield from _largest(_filled(coarse, mask), quick, beside=by_rows)
    x = x - top.unsqueeze(-1).scaled(places)
    x.party.note_range("spread of a row's scores", x, 2.0**reach)
    where, count = _where(mask), mask.shape[-1]
    chosen = x.reshape(-1) if where is None else x.reshape(-1)[where]
    spline = exponential(_fraction(count), reach, watched, room_for)
    owners = _prompts(mask, where) if spline.room else None
    if owners is not None and by_rows and x.party.on_watch is not None:
        owners = x.party.on_watch.owners(len(mask))[owners]
    if published:
        if spline.room:
            note_lift(chosen, owners)
        e = yield from paper.exponential(chosen, _fraction(count), _weight_ring(count, values))
    else:
        e = yield from piecewise(spline, chosen, owners)
    return Exponentials(e, where, mask, least(spline))


def _largest(x: Share, quick: bool, beside: bool) -> Protocol[Share]:
    """The maximum of each row. A dry run notes its size alone, where nothing is computed `beside` it."""
    if beside or x.party.recall is None:
        return (yield from maximum(x, quick=quick))
    return x.party.recall.maxima(x, quick)


def exponentials(
    scores: Share | Additive, mask: Tensor, reach: int = SCORE_REACH, values: int = VALUE_REACH, watched: bool = True,
    by_rows: bool = False,
) -> Protocol[tuple[Share, Share]]:  # fmt: skip
    """exp(scores - row maximum) where the mask allows, 0 elsewhere, in ring _weight_ring; and the row sums.

    Our maximum is coarse, PUMA's exact. Scores of one row must lie within 2^reach of each other; what does not is
    flagged, if they are `watched`. The first dimension is prompts, or `by_rows` rows of all of them.
    """
    found = yield from _looked_up(scores, mask, reach, values, watched, by_rows)
    e = yield from _lifted(found, _weight_ring(mask.shape[-1], values))
    return e, e.sum(-1)


def _lifted(found: Exponentials, ring: int) -> Protocol[Share]:
    e = found.chosen
    if e.bits < ring:
        (e,) = yield from lift((e, ring), least=found.least)
    return found.placed(e)


def _where(mask: Tensor) -> Tensor | None:
    """The places that a mask allows, counted through; None if it allows all."""
    if mask.is_meta:  # a dry run's, which knows how many there are
        allowed: Any = getattr(mask, "count", None)
        return None if allowed == mask.numel() else mask.long().new_zeros(allowed)
    return None if bool(mask.all()) else mask.reshape(-1).nonzero().squeeze(-1)


def _prompts(mask: Tensor, where: Tensor | None) -> Tensor:
    """To which prompt, of the first dimension, each allowed score belongs."""
    if mask.is_meta:
        return mask.long().new_zeros(mask.numel()) if where is None else where
    return (torch.arange(mask.numel()) if where is None else where) // mask[0].numel()


def _filled(x: Share, mask: Tensor) -> Share:
    """x with every masked entry replaced by the first allowed one of its row, so that the maximum ignores it."""
    if mask.is_meta or bool(mask.all()):
        return x
    here = torch.arange(mask.shape[-1]).expand(mask.shape)
    index = torch.where(mask, here, mask.to(torch.int8).argmax(-1, keepdim=True))
    return x.apply(lambda t: t.gather(-1, index.to(t.device)))


def _fraction(count: int) -> int:
    """Fraction bits of the exponentials in a row of so many: beyond 256 the row sum would need the place."""
    return ACTIVATION - max(0, math.ceil(math.log2(count)) - 8)


def _weight_ring(count: int, values: int) -> int:
    """The ring in which a row's exponentials meet the values: a sum of so many can be lifted afterwards."""
    largest = count * LARGEST * 2.0**values * 15 / 16
    return min(value_ring(values), _fraction(count) + ACTIVATION + math.ceil(math.log2(largest)) + 2)


def row_formats(count: int, values: int = VALUE_REACH) -> tuple[int, int, int, int]:
    """What of the formats of a row depends on how many entries it has."""
    return _fraction(count), _weight_ring(count, values), _highest(count), _finest(count)


def _highest(count: int) -> int:
    """The words of a sum of so many exponentials stay below 2^this; the largest alone is about 2^_fraction or more."""
    return _fraction(count) + math.ceil(math.log2(count * LARGEST))


def _finest(count: int) -> int:
    """Fraction bits of 1 / the sum of a row of so many exponentials, so that it errs by 5e-5 of itself at most."""
    return min(INVERSE_FRACTION, FINER + math.ceil(math.log2(count)))


def _inverse(sums: Share, count: int, most: int) -> Protocol[Share]:
    """1 / the sum of a row of so many exponentials, with so many fraction bits at most."""
    high, frac = _highest(count), _fraction(count)
    inverse = yield from reciprocal(sums.reduced(high + 2), frac - 1, high)
    return truncated(inverse, max(0, inverse.frac - most))


def finest_inverse(sums: Share, count: int) -> Protocol[Share]:
    """1 / the sum of a row of so many exponentials, for `divided`."""
    return (yield from _inverse(sums, count, _finest(count)))


def inverse_sums(sums: Share, count: int, ring: int) -> Protocol[Operand]:
    """1 / the sum of a row of so many exponentials, the largest of them among those summed up, in `ring`."""
    return raised_to((yield from _inverse(sums, count, INVERSE_FRACTION)), ring)


@declares("formatted, of the sinks", "section 5")
def sunk(q: Any, k: Any, v: Any, sinks: Any) -> list[Any]:
    """Queries, keys and values (prompts, heads, rows, size) with one more key, whose score is a number of the head's
    own (heads,) whatever the query, and whose value is 0: a softmax that may look at nothing.

    That number becomes one more place of each query, at which keys are 0 and that key 1.
    """
    count, rows, one = q.shape[0], q.shape[2], torch.zeros(1, 1, 1, k.shape[-1] + 1)
    one[..., -1] = 1
    if isinstance(q, Tensor):
        sink = sinks.reshape(1, -1, 1, 1).expand(count, -1, rows, 1).to(q.dtype)
        keys = torch.cat([k, torch.zeros_like(k[..., :1])], -1)
        last = one.to(k).expand(*k.shape[:2], -1, -1)
        return [torch.cat([q, sink], -1), torch.cat([keys, last], 2), torch.cat([v, torch.zeros_like(v[:, :, :1])], 2)]
    (sink,) = q.party.run(formatted((sinks, q.frac, q.bits)))
    sink = sink.reshape(1, -1, 1, 1).expand(count, sinks.shape[0], rows, 1)
    keys = cat([k, k[..., :1].apply(torch.zeros_like)], -1)
    last = public(k.party, one.to(k.device), one.shape, k.bits, k.frac).expand(*k.shape[:2], 1, k.shape[-1] + 1)
    return [cat([q, sink], -1), cat([keys, last], 2), cat([v, v[:, :, :1].apply(torch.zeros_like)], 2)]


@declares("a maximum, an exp a score, a reciprocal a row, 2 products", "section 5")
def attend(
    scores: Share | Additive, values: Share | Additive, mask: Tensor, reach: int = SCORE_REACH,
    valued: int = VALUE_REACH, watched: bool = True,
) -> Protocol[Share | Additive]:  # fmt: skip
    """softmax(scores) @ values; scores (..., n, s), values (..., s, d), mask broadcasts to the scores.

    Scores lie within 2^reach of each other. Values stay below 2^valued less a sixteenth, 480 as a rule, so that a row's
    sum of up to 256 of them, each times at most exp(0.75), stays below 2^(valued + 9) and can be lifted; longer rows
    give up a place of the exponentials for each doubling.
    """
    if paper.approximation_of(scores) == paper.MPCFORMER:
        weights = yield from paper.quadratic_weights(scores, mask)
        return matmul(*(yield from formatted((weights, RESIDUAL, RING), (values, ACTIVATION, RING))))
    (values,) = yield from formatted((values, ACTIVATION, value_ring(valued)))
    count, ring = mask.shape[-1], _weight_ring(mask.shape[-1], valued)
    quick = scores.party.quick
    early = EXPONENTIALS in quick
    found = yield from _looked_up(scores, mask, reach, valued, watched, False, _highest(count) + 2 if early else 0)
    if early:
        e, sums = _lifted(found, ring), found.placed(found.chosen).sum(-1)
    else:
        lifted = yield from _lifted(found, ring)
        e, sums = _done(lifted), lifted.sum(-1)
    if DIRECT in quick:
        x, inverse = yield from together(_weighted(e, values, valued), finest_inverse(sums, count))
        return (yield from divided(x, inverse))
    ring = quotient_ring(valued)
    return (yield from quotient(*(yield from together(_grown(e, values, ring), inverse_sums(sums, count, ring)))))


def _grown(e: Protocol[Share], values: Share, ring: int) -> Protocol[Operand]:
    """Exponentials times values, to be divided in this ring."""
    return (yield from grown((matmul((yield from e), values), ACTIVATION, ring)))[0]


def _weighted(e: Protocol[Share], values: Share, valued: int) -> Protocol[Share]:
    """The same, in no larger a ring than holds it."""
    product = matmul((yield from e), values)
    ring = min(quotient_ring(valued), product.bits + ACTIVATION - product.frac)
    return (yield from formatted((product, ACTIVATION, ring)))[0]


def divided(x: Share, inverse: Share) -> Protocol[Share]:
    """What `quotient` gives, in the ring that the next matrix reads."""
    dropped = x.frac + inverse.frac - ACTIVATION
    ring = RING + dropped
    return (yield from opened(widened(x, ring), widened(inverse, ring).unsqueeze(-1), dropped, RING))


def _done(x: Share) -> Protocol[Share]:
    """What is there already."""
    yield from ()
    return x


@declares("a maximum, an exp a score, a reciprocal a row, 1 product", "section 5")
def softmax(
    scores: Share | Additive, mask: Tensor, reach: int = SCORE_REACH, watched: bool = True
) -> Protocol[Share | Additive]:
    """softmax(scores) over the last dimension; scores of a row lie within 2^reach of each other."""
    if paper.approximation_of(scores) == paper.MPCFORMER:
        return (yield from paper.quadratic_weights(scores, mask))
    e, sums = yield from exponentials(scores, mask, reach, watched=watched)
    inverse = yield from inverse_sums(sums, e.shape[-1], quotient_ring(VALUE_REACH))
    return (yield from quotient(e, inverse))


def quotient(x: Operand, inverse: Operand) -> Protocol[Share]:
    """x / sum, by the inverse of each row's, with ACTIVATION fraction bits."""
    bits = min(x.bits, inverse.bits)
    product = times(x.reduced(bits), inverse.reduced(bits).unsqueeze(-1))
    (result,) = yield from open_truncate((product, product.frac - ACTIVATION))
    return result
