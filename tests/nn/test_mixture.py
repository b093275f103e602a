"""Mixtures of experts: exactly so many are taken, whatever the logits, with the weights that plaintext has."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from puma.engine.dry_run import dry_run
from puma.models.config import Llama
from puma.mpc.fixed import ACTIVATION, NONLINEAR, RING, WEIGHT
from puma.mpc.party import Party
from puma.mpc.watch import watching
from puma.nn import mixture
from puma.wire.messages import Generate, Input
from tests.cases import sample
from tests.trio import added, bits_of, given, given_additive, parties, value

LOGITS = {
    "some": sample(5, 7, scale=2),
    "many": sample(2, 40, scale=3),
    "two": sample(6, 2),
    "far apart": sample(3, 9, scale=600),
    "all alike": torch.zeros(2, 6).double(),
    "a tie for the last place": torch.tensor([[3.0, 1.0, 1.0, 1.0, 5.0, 0.5]]).double(),
}


@pytest.mark.parametrize("kind", LOGITS)
@pytest.mark.parametrize("count", [1, 2])
def test_exactly_so_many_are_the_largest(kind: str, count: int) -> None:
    logits = LOGITS[kind]
    found = bits_of(parties(lambda p: p.run(mixture.largest(given(p, logits, 28, NONLINEAR), count))))
    assert (found.sum(-1) == count).all()
    least = logits.masked_fill(found == 0, torch.inf).amin(-1)
    assert (logits.masked_fill(found == 1, -torch.inf).amax(-1) <= least).all()
    for row, taken in zip(logits, found, strict=True):  # of equal ones the first
        last = row[taken == 1].min()
        equal = taken[row == last]
        assert torch.equal(equal, equal.sort(descending=True).values)


@pytest.mark.parametrize("renormalised", [True, False])
@pytest.mark.parametrize("kind", ["some", "many", "two", "far apart"])
def test_weights(kind: str, renormalised: bool) -> None:
    logits, count = LOGITS[kind], min(3, LOGITS[kind].shape[-1])
    exact = mixture.weights(logits, count, renormalised)
    shares = parties(
        lambda p: mixture.weights(given_additive(p, logits, RING, ACTIVATION + WEIGHT), count, renormalised)
    )
    got = value(shares)
    assert shares[0].bits == RING and shares[0].frac == ACTIVATION
    assert (got - exact).abs().max() < 3e-3
    assert (got[exact == 0].abs() <= 2 * 2.0**-ACTIVATION).all()


def test_logits_that_are_nearer_than_fixed_point_tells_apart() -> None:
    """Another expert of the same weight is taken, and nothing else changes."""
    logits = torch.tensor([[1.0, 0.5, 0.5 + 2.0**-16, -1.0]]).double()
    got = value(parties(lambda p: mixture.weights(given_additive(p, logits, RING, ACTIVATION + WEIGHT), 2, True)))
    exact = mixture.weights(logits, 2, True)
    assert (got.sort().values - exact.sort().values).abs().max() < 1e-3


@pytest.mark.parametrize("far", [0, 1, 2, 3, 4])
def test_logits_beyond_their_reach_are_flagged_for_their_prompt(far: int) -> None:
    """Of two prompts, of two rows and of three."""
    logits = sample(5, 6)
    logits[far, 2] = -900.0

    def compute(party: Party) -> Any:
        with watching(party, [2, 3]) as watch:
            mixture.weights(given_additive(party, logits, RING, ACTIVATION + WEIGHT), 2, True, 9)
            return watch.words

    words = added(parties(compute))
    assert (words != 0).tolist() == [far < 2, far >= 2]


def test_inner_numbers_are_weighted_by_their_expert() -> None:
    inner, weights, sizes = sample(3, 7, scale=4), sample(3, 3).abs(), torch.tensor([2, 2, 3])

    def compute(party: Party) -> Any:
        return mixture.weighted(given_additive(party, inner, RING, 28), given(party, weights, RING, ACTIVATION), sizes)

    got: Tensor = added(parties(compute)).double() / 2.0**28
    assert (got - inner * weights[:, [0, 0, 1, 1, 2, 2, 2]]).abs().max() < 1e-3
    assert torch.equal(mixture.weighted(inner, weights, sizes), inner * weights[:, [0, 0, 1, 1, 2, 2, 2]])


def test_counting_loads_no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch asks its compiler for some shapes, which takes longer to load than all else of `puma cost`."""
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)
    sizes: dict[str, Any] = {"vocab_size": 40, "hidden_size": 12, "intermediate_size": 9, "layers": 1, "heads": 3}
    config = Llama(**sizes, experts=5, chosen=2, expert_size=4)
    assert dry_run(config, Generate(Input([7], []), 2))[1]
