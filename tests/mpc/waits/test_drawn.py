"""Masks that are drawn while an evaluator waits are those that it would draw, and lie in pages that are used again."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from puma import kernels
from puma.mpc import seeded
from puma.mpc.arithmetic import linear, matmul
from puma.mpc.party import DEALER, FIRST, SECOND, Party
from puma.mpc.seeded import Seeded, online_terms, product_part, rest_bytes
from puma.mpc.waits import drawn
from puma.mpc.waits.drawn import Foreseen, foreseen
from puma.mpc.waits.rehearsed import Rehearsal
from tests.cases import sample
from tests.trio import added, given, given_seeded, parties

X = sample(5, 24)
TABLE = sample(30, 24, seed=1)
SIZE = rest_bytes(TABLE.shape, 48)


@pytest.fixture(params=[1 << 18, 600], ids=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeded, "BLOCK_BYTES", request.param)


class Quiet:
    """A link on which nothing comes for so many looks."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    @property
    def quiet(self) -> bool:
        self.looks -= 1
        return self.looks >= 0


def waiting(party: Party, weights: list[Seeded], most: int, looks: int, less: bool = False) -> Foreseen:
    """An evaluator on a slow network, after it has waited; `less`: beside a rehearsal, if it is P1."""
    party.foreseen = found = Foreseen(weights, most)
    found.less = less
    for _ in range(drawn.LATE):
        found.waited(2 * drawn.SLOW)
    found.meanwhile(Quiet(looks))  # type: ignore[arg-type]
    return found


def words_of(value: torch.Tensor, frac: int) -> torch.Tensor:
    return torch.round(value.double() * 2.0**frac).long()


