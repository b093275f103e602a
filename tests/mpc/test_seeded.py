"""Parameters whose masks are drawn where they are used: the same products as with stored masks, block by block."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from puma import kernels, pool
from puma.crypto.prg import PairKey, Reader
from puma.mpc import seeded
from puma.mpc.arithmetic import linear, matmul
from puma.mpc.party import DEALER, FIRST, SECOND, Party
from puma.mpc.retrieval import retrieve
from puma.mpc.seeded import ROWS, Seeded, accumulate, known_terms, online_terms, product_part, rest_bytes
from puma.mpc.share import Share
from tests.cases import sample
from tests.trio import SECRETS, added, given, given_choice, given_seeded, joined, parties

X = sample(5, 24)
TABLE = sample(30, 24, seed=1)


@pytest.fixture(params=[False, True], ids=["drawn again", "kept"])
def keep(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture(params=[1 << 18, 600], ids=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeded, "BLOCK_BYTES", request.param)


def words_of(value: torch.Tensor, frac: int) -> torch.Tensor:
    return torch.round(value.double() * 2.0**frac).long()


@pytest.mark.parametrize("bits", [48, 41, 64])
@pytest.mark.usefixtures("blocks")
def test_products_are_those_of_the_words(bits: int, keep: bool) -> None:
    """Twice, because the second use finds the masks where the first did."""

    def compute(party: Party) -> list[Any]:
        x, w = given(party, X, bits, 14), given_seeded(party, TABLE, bits, 18, keep=keep)
        y = given(party, sample(2, 3, 30), bits, 0, "y")
        return [linear(x, w), matmul(y, w), linear(x, w), matmul(y, w)]

    results = parties(compute)
    x, w, y = words_of(X, 14), words_of(TABLE, 18), sample(2, 3, 30).long()
    for i, expected in enumerate([x @ w.T, y @ w] * 2):
        products = [r[i] for r in results]
        assert torch.equal(added(products), kernels.signed(expected, bits)), i
        assert (products[0].bits, products[0].frac) == (bits, 32 if i % 2 == 0 else 18)


@pytest.mark.usefixtures("blocks")
def test_retrieval_is_that_of_the_words(keep: bool) -> None:
    rows = [29, 0, 7, 7]

    def compute(party: Party) -> Any:
        table = given_seeded(party, TABLE, 48, 18, keep=keep)
        return party.run(retrieve(given_choice(party, rows, 30, 34), table))

    assert torch.equal(added(parties(compute)), words_of(TABLE, 18)[rows])


def test_components_and_what_is_made_of_them(keep: bool) -> None:
    uses: list[Callable[[Share], Share]] = [
        lambda s: s, lambda s: s.transpose(0, 1), lambda s: s[3:9], lambda s: s[2:, :1], lambda s: s[9:3],
        lambda s: s[-4:], lambda s: s[::3], lambda s: s.reduced(34) + 1,
    ]  # fmt: skip

    def compute(party: Party) -> list[Share]:
        w = given_seeded(party, TABLE, 48, 17, keep=keep)
        assert (w.shape, w.bits, w.frac) == ((30, 24), 48, 17)
        return [use(w) for use in uses] * 2

    results = parties(compute)
    plain = words_of(TABLE, 17)
    expected = [
        plain, plain.T, plain[3:9], plain[2:, :1], plain[9:3], plain[-4:], plain[::3], kernels.signed(plain, 34) + 2**17
    ]  # fmt: skip
    for i, words in enumerate(expected * 2):
        assert torch.equal(joined([r[i] for r in results]), words), i


def test_known_and_online_parts_are_the_whole() -> None:
    """What does not depend on x can be computed with any m."""

    def compute(party: Party) -> list[torch.Tensor]:
        x, w = given(party, X, 48, 14), given_seeded(party, TABLE, 48, 18)
        blank = Share(party, torch.zeros_like(x._a), x._b, 48, 14) if not party.is_dealer else x
        parts = [known_terms(blank), online_terms(x)]
        return [product_part(w, kernels.linear_packed, t, 30) for t in parts if t] + [linear(x, w).part]

    for *parts, whole in parties(compute):
        assert torch.equal(kernels.reduce(sum(parts), 48), kernels.reduce(whole, 48))  # type: ignore[arg-type]


class Notes:
    """A precomputed that keeps words in a list."""

    def __init__(self, notes: list[torch.Tensor], rehearsing: bool) -> None:
        self.notes, self.rehearsing = notes, rehearsing

    def known(self, make: Callable[[], torch.Tensor], shape: tuple[int, ...], bits: int) -> torch.Tensor:
        if self.rehearsing:
            self.notes.append(kernels.reduce(make(), bits))
            return self.notes[-1]
        words = self.notes.pop(0)
        assert tuple(words.shape) == shape
        return words


def test_a_rehearsed_product_is_the_product() -> None:
    """The rehearsal knows no m of x; the run computes no product of x's masks."""

    def compute(party: Party) -> list[Any]:
        x, w = given(party, X, 48, 14), given_seeded(party, TABLE, 48, 18)
        hot = given(party, sample(2, 3, 30), 34, 0, "y")
        if party.is_dealer:
            return [linear(x, w), matmul(hot, w)]
        notes: list[torch.Tensor] = []
        with party.under({}, {}, Notes(notes, True)):
            for y, use in ((x, linear), (hot, matmul)):
                use(Share(party, torch.zeros_like(y._a), y._b, y.bits, y.frac), w)
        with party.under({}, {}, Notes(notes, False)):
            unknown = [Share(party, y._a, torch.zeros_like(y._b), y.bits, y.frac) for y in (x, hot)]
            products = [linear(unknown[0], w), matmul(unknown[1], w)]
        assert party.precomputed is None and not notes
        return products

    results = parties(compute)
    for i, expected in enumerate(
        [words_of(X, 14) @ words_of(TABLE, 18).T, sample(2, 3, 30).long() @ words_of(TABLE, 18)]
    ):
        products = [r[i] for r in results]
        assert torch.equal(added(products), kernels.signed(expected, products[0].bits)), i


