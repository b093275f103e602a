"""The published approximations: their own errors, as published, and what fixed point adds; the profile decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as tf
from torch import Tensor

from puma.mpc.arithmetic import reshare
from puma.mpc.clear import ClearParty, held
from puma.mpc.fixed import ACTIVATION, RING, formatted, product_ring
from puma.mpc.party import Party
from puma.mpc.watch import watching
from puma.nn import attention, paper
from puma.nn import functional as F
from tests.case import COSTS
from tests.cases import _mask, _product, _scores, _x, sample
from tests.trio import counted, given, given_additive, joined, parties, spent, trio, value

GRID = torch.linspace(-20, 20, 80_001).double()


def plain(x: Tensor) -> Tensor:
    return x.as_subclass(Tensor)


def secure(function: Callable[[Any], Any], x: Tensor, profile: str) -> Tensor:
    """function(x) by three parties of a profile, opened with ACTIVATION fraction bits."""

    def compute(party: Party) -> Any:
        party.approximation = profile
        result = function(given_additive(party, x, RING, 32))
        return party.run(formatted((result, ACTIVATION, 44)))[0]

    return value(parties(compute))


@pytest.mark.parametrize(
    ("name", "reach", "largest", "mean"),
    [("gelu", (-10, 10), 0.0199, 0.0014), ("silu", (-10, 10), 0.072, 0.007), ("exp", (-20, 0), 0.0085, None)],
)
def test_errors_are_the_published_ones(name: str, reach: tuple[int, int], largest: float, mean: float | None) -> None:
    x = torch.linspace(*reach, 200_001).double()
    error = (plain(getattr(F, name)(paper.marked(x, paper.PUMA))) - getattr(F, name)(x)).abs()
    assert abs(error.max().item() - largest) < 1e-4
    if mean:
        assert abs(error.mean().item() - mean) < 1e-4


def test_largest_errors_lie_where_they_are_said_to() -> None:
    at = {name: x[getattr(F, name)(paper.marked(x, paper.PUMA)).sub(getattr(F, name)(x)).abs().argmax()].item()
          for name, x in (("gelu", GRID), ("silu", GRID), ("exp", -GRID.abs()))}  # fmt: skip
    assert abs(at["gelu"] - 3) < 1e-3 and abs(at["silu"] - 4) < 1e-3 and abs(at["exp"] + 2) < 0.05


@pytest.mark.parametrize("profile", [paper.PUMA, paper.MPCFORMER])
@pytest.mark.parametrize("name", ["gelu", "silu", "exp"])
def test_fixed_point_adds_little(name: str, profile: str) -> None:
    """Beyond a unit of the bounds, where a polynomial ends; there the pieces do not meet."""
    bounds = torch.tensor([*paper.GELU.bounds, *paper.SILU.bounds, paper.CLIP]).double()
    x = GRID[::8][((GRID[::8, None] - bounds).abs() > 3e-4).all(1)]
    x = -x.abs() if name == "exp" else x
    function = getattr(F, name)
    error = (secure(function, x, profile) - plain(function(paper.marked(x, profile)))).abs()
    assert error.max() < (1.2e-3 if profile == paper.MPCFORMER else 4e-4)


def test_pieces_hold_their_bounds() -> None:
    """-4, -1.95 and 3 belong to the piece above, above and below."""
    x = torch.tensor([-4 - 2**-13, -4, -1.95 - 2**-12, 3, 3 + 2**-13, 400, -400]).double()
    assert (secure(F.gelu, x, paper.PUMA) - plain(F.gelu(paper.marked(x, paper.PUMA)))).abs().max() < 2e-4


@pytest.mark.parametrize("profile", [paper.PUMA, paper.MPCFORMER])
def test_softmax(profile: str) -> None:
    scores, values, mask = sample(2, 5, 70, scale=3), sample(2, 70, 4, seed=1), _mask(5, 70)
    expected = plain(F.softmax(paper.marked(scores, profile), mask))
    assert (expected.sum(-1) - 1).abs().max() < 1e-9 and not expected[:, ~mask].any()
    found = secure(lambda s: F.softmax(s, mask), scores, profile)
    assert (found - expected).abs().max() < 6e-4
    attended = secure(lambda s: F.softmax_matmul(s, given(s.party, values, RING, 14, "v"), mask), scores, profile)
    assert (attended - expected @ values).abs().max() < 2e-3
    ours = F.softmax(scores, mask)
    assert (expected - ours).abs().max() > 0.02


def test_the_profile_of_a_tensor_goes_along() -> None:
    x = paper.marked(sample(3, 8).float(), paper.MPCFORMER)
    for y in (x + 1, tf.linear(x, torch.ones(4, 8)), torch.ones(2, 3) @ x, x[1:].reshape(-1), torch.cat([x, x])):
        assert paper.approximation_of(y) == paper.MPCFORMER
    assert torch.equal(plain(F.gelu(x)), 0.125 * plain(x) ** 2 + 0.25 * plain(x) + 0.5)
    assert paper.approximation_of(paper.marked(plain(x), paper.SPLINE)) == paper.SPLINE


@pytest.mark.parametrize("profile", paper.PROFILES)
def test_costs_depend_on_the_profile(profile: str) -> None:
    calls: list[tuple[str, Callable[[Party], tuple[Any, ...]]]] = [
        ("gelu", lambda p: (_product(p),)),
        ("silu", lambda p: (_product(p),)),
        ("exp", lambda p: (_product(p),)),
        ("silu_gated", lambda p: (_product(p), _x(p, 40, 20))),
        ("softmax", lambda p: (_scores(p), _mask(5, 9))),
        ("softmax_matmul", lambda p: (_scores(p), _x(p, RING, ACTIVATION, value=sample(9, 8)), _mask(5, 9))),
    ]
    for name, arguments in calls:

        def compute(party: Party, name: str = name, arguments: Any = arguments) -> None:
            party.approximation = profile
            getattr(F, name)(*arguments(party))

        members = trio()
        parties(compute, members)
        real = spent([p.ledger.total() for p in members])
        assert counted(compute) == real == COSTS[f"functional.{name}({profile})"], name


# -- beyond a reach ---------------------------------------------------------------------------------------------------


def flags(function: Callable[[Any], Any], x: Tensor, bits: int, frac: int, profile: str) -> tuple[Tensor, Tensor]:
    """Which rows three parties of a profile flag, and the clear run, each row being a prompt."""

    def work(party: Party) -> Any:
        party.approximation = profile
        with watching(party, [1] * len(x)) as watch:
            result = function(given_additive(party, x, bits, frac))
            party.run(formatted((result, ACTIVATION, 62)))  # whoever reads a result may have to lift it
        return party.run(reshare(watch.words))[0]

    clear = ClearParty(profile)
    with watching(clear, [1] * len(x)) as watch:
        function(held(clear, torch.round(x * 2.0**frac).long(), bits, frac).additive())
    return joined(parties(work)) != 0, watch.words.part != 0


@pytest.mark.parametrize("profile", [paper.PUMA, paper.MPCFORMER])
@pytest.mark.parametrize("reach", [6, 10])
def test_what_enters_gelu_beyond_an_unproven_reach_is_flagged(reach: int, profile: str) -> None:
    """Where the ring of the product is the reach's; nothing inside is, and nothing that is proven."""
    limit, bits = 2.0**reach, product_ring(reach)
    inside = torch.linspace(-limit, limit - 1, 500).double()
    beyond = torch.cat([torch.linspace(1.5, 2.4, 100), -torch.linspace(1.5, 2.4, 100)]).double() * limit
    for watched, x in ((True, inside), (True, beyond), (False, inside)):
        secure_flags, clear_flags = flags(
            lambda s, w=watched: F.gelu(s, reach=reach, watched=w), x[:, None], bits, 32, profile
        )
        expected = watched and x is beyond
        assert bool((secure_flags == expected).all()) and bool((clear_flags == expected).all())


