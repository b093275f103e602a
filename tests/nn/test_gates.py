"""Clamped gates and heads that may look at nothing, as gpt-oss has them."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from puma.mpc.clear import ClearParty, held
from puma.mpc.fixed import ACTIVATION, RING, WEIGHT
from puma.mpc.party import Party
from puma.mpc.share import encode
from puma.nn import functional as F
from puma.nn import gates
from puma.nn.attention import sunk
from puma.nn.splines import piecewise
from tests.cases import sample
from tests.trio import added, given, given_additive, parties, value


def test_clamped() -> None:
    gate, up = sample(40, 8, scale=6), sample(40, 8, scale=6, seed=1)
    limited = gate.clamp(max=7.0)
    exact = (up.clamp(-7.0, 7.0) + 1) * limited * torch.sigmoid(1.702 * limited) / gates.SCALE
    assert (gates.clamped(gate, up) - exact).abs().max() < 1e-9
    products = parties(
        lambda p: gates.clamped(given_additive(p, gate, RING, 32), given_additive(p, up, RING, 32, "up"))
    )
    got = added(products).double() / 2.0 ** products[1].frac
    assert (got - exact).abs().max() < 8 * gates.GATE.bound + 14 * gates.UP.bound
    assert (got - exact).abs().mean() < 5e-4


@pytest.mark.parametrize("spline", [gates.GATE, gates.UP], ids=lambda s: s.name)
def test_tables_err_by_their_bounds(spline: Any) -> None:
    party, words = ClearParty(), encode(torch.linspace(-60, 60, 40001).double(), gates.GATE.frac)
    got = party.run(piecewise(spline, held(party, words, spline.ring, spline.frac)))
    assert (got.value - spline.function(words.double() / 2.0**spline.frac)).abs().max() < spline.bound


def test_a_softmax_that_may_look_at_nothing() -> None:
    q, k, v = sample(2, 4, 3, 6), sample(2, 2, 5, 6, seed=1), sample(2, 2, 5, 6, seed=2)
    sinks = torch.tensor([2.0, -3.0, 0.5, 40.0]).double()
    scores = q @ k.repeat_interleave(2, 1).mT
    weights = torch.cat([scores, sinks.reshape(1, 4, 1, 1).expand(2, 4, 3, 1)], -1).softmax(-1)[..., :-1]
    exact, mask = weights @ v.repeat_interleave(2, 1), torch.ones(3, 6, dtype=torch.bool)

    def attended(q: Any, k: Any, v: Any, sinks: Any) -> Any:
        q, k, v = sunk(q, k, v, sinks)
        grouped = q.reshape(2, 2, 6, q.shape[-1])
        return F.softmax_matmul(F.scores(grouped, k), v, mask.repeat(2, 1)).reshape(2, 4, 3, -1)

    assert (attended(q, k, v, sinks) - exact).abs().max() < 1e-9

    def compute(party: Party) -> Any:
        shares = (given(party, x, RING, ACTIVATION, name) for x, name in ((q, "q"), (k, "k"), (v, "v")))
        return attended(*shares, given(party, sinks, RING, WEIGHT, "sinks"))

    assert (value(parties(compute)) - exact).abs().max() < 5e-3
