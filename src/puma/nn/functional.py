"""The functions models are written in: torch's names, on torch tensors (the plain run) or on secrets (the secure run).

On tensors each calls torch in float. On secrets each runs its protocol for the party that the secret belongs to.
Knows formats and ranges; touches no socket, key or kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as tf
from torch import Tensor

from puma.mpc import arithmetic, compare, raising
from puma.mpc.arithmetic import deal, public, reshare, truncated
from puma.mpc.boolean import open_masked, select
from puma.mpc.clear import Clear, held
from puma.mpc.clear_forms import in_clear
from puma.mpc.cost import declares, local
from puma.mpc.fixed import (
    ACTIVATION,
    ACTIVATION_REACH,
    GATED_REACH,
    LOGIT_REACH,
    NONLINEAR,
    NORM_REACH,
    RESIDUAL_RING,
    RING,
    SCORE_REACH,
    VALUE_REACH,
    formatted,
    grown,
    index_bits,
    logit_ring,
)
from puma.mpc.party import Protocol
from puma.mpc.public import LookedUp, Public
from puma.mpc.raising import Operand, Raised
from puma.mpc.raising import times as times_of
from puma.mpc.retrieval import Mixed, retrieve
from puma.mpc.share import Additive, Secret, Share, encode
from puma.mpc.share import cat as cat_shares
from puma.mpc.watch import note_lift
from puma.nn import attention, gates, paper, roots, splines
from puma.nn.attention import query_ring
from puma.nn.gates import activated
from puma.nn.variants import MAXIMUM

Value = Any  # a torch tensor, a Share or an Additive
Both = tuple[bool, bool]

GELUS = {"none": splines.GELU, "tanh": splines.GELU_TANH}
ROW_ARGUMENT_RING = 33  # of a general reciprocal, with roots.ROW fraction bits
ROTARY = 14  # fraction bits of cos and sin
CAPPED_RING = 40  # of a soft cap before it is multiplied by the cap: 21 fraction bits, and 2^8 above them


def component(name: str, x: Value) -> AbstractContextManager[None]:
    """Book the costs of the block under `name` at the party of x; nothing on the plain run."""
    return x.party.ledger.scope(name) if isinstance(x, Secret) else nullcontext()


def _entering(x: Share | Additive | Raised, weight: Share) -> Operand:
    """x as a product with this parameter takes it; if that is public, x grows in it, unless it was raised before."""
    if isinstance(x, Raised):
        assert x.frac == ACTIVATION and x.bits >= weight.bits
        return x
    bring = grown if isinstance(weight, Public) else formatted
    return x.party.run(bring((x, ACTIVATION, weight.bits)))[0]


@declares("formatted; grown where the matrix is public", "section 3")
def linear(x: Value, weight: Value, bias: Value | None = None) -> Value:
    """x @ weight^T + bias, weight (out, in). The secure result is untruncated: adding to it is free."""
    if isinstance(x, Tensor):
        return tf.linear(x, weight, bias)
    return raising.linear(_entering(x, weight), weight, bias)


@declares("formatted; what cannot be lifted is noted", "section 3")
def read(x: Value, ring: int = RING) -> Value:
    """x in the format in which matrices of rings up to this one read it, where nobody has proven that it fits."""
    if isinstance(x, Tensor):
        return x
    return x.party.run(formatted((x, ACTIVATION, ring), noted=[0]))[0]


@declares("formatted, both", "section 3")
def matmul(a: Value, b: Value) -> Value:
    """Batched matrix product of two secrets."""
    if isinstance(a, Tensor):
        return a @ b
    a, b = a.party.run(formatted((a, ACTIVATION, RING), (b, ACTIVATION, RING)))
    return arithmetic.matmul(a, b)


@declares("local, of what `heads` returns", "section 3", local)
def scores(q: Value, k: Value) -> Value:
    """Scores (..., n, s) of queries (..., n, d) on keys (..., s, d)."""
    return q @ k.transpose(-1, -2) if isinstance(q, Tensor) else arithmetic.matmul(q, k.transpose(-1, -2))


@declares("grown, both", "section 3")
def mul(a: Value, b: Value) -> Value:
    """Elementwise product of two secrets."""
    if isinstance(a, Tensor):
        return a * b
    return times_of(*a.party.run(grown((a, ACTIVATION, RING), (b, ACTIVATION, RING))))


@declares("formatted; grown where the weight is public", "section 3")
def affine(x: Value, weight: Value, bias: Value | None = None) -> Value:
    """x * weight + bias along the last dimension."""
    if isinstance(x, Tensor):
        return x * weight if bias is None else x * weight + bias
    result = times_of(_entering(x, weight), weight)
    return result if bias is None else result + bias


@declares("local; retrieve for an outsider's choice in a secret table", "section 6")
def embedding(one_hot: Value, table: Value, ring: int = RESIDUAL_RING) -> Value:
    """Rows of a table (V, d) by one-hot rows (..., V), or by an outsider's choice; in the plain run also by indices.

    Secret rows have 18 fraction bits, in a ring of 34 bits or `ring`. One-hot rows for a public table may be unopened.
    """
    if isinstance(one_hot, Tensor):
        return one_hot @ table if one_hot.is_floating_point() else tf.embedding(one_hot, table)
    if isinstance(one_hot, Mixed):
        return one_hot.looked_up(*(embedding(each, table, ring) for each in (one_hot.chosen, one_hot.hot)))
    if isinstance(one_hot, Share | Additive):
        rows = arithmetic.matmul(one_hot, table)
    else:
        rows = one_hot.rows if isinstance(one_hot, LookedUp) else one_hot.party.run(retrieve(one_hot, table))
    return one_hot.party.run(formatted((rows, rows.frac, ring)))[0] if ring > rows.bits else rows


@declares("normalised", "section 5")
def layer_norm(x: Value, eps: float, reach: int = NORM_REACH, ring: int = RING, grows: bool = False) -> Value:
    """(x - mean) / sqrt(var + eps) over the last dimension, without scale and bias.

    Rows have a length below 2^reach; the result lies in `ring`, or `grows` into it where public matrices read it."""
    if isinstance(x, Tensor):
        return tf.layer_norm(x, (x.shape[-1],), eps=eps)
    return x.party.run(roots.normalised(x, eps, True, reach=reach, ring=ring, grows=grows))


@declares("normalised", "section 5")
def rms_norm(x: Value, eps: float, reach: int = NORM_REACH, ring: int = RING, grows: bool = False) -> Value:
    """x / sqrt(mean(x^2) + eps) over the last dimension, without scale; rows and result as for `layer_norm`."""
    if isinstance(x, Tensor):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return x.party.run(roots.normalised(x, eps, False, reach=reach, ring=ring, grows=grows))


@declares("softmax", "section 5")
def softmax(scores: Value, mask: Tensor, reach: int = SCORE_REACH, watched: bool = True) -> Value:
    """Softmax over the last dimension; mask public, True where allowed, at least one entry a row: these lie within
    2^reach of each other."""
    if isinstance(scores, Tensor):
        if paper.approximation_of(scores) != paper.SPLINE:
            return paper.softmax_plain(scores, mask.to(scores.device))
        return scores.masked_fill(~mask.to(scores.device), float("-inf")).softmax(-1)
    return scores.party.run(attention.softmax(scores, mask, reach, watched))


@declares("attend", "section 5")
def softmax_matmul(
    scores: Value, v: Value, mask: Tensor, reach: int = SCORE_REACH, values: int = VALUE_REACH, watched: bool = True
) -> Value:
    """softmax(scores, mask) @ v; scores as for `softmax`, |v| < 2^values less a sixteenth."""
    if isinstance(scores, Tensor):
        return softmax(scores, mask) @ v
    return scores.party.run(attention.attend(scores, v, mask, reach, values, watched))


def _plain(name: str, x: Tensor, exact: Callable[[Tensor], Tensor]) -> Tensor:
    """A function of the plain run: exact, unless the tensor asks for another profile's."""
    return (paper.instead(name, x) or exact)(x)