@pytest.mark.parametrize("reach", [7, 9])
def test_scores_beyond_an_unproven_reach_are_flagged(reach: int) -> None:
    """Of PUMA's softmax, too: a score that lies further below its row's maximum than the reach."""
    spread = torch.cat([torch.linspace(0, 0.99, 40), torch.linspace(1.55, 2.4, 40)]).double() * 2.0**reach
    x = torch.stack([torch.zeros(80).double(), -spread, -spread / 2], -1)[:, None, None, :]
    mask = torch.ones(1, 1, 1, 3, dtype=torch.bool)
    bits = attention.query_ring(reach)
    for found in flags(lambda s: F.softmax(s, mask, reach), x, bits, 28, paper.PUMA):
        assert found.tolist() == [False] * 40 + [True] * 40


@pytest.mark.parametrize("reach", [6, 9, 12, 14])
def test_mpcformers_gelu_holds_up_to_every_reach(reach: int) -> None:
    x = torch.linspace(-1, 1, 2001).double() * (2.0**reach - 16)

    def compute(party: Party) -> Any:
        party.approximation = paper.MPCFORMER
        result = F.gelu(given_additive(party, x, product_ring(reach), 32), reach=reach)
        return party.run(formatted((result, ACTIVATION, 62)))[0]

    exact = paper.quadratic_plain(x)
    assert ((value(parties(compute)) - exact).abs() <= 2.0**-12 + 2.0**-14 * x.abs()).all()


@pytest.mark.parametrize("reach", [5, 6, 9, 12, 14])
def test_pumas_gelu_holds_up_to_every_proven_reach(reach: int) -> None:
    x = torch.linspace(-1, 1, 2001).double() * (2.0**reach - 16)

    def compute(party: Party) -> Any:
        party.approximation = paper.PUMA
        result = F.gelu(given_additive(party, x, product_ring(reach), 32), reach=reach, watched=False)
        return party.run(formatted((result, ACTIVATION, 44)))[0]

    found = value(parties(compute))
    assert ((found - plain(F.gelu(paper.marked(x, paper.PUMA)))).abs() < 1e-2).all()  # pieces do not meet at their ends
