"""One call of everything that declares a cost: run in full, in a dry run, under changed keys and against vectors.

The arguments are made without a message, so that what a run sends is the primitive's own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from puma.crypto.prg import PairKey
from puma.mpc import arithmetic, boolean, compare, fixed, lookup, raising, retrieval, watch
from puma.mpc.fixed import ACTIVATION, RESIDUAL, RESIDUAL_RING, RING, WEIGHT
from puma.mpc.party import Party
from puma.mpc.polynomial import ONE, bit, times
from puma.mpc.public import LookedUp
from puma.mpc.share import Additive, Share
from puma.mpc.wide import products
from puma.nn import attention, delta, gates, inverses, mixture, paper, pooling, roots, sampling, splines
from puma.nn import functional as F
from puma.nn.variants import VARIANTS as QUICK
from tests.case import Case
from tests.trio import (
    given,
    given_additive,
    given_bits,
    given_choice,
    given_masked,
    given_public,
    given_raised,
    given_seeded,
    given_widened,
)


def sample(*shape: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    """Numbers with a bell curve of deviation 1, up to 3.5, exactly the same on every machine."""
    words = PairKey(b"sample".ljust(32)).stream(f"test {seed}").words(shape)
    return scale * words.unsqueeze(-1).view(torch.int16).to(torch.float64).sum(-1) / 37837


def coins(*shape: int, seed: int = 0) -> Tensor:
    """Random bits, always the same."""
    return torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed))


N = (9, 8)
ROWS = sample(3, 19, scale=3, seed=5)
X, Y = sample(*N, scale=3), sample(*N, scale=2, seed=1)


def _x(p: Party, bits: int = 32, frac: int = 12, name: str = "x", value: Tensor = X) -> Share:
    return given(p, value, bits, frac, name)


def _quick(x: Any) -> Any:
    """By the plan of fewest rounds; a case forgets it afterwards."""
    x.party.quick = QUICK
    return x


def _watched(x: Share) -> Share:
    x.party.on_watch = watch.Watch(x.party, [1] * x.shape[0])
    return x


def _raised(p: Party) -> raising.Raised:
    return given_raised(p, X, 20, 47, 12)


def _widened(p: Party) -> products.Widened:
    return given_widened(p, X, 33, 78, 12)


def _z(p: Party, bits: int = 40, frac: int = 24, name: str = "z", dealt: bool = True) -> Additive:
    return given_additive(p, Y, bits, frac, name, dealt)


def _parameter(p: Party, *shape: int) -> Share:
    return given_seeded(p, sample(*shape, seed=2), RING, WEIGHT)


def _public(p: Party, *shape: int) -> Share:
    return given_public(p, sample(*shape, seed=2), RING, WEIGHT)


def _dealt(p: Party, bits: int) -> tuple[Party, Tensor | None, tuple[int, ...], int]:
    return p, (coins(*N).to(p.device) if p.is_dealer else None), N, bits


AND = times(bit("b"), bit("c"))
MANY = [times(bit("b"), bit("c") ^ ONE, bit("d") ^ bit("e")), bit("e") ^ ONE ^ times(bit("d"), bit("e"))]

MPC = [
    Case(arithmetic.public, lambda p: (p, X, N, 30, 8)),
    Case(arithmetic.truncated, lambda p: (_x(p), 7)),
    Case(arithmetic.deal, lambda p: _dealt(p, 24)),
    Case(arithmetic.deal, lambda p: _dealt(p, 13), "odd ring"),
    Case(arithmetic.product, lambda p: (_x(p), _x(p, name="y", value=Y), torch.mul)),
    Case(arithmetic.multiply, lambda p: (_x(p), _x(p, name="y", value=Y))),
    Case(arithmetic.square, lambda p: (_x(p),)),
    Case(arithmetic.matmul, lambda p: (_x(p), _x(p, name="y", value=Y).transpose(0, 1))),
    Case(arithmetic.matmul, lambda p: (_x(p), _parameter(p, 8, 5)), "parameter"),
    Case(arithmetic.linear, lambda p: (_x(p), _x(p, name="y", value=Y))),
    Case(arithmetic.linear, lambda p: (_x(p), _parameter(p, 5, 8)), "parameter"),
    Case(arithmetic.linear, lambda p: (_x(p), _public(p, 5, 8)), "public"),
    Case(arithmetic.matmul, lambda p: (_x(p), _public(p, 8, 5)), "public"),
    Case(arithmetic.multiply, lambda p: (_x(p), _public(p, 8)), "public"),
    Case(arithmetic.truncated, lambda p: (_public(p, 5, 8), 7), "public"),
    Case(arithmetic.reshare, lambda p: (_z(p, 64), _z(p, 24, 10, "z2", dealt=False))),
    Case(arithmetic.reshare, lambda p: (_z(p, 1, 0, dealt=False),), "one-bit ring"),
    Case(arithmetic.open_truncate, lambda p: ((_z(p), 16), (_z(p, 35, 20, "z2"), 0))),
    Case(arithmetic.open_coarsely, lambda p: (_z(p, 43, 28), 15, 12)),
    Case(arithmetic.lift, lambda p: ((_x(p, 24), 48), (_x(p, 17, 3, "y"), 64))),
    Case(arithmetic.lift, lambda p: ((_x(p, 63, 12), 64),), "one bit"),
    Case(raising.raised, lambda p: (_x(p, 24), 48)),
    Case(raising.cut, lambda p: (_raised(p), 7)),
    Case(raising.whole, lambda p: (_raised(p),)),
    Case(raising.times, lambda p: (_raised(p), _x(p, 50, 9, "y", Y))),
    Case(raising.times, lambda p: (_raised(p), given_raised(p, Y, 17, 40, 9, "y")), "two"),
    Case(raising.times, lambda p: (_raised(p), _public(p, 8)), "public"),
    Case(raising.linear, lambda p: (_raised(p), _public(p, 5, 8)), "public"),
    Case(raising.linear, lambda p: (_x(p), _parameter(p, 5, 8)), "parameter"),
    Case(raising.squared, lambda p: (_raised(p),)),
    Case(products.widened, lambda p: (_x(p, 33), 78)),
    Case(products.narrowed, lambda p: (_widened(p), 62)),
    Case(products.opened, lambda p: (_widened(p), given_widened(p, Y, 53, 78, 30, "y"), 30, 48)),
    Case(arithmetic.random_share, lambda p: (p, N, 42)),
    Case(arithmetic.reveal, lambda p: (_x(p, 23),)),
    Case(
        boolean.evaluate, lambda p: ({"b": given_bits(p, coins(*N)), "c": given_bits(p, coins(*N, seed=1), "c")}, AND)
    ),
    Case(
        boolean.evaluate,
        lambda p: ({n: given_bits(p, coins(*N, seed=i), n) for i, n in enumerate("bcde")}, *MANY),
        "many",
    ),
    Case(boolean.open_masked, lambda p: (given_bits(p, coins(*N)), given_bits(p, coins(5, 13), "c"))),
    Case(boolean.select, lambda p: (given_masked(p, coins(*N)), _x(p, 24))),
    Case(boolean.select, lambda p: (given_masked(p, coins(9, 1)), _x(p, 24)), "broadcast"),
    Case(boolean.select_all, lambda p: ([given_masked(p, coins(*N, seed=i), f"v{i}") for i in range(3)], _x(p, 24))),
    Case(boolean.to_arithmetic, lambda p: (given_masked(p, coins(*N)), 48)),
    *(Case(lookup.digits, lambda p, w=w: (_x(p), 5, [w]), f"{w} bits") for w in range(1, 11)),
    Case(lookup.digits, lambda p: (_x(p), 1, [2, 8, 1, 4, 6]), "many"),
    *(Case(lookup.signed_digits, lambda p, w=w: (_x(p), 3, w), f"{w}") for w in ([1], [5], [4, 7, 3], [2, 1])),
    Case(watch.note_lift, lambda p: (_watched(_x(p)),)),
    Case(watch.note_rows, lambda p: (_watched(_x(p)), 5)),
    *(Case(compare.sign, lambda p, b=b: (_x(p, b, 2),), f"{b} bits") for b in (4, 6, 12, 13, 28, 32, 50, 64)),
    Case(compare.below, lambda p: (_x(p, 40), [-7, 0, 1, 4096, 1 << 30])),
    Case(compare.below, lambda p: (_x(p, 22), [3, 1 << 12]), "three digits"),
    Case(compare.less, lambda p: (_x(p), _x(p, 30, 8, "y", Y))),
    Case(compare.equal, lambda p: (_x(p), _x(p, 32, 12, "y", X.where(Y > 0, Y)))),
    Case(compare.equal, lambda p: (_x(p, 20, 4), _x(p, 40, 11, "y", Y)), "two formats"),
    Case(compare.equal, lambda p: (_x(p, 3, 0), _x(p, 3, 0, "y", Y)), "one digit"),
    Case(
        compare.choose,
        lambda p: (given_bits(p, coins(9, 1)), (_x(p), _x(p, 36, 14, "y", Y)), (_x(p, 16, 4), _x(p, 16, 4, "w", Y))),
    ),
    Case(compare.maximum, lambda p: (_x(p, 12, 4),)),
    Case(compare.maximum, lambda p: (_x(p, 20, 4), 0), "first dimension"),
    *(
        Case(
            compare.maximum, lambda p, n=n, q=q: (_x(p, 12, 4, value=ROWS[:, :n]), -1, q), f"{n} entries{', quick' * q}"
        )
        for n in (1, 2, 3, 8, 11, 19)
        for q in (False, True)
    ),
    Case(compare.argmax, lambda p: (_x(p), _x(p, 5, 0, "index", torch.arange(8).expand(9, 8)), True), "quick"),
    Case(compare.argmax, lambda p: (_x(p), _x(p, 5, 0, "index", torch.arange(8).expand(9, 8)))),
    Case(retrieval.retrieve, lambda p: (given_choice(p, [7, 2, 8, 8], 9, 34), _x(p))),
    Case(retrieval.retrieve, lambda p: (given_choice(p, [7, 2, 8, 8], 9, 34), _parameter(p, 9, 8)), "parameter"),
    *(
        Case(f, lambda p: ((_x(p, 40, 20), 14, 48), (_z(p, 48, 31), 14, 48), (_z(p, 30, 8, "z2", False), 12, 20)))
        for f in (fixed.grown, fixed.formatted)
    ),
    Case(fixed.for_digits, lambda p: (_z(p, 43, 28), 13, 28, 12)),
    Case(fixed.for_digits, lambda p: (_x(p, 30, 15), 13, 28, 12), "share"),
]


def _mask(rows: int, keys: int) -> Tensor:
    return torch.ones(rows, keys, dtype=torch.bool).tril(keys - rows)


def _hidden(p: Party, *shape: int, bits: int = RESIDUAL_RING, frac: int = RESIDUAL) -> Share:
    return given(p, sample(*shape), bits, frac, "hidden")


def _product(p: Party, value: Tensor = X, name: str = "product") -> Additive:
    return given_additive(p, value, RING, ACTIVATION + WEIGHT, name)


def _weight(p: Party, *shape: int) -> Share:
    return given(p, sample(*shape, seed=2), RING, WEIGHT, "weight")


def _scores(p: Party) -> Additive:
    return _product(p, sample(2, 5, 9, scale=3), "scores")


def _one_hot(p: Party) -> Share:
    return given(p, torch.eye(11)[[3, 0, 10]], RESIDUAL_RING, 0, "rows")


def _rows(p: Party) -> LookedUp:
    return LookedUp(given_additive(p, sample(3, 8, seed=2), RESIDUAL_RING, WEIGHT, "rows", dealt=False))


def _unopened(p: Party) -> Additive:
    return given_additive(p, torch.eye(11)[[3, 0, 10]], RESIDUAL_RING, 0, "rows", dealt=False)


POSITIVE = (1 + sample(64).abs()) * 2.0 ** (torch.arange(64) % 12 - 6)

NN = [
    *(
        Case(splines.piecewise, lambda p, s=s: (s, given(p, X, s.ring, s.frac)), s.name)
        for s in (splines.GELU, splines.SILU, splines.SIGMOID, splines.EXP)
    ),
    Case(splines.lifted, lambda p: (splines.GELU, given(p, X, splines.GELU.ring, splines.GELU.frac), RING)),
    Case(roots.reciprocal, lambda p: (given(p, POSITIVE, 24, 12), 4, 22)),
    Case(roots.reciprocal, lambda p: (given(p, POSITIVE, 19, 8), 4, 17), "short"),
    Case(roots.rsqrt, lambda p: (given(p, POSITIVE, 40, 16), 15, 0.75)),
    Case(inverses.quick_reciprocal, lambda p: (given(p, POSITIVE, 24, 12), 4, 22)),
    Case(inverses.quick_rsqrt, lambda p: (given(p, POSITIVE, 40, 16), 15, 0.75)),
    Case(roots.normalised, lambda p: (_quick(_product(p, sample(8, 24))), 1e-5, True), "quick"),
    Case(roots.normalised, lambda p: (_quick(_product(p, sample(8, 24))), 1e-5, False), "quick, no mean"),
    Case(roots.normalised, lambda p: (_hidden(p, 8, 24), 1e-5, True)),
    Case(F.rms_norm, lambda p: (_hidden(p, 8, 24), 1e-5, 16, RING, True), "grows"),
    Case(attention.attend, lambda p: (_scores(p), _product(p, sample(2, 9, 8)), _mask(5, 9))),
    Case(attention.attend, lambda p: (_quick(_scores(p)), _product(p, sample(2, 9, 8)), _mask(5, 9)), "quick"),
    Case(attention.softmax, lambda p: (_scores(p), _mask(5, 9))),
    Case(attention.sunk, lambda p: (*(_heads(p, n, h) for n, h in (("q", 4), ("k", 2), ("v", 2))), _weight(p, 4))),
    Case(gates.clamped, lambda p: (_product(p), _product(p, Y, "up"))),
    Case(paper.piecewise, lambda p: (paper.GELU, _product(p)), "gelu"),
    Case(paper.piecewise, lambda p: (paper.SILU, _x(p, 34, 17)), "silu"),
    Case(paper.exponential, lambda p: (given(p, -X.abs(), 28, 13), 14, 40)),
    Case(paper.quadratic, lambda p: (_product(p),)),
    Case(paper.quadratic_weights, lambda p: (_scores(p), _mask(5, 9))),
    Case(F.linear, lambda p: (_hidden(p, 8, 24), _weight(p, 10, 24), _weight(p, 10))),
    Case(F.linear, lambda p: (_product(p), _weight(p, 10, 8)), "product"),
    Case(F.linear, lambda p: (_hidden(p, 8, 24), _public(p, 10, 24), _public(p, 10)), "public"),
    Case(F.matmul, lambda p: (_product(p), _x(p, 40, 20).transpose(0, 1))),
    Case(F.mul, lambda p: (_product(p), _x(p, 26, 14))),
    Case(F.affine, lambda p: (_hidden(p, 8, 24), _weight(p, 24), _weight(p, 24))),
    Case(F.affine, lambda p: (_hidden(p, 8, 24), _public(p, 24), _public(p, 24)), "public"),
    Case(F.embedding, lambda p: (_one_hot(p), _weight(p, 11, 8))),
    Case(F.embedding, lambda p: (_rows(p), _public(p, 11, 8)), "looked up"),
    Case(F.embedding, lambda p: (_unopened(p), _public(p, 11, 8)), "unopened"),
    Case(F.embedding, lambda p: (given_choice(p, [3, 0, 10], 11, 34), _weight(p, 11, 8)), "choice"),
    Case(F.layer_norm, lambda p: (_hidden(p, 8, 24), 1e-5)),
    Case(F.layer_norm, lambda p: (_product(p), 1e-5), "product"),
    Case(F.rms_norm, lambda p: (_hidden(p, 8, 24), 1e-5)),
    Case(F.softmax, lambda p: (_scores(p), torch.ones(5, 9, dtype=torch.bool))),
    Case(F.softmax, lambda p: (given(p, sample(1, 512), 30, 12), _mask(1, 512)), "long row"),
    Case(F.softmax_matmul, lambda p: (_scores(p), _x(p, RING, ACTIVATION, value=sample(9, 8)), _mask(5, 9))),
    *(Case(f, lambda p: (_product(p),)) for f in (F.gelu, F.silu, F.sigmoid, F.tanh, F.relu)),
    Case(F.gelu, lambda p: (_x(p, 34, 17), "tanh"), "tanh"),
    Case(F.gelu, lambda p: (_product(p), "none", 9, RING, True), "grows"),
    Case(F.relu, lambda p: (_x(p, 60, 20),), "wide"),
    Case(F.exp, lambda p: (given(p, -X.abs(), 40, 14),)),
    Case(F.reciprocal, lambda p: (given(p, POSITIVE, 40, 16),)),
    Case(F.rsqrt, lambda p: (given(p, POSITIVE, 40, 16),)),
    Case(F.heads, lambda p: (*_projections(p), 4)),
    Case(F.heads, lambda p: (*_projections(p), 4, [angles(9, 4), angles(9, 4)]), "turned"),
    Case(F.scores, lambda p: (_x(p, 43, ACTIVATION), _x(p, 43, ACTIVATION, "y", Y))),
    Case(F.silu_gated, lambda p: (_product(p), _x(p, 40, 20))),
    Case(F.silu_gated, lambda p: (_quick(_product(p)), _x(p, 40, 20)), "quick"),
    Case(F.gelu_gated, lambda p: (_product(p), _x(p, 40, 20), "tanh")),
    Case(F.softcap, lambda p: (_scores(p), 30.0)),
    Case(F.times, lambda p: (_product(p), 48)),
    Case(F.read, lambda p: (_product(p),)),
    Case(mixture.largest, lambda p: (_x(p, 28, 13, value=sample(4, 6)), 2)),
    Case(mixture.weights, lambda p: (_product(p, sample(4, 6)), 2, True)),
    Case(mixture.weights, lambda p: (_product(p, sample(4, 6)), 2, False, 9), "watched"),
    Case(
        mixture.weighted, lambda p: (_product(p), _x(p, RING, ACTIVATION, value=sample(9, 3)), torch.tensor([3, 3, 2]))
    ),
    Case(delta.convolved, lambda p: (_product(p, sample(2, 5, 8)), _weight(p, 3, 8), None)),
    Case(delta.logarithms, lambda p: (_product(p), _weight(p, 8))),
    Case(delta.silu, lambda p: (_product(p),)),
    Case(delta.inverted, lambda p: (_x(p, RING, delta.PAIR, value=sample(2, 5, 5).tril(-1)),)),
    Case(delta.remembered, lambda p: (*_tokens(p, 3), None)),
    Case(delta.remembered, lambda p: (*_tokens(p, 1), _memory(p), 15), "and a memory"),
    Case(F.argmax, lambda p: (_product(p, sample(3, 37)),)),
    Case(F.argmax, lambda p: (given(p, sample(64, 2), 48, 14),), "of two"),
    Case(F.one_hot, lambda p: (given(p, torch.tensor([3, 0, 10]), 4, 0), 11)),
    Case(F.one_hot, lambda p: (given(p, torch.tensor([3, 0, 10]), 4, 0), 11, True), "unopened"),
    Case(sampling.noise, lambda p: (p, (3, 37), 0.7)),
    Case(sampling.sample, lambda p: (_product(p, sample(3, 37)), 0.0), "largest"),
    Case(sampling.sample, lambda p: (_product(p, sample(3, 37)), 0.7)),
    *(Case(pooling.pooled, lambda p, m=m: (_product(p), [m], [4, 5], 1), m) for m in ("mean", "max", "weightedmean")),
    *(Case(pooling.pooled, lambda p, m=m: (*_padded(p, m), _flags(p)), f"{m}, padded") for m in ("mean", "lasttoken")),
    Case(F.cat, lambda p: ([_x(p, 40, 20), _x(p, 40, 20, "y")], -1)),
]


def _heads(p: Party, name: str, heads: int) -> Share:
    return _x(p, RING, ACTIVATION, name, sample(1, heads, 3, 4))


def _tokens(p: Party, rows: int) -> tuple[Any, ...]:
    """Queries, keys, values, rates and logarithms of decays of two heads."""
    q, k, v = (_x(p, RING, ACTIVATION, name, sample(1, 2, rows, 4, seed=i)) for i, name in enumerate("qkv"))
    rate = _x(p, RING, ACTIVATION, "rate", sample(1, 2, rows).abs() / 4)
    return q, k, v, rate, _x(p, delta.LOGARITHM_RING, delta.LOGARITHM, "decay", -sample(1, 2, rows).abs() / 4)


def _memory(p: Party) -> delta.Memory:
    """A state, and as many tokens beside it as there can be."""
    _, keys, written, _, g = _tokens(p, delta.CHUNK - 1)
    return delta.Memory(
        _x(p, RING, ACTIVATION, "state", sample(1, 2, 4, 4)), keys, written, g.apply(lambda t: t.cumsum(-1))
    )


def _padded(p: Party, mode: str) -> tuple[Any, ...]:
    """Two texts of three rows each; of nine, the last three are left out."""
    return _product(p)[:6], [mode], [3, 3], 0


def _flags(p: Party) -> Share:
    return given(p, torch.tensor([0, 0, 1, 0, 0, 0]), RING, 0, "flags")


def _projections(p: Party) -> tuple[Any, ...]:
    """Queries, keys and values of nine rows and two heads."""
    return _product(p), _x(p, 40, 20), _product(p)


def angles(rows: int, size: int) -> Tensor:
    """Cosine and sine (2, rows, 1, size) of rotary angles."""
    turns = torch.arange(rows)[:, None] * 100.0 ** -(torch.arange(0, size, 2) / size)
    turns = torch.cat([turns, turns], -1).unsqueeze(1)
    return torch.stack([turns.cos(), turns.sin()])


CASES = MPC + NN