def test_only_masks_that_are_needed_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[int, int]] = []
    into = Reader.into
    monkeypatch.setattr(Reader, "into", lambda reader, b: drawn.append((party.rank, b.numel())) or into(reader, b))
    size = rest_bytes((30, 24), 48)
    for rank, each in ((DEALER, [size, size]), (FIRST, []), (SECOND, [])):
        party = Party(rank, {}, {})
        x, w = given(party, X, 48, 14), given_seeded(party, TABLE, 48, 18)
        drawn.clear()
        product_part(w, kernels.linear_packed, known_terms(x), 30)
        assert drawn == [(rank, n) for n in each]
        drawn.clear()
        assert w[2:5].shape == (3, 24)
        assert drawn == [(rank, rest_bytes((3, 24), 48))] * (2 if rank == DEALER else 1)


def test_streams_start_where_they_stand_and_stay_there() -> None:
    """The second parameter of a stream is not the first."""
    party = Party(DEALER, {}, {})
    stream = PairKey(SECRETS[0, 1]).stream("test two")
    first = Seeded(party, None, [stream, stream], (4,), 64, 0)
    second = Seeded(party, None, [stream.at(2), stream.at(2)], (4,), 64, 0)
    assert not set(first.mask.tolist()) & set(second.mask.tolist())
    assert stream.position == 0
    assert torch.equal(stream.words((8,))[4:] * 2, second.mask)


def test_m_may_be_a_map_of_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    def compute(party: Party) -> Any:
        w = given_seeded(party, TABLE, 48, 18)
        if w._packed is not None:
            path = tmp_path / f"P{party.rank}"
            path.write_bytes(bytes(100) + w._packed.numpy().tobytes())
            mapped = torch.from_dlpack(np.memmap(path, mode="r", offset=100))
            w = Seeded(party, mapped, w._streams, (30, 24), 48, 18)
        return linear(given(party, X, 48, 14), w)

    expected = kernels.signed(words_of(X, 14) @ words_of(TABLE, 18).T, 48)
    assert torch.equal(added(parties(compute)), expected)


def test_whoever_maps_m_is_told_before_it_is_read() -> None:
    party = Party(FIRST, {}, {})
    told: list[str] = []
    held = given_seeded(party, TABLE, 48, 18)
    w = Seeded(party, held._packed, held._streams, (30, 24), 48, 18, touch=lambda: told.append("read"))
    for use in (lambda: w.components, lambda: w[2:3], lambda: linear(given(party, X, 48, 14), w)):
        told.clear()
        use()
        assert told == ["read"]


def test_a_walk_without_work_is_none() -> None:
    accumulate(given_seeded(Party(FIRST, {}, {}), TABLE, 48, 18), kernels.linear_packed, [])


def test_parts_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that take ranges of rows draw the masks of these rows, and add up what they share."""
    monkeypatch.setattr(seeded, "BLOCK_BYTES", 600)
    monkeypatch.setattr(seeded, "THREAD_BYTES", 1)

    def compute(party: Party) -> list[torch.Tensor]:
        x, w, y = (
            given(party, X, 48, 14),
            given_seeded(party, TABLE, 48, 18),
            given(party, sample(2, 3, 30), 48, 0, "y"),
        )
        found = party.run(retrieve(given_choice(party, [29, 0, 7], 30, 34), w))
        return [linear(x, w).part, matmul(y, w).part, found.part]

    alone = parties(compute)
    pool.use(3)
    try:
        assert len(pool.ranges(30, ROWS, ROWS)) == 3
        together = parties(compute)
    finally:
        pool.use(1)
    for one, three in zip(alone, together):
        assert all(torch.equal(a, b) for a, b in zip(one, three, strict=True))