@declares("formatted, lifted", "section 5")
def gelu(
    x: Value, approximate: str = "none", reach: int = ACTIVATION_REACH, ring: int = RING, grows: bool = False,
    **kept: bool,
) -> Value:  # fmt: skip
    """GeLU, exact ("none") or the "tanh" form; |x| < 2^reach - 16. In `ring`; `grows` is as for `layer_norm`, `kept` as
    for `splines.reaching`."""
    if isinstance(x, Tensor):
        return _plain("gelu", x, lambda t: tf.gelu(t, approximate=approximate))
    return x.party.run(activated(splines.reaching(GELUS[approximate], reach, **kept), x, ring, grows))


@declares("formatted, lifted", "section 5")
def silu(x: Value, reach: int = ACTIVATION_REACH, ring: int = RING, grows: bool = False, **kept: bool) -> Value:
    """x * sigmoid(x); |x| < 2^reach - 16. In `ring`; `grows` is as for `layer_norm`."""
    if isinstance(x, Tensor):
        return _plain("silu", x, tf.silu)
    return x.party.run(activated(splines.reaching(splines.SILU, reach, **kept), x, ring, grows))


@declares("silu, formatted, in the same rounds", "section 5")
def silu_gated(
    gate: Value, up: Value, reach: int = ACTIVATION_REACH, product: int = GATED_REACH, watched: Both = (True, True),
    fine: bool = False, grows: bool = False,
) -> Value:  # fmt: skip
    """silu(gate) * up; |gate| < 2^reach - 16, and the product's size < 2^product, each `watched` or not. `grows`: only
    public matrices read it."""
    if isinstance(gate, Tensor):
        return silu(gate) * up
    spline = splines.reaching(splines.SILU, reach, watched[0], fine)
    return gate.party.run(gates.gated(spline, gate, up, product, watched[1], grows))


