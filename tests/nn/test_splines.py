"""Every spline through the real protocol: within the bound stated beside its coefficients, at joints and far out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from puma.mpc.arithmetic import lift
from puma.mpc.fixed import ACTIVATION, RING, WEIGHT, formatted
from puma.mpc.party import Party
from puma.nn import functional as F
from puma.nn import gates, range_digits, splines
from puma.nn.splines import Spline, least, piecewise
from tests.mpc.words import uniform
from tests.trio import counted, given, given_additive, held, parties, value

SPLINES = [s for s in vars(splines).values() if isinstance(s, Spline)]
FUNCTIONS = {
    "gelu": (F.gelu, splines.GELU, 1),
    "gelu_tanh": (lambda x: F.gelu(x, "tanh"), splines.GELU_TANH, 1),
    "silu": (F.silu, splines.SILU, 1),
    "sigmoid": (F.sigmoid, splines.SIGMOID, 1),
    "tanh": (F.tanh, splines.TANH_HALF, 2),
}


def limit(spline: Spline) -> float:
    """Inputs stay below this on both sides: the reach, less the table's lower end and a step."""
    return 2.0**spline.reach + spline.low - spline.step


def grid(spline: Spline) -> Tensor:
    """Words: every joint and what lies around it, a dense range, and everything to the end of the reach."""
    unit = 1 << spline.frac
    joints = (spline.low + spline.step * torch.arange(-1, 2**spline.width + 2)).double()
    around = torch.tensor([-2, -1, 0, 1, 2, 1 << (spline.low_bits - 1)])
    near = (joints * unit).long()[:, None] + around
    dense = torch.linspace(spline.low - 3, spline.high + 3, 2000).double() * unit
    powers = 2.0 ** torch.arange(-spline.frac, spline.reach)
    far = torch.cat([torch.linspace(-limit(spline), limit(spline), 801), powers, -powers]).double() * unit
    ends = torch.tensor([-limit(spline) + 1 / unit, limit(spline) - 1 / unit]).double() * unit
    words = torch.cat([near.reshape(-1), dense.long(), far.long(), ends.long()])
    top = spline.high - spline.step if spline.above is None else limit(spline)
    return words[(words > -limit(spline) * unit) & (words < top * unit)]


REACHED = [
    *(splines.reaching(s, r) for s in (splines.GELU, splines.GELU_TANH, splines.TANH_HALF) for r in (5, 7, 8, 11, 14)),
    *(splines.reaching(splines.SILU, r) for r in (5, 6, 7, 8, 10, 12, 14)),
    *(splines.exponential(ACTIVATION, r) for r in (5, 6, 7, 8, 9, 11, 20)),
    *(splines.reaching(s, r, watched=False) for s in (splines.GELU, splines.SILU, splines.TANH_HALF) for r in (5, 8)),
    *(splines.reaching(s, r, fine=True) for s in (splines.GELU, splines.SILU) for r in (6, 9)),
    *(splines.exponential(ACTIVATION, r, watched=False) for r in (5, 8, 11)),
]  # fmt: skip


PLANS = (("tables",), ("ranges",))
TOLD = [(s, plan) for plan in PLANS for s in (*SPLINES, *REACHED) if s.at_once(plan, 1)]  # in two rounds


@pytest.mark.parametrize(
    ("spline", "quick"),
    [*((s, ()) for s in (*SPLINES, *REACHED)), *TOLD],
    ids=lambda s: f"{s.name}-{s.reach}" if isinstance(s, Spline) else ",".join(s),
)
def test_the_stated_bound_holds_everywhere(spline: Spline, quick: tuple[str, ...]) -> None:
    """Each word under four pairs of masks, so that the index is now right and now one too high."""
    words = grid(spline).repeat(4)
    one, two = (uniform(len(words), seed=i) for i in (1, 2))

    def compute(party: Party) -> tuple[Any, Any]:
        party.quick = quick
        x = held(party, words, one, two, spline.ring, spline.frac)
        result = party.run(piecewise(spline, x))
        return result, party.run(lift((result, RING), least=least(spline)))[0]

    short, long = (list(each) for each in zip(*parties(compute), strict=True))
    exact = spline.function(words.double() / 2**spline.frac)
    assert short[0].frac == spline.out_frac
    errors = (value(long) - exact).abs()
    assert errors.max() <= spline.bound, float(words[errors.argmax()]) / 2**spline.frac
    assert torch.equal(value(short), value(long))
    assert abs((value(long) - exact).mean()) < spline.bound / 4


