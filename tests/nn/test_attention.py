"""Softmax under public masks, and attention: long rows, large scores, ties, single keys, grouped heads."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from puma.mpc.fixed import ACTIVATION, NONLINEAR, RING, VALUE_LIMIT, WEIGHT
from puma.mpc.party import Party
from puma.nn import functional as F
from puma.nn.attention import exponentials
from puma.nn.layout import Layout
from puma.nn.modules import attend
from tests.cases import sample
from tests.trio import added, given, given_additive, held, parties, value

# exp's lines err by 1e-3 of the value, in a row's terms and in its sum; plus the last places of terms and quotient.
RELATIVE, PLACES = 2.2e-3, 3e-4


def causal_mask(rows: int, length: int) -> Tensor:
    """The mask of the last `rows` positions of `length`: each sees itself and what came before."""
    return torch.ones(rows, length, dtype=torch.bool).tril(length - rows)


def full_mask(rows: int) -> Tensor:
    """All see all."""
    return torch.ones(rows, rows, dtype=torch.bool)


def check(scores: Tensor, mask: Tensor) -> float:
    """Compare with softmax in double, on a product and on a share; rows must add up to 1."""
    exact = F.softmax(scores, mask)

    def compute(party: Party) -> Any:
        return F.softmax(given_additive(party, scores, RING, 28), mask), F.softmax(given(party, scores, RING, 17), mask)

    worst = 0.0
    for results in zip(*parties(compute), strict=True):
        got = value(list(results))
        errors = (got - exact).abs()
        assert (errors <= RELATIVE * exact + PLACES).all(), float((errors - RELATIVE * exact).max())
        assert (got.sum(-1) - 1).abs().max() < 1e-4 + 5 * 0.5 * 2.0**-ACTIVATION * got.shape[-1] ** 0.5
        assert (got[~mask.expand(got.shape)].abs() <= 2 * 2.0**-ACTIVATION).all()
        worst = max(worst, float(errors.max()))
    return worst


ROWS = {
    "plain": (sample(4, 6, 9, scale=3), causal_mask(6, 9)),
    "prompt": (sample(2, 9, 9, scale=3), causal_mask(9, 9)),
    "full": (sample(2, 7, 7, scale=5), full_mask(7)),
    "last token": (sample(3, 1, 17, scale=3), causal_mask(1, 17)),
    "one key": (sample(5, 1, 1, scale=100), full_mask(1)),
    "ties": (torch.zeros(2, 4, 8).double() + 3.25, full_mask(8)[:4]),
    "far apart": (sample(2, 6, 9, scale=120), causal_mask(6, 9)),
    "the whole reach": (sample(2, 3, 9, scale=2300), full_mask(9)[:3]),
    "large and near": (sample(2, 6, 9) + 400, causal_mask(6, 9)),
    "one wins": (torch.eye(6).double() * 40 - 20, full_mask(6)),
    "holes": (sample(1, 3, 8, scale=2), torch.tensor([[1, 0, 0, 1, 1, 0, 1, 0], [0] * 7 + [1], [0, 1] * 4]).bool()),
    "many keys": (sample(1, 2, 700, scale=2), causal_mask(2, 700)),
    "all alike, many": (torch.zeros(1, 1, 2048).double(), full_mask(2048)[:1]),
    "broadcast mask": (sample(2, 4, 8, scale=2), torch.tensor([[True], [True], [True], [True]])),
}


@pytest.mark.parametrize("kind", ROWS)
def test_softmax(kind: str) -> None:
    check(*ROWS[kind])


@pytest.mark.parametrize("offset", torch.arange(8).tolist())
def test_the_coarse_maximum_may_lie_off_by_any_fraction(offset: int) -> None:
    """Single keys and pairs at every position between two coarse steps, each under many masks."""
    scores = (torch.arange(64).double() / 64 + offset / 512).reshape(64, 1)
    scores = torch.cat([scores, scores - 0.3], -1)
    check(scores, torch.ones(2, dtype=torch.bool))
    check(scores[:, :1], torch.ones(1, dtype=torch.bool))


def attention_error(scores: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Errors relative to the largest value of each column."""

    def compute(party: Party) -> Any:
        product = given_additive(party, scores, RING, 28)
        return F.softmax_matmul(product, given_additive(party, v, RING, ACTIVATION + WEIGHT, "v"), mask)

    results = parties(compute)
    exact = F.softmax_matmul(scores, v, mask)
    assert results[0].shape == exact.shape
    return (value(results) - exact).abs() / v.abs().amax(-2, keepdim=True).clamp(1)


@pytest.mark.parametrize("kind", [k for k in ROWS if k != "one wins"])
def test_attention(kind: str) -> None:
    scores, mask = ROWS[kind]
    v = sample(scores.shape[0], scores.shape[-1], 5, scale=2, seed=7)
    assert attention_error(scores, v, mask).max() < RELATIVE + PLACES


def test_attention_over_a_long_context_of_large_values() -> None:
    """2048 keys, values in the hundreds."""
    scores, v = sample(1, 1, 2048), sample(1, 2048, 4, scale=40, seed=3)
    v[:, :, 0] = 200 + v[:, :, 0] / 10
    assert attention_error(scores, v, full_mask(2048)[:1]).max() < RELATIVE + PLACES