@declares("gelu, formatted, in the same rounds", "section 5")
def gelu_gated(
    gate: Value, up: Value, approximate: str = "none", reach: int = ACTIVATION_REACH, product: int = GATED_REACH,
    watched: Both = (True, True), fine: bool = False, grows: bool = False,
) -> Value:  # fmt: skip
    """gelu(gate) * up; as `silu_gated`."""
    if isinstance(gate, Tensor):
        return gelu(gate, approximate) * up
    spline = splines.reaching(GELUS[approximate], reach, watched[0], fine)
    return gate.party.run(gates.gated(spline, gate, up, product, watched[1], grows))


@declares("formatted, lifted", "section 5")
def softcap(x: Value, cap: float, reach: int = SCORE_REACH, watched: bool = True) -> Value:
    """cap * tanh(x / cap), 4 <= cap <= 128; |x| < 2^reach - 8 cap. Errs by 1e-4 cap and 2^-12 at most."""
    if isinstance(x, Tensor):
        return cap * torch.tanh(x / cap)
    spline = gates.softcap_table(cap, reach, watched)
    (x,) = x.party.run(formatted((x, spline.frac, spline.ring)))
    half = x.party.run(splines.lifted(spline, x, CAPPED_RING))
    whole = half.times(round(32 * cap), 4)
    return truncated(whole, whole.frac - NONLINEAR) - cap


@declares("local", "section 3", local)
def times(x: Value, factor: int) -> Value:
    """x times a public whole number."""
    return x * factor if isinstance(x, Tensor) else x.times(factor)


@declares("formatted, lifted", "section 5")
def sigmoid(x: Value, reach: int = ACTIVATION_REACH, ring: int = RING, watched: bool = True) -> Value:
    """1 / (1 + exp(-x)); |x| < 2^reach - 16. The result lies in `ring`."""
    spline = splines.reaching(splines.SIGMOID, reach, watched)
    return torch.sigmoid(x) if isinstance(x, Tensor) else _spline(spline, x, ring)


