"""The gated delta rule: attention without softmax, whose memory is a matrix of constant size, forgotten step by step.

With keys k, values v, a rate of writing b and a decay e^g of each token, the memory S becomes e^g S + k u', where
u = b (v - e^g S' k) is what S does not know yet of v; a token reads S' q (Yang et al. 2025, Gated Delta Networks). Here
tokens since the last change of S are kept beside it, so that S is changed once in CHUNK tokens: their u follow from one
triangular system (the WY form there), which is solved by blocks, because all numbers of its inverse stay below 1 while
powers of the matrix do not. It must not know models.

Keys and queries are rows of length sqrt(d), whose products are divided by d; S is so as if keys had length 1, times
sqrt(d), and so is what is read, which a norm follows.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as tf
from torch import Tensor

from puma.mpc.arithmetic import matmul, multiply, public, truncated
from puma.mpc.cost import declares, repeated
from puma.mpc.fixed import ACTIVATION, ACTIVATION_REACH, RESIDUAL, RING, SCORE_REACH, VALUE_REACH, formatted
from puma.mpc.party import Protocol, together
from puma.mpc.share import Additive, Share
from puma.mpc.share import cat as cat_shares
from puma.nn.splines import Spline, lifted, reaching, roomy

Value = Any  # a torch tensor, a Share or an Additive

CHUNK = 64  # tokens that lie beside the memory at most
PAIR = 18  # fraction bits of products of queries and keys over d, which are small: what is read is normalised
LOGARITHM, LOGARITHM_RING = 18, 44  # of logarithms of decays, which are summed up over a chunk
SOFTPLUS = Spline(
    "softplus", lambda x: tf.softplus(x, threshold=40), -16.0, 10, 5, bound=2.6e-4, above="x", slope=12, bits=36,
    out_frac=LOGARITHM,
)  # fmt: skip
SILU = Spline(  # of what is normalised next, so that errors count by how small it is
    "fine silu", tf.silu, -16.0, 10, 5, bound=2e-4, above="x", frac=16, slope=12, bits=38, out_frac=RESIDUAL,
)  # fmt: skip
DECAY = Spline("decay", torch.exp, -15.0, 10, 6, bound=2e-4, frac=16, slope=10, bits=30, reach=SCORE_REACH)


class Memory(NamedTuple):
    """What prompts have left: S (prompts, heads, d, size) or None at first, and of tokens since then keys (prompts,
    heads, tokens, d), u (..., size) and the sums of their g (prompts, heads, tokens)."""

    state: Value
    keys: Value
    written: Value
    total: Value

    def each(self, change: Any) -> Memory:
        """The same with each part changed; whether a state comes first is told."""
        state = None if self.state is None else change(self.state, True)
        return Memory(state, *(change(part, False) for part in (self.keys, self.written, self.total)))


def joined(one: Memory, other: Memory) -> Memory:
    """The prompts of both; tokens that one has beside its state and the other has not are zeros before its own."""
    most = max(one.keys.shape[2], other.keys.shape[2])
    like = other.state if one.state is None else one.state
    parts: list[list[Value]] = []
    for each in (one, other):
        lacks = most - each.keys.shape[2]
        rest = [_mapped(x, lambda t, n=lacks: _led(t, n)) for x in (each.keys, each.written, each.total)]
        count, state = each.keys.shape[0], each.state
        if state is None and like is not None:
            state = _mapped(like, lambda t, n=count: t.new_zeros(n, *t.shape[1:]))
        parts.append([state, *rest])
    return Memory(*(None if a is None else _cat([a, b], 0) for a, b in zip(*parts, strict=True)))


def _led(t: Tensor, count: int) -> Tensor:
    """Behind so many zeros along the third dimension."""
    return torch.cat([t.new_zeros(*t.shape[:2], count, *t.shape[3:]), t], 2)


@declares("products of the taps, local", "section 3")
def convolved(x: Value, weight: Value, before: Value) -> tuple[Value, Value]:
    """A causal convolution of each column by itself: x (prompts, rows, size), weight (taps, size); `before` (prompts,
    taps - 1, size) or None are the rows before, in the format of what comes second: those for the rows that follow.
    """
    taps = weight.shape[0]
    if not isinstance(x, Tensor):
        (x,) = x.party.run(formatted((x, ACTIVATION, weight.bits)))
    if before is None:
        before = _mapped(x, lambda t: t.new_zeros(t.shape[0], taps - 1, t.shape[2]))
    rows, whole = x.shape[1], _cat([before, x], 1)
    parts = [whole[:, j : j + rows] for j in range(taps)]
    if isinstance(x, Tensor):
        return sum(part * weight[j] for j, part in enumerate(parts)), whole[:, rows:]
    total: Any = multiply(parts[0], weight[0])
    for j in range(1, taps):
        total = total + multiply(parts[j], weight[j])
    return total, whole[:, rows:]


@declares("formatted, lifted", "section 5")
def silu(x: Value, reach: int = ACTIVATION_REACH) -> Value:
    """x sigmoid(x) with RESIDUAL fraction bits in RING, ten times as exact as others have it; |x| < 2^reach - 16."""
    if isinstance(x, Tensor):
        return tf.silu(x)

    def protocol() -> Protocol[Share]:
        spline = reaching(SILU, reach)
        (given,) = yield from formatted((x, spline.frac, spline.ring))
        return (yield from lifted(spline, given, RING))

    return x.party.run(protocol())


@declares("softplus, 1 product, formatted", "section 5")
def logarithms(x: Value, rate: Value, reach: int = ACTIVATION_REACH) -> Value:
    """g = -rate softplus(x), the logarithm of a decay, for x (rows, heads) and rates (heads,); |x| < 2^reach - 16 and
    |g| < 2^10."""
    if isinstance(x, Tensor):
        return -rate * tf.softplus(x, threshold=40)

    def protocol() -> Protocol[Share]:
        spline = reaching(SOFTPLUS, reach)
        (given,) = yield from formatted((x, spline.frac, spline.ring))
        soft = yield from lifted(spline, given, RING)
        return (yield from formatted((-multiply(soft, rate), LOGARITHM, LOGARITHM_RING)))[0]

    return x.party.run(protocol())


@declares("exps of the chunk's pairs, about ten products; log2 of the chunk times two more", "section 5")
def remembered(
    q: Value, k: Value, v: Value, rate: Value, g: Value, memory: Memory | None, reach: int = SCORE_REACH,
    held: int = VALUE_REACH,
) -> tuple[Value, Memory]:  # fmt: skip
    """What new tokens read (prompts, heads, rows, size), and the memory after them.

    Queries and keys (prompts, heads, rows, d) are rows of length sqrt(d), as RMS norm gives them; values (..., size),
    rates and g (prompts, heads, rows). What is only padding is zeros that everybody knows, and changes nothing. The
    sum of |g| in a chunk stays below 2^reach, numbers of S below 2^held.
    """
    found: list[Any] = []
    for start in range(0, q.shape[2], CHUNK):
        some = slice(start, start + CHUNK)
        asked, known, wanted, often, fading = (x[:, :, some] for x in (q, k, v, rate, g))
        if isinstance(asked, Tensor):
            read, memory = _plain(asked, known, wanted, often, fading, memory)
        else:
            read, memory = _chunk(asked, known, wanted, often, fading, memory, reach, held)
        found.append(read)
    assert memory is not None
    first, *rest = found
    if rest:
        first = _below_each_other(first, rest)
    return first, memory


def _below_each_other(first: Any, rest: list[Any]) -> Any:
    """What was read in one chunk and the next ones, of each prompt and head."""
    if isinstance(first, Tensor):
        return torch.cat([first, *rest], 2)
    return first.transpose(0, 2).joined([x.transpose(0, 2) for x in rest]).transpose(0, 2)


def spread(g: Tensor) -> Tensor:
    """The sum of |g| in each chunk of a plain run, for whoever wants to know."""
    return torch.stack([-part.sum(-1) for part in g.split(CHUNK, -1)])


# -- tensors --------------------------------------------------------------------------------------------------------


def _plain(
    q: Tensor, k: Tensor, v: Tensor, rate: Tensor, g: Tensor, memory: Memory | None
) -> tuple[Tensor, Memory]:  # fmt: skip
    before, d, rows = memory or _nothing(k, v, g), k.shape[-1], k.shape[2]
    total = g.cumsum(-1) + (before.total[..., -1:] if before.total.shape[-1] else 0)
    keys, totals = torch.cat([before.keys, k], 2), torch.cat([before.total, total], 2)
    decay = (total.unsqueeze(-1) - totals.unsqueeze(-2)).exp().tril(totals.shape[-1] - rows)
    wanted, known = rate.unsqueeze(-1) * v, totals.shape[-1] - rows
    writing = (rate.unsqueeze(-1) * k) @ keys.mT / d * decay
    reading = q @ keys.mT / d * decay
    read = 0.0
    if before.state is not None:
        kept = total.exp().unsqueeze(-1)
        wanted = wanted - kept * (rate.unsqueeze(-1) * k @ before.state) / d
        read = kept * (q @ before.state) / d
    wanted = wanted - writing[..., :known] @ before.written
    system = writing[..., known:].tril(-1)
    new = torch.linalg.solve_triangular(
        torch.eye(rows, dtype=k.dtype, device=k.device) + system, wanted, upper=False, unitriangular=True
    )
    written = torch.cat([before.written, new], 2)
    after = Memory(before.state, keys, written, totals)
    if keys.shape[2] >= CHUNK:
        left = (totals[..., -1:] - totals).exp().unsqueeze(-1)
        state = (keys * left).mT @ written
        if before.state is not None:
            state = state + totals[..., -1:].exp().unsqueeze(-1) * before.state
        after = Memory(state, *(x[:, :, :0] for x in (keys, written, totals)))
    return read + reading @ written, after


# -- shares ---------------------------------------------------------------------------------------------------------


@cache
def _decay(reach: int) -> Spline:
    """e^x for -2^reach < x <= 0."""
    return roomy(replace(DECAY, reach=reach), SCORE_REACH)


@repeated
def _chunk(q: Share, *rest: Any) -> tuple[Additive, Memory]:
    """What new tokens of one chunk read, and the memory after them."""
    return q.party.run(_secret(q, *rest))


def _secret(
    q: Share, k: Share, v: Any, rate: Share, g: Share, memory: Memory | None, reach: int, held: int
) -> Protocol[tuple[Additive, Memory]]:
    before, d, rows = memory or _nothing(k, v, g), k.shape[-1], k.shape[2]
    known = before.keys.shape[2]
    total = g.apply(lambda t: t.cumsum(-1))
    if known:
        total = total + before.total[:, :, -1:]
    keys, totals = cat_shares([before.keys, k], 2), cat_shares([before.total, total], 2)
    folds, (v,) = known + rows >= CHUNK, (yield from formatted((v, ACTIVATION, RING)))
    (asked,), exps = yield from together(
        _rated(k, rate), _decays(total, totals, before.state is not None, folds, reach)
    )
    decay, kept, left = exps
    both = cat_shares([asked, q], 2)
    products = [_divided(matmul(both, keys.transpose(-1, -2)), d)]
    if before.state is not None:
        products.append(_divided(matmul(both, before.state), d))
    opened = yield from formatted(*((x, PAIR, RING) for x in products))
    (pairs,) = yield from formatted((multiply(opened[0], cat_shares([decay, decay], 2)), PAIR, RING))
    writing, reading = pairs[:, :, :rows], pairs[:, :, rows:]
    wanted, read = multiply(v, rate.unsqueeze(-1)), None
    if before.state is not None:
        wanted = wanted - multiply(opened[1][:, :, :rows], kept.unsqueeze(-1))
        read = multiply(opened[1][:, :, rows:], kept.unsqueeze(-1))
    if known:
        wanted = wanted - matmul(writing[..., :known], before.written)
    new = yield from _solved(writing[..., known:].apply(lambda t: t.tril(-1)), wanted)
    written = cat_shares([before.written, new], 2)
    reads = matmul(reading, written)
    after = Memory(before.state, keys, written, totals)
    if folds:
        after = yield from _folded(after, left, held)
    return (reads if read is None else read + reads), after


def _rated(k: Share, rate: Share) -> Protocol[list[Share]]:
    """Keys times their rates."""
    return (yield from formatted((multiply(k, rate.unsqueeze(-1)), ACTIVATION, RING)))


def _divided(product: Additive, d: int) -> Additive:
    """A sum of d products of numbers of about 1, over d: it stays within the ring."""
    return product.times(round(2**16 / d), 16)


def _decays(
    total: Share, totals: Share, states: bool, folds: bool, reach: int
) -> Protocol[tuple[Share, Share | None, Share | None]]:
    """e to the differences of new tokens' sums to all before, 0 to those behind; to their own, if there are states; and
    of the last one to each, if S is to change, to its own first."""
    rows, columns = total.shape[-1], totals.shape[-1]
    shape = (*total.shape, columns)
    mask = torch.ones(rows, columns, dtype=torch.bool).tril(columns - rows).expand(*shape)
    where = mask.reshape(-1).nonzero().squeeze(-1)
    parts = [(total.unsqueeze(-1) - totals.unsqueeze(-2)).reshape(-1)[where.to(total.device)]]
    if states:
        parts.append(total.reshape(-1))
    if folds:
        last = totals[:, :, -1:]
        parts.append(cat_shares([last, last - totals], 2).reshape(-1))
    spline, heads = _decay(reach), total.shape[0]
    given = truncated(cat_shares(parts, 0), LOGARITHM - spline.frac)
    owners = torch.cat(
        [_owners(part, shape, where) if i == 0 else _owners(part, (heads,)) for i, part in enumerate(parts)]
    )
    found = yield from lifted(spline, given.reduced(spline.ring), RING, owners if spline.room else None)
    pairs, *rest = _split(found, [part.shape[0] for part in parts])
    decay = pairs.apply(lambda t: t.new_zeros(mask.numel()).index_copy(0, where.to(t.device), t)).reshape(*shape)
    kept = rest.pop(0).reshape(*total.shape) if states else None
    return decay, kept, rest[0].reshape(*total.shape[:2], columns + 1) if folds else None


def _owners(part: Share, shape: tuple[int, ...], where: Tensor | None = None) -> Tensor:
    """To which prompt each number belongs."""
    if where is not None:
        return where // (torch.Size(shape).numel() // shape[0])
    return torch.arange(shape[0]).repeat_interleave(part.shape[0] // shape[0])


def _split(x: Share, sizes: list[int]) -> list[Share]:
    ends = torch.tensor(sizes).cumsum(0).tolist()
    return [x[end - size : end] for size, end in zip(sizes, ends, strict=True)]


def _solved(system: Share, wanted: Additive) -> Protocol[Share]:
    """(1 + system)^-1 wanted, for a strictly lower triangular system."""
    if system.shape[-1] == 1:
        return (yield from formatted((wanted, ACTIVATION, RING)))[0]
    inverse, (right,) = yield from together(inverted(system), formatted((wanted, ACTIVATION, RING)))
    return (yield from formatted((matmul(inverse, right), ACTIVATION, RING)))[0]


@declares("2 products for each doubling of the blocks' size", "section 5")
def inverted(system: Share) -> Protocol[Share]:
    """(1 + system)^-1 of strictly lower triangular matrices (..., n, n) with PAIR fraction bits in RING.

    Two inverted blocks and what lies below the first and before the second make one of twice their size, which holds
    minus the second times that times the first there: numbers of the result alone, and no powers, come about.
    """
    n = system.shape[-1]
    whole = 1 << (n - 1).bit_length()
    system = system.apply(lambda t: tf.pad(t, (0, whole - n, 0, whole - n)))
    ones = public(system.party, torch.ones(1), (*system.shape[:-1], 1), RING, PAIR).unsqueeze(-1)
    blocks, size = ones, 1  # (..., whole / size, size, size)
    while size < whole:
        first, second = blocks[..., ::2, :, :], blocks[..., 1::2, :, :]
        below = system.apply(lambda t, size=size: _below(t, size))
        if size > 1:
            (below,) = yield from formatted((matmul(second, below), PAIR, RING))
            (below,) = yield from formatted((matmul(below, first), PAIR, RING))
        above = first.apply(torch.zeros_like)
        blocks = cat_shares([cat_shares([first, above], -1), cat_shares([-below, second], -1)], -2)
        size *= 2
    return blocks[..., 0, :n, :n]


def _below(system: Tensor, size: int) -> Tensor:
    """Of each two blocks beside each other on the diagonal what lies below the first: (..., count, size, size)."""
    count = system.shape[-1] // (2 * size)
    return torch.stack(
        [system[..., (2 * i + 1) * size : (2 * i + 2) * size, 2 * i * size : (2 * i + 1) * size] for i in range(count)],
        -3,
    )


def _folded(memory: Memory, left: Share, held: int) -> Protocol[Memory]:
    """The memory with what tokens have written since in S, decayed by `left`: S itself first, then what each wrote."""
    (keys,) = yield from formatted((multiply(memory.keys, left[..., 1:].unsqueeze(-1)), ACTIVATION, RING))
    state: Additive = matmul(keys.transpose(-1, -2), memory.written)
    if memory.state is not None:
        state = state + multiply(memory.state, left[..., :1].unsqueeze(-1))
    state.party.note_range("numbers of a memory", state, 2.0**held)
    (kept,) = yield from formatted((state, ACTIVATION, RING), noted=[0])
    return Memory(kept, *(x[:, :, :0] for x in (memory.keys, memory.written, memory.total)))


def _nothing(k: Value, v: Value, g: Value) -> Memory:
    """No token yet."""
    if isinstance(k, Tensor):
        return Memory(None, k[:, :, :0], v[:, :, :0], g[:, :, :0])
    written = k[:, :, :0].apply(lambda t: t.new_zeros(*t.shape[:3], v.shape[-1]))
    return Memory(None, k[:, :, :0], written, g[:, :, :0])


def _cat(items: list[Any], dim: int) -> Any:
    if isinstance(items[0], Tensor):
        return torch.cat(items, dim)
    return cat_shares(items, dim)


def _mapped(x: Any, change: Any) -> Any:
    return change(x) if isinstance(x, Tensor) else x.apply(change)
