"""Products in rings of more than 64 bits: what comes out is the exact product, cut, whatever the masks."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from puma import kernels
from puma.mpc.clear import ClearParty
from puma.mpc.clear import held as clearly
from puma.mpc.party import Party
from puma.mpc.raising import cut, raised, squared, whole
from puma.mpc.wide.products import narrowed, opened, widened
from puma.mpc.wide.words import LOW, Wide, wide
from tests.mpc.growing.test_raising import liftable, masks
from tests.mpc.words import uniform
from tests.trio import added, counted, given, held, joined, parties

RINGS = [(33, 56, 30, 48), (29, 33, 19, 48), (12, 40, 36, 40), (31, 31, 31, 33), (47, 20, 1, 64), (62, 60, 40, 48)]


def whole_number(x: Wide) -> list[int]:
    """As Python has them, signed, modulo 2^95."""
    found = [low + (high << LOW) for low, high in zip(x.low.tolist(), x.high.tolist(), strict=True)]
    return [(n + (1 << 94)) % (1 << 95) - (1 << 94) for n in found]


def reduced(numbers: list[int]) -> list[int]:
    return [(n + (1 << 94)) % (1 << 95) - (1 << 94) for n in numbers]


def test_two_words_are_one_number() -> None:
    a, b = uniform(200, bits=64, seed=1), uniform(200, bits=64, seed=2) >> uniform(200, bits=5, seed=3).abs()
    pairs = list(zip(a.tolist(), b.tolist(), strict=True))
    assert whole_number(wide(a) * wide(b)) == reduced([x * y for x, y in pairs])
    assert whole_number(wide(a, 30) + wide(b)) == reduced([(x << 30) + y for x, y in pairs])
    assert whole_number(wide(a) - wide(b, 12)) == reduced([x - (y << 12) for x, y in pairs])
    assert whole_number(-wide(b, 31)) == reduced([-y << 31 for _, y in pairs])
    product = (wide(a >> 20) * wide(b >> 20)).plus(1 << 40)
    for shift in (3, 31, 44):
        exact = [((x >> 20) * (y >> 20) + (1 << 40)) >> shift for x, y in pairs]
        assert [n % (1 << 50) for n in product.shifted_right(shift).tolist()] == [n % (1 << 50) for n in exact]


def factors(low: int, other: int, shift: int, bits: int) -> tuple[Tensor, Tensor]:
    """Numbers of both rings whose products fit: the largest of either, and such as lie between."""
    x, room = liftable(low)[-67:], min(62, bits + shift - low)
    y = liftable(other)[-67:]
    if room < other:  # products below 2^(bits + shift - 1)
        y = y >> max(0, other - room)
    return x.repeat(3), y[torch.arange(3 * len(x)) % len(y)]


@pytest.mark.parametrize(("low", "other", "shift", "bits"), RINGS)
def test_products_are_cut_and_never_wrong(low: int, other: int, shift: int, bits: int) -> None:
    x, y = factors(low, other, shift, bits)
    one, two = masks(low, len(x))

    def compute(party: Party) -> Any:
        a, b = held(party, x, one, two, low), given(party, y, other, 0, "y")
        ring = max(bits + shift, low + 1, other + 1)
        return party.run(opened(widened(a, ring), widened(b, ring), shift, bits))

    found = joined(parties(compute))
    exact = [a * b for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    errors = [abs((mine << shift) - real) for mine, real in zip(found.tolist(), exact, strict=True)]
    assert max(errors) < 1.5 * (1 << shift)
    party = ClearParty()
    a, b = (widened(clearly(party, words, ring, 0), 95) for words, ring in ((x, low), (y, other)))
    clear: Any = party.run(opened(a, b, shift, bits))
    assert [(n + (1 << (shift - 1))) >> shift for n in exact] == clear.signed.tolist()


def test_rows_are_multiplied_by_one_number_each() -> None:
    x, y = liftable(33)[:60].reshape(6, 10), uniform(6, bits=40, seed=5)

    def compute(party: Party) -> Any:
        rows = widened(given(party, x, 33), 78)
        one = widened(given(party, y, 53, 0, "y"), 78).unsqueeze(-1)
        return party.run(opened(rows, one, 30, 48))

    errors = joined(parties(compute)).double() - x.double() * y.double()[:, None] / 2**30
    assert errors.abs().max() < 1.6


def test_what_grew_beyond_a_word_is_what_grows_into_one() -> None:
    x = liftable(33)

    def compute(party: Party) -> list[Any]:
        narrow, plain = narrowed(widened(given(party, x, 33), 78), 62), raised(given(party, x, 33, 0, "o"), 62)
        short = cut(narrow, 5)  # each part of the dealer's mask by itself, as evaluators cut theirs
        return [whole(narrow), squared(narrow), squared(plain), whole(short), squared(short)]

    sums, squares, plain, short, of_short = (added(list(each)) for each in zip(*parties(compute), strict=True))
    assert torch.equal(sums, x) and torch.equal(of_short, kernels.signed(short * short, 57))
    assert (short - x.double() / 32).abs().max() < 1.5
    assert torch.equal(squares, kernels.signed(x * x, 62)) and torch.equal(squares, plain)


def test_it_takes_one_round_and_sends_what_the_result_has() -> None:
    x = torch.zeros(800)
    cost = counted(lambda p: p.run(opened(widened(given(p, x, 33), 78), widened(given(p, x, 53, 0, "y"), 78), 30, 48)))
    assert (cost.rounds, cost.online) == (1, 2 * 48 * 800)
    assert cost.offline == 800 * (2 * (78 - 33) + 2 * (78 - 53) + (78 - 33) + (78 - 53) + 48)