@declares("formatted, lifted", "section 5")
def tanh(x: Value, reach: int = ACTIVATION_REACH, ring: int = RING, watched: bool = True) -> Value:
    """2 sigmoid(2x) - 1; |x| < 2^reach - 16. The result lies in `ring`."""
    if isinstance(x, Tensor):
        return torch.tanh(x)
    half = _spline(splines.reaching(splines.TANH_HALF, reach, watched), x, ring)
    return half.times(2) - 1


@declares("formatted, lifted", "section 5")
def exp(x: Value) -> Value:
    """exp(x) for -2^14 < x <= 0."""
    if isinstance(x, Tensor):
        return _plain("exp", x, torch.exp)
    return x.party.run(activated(splines.EXP, x))


def _relu_bits(x: Value) -> int:
    return min(x.bits - x.frac + ACTIVATION, RESIDUAL_RING)


@declares("formatted, sign, online 2 + 2k, offline 2k", "section 4")
def relu(x: Value, watched: bool = True) -> Value:
    """max(x, 0)."""
    if isinstance(x, Tensor):
        return torch.relu(x)
    (x,) = x.party.run(formatted((x, ACTIVATION, _relu_bits(x))))
    if watched and x.bits < RESIDUAL_RING:  # a reach that was not proven; whoever reads the result lifts it
        note_lift(x)

    def protocol() -> Protocol[Share]:
        negative = yield from compare.sign(x)
        (bit,) = yield from open_masked(~negative)
        return (yield from reshare(select(bit, x)))[0]

    return x.party.run(protocol())


@declares("formatted, reciprocal", "section 5")
def reciprocal(x: Value) -> Value:
    """1 / x for 2^-12 <= x < 2^15; relative error RECIPROCAL_BOUND and one unit of 2^-17."""
    if isinstance(x, Tensor):
        return torch.reciprocal(x)
    (x,) = x.party.run(formatted((x, roots.ROW, ROW_ARGUMENT_RING)))
    inverse = x.party.run(roots.reciprocal(x, roots.ROW - 12, ROW_ARGUMENT_RING - 2))
    return truncated(inverse, inverse.frac - roots.RESIDUAL)


@declares("formatted, rsqrt", "section 5")
def rsqrt(x: Value) -> Value:
    """1 / sqrt(x) for 2^-12 <= x < 2^31; relative error RSQRT_BOUND and one unit of 2^-17."""
    if isinstance(x, Tensor):
        return torch.rsqrt(x)
    (x,) = x.party.run(formatted((x, roots.ROW, roots.ROW_RING)))
    root = x.party.run(roots.rsqrt(x, 23))
    return truncated(root, root.frac - roots.RESIDUAL)


@declares("formatted, all", "section 3")
def heads(
    q: Value, k: Value, v: Value, size: int, angles: Sequence[Tensor] = (), reach: int = SCORE_REACH,
    keys: int = SCORE_REACH, values: int = VALUE_REACH, watched: Both = (True, True),
) -> list[Value]:  # fmt: skip
    """Queries, keys and values (rows, heads * size) as (rows, heads, size), in the rings that attention wants
    of scores that lie within 2^reach of each other in each row, for `keys` perhaps later in a larger one, and of values
    below 2^values less a sixteenth; scores and values are `watched` or not.

    `angles` are cosines and sines (2, rows, 1, size) for queries and for keys: rotary position embedding with halves
    rotated, x cos + rotate_half(x) sin. All are opened in one round and lifted in one."""
    noted, turn = [2] if watched[1] and values != VALUE_REACH else [], ROTARY if angles else 0
    rings = [query_ring(reach, watched[0]) + turn, query_ring(keys, watched[0]) + turn, attention.value_ring(values)]
    wants = [(x, ACTIVATION, ring) for x, ring in zip((q, k, v), rings, strict=True)]
    items = [q, k, v] if isinstance(q, Tensor) else q.party.run(formatted(*wants, noted=noted))
    items = [x.reshape(x.shape[0], -1, size) for x in items]
    return [_turned(x, turns) for x, turns in zip(items, angles, strict=False)] + items[len(angles) :]


