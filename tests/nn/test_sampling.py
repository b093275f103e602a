"""Noise that no party knows: its parts, its distribution, and tokens drawn by it."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from hypothesis import given as over
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

from puma import kernels
from puma.mpc.arithmetic import random_share, reshare
from puma.mpc.fixed import ACTIVATION
from puma.mpc.party import DEALER, FIRST, SECOND, Party
from puma.mpc.share import Share
from puma.nn.sampling import LEADING, STEP, noise, sample, tables
from tests.trio import given, joined, parties, trio, value

ROWS = 6000
EULER = 0.5772156649
# 99.99 % quantiles of chi squared by degrees of freedom.
LIMITS = {1: 15.2, 3: 21.2, 7: 29.9, 15: 44.3, 31: 68.9}


@cache
def cells() -> tuple[Tensor, Tensor]:
    """Every value that the noise can have at temperature 1, in order, and its probability."""
    y, r = tables()
    once = (y[:, None] + r).reshape(-1)
    values = torch.cat([once + k * STEP for k in range(LEADING + 1)])
    chances = [16.0**-k * (15 / 16 if k < LEADING else 1) for k in range(LEADING + 1)]
    weights = torch.cat([torch.full_like(once, chance / once.numel()) for chance in chances])
    order = values.argsort()
    return values[order], weights[order]


def wins(gap: float, others: int = 1) -> float:
    """The probability that a token beats so many others whose logits are `gap` lower; ties count half."""
    values, weights = cells()
    below = torch.cat([torch.zeros(1, dtype=torch.float64), weights.cumsum(0)])
    least, most = (torch.searchsorted(values, values + gap, right=right) for right in (False, True))
    return float((weights * ((below[least] + below[most]) / 2) ** others).sum())


def test_the_distribution_is_near_a_softmax() -> None:
    """The stated error, from the tables alone: two tokens at all distances, and one among many."""
    values, weights = cells()
    assert abs(float(weights.sum()) - 1) < 1e-12 and abs(float((values * weights).sum()) - EULER) < 2e-3
    for gap in (0.1, 0.5, 1.0, 2.0, 3.0, 3.5, 4.0, 5.0, 7.0, 11.0):
        true = 1 / (1 + math.exp(-gap))
        assert abs(wins(gap) - true) < 3e-4 and abs((1 - wins(gap)) / (1 - true) - 1) < 0.02
    for others in (10, 1000, 50_000):
        for true in (0.01, 0.2, 0.5, 0.9):
            assert abs(wins(math.log(true / (1 - true) * others), others) - true) < 2e-3


def test_the_upper_tail_is_kept() -> None:
    values, weights = cells()
    for high in (4.0, 8.0, 12.0, 16.0):
        tail = float(weights[values > high].sum())
        assert abs(tail / -math.expm1(-math.exp(-high)) - 1) < 0.06


def drawn(rows: int, temperature: float) -> Tensor:
    def run(party: Party) -> Share:
        return party.run(reshare(party.run(noise(party, (rows,), temperature))))[0]

    return value(parties(run))


def test_noise_has_its_distribution() -> None:
    """Chi squared over 32 cells of equal probability; the temperature is a factor."""
    values, weights = cells()
    edges = values[torch.searchsorted(weights.cumsum(0), torch.arange(1, 32, dtype=torch.float64) / 32)]
    share = torch.diff(
        weights.cumsum(0)[torch.searchsorted(values, edges, right=True) - 1],
        prepend=torch.zeros(1, dtype=torch.float64), append=torch.ones(1, dtype=torch.float64),
    )  # fmt: skip
    for temperature in (1.0, 0.25):
        found = torch.bucketize(drawn(20_000, temperature) / temperature - 1e-3, edges)
        counts = torch.bincount(found, minlength=32).double()
        assert float(((counts - 20_000 * share) ** 2 / (20_000 * share)).sum()) < LIMITS[31]


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_tokens_are_drawn_with_the_softmax(temperature: float) -> None:
    logits = torch.tensor([0.0, 1.0, -0.5, 2.0, 0.3, -1.0, 1.5, 0.7])

    def run(party: Party) -> Share:
        return sample(given(party, logits.expand(ROWS, 8), 48, ACTIVATION), temperature)

    index = joined(parties(run)) % 8
    expected = ROWS * torch.softmax(logits.double() / temperature, 0)
    counts = torch.bincount(index, minlength=8).double()
    assert float(((counts - expected) ** 2 / expected).sum()) < LIMITS[7]


def test_rows_and_calls_are_independent() -> None:
    def run(party: Party) -> list[Share]:
        zero = given(party, torch.zeros(ROWS, 4), 48, ACTIVATION)
        return [sample(zero, 1.0), sample(zero, 1.0)]

    found = [joined(list(shares)) % 4 for shares in zip(*parties(run))]
    for a, b in ((found[0], found[1]), (found[0][1:], found[0][:-1])):
        counts = torch.bincount(4 * a + b, minlength=16).double()
        assert float(((counts - a.numel() / 16) ** 2 / (a.numel() / 16)).sum()) < LIMITS[15]


def test_temperature_zero_is_the_largest() -> None:
    logits = torch.randn(64, 9, generator=torch.Generator().manual_seed(0))
    found = parties(lambda p: sample(given(p, logits, 48, ACTIVATION), 0.0))
    assert torch.equal(joined(found) % 16, logits.argmax(-1))


@settings(max_examples=20, deadline=None)
@over(st.lists(st.integers(0, 3), max_size=3), st.integers(1, 40), st.integers(0, 1000))
def test_a_token_of_each_row_however_many_there_are(rows: list[int], tokens: int, chosen: int) -> None:
    """One far above the others is drawn, whatever the shape: a single token, a single row, none."""
    logits = torch.zeros(*rows, tokens)
    wanted = torch.arange(math.prod(rows)).reshape(rows).add(chosen).remainder(tokens)
    logits.scatter_(-1, wanted.unsqueeze(-1), 200.0)

    def run(party: Party) -> tuple[Share, Share]:
        given_logits = given(party, logits, 48, ACTIVATION)
        return sample(given_logits, 1.0), sample(given_logits, 0.0)

    for found in zip(*parties(run), strict=True):
        assert torch.equal(kernels.reduce(joined(list(found)), found[0].bits), wanted)


@pytest.mark.parametrize("rank", [DEALER, FIRST, SECOND])
def test_no_party_knows_the_number(rank: int) -> None:
    """With the key changed that a party lacks it holds the same, and the number is another."""

    def held(secrets: dict[tuple[int, int], bytes]) -> list[Share]:
        return parties(lambda p: random_share(p, (64,), 42), trio(secrets))

    lacks = {DEALER: (1, 2), FIRST: (0, 2), SECOND: (0, 1)}[rank]
    before, after = held({}), held({lacks: b"\x09" * 32})
    for mine, again in zip(before[rank].components, after[rank].components, strict=True):
        assert torch.equal(mine, again)
    assert (joined(before) != joined(after)).all()


@pytest.mark.parametrize(("reach", "temperature"), [(5, 1.0), (8, 2.0), (13, 1.0), (15, 1.0), (15, 30.0)])
def test_noise_leaves_no_reach(reach: int, temperature: float) -> None:
    """Logits at both ends of it: what lies far below is never drawn, whatever the noise."""
    logits = torch.full((200, 3), -(2.0**reach) * 0.49)
    logits[:, 1] *= -1
    wide = 2.0**reach > 40 * temperature
    results = parties(lambda p: sample(given(p, logits, 48, ACTIVATION), temperature, reach))
    found = kernels.reduce(joined(results), results[0].bits)
    assert (found == 1).all() if wide else (found == 1).double().mean() > 0.9
