"""Mixtures of experts under secret routing: which experts a row takes, and with what weights, is known to nobody.

So every expert is computed, and what those give that are not chosen is multiplied by 0. The chosen ones are found by
comparing all pairs of logits at once: a row of n takes n (n - 1) / 2 signs and seven rounds, however many are chosen,
which is little beside the experts themselves. It must not know models.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from puma.mpc.arithmetic import reshare
from puma.mpc.boolean import open_masked, select, to_arithmetic
from puma.mpc.compare import sign
from puma.mpc.cost import declares
from puma.mpc.fixed import (
    ACTIVATION,
    GATED_REACH,
    NONLINEAR,
    RING,
    SCORE_REACH,
    VALUE_REACH,
    formatted,
    gated_ring,
    grown,
    index_bits,
)
from puma.mpc.party import Protocol, together
from puma.mpc.raising import times
from puma.mpc.share import Additive, Bits, Share
from puma.nn.attention import divided, exponentials, finest_inverse, inverse_sums, quotient, quotient_ring, score_ring
from puma.nn.variants import DIRECT

Value = Any  # a torch tensor, a Share or an Additive


@declares("n (n - 1) / 2 signs of rows of n, their bits as numbers, n signs; an exp a logit, a reciprocal", "section 5")
def weights(logits: Value, chosen: int, renormalised: bool, reach: int = SCORE_REACH) -> Value:
    """softmax(logits) of the `chosen` largest of each row and 0 of the others, in RING; logits (rows, experts) lie
    within 2^reach of each other.

    `renormalised`: the chosen ones sum to 1. Of equal logits the earlier one counts as larger. Logits that lie closer
    than fixed point tells apart, 2^-12, may change places: then another expert of about the same weight is taken.
    """
    if isinstance(logits, Tensor):
        found = logits.softmax(-1)
        kept = torch.zeros_like(found).scatter(-1, found.topk(chosen, -1).indices, 1.0) * found
        return kept / kept.sum(-1, keepdim=True) if renormalised else kept
    return logits.party.run(_weights(logits, chosen, renormalised, reach))


@declares("grown, both; 1 product", "section 5")
def weighted(inner: Value, weights: Value, sizes: Tensor, product: int = GATED_REACH) -> Value:
    """What experts hold inside (rows, width), each times its weight (rows, experts); `sizes` (experts,) is how many
    columns each has. |inner| < 2^product."""
    owners = torch.repeat_interleave(torch.arange(len(sizes)), sizes)
    if isinstance(inner, Tensor):
        return inner * weights[:, owners.to(inner.device)]
    ring = max(RING, gated_ring(product))
    inner, weights = inner.party.run(grown((inner, ACTIVATION, ring), (weights, ACTIVATION, ring)))
    return times(inner, weights[:, owners.to(weights.party.device)])


def _weights(logits: Share | Additive, chosen: int, renormalised: bool, reach: int) -> Protocol[Share]:
    (x,) = yield from formatted((logits, NONLINEAR, score_ring(reach)))
    everything = torch.ones(tuple(x.shape), dtype=torch.bool)
    (e, sums), taken = yield from together(exponentials(x, everything, reach, by_rows=True), largest(x, chosen))
    (bit,) = yield from open_masked(taken)
    (kept,) = yield from reshare(select(bit, e))
    if renormalised:
        sums = kept.sum(-1)
    if DIRECT in kept.party.quick:
        return (yield from divided(kept, (yield from finest_inverse(sums, x.shape[-1]))))
    inverse = yield from inverse_sums(sums, x.shape[-1], quotient_ring(VALUE_REACH))
    result = yield from quotient(kept, inverse)
    return (yield from formatted((result, ACTIVATION, RING), bounded=True))[0]


@declares("n (n - 1) / 2 signs of rows of n, 2k of their bits in a ring of log2 n + 1, n signs in it", "section 5")
def largest(x: Share, count: int) -> Protocol[Bits]:
    """Whether each entry is among the `count` largest of its row, along the last dimension; exactly so many are.

    Entries lie within half their ring of each other. The rank of each is how many others beat it: of two that are
    equal the earlier one wins. Safe: signs stay xor-shared, ranks are reshared and compared, nothing is opened.
    """
    n = x.shape[-1]
    first, second = (pairs.to(x.device) for pairs in torch.triu_indices(n, n, 1))
    smaller = yield from sign(x[..., first] - x[..., second])
    (beaten,) = yield from open_masked(smaller)

    def ranks(bits: Tensor) -> Tensor:
        """The first of a pair is beaten by the second where the bit is 1, else the second by the first."""
        lost = bits.new_zeros(*bits.shape[:-1], n).index_add(-1, first, bits)
        return lost.index_add(-1, second, -bits)

    rank = to_arithmetic(beaten, index_bits(n) + 1).apply(ranks).shifted((torch.arange(n) - count).to(x.device))
    (rank,) = yield from reshare(rank)
    return (yield from sign(rank))
