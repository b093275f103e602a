"""Pooling on shares gives what it gives in float, whatever the lengths, and whether they are public or not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from puma.mpc.fixed import RING
from puma.mpc.party import Party
from puma.mpc.share import Additive
from puma.nn.pooling import PLAIN, pooled
from tests.cases import sample
from tests.trio import added, given, given_additive, parties, value

WIDTH = 5
MODES = [*PLAIN, ("cls", "max", "mean"), ("weightedmean", "lasttoken")]


def found(states: Tensor, modes: Sequence[str], lengths: Sequence[int], skip: int, flags: Sequence[int] = ()) -> Tensor:
    """By three parties, as numbers."""

    def compute(party: Party) -> object:
        rows = given_additive(party, states, RING, 32)
        hidden = given(party, torch.tensor(list(flags)), RING, 0, "flags") if flags else None
        return pooled(rows, modes, lengths, skip, hidden)

    results = parties(compute)
    if isinstance(results[1], Additive):
        return added(results).double() / 2.0 ** results[0].frac
    return value(results)


@pytest.mark.parametrize("modes", MODES, ids=str)
@pytest.mark.parametrize(("lengths", "skip"), [([1], 0), ([4, 9, 3], 2), ([40, 17, 33], 0), ([21, 20], 19)])
def test_of_public_lengths(modes: str | tuple[str, ...], lengths: list[int], skip: int) -> None:
    each = (modes,) if isinstance(modes, str) else modes
    states = sample(sum(lengths), WIDTH, scale=3.0)
    expected = pooled(states, each, lengths, skip)
    assert expected.shape == (len(lengths), len(each) * WIDTH)
    torch.testing.assert_close(found(states, each, lengths, skip), expected, atol=6e-4, rtol=0)


@pytest.mark.parametrize("modes", MODES, ids=str)
@pytest.mark.parametrize(("lengths", "skip"), [([1, 16, 9], 0), ([15, 4], 3)])
def test_of_secret_lengths(modes: str | tuple[str, ...], lengths: list[int], skip: int) -> None:
    """What lies in the padding does not count, however large it is."""
    each, width = (modes,) if isinstance(modes, str) else modes, 16
    rows, flags = list[Tensor](), list[int]()
    for i, length in enumerate(lengths):
        part = sample(width, WIDTH, scale=3.0, seed=i)
        part[length:] = 500.0
        rows.append(part)
        flags += [0] * length + [1] * (width - length)
    kept = torch.cat([part[:length] for part, length in zip(rows, lengths, strict=True)])
    expected = pooled(kept, each, lengths, skip)
    result = found(torch.cat(rows), each, [width] * len(lengths), skip, flags)
    torch.testing.assert_close(result, expected, atol=2e-3, rtol=2e-3)


def test_a_long_text() -> None:
    """Sums of thousands of states stay in their ring, and weights are rounded to few bits."""
    states = 40 + sample(3000, 2, scale=20.0)
    for mode in ("mean", "weightedmean"):
        torch.testing.assert_close(found(states, [mode], [3000], 0), pooled(states, [mode], [3000]), atol=0.03, rtol=0)
