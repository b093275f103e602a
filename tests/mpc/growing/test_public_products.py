"""Products with public matrices in which a share grows: exact, without a word online or a part of the dealer's."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from puma import kernels
from puma.engine.dry_run import dry_run
from puma.models import in_the_open
from puma.models.config import Bert, Llama
from puma.mpc.fixed import ACTIVATION, RING, WEIGHT
from puma.mpc.party import DEALER, Party
from puma.mpc.raising import Raised, linear, raised, times
from puma.nn import functional as F
from puma.nn import modules as nn
from puma.wire.messages import Encode, Generate, Input
from tests.cases import sample
from tests.mpc.growing.test_raising import RINGS, liftable, masks
from tests.mpc.test_seeded import Notes
from tests.mpc.words import uniform
from tests.trio import added, counted, given, given_additive, given_public, given_raised, held, parties


@pytest.mark.parametrize("kept", [True, False], ids=["words", "numbers"])
@pytest.mark.parametrize(("low", "bits"), RINGS)
def test_products_are_exact_whatever_the_masks(low: int, bits: int, kept: bool) -> None:
    found = liftable(low)
    x = found[torch.arange(96) % len(found)].reshape(8, 12)
    one, two = (mask.reshape(8, 12) for mask in masks(low, 96))
    w, factor = uniform(5, 12, bits=24, seed=3), uniform(12, bits=24, seed=4)

    def compute(party: Party) -> list[Any]:
        grown = raised(held(party, x, one, two, low), bits)
        matrix, row = given_public(party, w, bits, 0, kept), given_public(party, factor, bits)
        return [linear(grown, matrix), times(grown, row), linear(grown[1:].unsqueeze(1), matrix)]

    results = parties(compute)
    for i, exact in enumerate([x @ w.T, x * factor, (x @ w.T)[1:].reshape(7, 1, 5)]):
        products = [each[i] for each in results]
        assert torch.equal(added(products), kernels.signed(exact, bits)), i
        assert products[DEALER].silent and not any(z.dealt for z in products)


def test_they_cost_what_growing_does_and_nothing_online() -> None:
    x, w = sample(6, 24), sample(9, 24)
    cost = counted(lambda p: F.linear(given(p, x, 25, ACTIVATION), given_public(p, w, RING, WEIGHT)))
    assert (cost.rounds, cost.online, cost.offline) == (0, 0, 2 * 6 * 24 * (RING - 25))

    def both(party: Party) -> None:
        grown = given_raised(party, x, 25, RING, ACTIVATION)
        F.affine(grown, given_public(party, w[0], RING, WEIGHT))
        F.linear(grown, given_public(party, w, RING, WEIGHT))

    cost = counted(both)
    assert (cost.rounds, cost.online, cost.offline) == (0, 0, 0)


def test_what_has_grown_meets_no_secret_matrix_and_no_larger_ring() -> None:
    def compute(party: Party) -> None:
        grown = given_raised(party, sample(6, 24), 25, RING, ACTIVATION)
        with pytest.raises(AssertionError, match="has to be lifted before"):
            linear(grown, given(party, sample(9, 24), RING, WEIGHT))
        with pytest.raises(AssertionError):
            F.linear(grown, given_public(party, sample(9, 24), RING + 2, WEIGHT))

    parties(compute)


def test_a_norm_is_lifted_only_for_those_who_need_it() -> None:
    """Not for public matrices and its own affine; for a secret one, or a secret adapter beside a public one."""

    def compute(party: Party) -> list[bool]:
        public, secret = (nn.Linear(24, 9, bias=False) for _ in range(2))
        public.weight = given_public(party, sample(9, 24), RING, WEIGHT)
        secret.weight = given(party, sample(9, 24), RING, WEIGHT)
        adapted = nn.Linear(24, 9, bias=False)
        adapted.adapt(2)
        adapted.weight = public.weight
        norm, x = nn.Norm("layer", 1e-5), given_additive(party, sample(8, 24), RING, 32)
        read = [norm.normalised(x, *readers) for readers in ([public], [public, None], [public, secret], [adapted], [])]
        return [isinstance(n, Raised) for n in read]

    assert parties(compute)[1] == [True, True, False, False, False]


def test_nothing_is_multiplied_in_a_rehearsal() -> None:
    def compute(party: Party) -> Any:
        grown = given_raised(party, sample(6, 24), 25, RING, ACTIVATION)
        party.precomputed = None if party.rank == DEALER else Notes([], True)  # type: ignore
        return linear(grown, given_public(party, sample(9, 24), RING, WEIGHT))

    assert not any(z.part.any() for z in parties(compute))


@pytest.mark.parametrize(("config", "job"), [
    (Bert(vocab_size=30, hidden_size=32, intermediate_size=64, layers=3, heads=2), Encode(Input([5], []), "hidden")),
    (Llama(vocab_size=30, hidden_size=32, intermediate_size=64, layers=3, heads=2), Generate(Input([5], []), 1)),
], ids=["encoder", "decoder"])  # fmt: skip
def test_a_layer_takes_four_rounds_less_than_with_hidden_weights(config: Any, job: Any) -> None:
    """What attention, both norms and the activation give is lifted there, and in no layer here."""
    hidden, opened = (dry_run(each, job)[1] for each in (config, in_the_open(config)))
    rounds, online = (
        [sum(getattr(s, kind) for s in each) for each in (hidden, opened)] for kind in ("rounds", "online")
    )
    assert rounds[0] - rounds[1] >= 4 * config.layers
    assert online[1] < online[0]
