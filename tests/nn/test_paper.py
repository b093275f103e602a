"""The published approximations: their own errors, as published, and what fixed point adds; the profile decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as tf
from torch import Tensor

from puma.mpc.fixed import ACTIVATION, RING, formatted
from puma.mpc.party import Party
from puma.nn import functional as F
from puma.nn import paper
from tests.cases import COSTS, _mask, _product, _scores, _x, sample
from tests.trio import counted, given, given_additive, parties, spent, trio, value

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
