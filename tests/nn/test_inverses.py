"""Reciprocals and roots in two rounds: as right as the lean ones, over all binades, at the joints of their digits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from puma.mpc.clear import ClearParty
from puma.mpc.clear import held as clearly
from puma.mpc.party import Party
from puma.nn import functional as F
from puma.nn import inverses, roots
from puma.nn.inverses import (
    QUICK_BOUND,
    QUICK_ROOT_BOUND,
    RECIPROCAL_BOUND,
    RSQRT_BOUND,
    quick_reciprocal,
    quick_rsqrt,
    rsqrt_table,
)
from puma.nn.variants import VARIANTS as QUICK
from tests.cases import sample
from tests.nn.test_roots import ROWS, binades, outliers, tolerance
from tests.trio import counted, given, given_additive, parties, value


def joints(low: int, high: int) -> Tensor:
    """Words about every power of two, where digits begin and a borrow changes what they read, and dense ones."""
    powers = 2 ** torch.arange(low, high + 1)
    near = (powers[:, None] + torch.tensor([-65, -9, -3, -2, -1, 0, 1, 2, 3, 9, 65])).reshape(-1).double()
    dense = 2.0 ** torch.linspace(low, high, 3000).double()
    return torch.cat([near, dense.floor(), binades(low, high)]).clamp(2**low, 2**high - 1).unique()


@pytest.mark.parametrize(("low", "high", "bits"), [(4, 31, 33), (13, 19, 21), (13, 23, 25), (0, 8, 10), (12, 34, 36)])
def test_reciprocals_of_all_binades(low: int, high: int, bits: int) -> None:
    words = joints(low, high)
    results = parties(lambda p: p.run(quick_reciprocal(given(p, words, bits), low, high)))
    unit = words / 2.0 ** results[0].frac
    relative = value(results) * words - 1
    assert (relative.abs() <= QUICK_BOUND + unit).all(), float(relative.abs().max())
    assert value(results).abs().max() * 2.0 ** results[0].frac < 2.0 ** (results[0].bits - 2)


def test_reciprocals_hold_a_little_further_down() -> None:
    for words, bound in ((torch.arange(7373, 8192, 3).double(), 1.4), (binades(12, 13), 4.0)):
        results = parties(lambda p, w=words: p.run(quick_reciprocal(given(p, w, 25), 13, 23)))
        assert (value(results) * words - 1).abs().max() <= bound * QUICK_BOUND


@pytest.mark.parametrize("scale", [1.0, 0.5001])
@pytest.mark.parametrize(("last", "bits"), [(23, 50), (22, 48), (4, 12), (0, 4)])
def test_roots_of_all_binades(last: int, bits: int, scale: float) -> None:
    words = joints(0, 2 * last + 2)
    results = parties(lambda p: p.run(quick_rsqrt(given(p, words, bits), last, scale)))
    exact = scale * torch.rsqrt(words)
    unit = 2.0 ** -results[0].frac / exact
    relative = (value(results) / exact - 1).abs()
    assert (relative <= QUICK_ROOT_BOUND + unit).all(), float(relative.max())


def test_an_interval_is_found_whatever_the_masks_borrow() -> None:
    """The same few words under many masks: a digit may read one too high, and still some table holds the word."""
    words = torch.tensor([2**n + d for n in range(0, 20, 2) for d in (-1, 0, 1) if 2**n + d > 0]).double().repeat(400)
    results = parties(lambda p: p.run(quick_rsqrt(given(p, words, 22, 0, "many"), 9, 1.0)))
    exact = torch.rsqrt(words)
    assert ((value(results) / exact - 1).abs() <= QUICK_ROOT_BOUND + 2.0 ** -results[0].frac / exact).all()


def test_tables_are_as_fine_as_their_bound_says() -> None:
    """On a dense grid, in float: what lines alone miss is less than half of the bound."""
    for spline, exact in ((inverses.reciprocal_table(3), lambda y: 1 / y), (rsqrt_table(1.0), torch.rsqrt)):
        y = torch.linspace(1 / 16, 1, 200_001).double()[:-1]
        at = ((y - spline.low) / spline.step).floor().long()
        a, b = spline.tables[:, at].double()
        offset = y - spline.low - at * spline.step
        found = a / 2.0**spline.line_frac + b / 2.0**spline.slope * offset
        assert (found / exact(y) - 1).abs().max() < 0.8 * spline.bound


def test_the_clear_run_gives_the_same() -> None:
    words = joints(0, 20)
    party = ClearParty()
    clear: Any = party.run(quick_rsqrt(clearly(party, words.long(), 22, 0), 9, 1.0))
    results = parties(lambda p: p.run(quick_rsqrt(given(p, words, 22), 9, 1.0)))
    assert (clear.bits, clear.frac) == (results[0].bits, results[0].frac)
    assert (clear.value / value(results) - 1).abs().max() < 2 * QUICK_ROOT_BOUND  # type: ignore[attr-defined]


def quick(x: Any) -> Any:
    x.party.quick = QUICK
    return x


KINDS = {
    **{kind: ROWS[kind] for kind in ("plain", "odd", "narrow", "shifted", "scaled", "tiny", "at the limit")},
    "outliers of 8000": outliers(4, 256, 8000.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("norm", [F.layer_norm, F.rms_norm])
def test_quick_norms_of_rows_of_all_kinds(norm: Any, kind: str) -> None:
    x = torch.round(KINDS[kind] * 2**17) / 2**17
    exact = norm(x, 1e-5)
    centred = x - x.mean(-1, keepdim=True) if norm is F.layer_norm else x
    deviation = (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()
    results = parties(lambda p: norm(quick(given_additive(p, x, 48, 32)), 1e-5))
    errors = (value(results) - exact).abs()
    bound = tolerance(x, exact, deviation) + (QUICK_ROOT_BOUND - RSQRT_BOUND) * exact.abs()
    assert (errors <= bound).all(), float((errors / bound).max())


def test_what_a_quick_norm_saves_and_costs() -> None:
    x = sample(4, 2048)

    def cost(norm: Any, plan: tuple[str, ...]) -> Any:
        def run(party: Party) -> Any:
            party.quick = plan
            return norm(given_additive(party, x, 48, 32), 1e-5)

        return counted(run)

    for norm, rounds in ((F.rms_norm, (9, 5)), (F.layer_norm, (11, 6))):
        lean, fast = cost(norm, ()), cost(norm, QUICK)
        assert (lean.rounds, fast.rounds) == rounds
        assert fast.online + fast.offline < 1.4 * (lean.online + lean.offline)


def test_the_lean_ones_are_what_they_were() -> None:
    words = joints(4, 20)
    results = parties(lambda p: p.run(roots.reciprocal(given(p, words, 22), 4, 20)))
    assert (value(results) * words - 1).abs().max() <= RECIPROCAL_BOUND + float(words.max()) / 2.0 ** results[0].frac