def test_one_digit_tells_the_range_where_it_takes_few_bits_and_saves_a_round() -> None:
    found = [s for s in REACHED if s.at_once(("tables",), 1 << 30)]
    assert {(s.name, s.reach) for s in found} >= {("silu", 7), ("silu", 8), ("exp", 7), ("exp", 8), ("tanh_half", 5)}
    assert not any(s.at_once(("tables",), 1) for s in (splines.SILU, splines.EXP, splines.GELU))
    for spline, plan in TOLD:
        lean, quick = (counted(lambda p, s=spline, q=q: _asked(p, s, q)) for q in ((), plan))
        assert (lean.rounds, quick.rounds) == (3, 2)
        assert quick.online + quick.offline < lean.online + lean.offline + 1000 * 512
    usual = [s for s in (splines.SILU, splines.EXP, splines.SIGMOID) if s.at_once(("ranges",), range_digits.FEW)]
    assert len(usual) == 3 and not any(s.at_once(("ranges",), range_digits.FEW + 1) for s in usual)


def _asked(party: Party, spline: Spline, quick: tuple[str, ...]) -> None:
    party.quick = quick
    party.run(piecewise(spline, given(party, torch.zeros(1000), spline.ring, spline.frac)))


@pytest.mark.parametrize("spline", SPLINES, ids=lambda s: s.name)
def test_the_bound_is_what_analysis_gives(spline: Spline) -> None:
    """The worst of both lines at any input, 1.5 units of input and output off, and no more than a third slack."""
    a, b = spline.tables.double()
    starts = spline.low + spline.step * torch.arange(2**spline.width)
    reach = 1 << spline.low_bits
    offsets = torch.arange(-reach, reach, max(1, reach // 128)).double() / 2**spline.frac
    line = (a / 2.0**spline.slope / 2**spline.frac)[:, None] + (b / 2.0**spline.slope)[:, None] * offsets
    x = starts.double()[:, None] + offsets
    worst = torch.tensor(0.0).double()
    for shift in (-1.5, 1.5):
        exact = spline.function(x + shift / 2**spline.frac)
        worst = torch.maximum(worst, ((line - exact).abs()[x < limit(spline)]).max())
    worst = worst + 1.5 / 2**spline.out_frac
    assert 2 / 3 * spline.bound < worst <= spline.bound


def test_a_fine_table_is_four_times_as_good_where_inputs_are_small() -> None:
    x = torch.round(torch.linspace(-0.5, 0.5, 4001).double() * 2**13) / 2**13
    errors = []
    for fine in (False, True):
        results = parties(lambda p, f=fine: F.silu(given(p, x, 40, 17), reach=6, fine=f))
        errors.append(float((value(results) - F.silu(x)).pow(2).mean().sqrt()))
    assert errors[1] < 0.4 * errors[0]  # units of the last place remain


def test_what_is_proven_has_no_room_beyond_it() -> None:
    seen, proven = (splines.reaching(splines.GELU, 7, watched) for watched in (True, False))
    assert (seen.room, proven.room) == (1, 0) and proven.range_bits == seen.range_bits - 1
    assert splines.exponential(14, 8, watched=False).range_bits == splines.exponential(14, 8).range_bits - 1
    assert gates.softcap_table(30.0, 10, watched=False).room == 0


@pytest.mark.parametrize("spline", [*SPLINES, *REACHED, splines.exponential(8)], ids=lambda s: f"{s.name}-{s.reach}")
def test_results_can_be_lifted(spline: Spline) -> None:
    """The largest result, 1.5 units of input too large, and the least lie in the half of the ring that is lifted."""
    largest = {"x": limit(spline), None: float(spline.function(torch.tensor(1.0)))}.get(spline.above, 1.0)
    whole = min(spline.bits, spline.ring + spline.slope) if spline.above == "x" else spline.bits
    ring = whole - spline.bits + spline.result_bits
    assert (largest + 0.01) * 2.0**spline.out_frac < 2.0 ** (ring - 1) - 2.0 ** (ring - least(spline))
    assert 0.3 * 2.0**spline.out_frac < 2.0 ** (ring - least(spline)) or spline.above != "x"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_keep_the_bound_on_any_format(name: str) -> None:
    """Products and shares of several precisions, truncated to the table's on the way."""
    function, spline, factor = FUNCTIONS[name]
    x = torch.cat([torch.linspace(-20, 20, 1500), torch.linspace(-limit(spline) + 0.1, limit(spline) - 0.1, 500)])
    x = torch.round(x.double() * 2**14) / 2**14

    def compute(party):
        inputs = [
            given(party, x, 34, 17),
            given_additive(party, x, RING, ACTIVATION + WEIGHT),
            given(party, x, RING, ACTIVATION),
        ]
        if spline.reach + 1 + ACTIVATION <= 26:
            inputs.append(given(party, x, 26, ACTIVATION))
        return party.run(formatted(*((function(i), ACTIVATION, RING) for i in inputs)))

    results = parties(compute)
    exact = function(x)
    for i in range(len(results[0])):
        errors = (value([r[i] for r in results]) - exact).abs()
        assert errors.max() <= factor * spline.bound, (i, float(x[errors.argmax()]))


def test_exponentials_are_relatively_good_too() -> None:
    """1e-3 of the value where that is more than the last place and the slope's rounding."""
    x = torch.cat([torch.linspace(-16, 0, 8000), -torch.logspace(1, 13, 200, base=2)]).double()
    x = torch.round(x * 2**13) / 2**13
    results = parties(lambda p: F.exp(given(p, x, 40, 17)))
    errors, exact = (value(results) - torch.exp(x)).abs(), torch.exp(x)
    units = 1.5 * 2.0**-ACTIVATION + 1.5 * 2.0**-splines.EXP.frac * exact
    units = units + splines.EXP.step * 2.0 ** -(splines.EXP.slope + 1)
    assert ((errors - units) / exact)[x > -5].max() < 1e-3
    assert errors.max() < 1.6e-3
    assert errors[x < -9].max() < 2.5e-4


def test_far_below_is_nothing_and_far_above_is_everything() -> None:
    """Exactly, but for the last two places."""
    for spline, wanted in ((splines.GELU, "x"), (splines.SILU, "x"), (splines.SIGMOID, 1), (splines.TANH_HALF, 1)):
        x = torch.tensor([-limit(spline) + 0.25, -20.0, 20.0, limit(spline) - 0.25]).repeat(50)
        results = parties(lambda p, s=spline, x=x: p.run(piecewise(s, given(p, x, s.ring, s.frac))))
        exact = torch.where(x > 0, x if wanted == "x" else torch.ones_like(x), 0)
        assert (value(results) - exact).abs().max() <= 2 * 2.0**-ACTIVATION


@pytest.mark.parametrize("widths", [(4, 3), (6, 5), (8, 5), (10, 6)])
@pytest.mark.parametrize("outside", [None, 0, 1, "x"])
def test_splines_of_other_shapes(widths: tuple[int, int], outside: str | int | None) -> None:
    """A straight line is exact in any table; what lies outside follows `above`."""
    width, per_unit = widths
    spline = replace(
        splines.GELU,
        name="line",
        function=lambda x: 0.5 * x + 1,
        width=width,
        per_unit=per_unit,
        low=-1.0,
        above=outside,
    )
    x = torch.linspace(-6, 1 if outside is None else 6, 400).double()
    x = torch.round(x * 2**spline.frac) / 2**spline.frac
    exact = 0.5 * x + 1
    exact = exact.where(x >= -1, 0)
    if outside is not None:
        exact = exact.where(x < spline.high, x if outside == "x" else torch.full_like(x, float(outside)))
    results = parties(lambda p: p.run(piecewise(spline, given(p, x, spline.ring, spline.frac))))
    from_ends = torch.minimum((x + 1).abs(), (x - spline.high).abs())  # there the index may be one too high
    certain = (from_ends > spline.step) & ((x < spline.high) if outside is None else torch.ones_like(x).bool())
    assert (value(results) - exact)[certain].abs().max() <= 2.1 * 2.0**-ACTIVATION
