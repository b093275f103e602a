"""The gated delta rule: chunks and single steps give what the recurrence gives, also where keys repeat."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from puma.mpc.clear import ClearParty, held
from puma.mpc.fixed import ACTIVATION, RING, WEIGHT, formatted
from puma.mpc.party import Party
from puma.mpc.share import encode
from puma.nn import delta
from puma.nn.splines import reaching
from tests.cases import sample
from tests.trio import added, given, given_additive, parties, value

HEADS, D, SIZE = 2, 8, 4
FORMATS = [(RING, ACTIVATION)] * 4 + [(delta.LOGARITHM_RING, delta.LOGARITHM)]


def tokens(rows: int, kind: str = "") -> list[Tensor]:
    """Queries, keys, values, rates and logarithms of two prompts; "same": of one token again and again."""
    q, k = (sample(2, HEADS, rows, D, seed=i) for i in (1, 2))
    k = k[:, :, :1].expand_as(k) if kind == "same" else k
    q, k = (x / x.norm(dim=-1, keepdim=True) * D**0.5 for x in (q, k))
    rate, g = (sample(2, HEADS, rows, seed=i).abs() for i in (3, 4))
    return [q, k, sample(2, HEADS, rows, SIZE, seed=5), (rate / 2).clamp(max=1), -g * (0.01 if kind == "same" else 0.3)]


def recurrent(given_: list[Tensor]) -> tuple[Tensor, Tensor]:
    """What each token reads and the state at the end, as it is defined (Yang et al. 2025, equation 10)."""
    q, k, v, rate, g = given_
    state, read = torch.zeros(2, HEADS, D, SIZE).double(), list[Tensor]()
    for t in range(q.shape[2]):
        state = state * g[:, :, t].exp()[..., None, None]
        known = (state * k[:, :, t, :, None]).sum(-2) / D
        new = rate[:, :, t, None] * (v[:, :, t] - known)
        state = state + k[:, :, t, :, None] * new[..., None, :]
        read.append((state * q[:, :, t, :, None]).sum(-2) / D)
    return torch.stack(read, 2), state


@pytest.mark.parametrize("kind", ["", "same"])
@pytest.mark.parametrize("steps", [[9], [150], [60, 3, 1, 1, 70]])
def test_tensors(steps: list[int], kind: str) -> None:
    whole = tokens(sum(steps), kind)
    expected, state = recurrent(whole)
    memory, found = None, list[Tensor]()
    for part in zip(*(x.split(steps, 2) for x in whole), strict=True):
        read, memory = delta.remembered(*part, memory)
        found.append(read)
    assert (torch.cat(found, 2) - expected).abs().max() < 1e-9
    assert memory is not None and memory.keys.shape[2] < delta.CHUNK + 64
    if not memory.keys.shape[2]:
        assert (memory.state - state).abs().max() < 1e-9


@pytest.mark.parametrize("kind", ["", "same"])
def test_many_tokens_in_the_clear(kind: str) -> None:
    """Across changes of the state, and one by one behind a prompt; nothing leaves its format."""
    party, steps = ClearParty(), [66, 61, 1, 1]
    whole = tokens(sum(steps), kind)
    expected, _ = recurrent(whole)
    memory, found = None, list[Tensor]()
    for part in zip(*(x.split(steps, 2) for x in whole), strict=True):
        secret = [held(party, encode(x, f), b, f) for x, (b, f) in zip(part, FORMATS, strict=True)]
        read, memory = delta.remembered(*secret, memory)
        found.append(party.run(formatted((read, ACTIVATION, 40)))[0].value)
    assert (torch.cat(found, 2) - expected).abs().max() < 2e-3
    assert not any(note.lost for note in party.notes.values())


@pytest.mark.parametrize("steps", [[5], [3, 1, 1]])
def test_three_parties(steps: list[int]) -> None:
    whole = tokens(sum(steps))
    expected, _ = recurrent(whole)

    def compute(party: Party) -> list[Any]:
        memory, found = None, list[Any]()
        for i, part in enumerate(zip(*(x.split(steps, 2) for x in whole), strict=True)):
            secret = [
                given(party, x, b, f, f"{i} {j}") for j, (x, (b, f)) in enumerate(zip(part, FORMATS, strict=True))
            ]
            read, memory = delta.remembered(*secret, memory)
            found += party.run(formatted((read, ACTIVATION, 40)))
        return found

    results = parties(compute)
    got = torch.cat([value([result[i] for result in results]) for i in range(len(steps))], 2)
    assert (got - expected).abs().max() < 2e-3


def test_prompts_join_whatever_lies_beside_their_states() -> None:
    one, other = tokens(70), tokens(9)
    memories = [delta.remembered(*x, None)[1] for x in (one, other)]
    both, more = delta.joined(*memories), tokens(1)
    twice = [torch.cat([x, x]) for x in more]
    read, _ = delta.remembered(*twice, both)
    alone = torch.cat([delta.remembered(*more, memory)[0] for memory in memories])
    assert (read - alone).abs().max() < 1e-9


@pytest.mark.parametrize("n", [1, 2, 3, 7, 16])
def test_the_inverse_of_a_triangular_system(n: int) -> None:
    """Also where its powers, of which a series would be made, are far beyond any ring."""
    system = torch.ones(1, n, n).tril(-1).double()
    got = value(parties(lambda p: p.run(delta.inverted(given(p, system, RING, delta.PAIR)))))
    assert (got - torch.linalg.inv(torch.eye(n) + system)).abs().max() < 1e-3 * n


def test_logarithms_of_decays() -> None:
    x, rate = torch.linspace(-30, 300, 400).double().reshape(40, 10), torch.linspace(0.01, 3, 10).double()
    shares = parties(lambda p: delta.logarithms(given_additive(p, x, RING, 32), given(p, rate, RING, WEIGHT, "rate")))
    exact = delta.logarithms(x, rate)
    rounded = 300 * 2.0**-19  # of the rate
    assert (value(shares) - exact).abs().max() < 3 * delta.SOFTPLUS.bound + rounded


@pytest.mark.parametrize(
    "spline", [delta.SOFTPLUS, delta.SILU, delta.DECAY, reaching(delta.SOFTPLUS, 11)], ids=lambda s: s.name
)
def test_splines_err_by_their_bounds(spline: Any) -> None:
    from puma.nn.splines import piecewise

    party = ClearParty()
    end = 0.0 if spline.above is None else 100.0
    x = torch.linspace(-40, end, 20001).double()
    words = encode(x, spline.frac)
    got = party.run(piecewise(spline, held(party, words, spline.ring, spline.frac)))
    exact = spline.function(words.double() / 2.0**spline.frac)
    assert (got.value - exact).abs().max() < spline.bound


def test_a_convolution_goes_on_where_it_was() -> None:
    x, weight = sample(2, 7, 5), sample(3, 5, seed=1)
    padded = torch.nn.functional.pad(x, (0, 0, 2, 0)).transpose(1, 2)
    expected = torch.nn.functional.conv1d(padded, weight.T.unsqueeze(1), groups=5).transpose(1, 2)
    first, before = delta.convolved(x[:, :4], weight, None)
    rest, _ = delta.convolved(x[:, 4:], weight, before)
    assert (torch.cat([first, rest], 1) - expected).abs().max() < 1e-12

    def compute(party: Party) -> Any:
        shared = given(party, weight, RING, WEIGHT, "weight")
        _, before = delta.convolved(given_additive(party, x[:, :4], RING, 32), shared, None)
        return delta.convolved(given_additive(party, x[:, 4:], RING, 32, "y"), shared, before)[0]

    got = added(parties(compute)).double() / 2.0**32
    assert (got - expected[:, 4:]).abs().max() < 1e-3