@pytest.mark.parametrize("looks", [0, 1, 17, 1 << 20])
@pytest.mark.parametrize("less", [False, True], ids=["the mask", "m less the mask"])
@pytest.mark.usefixtures("blocks")
def test_masks_that_are_drawn_ahead_are_those_drawn_in_place(
    looks: int, less: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of them, a page, a part and all; the second time after both were used, in the same pages."""
    monkeypatch.setattr(drawn, "PAGE", 102)

    def compute(party: Party) -> list[Any]:
        x, y = given(party, X, 48, 14), given(party, sample(5, 30), 48, 14, "y")
        weights = [given_seeded(party, TABLE, 48, 18, name) for name in ("w", "v")]
        found = None if party.is_dealer else waiting(party, weights, 1 << 20, looks, less)
        results = [linear(x, weights[0]), matmul(y, weights[1])]
        if found is not None:
            found.meanwhile(Quiet(looks))  # type: ignore[arg-type]
        return [*results, linear(x, weights[0]), matmul(y, weights[1])]

    results = parties(compute)
    x, y, w = words_of(X, 14), words_of(sample(5, 30), 14), words_of(TABLE, 18)
    for i, expected in enumerate([x @ w.T, y @ w] * 2):
        assert torch.equal(added([r[i] for r in results]), kernels.signed(expected, 48)), i


def test_what_comes_next_is_drawn_and_the_rest_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "PAGE", SIZE // 4)
    party = Party(FIRST, {}, {})
    weights = [given_seeded(party, TABLE, 48, 18, name) for name in "abcd"]
    found = waiting(party, weights, 3 * SIZE // 2, 1 << 20)
    first, second = found.take(weights[0]), found.take(weights[1])
    assert first is not None and second is not None and (first.done, second.done) == (SIZE, SIZE // 2)
    assert found.take(weights[2]) is None
    found.meanwhile(Quiet(1 << 20))  # type: ignore[arg-type]
    last = found.take(weights[3])
    assert last is not None and last.done == SIZE
    found.meanwhile(Quiet(5))  # type: ignore[arg-type]
    assert found.take(weights[2]) is None and found.take(given_seeded(party, TABLE, 48, 18, "e")) is None


def test_pages_are_made_once_and_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawn, "PAGE", SIZE // 4)
    party = Party(FIRST, {}, {})
    weights = [given_seeded(party, TABLE, 48, 18, name) for name in "abc"]
    found = waiting(party, weights, SIZE, 1 << 20)
    seen = set[int]()
    for turn in range(9):
        taken = found.take(weights[turn % 3])
        assert taken is not None and taken.done == SIZE
        seen |= {*taken.pages}
        assert torch.equal(taken.read(3, SIZE - 1, torch.empty(SIZE, dtype=torch.uint8)), _mask(weights[turn % 3]))
        found.meanwhile(Quiet(1 << 20))  # type: ignore[arg-type]
    assert len(seen) == 4


def test_bytes_of_several_pages_are_read_where_they_lie(monkeypatch: pytest.MonkeyPatch) -> None:
    """To copy them takes as long as to draw them; only where pages are not neighbours has it to be."""
    monkeypatch.setattr(drawn, "PAGE", 100)
    party, buffer = Party(FIRST, {}, {}), torch.empty(SIZE, dtype=torch.uint8)
    weights = [given_seeded(party, TABLE, 48, 18, name) for name in "ab"]
    taken = waiting(party, weights, 2 * SIZE, 1 << 20).take(weights[0])
    assert taken is not None and taken.done == SIZE
    places = [*range(0, SIZE, 7)]
    for low in places:
        found = taken.read(low, SIZE, buffer)
        assert found.data_ptr() != buffer.data_ptr() and torch.equal(found, weights[0].stream().at(0).bytes(SIZE)[low:])
    taken.pages[1], taken.pages[2] = taken.pages[2], taken.pages[1]
    assert taken.read(0, 300, buffer).data_ptr() == buffer.data_ptr()
    assert taken.read(100, 200, buffer).data_ptr() != buffer.data_ptr()


def _mask(weight: Seeded) -> torch.Tensor:
    return weight.stream().at(0).bytes(SIZE)[3 : SIZE - 1]


def test_a_parameter_of_several_layers_is_found_at_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """As benchmarks have it, whose layers are all the same."""
    monkeypatch.setattr(drawn, "PAGE", SIZE // 4)
    party = Party(FIRST, {}, {})
    a, b = (given_seeded(party, TABLE, 48, 18, name) for name in "ab")
    found = waiting(party, [a, b, a, b, a, b], SIZE, 1 << 20)
    for turn in range(12):
        taken = found.take((a, b)[turn % 2])
        assert taken is not None and taken.done == SIZE, turn
        found.meanwhile(Quiet(1 << 20))  # type: ignore[arg-type]


def test_nothing_is_drawn_ahead_where_the_network_is_quick() -> None:
    party = Party(FIRST, {}, {})
    weights = [given_seeded(party, TABLE, 48, 18, name) for name in "ab"]
    found = waiting(party, weights, 1 << 20, 0)
    found.waited(drawn.SLOW / 2)
    found.meanwhile(Quiet(1 << 20))  # type: ignore[arg-type]
    taken = found.take(weights[0])
    assert taken is None or not taken.done
    assert foreseen([weights[0]]) is None and foreseen(weights) is not None
    kept = [given_seeded(party, TABLE, 48, 18, name, keep=True) for name in "ab"]
    dealers = [given_seeded(Party(DEALER, {}, {}), TABLE, 48, 18, name) for name in "ab"]
    assert foreseen(kept) is None and foreseen(dealers) is None


@pytest.mark.parametrize("bits", [48, 53])
@pytest.mark.usefixtures("blocks")
def test_what_is_left_beside_a_rehearsal_reads_one_matrix(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1's other product is of m less the mask, which is made in the wait; where it is not there, of both."""
    size = rest_bytes(TABLE.shape, bits)
    monkeypatch.setattr(drawn, "PAGE", size // 4)
    party = Party(FIRST, {}, {})
    x, weights = given(party, X, bits, 14), [given_seeded(party, TABLE, bits, 18, name) for name in "ab"]
    asked, found = list[tuple[int, ...]](), list[torch.Tensor]()

    def noted(left: torch.Tensor, packed: Any, signs: Any, *rest: Any) -> torch.Tensor:
        asked.append(tuple(signs))
        return kernels.linear_packed(left, packed, signs, *rest)

    for looks, less in ((0, False), (1 << 20, True), (3, True)):
        waiting(party, weights, size, looks, less)
        found.append(product_part(weights[0], noted, online_terms(x), TABLE.shape[0]))
    assert len({tuple(kernels.reduce(each, bits).flatten().tolist()) for each in found}) == 1
    blocks = len(asked) // 3
    assert asked[:blocks] == [(1, -1)] * blocks and asked[blocks : 2 * blocks] == [(0, 1)] * blocks
    assert (1, -1) in asked[2 * blocks :]


def test_beside_a_rehearsal_p1_keeps_differences() -> None:
    for rank in (FIRST, SECOND):
        party = Party(rank, {}, {})
        found = Foreseen([given_seeded(party, TABLE, 48, 18, name) for name in "ab"])
        with found.beside(Rehearsal(lambda _: None)):
            assert found.less == (rank == FIRST)
        assert not found.less
    assert all(drawn.PAGE % width == 0 for width in range(1, 9)), "words of any ring lie in one page"


def test_what_is_drawn_takes_no_memory_while_nobody_asks() -> None:
    party = Party(FIRST, {}, {})
    weights = [given_seeded(party, TABLE, 48, 18, name) for name in "ab"]
    found = waiting(party, weights, 1 << 20, 1 << 20)
    assert found._drawn and found._memory is not None
    found.take(weights[1])
    found.forget()
    assert not found._drawn and not found._read and found._memory is None and found.take(weights[0]) is None
    found.meanwhile(Quiet(1 << 20))  # type: ignore[arg-type]
    assert found.take(weights[1]) is not None, "the next request draws as the first one did"