def _turned(x: Value, angles: Tensor) -> Value:
    if isinstance(x, Tensor):
        return x * angles[0] + _half_turned(x) * angles[1]
    c, s = encode(angles, ROTARY, x.device)
    return truncated(x.times(c, ROTARY) + x.apply(_half_turned).times(s, ROTARY), ROTARY)


def _half_turned(x: Tensor) -> Tensor:
    return torch.cat([-x[..., x.shape[-1] // 2 :], x[..., : x.shape[-1] // 2]], -1)


@declares("formatted, argmax", "section 5")
def argmax(x: Value, reach: int = LOGIT_REACH, barred: Sequence[int] = ()) -> Value:
    """Index of the largest entry of the last dimension; a Share of ring ceil(log2 V) for secrets.

    Entries of a row lie within 2^reach of each other. Those at `barred` places, which are public, do not count."""
    bits, places = index_bits(x.shape[-1]), torch.arange(x.shape[-1])
    places = places[~torch.isin(places, torch.tensor(barred))] if barred else places
    x = x[..., places] if barred else x
    if isinstance(x, Tensor):
        return places[x.argmax(-1)]
    (x,) = x.party.run(formatted((x, ACTIVATION, logit_ring(reach))))
    index = public(x.party, places, x.shape[-1:], bits, 0).expand(*x.shape)
    return x.party.run(compare.argmax(x, index, MAXIMUM in x.party.quick))[1]


@declares("offline 2^bits k an index; online 2k and 1 round, unless it stays unopened", "section 6")
def one_hot(index: Value, size: int, unopened: bool = False) -> Value:
    """One-hot rows (..., size) of an index; for secrets from a dealt one-hot of the index's mask.

    The dealer deals the vector for l, the evaluators turn it by the public m and reshare: offline 2^bits words. For a
    public table it stays `unopened`."""
    if isinstance(index, Tensor):
        return tf.one_hot(index, size).to(torch.float32)
    rows = _hot_rows(index, size)
    return rows if unopened or isinstance(rows, Share) else index.party.run(reshare(rows))[0]


def _hot_rows_in_clear(index: Clear, size: int) -> Clear:
    words = tf.one_hot(index.m & ((1 << index.bits) - 1), size)
    return held(index.party, words, RESIDUAL_RING, 0)


@in_clear(_hot_rows_in_clear)
def _hot_rows(index: Share, size: int) -> Additive | Share:
    party, count = index.party, 1 << index.bits
    shape = (*index.shape, count)
    public_digit = (index.mask if party.is_dealer else index.m) & (count - 1)
    if party.is_dealer:
        hot = (torch.arange(count, device=index.device) == public_digit.unsqueeze(-1)).to(torch.int64)
        deal(party, hot, shape, RESIDUAL_RING)
        part = party.nothing((*index.shape, size))
    else:
        dealt = deal(party, None, shape, RESIDUAL_RING)
        places = party.nothing((size,)) if party.dry else torch.arange(size, device=index.device)
        turned = (public_digit.unsqueeze(-1) - places) & (count - 1)
        part = dealt.gather(-1, turned)
    assert size <= count
    return Additive(party, part, RESIDUAL_RING, 0, dealt=False)


@declares("local", "section 3", local)
def cat(items: Sequence[Value], dim: int) -> Value:
    """Concatenate tensors, or shares of one format, along a dimension."""
    return torch.cat(list(items), dim) if isinstance(items[0], Tensor) else cat_shares(items, dim)


def _spline(spline: splines.Spline, x: Share | Additive, ring: int = RING) -> Share:
    return x.party.run(activated(spline, x, ring))