@pytest.mark.parametrize("count", [1, 256, 300])
def test_the_limit_of_values_holds_in_the_worst_case(count: int) -> None:
    """All scores alike and all coarse scores three quarters too low, as under zero masks; values at the limit."""
    scores, v = torch.full((1, 1, count), 0.25 - 2.0**-NONLINEAR), torch.full((1, count, 2), VALUE_LIMIT)
    v[..., 1] *= -1

    def compute(party: Party) -> Any:
        words = torch.round(scores.double() * 2**NONLINEAR).long()
        zero = torch.zeros_like(words)
        share = held(party, words, zero, zero, 40, NONLINEAR)
        e, _ = party.run(exponentials(share, full_mask(count)[:1]))
        return e, F.softmax_matmul(share, given(party, v, RING, ACTIVATION), full_mask(count)[:1])

    e, result = zip(*parties(compute), strict=True)
    assert (value(e) - math.exp(0.75)).abs().max() < 4e-3
    assert (value(result) / v[:, :1].double() - 1).abs().max() < 1e-3


def test_grouped_heads_of_padded_prompts() -> None:
    """Eight query heads on two key heads, after a cache; what lies in the padding does not matter."""
    at = Layout([3, 1, 2], torch.tensor([[0, 0, 1, 1], [1, 1, 1, 1], [0, 1, 1, 1]]).bool())
    q, k, v = sample(6, 8, 16, scale=0.7), sample(3, 2, 7, 16, seed=1), sample(3, 2, 7, 16, seed=2)

    def compute(party: Party, k: Tensor, v: Tensor) -> Any:
        shares = (given(party, t, RING, ACTIVATION, name) for t, name in ((q, "q"), (k, "k"), (v, "v")))
        return attend(*shares, at)

    exact = attend(q, k, v, at)
    alone = attend(q[3:4], k[1:2, :, [0, 1, 2, 3, 6]], v[1:2, :, [0, 1, 2, 3, 6]], Layout([1], torch.ones(1, 4).bool()))
    assert (exact[3:4] - alone).abs().max() < 1e-6
    padding = ~at.held[:, None, :, None]
    for fill in (0.0, 30.0):
        results = parties(lambda p, f=fill: compute(p, k.masked_fill(padding, f), v.masked_fill(padding, -f)))
        assert results[0].shape == exact.shape == (6, 128)
        assert (value(results) - exact).abs().max() < 4e-3


def test_what_the_mask_hides_does_not_matter() -> None:
    """Not even if it is huge."""
    scores, mask = sample(1, 4, 6, scale=2), causal_mask(4, 6)
    wild = scores.masked_fill(~mask, 8000.0)
    a, b = (parties(lambda p, s=s: F.softmax(given(p, s, RING, 17), mask)) for s in (scores, wild))
    assert (value(a) - value(b)).abs().max() < 3 * 2.0**-ACTIVATION


@pytest.mark.parametrize(("reach", "values"), [(5, 5), (7, 6), (8, 12), (11, 9), (16, 20), (18, 5)])
def test_attention_at_every_reach(reach: int, values: int) -> None:
    """Scores and values up to the ends of their reaches, along short and long rows."""
    for keys in (1, 9, 300):
        mask = causal_mask(min(keys, 6), keys)
        scores = sample(2, len(mask), keys, scale=1.0)
        scores[..., ::3] -= 2.0**reach - 8  # so that rows spread over all of the reach
        v = sample(2, keys, 5, seed=2)
        v = v / v.abs().max() * 2.0**values * 15 / 16 * 0.999

        def compute(party: Party, scores: Tensor = scores, v: Tensor = v, mask: Tensor = mask) -> Any:
            product = given_additive(party, scores, max(RING, 30 + reach), 28)
            added = given_additive(party, v, 34 + values, ACTIVATION + WEIGHT, "v")
            return F.softmax_matmul(product, added, mask, reach, values)

        found, exact = value(parties(compute)), F.softmax_matmul(scores, v, mask)
        errors = (found - exact).abs() / v.abs().amax(-2, keepdim=True).clamp(1)
        assert (errors <= RELATIVE + PLACES).all(), float(errors.max())


@pytest.mark.parametrize("reach", [5, 9, 14, 18, 24, 30])
def test_gated_products_at_every_reach(reach: int) -> None:
    """As large as the reach, and what goes on to a matrix is lifted without loss."""
    gate = torch.linspace(-4, 15, 96).double()
    up = torch.where(gate > 1, 2.0**reach * 0.999 / gate.clamp(1), sample(96)).clamp(-(2.0**13), 2.0**13)
    weight = torch.eye(96).double()

    def compute(party: Party) -> Any:
        product = F.silu_gated(
            given_additive(party, gate, RING, 32, "g"), given_additive(party, up, RING, 32, "u"), product=reach
        )
        return F.linear(product.reshape(1, 96), given(party, weight, 34 + reach, WEIGHT, "w"))

    exact = torch.nn.functional.silu(gate) * up
    errors = (added(parties(compute))[0] / 2.0**32 - exact).abs()
    assert (errors <= 1.3e-3 * up.abs().clamp(1) + 1.5 * 2.0**-ACTIVATION * (1 + gate.abs())).all()


def test_rows_that_ask_in_turns_see_the_same() -> None:
    """Of two prompts of one length, in turns of two rows and a last one."""
    at, turns = Layout([5, 5], causal=False), Layout([5, 5], causal=False)
    turns.turns = 3
    q, k, v = sample(10, 2, 8), sample(2, 2, 5, 8, seed=1), sample(2, 2, 5, 8, seed=2)
    exact = attend(q, k, v, at)
    assert torch.equal(attend(q, k, v, turns), exact)

    def compute(party: Party) -> Any:
        return attend(*(given(party, t, RING, ACTIVATION, name) for t, name in ((q, "q"), (k, "k"), (v, "v"))), turns)

    assert (value(parties(compute)) - exact).abs().max() < 1e-3
