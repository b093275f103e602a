"""Soft capping through the real protocol: within the stated error over the table, at its ends and far out."""

from __future__ import annotations

import pytest
import torch

from puma.mpc.fixed import ACTIVATION, NONLINEAR, RING, SCORE_REACH, WEIGHT
from puma.nn import functional as F
from tests.trio import added, given, given_additive, parties, value


@pytest.mark.parametrize("cap", [4.5, 30.0, 50.0, 128.0])
def test_the_stated_error_holds_everywhere(cap: float) -> None:
    reach = 2.0**SCORE_REACH - 2048
    x = torch.cat(
        [torch.linspace(-12 * cap, 12 * cap, 6001), torch.tensor([-reach, reach, 5 * cap, -5 * cap])]
    ).double()
    x = torch.round(x * 2**NONLINEAR) / 2**NONLINEAR
    found = value(parties(lambda p: F.softcap(given(p, x, 48, NONLINEAR), cap)))
    assert (found - F.softcap(x, cap)).abs().max() < 1e-4 * cap + 2.0**-12
    assert float((found[1:6001] - found[:6000]).min()) > -1e-3  # rises, but for fixed point


def test_scores_and_logits_may_come_untruncated() -> None:
    x = torch.linspace(-100, 100, 50).double()
    for frac in (2 * ACTIVATION, ACTIVATION + WEIGHT):
        found = value(parties(lambda p, f=frac: F.softcap(given_additive(p, x, RING, f), 30.0)))
        assert (found - F.softcap(x, 30.0)).abs().max() < 4e-3


def test_a_gate_of_gelu() -> None:
    gate, up = torch.linspace(-6, 6, 60).double(), torch.linspace(-20, 20, 60).double()

    def compute(party):
        return F.gelu_gated(given(party, gate, RING, ACTIVATION), given(party, up, RING, ACTIVATION, "up"), "tanh")

    exact = F.gelu_gated(gate, up, "tanh")
    products = parties(compute)
    found = added(products).double() / 2.0 ** products[0].frac
    assert ((found - exact).abs() <= 6e-4 * up.abs() + 2.0**-12 * (1 + gate.abs())).all()
