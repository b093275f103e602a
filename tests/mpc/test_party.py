"""Parties: their streams, their messages, and what a broken or hostile peer does to them."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from puma.crypto.prg import PairKey
from puma.errors import FrameError, PeerLost
from puma.mpc import seeded
from puma.mpc.arithmetic import linear, random_share, reshare
from puma.mpc.party import DEALER, FIRST, SECOND, Party, Piece, together
from puma.mpc.seeded import Seeded
from puma.net.null import NullLink
from puma.nn import functional as F
from tests.cases import sample
from tests.trio import SECRETS, added, dry, given, given_additive, joined, parties, trio, value


def test_ranks_and_names() -> None:
    dealer, first, _ = trio()
    assert dealer.is_dealer and not first.is_dealer
    assert repr(first) == "Party(rank=1)" and repr(dry()[2]) == "Party(rank=2, dry)"
    assert (DEALER, FIRST, SECOND) == (0, 1, 2)


def test_randomness_is_common_to_a_pair_and_unknown_to_the_third() -> None:
    def draw(party: Party) -> Any:
        return party.words(FIRST, "a", (5,)), party.words(SECOND, "a", (5,)), party.random_bytes(FIRST, "b", 9)

    dealer, first, second = parties(draw)
    assert torch.equal(dealer[0], first[0]) and torch.equal(dealer[1], second[1]) and torch.equal(dealer[2], first[2])
    assert first[1] is None and second[0] is None and second[2] is None
    assert not torch.equal(dealer[0], dealer[1])


def test_purposes_and_lanes_are_apart() -> None:
    key = PairKey(SECRETS[0, 1])
    one, other = (Party(FIRST, {}, {DEALER: key}, lane) for lane in (0, 1))
    drawn = [p.words(FIRST, purpose, (4,)).tolist() for p in (one, other) for purpose in ("a", "b")]  # type: ignore[union-attr]
    assert len({word for words in drawn for word in words}) == 16
    assert one.words(FIRST, "a", (4,)).tolist() != drawn[0]  # type: ignore[union-attr]


def test_after_a_stage_streams_go_on_where_they_were() -> None:
    """What a stage draws is its own, and the session's streams stay where they stood before it."""

    def draw(party: Party) -> Any:
        before = party.words(FIRST, "mask", (3,))
        with party.stage("step 1"):
            inside = party.words(FIRST, "mask", (3,))
        return before, inside, party.words(FIRST, "mask", (3,))

    for dealer, first in zip(*parties(draw)[:2], strict=True):
        assert torch.equal(dealer, first)
    drawn = torch.cat(parties(draw)[FIRST])
    assert len(set(drawn.tolist())) == 9
    other = parties(draw, trio({(0, 1): b"\x09" * 32}))[FIRST]
    assert not set(torch.cat(other).tolist()) & set(drawn.tolist())


def test_dry_parties_draw_shapes() -> None:
    for party in dry():
        pair = party.own_words("mask", (2, 3))
        for words in pair if party.is_dealer else [pair]:
            assert words.is_meta and words.shape == (2, 3)  # type: ignore[union-attr]
        assert party.nothing((4, 1)).is_meta


def test_what_a_party_does_not_hold_takes_no_memory() -> None:
    (party, *_) = trio()
    nothing = party.nothing((1000, 1000))
    assert nothing.shape == (1000, 1000) and nothing.untyped_storage().nbytes() <= 8 and not nothing.any()


def test_an_exchange_of_pieces_of_all_kinds() -> None:
    pieces = [Piece(torch.arange(6).reshape(2, 3), 17), Piece(torch.ones(11, dtype=torch.int64), 1)]
    pieces += [Piece(torch.zeros(0, dtype=torch.int64), 64), Piece(torch.tensor(-1), 64)]
    results = parties(lambda p: p.exchange([Piece(None, x.bits) for x in pieces] if p.is_dealer else pieces))
    assert results[0] == [None] * 4
    for result in results[1:]:
        assert all(torch.equal(a, b.words) for a, b in zip(result, pieces, strict=True))  # type: ignore[arg-type]


def test_evaluators_of_different_programs_notice() -> None:
    def swap(party: Party) -> Any:
        if not party.is_dealer:
            party.exchange([Piece(torch.zeros(4 + party.rank, dtype=torch.int64), 32)])

    with pytest.raises(FrameError, match="bytes in data frame 0 where"):
        parties(swap)


def test_a_party_that_fails_stops_the_others() -> None:
    def compute(party: Party) -> Any:
        if party.rank == SECOND:
            raise RuntimeError("out of memory")
        F.gelu(given(party, sample(4, 4), 48, 14))

    members, errors = trio(), []

    def run(party: Party) -> None:
        try:
            compute(party)
        except Exception as error:
            for link in party.links.values():
                link.fail(str(error))
            errors.append(error)

    threads = [threading.Thread(target=run, args=(p,)) for p in members]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert any(isinstance(e, RuntimeError) for e in errors)
    assert any(isinstance(e, PeerLost) and "out of memory" in str(e) for e in errors)


def test_lockstep_of_unequal_lengths() -> None:
    """Each protocol resumes with its own pieces, whatever runs beside it."""

    def count(party: Party, rounds: int) -> Any:
        seen = []
        for i in range(rounds):
            words = None if party.is_dealer else torch.full((i + 1,), 10 * party.rank + i)
            (other,) = yield [Piece(words, 16)]
            seen.append(None if other is None else other.tolist())
        return seen

    results = parties(lambda p: p.run(together(count(p, 0), count(p, 3), together(count(p, 1), count(p, 2)))))
    assert results[1] == [[], [[20], [21, 21], [22, 22, 22]], [[[20]], [[20], [21, 21]]]]
    assert results[0] == [[], [None] * 3, [[None], [None] * 2]]


def test_sessions_of_other_keys_give_the_same_answer() -> None:
    """The result does not depend on any key, but for truncation."""
    x = sample(6, 6)
    answers = []
    for salt in range(3):
        secrets = {pair: bytes([salt * 3 + i + 20]) * 32 for i, pair in enumerate(SECRETS)}
        answers.append(value(parties(lambda p: F.gelu(given(p, x, 48, 20)), trio(secrets))))
    assert not torch.equal(answers[0], answers[1])
    assert (answers[0] - answers[1]).abs().max() < 1e-3 and (answers[0] - answers[2]).abs().max() < 1e-3


def test_the_dealer_runs_ahead() -> None:
    """It never waits: it can finish before an evaluator starts."""
    members = trio()
    z = sample(8, 8)
    product = given_additive(members[0], z, 48, 24)
    dealer = members[0].run(reshare(product))[0]
    rest: list[Any] = [None, None]

    def run(party: Party) -> None:
        rest[party.rank - 1] = party.run(reshare(given_additive(party, z, 48, 24)))[0]

    threads = [threading.Thread(target=run, args=(p,)) for p in members[1:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert torch.equal(joined([dealer, *rest]), torch.round(z * 2**24).long())
    assert added([given_additive(p, z, 48, 24) for p in members]).shape == (8, 8)


def test_an_evaluator_notices_at_once_that_the_dealer_is_gone() -> None:
    """Corrections that it sent ahead do not hide it."""
    members = trio()
    members[0].links[2].send(b"ahead")
    for link in members[0].links.values():
        link.fail("out of memory")
    for party in members[1:]:
        with pytest.raises(PeerLost, match="P0 stopped: out of memory"):
            party.exchange([Piece(torch.zeros(3, dtype=torch.int64), 8)])


class Gathering(NullLink):
    """A link that notes when frames may wait."""

    def __init__(self) -> None:
        self.said: list[bool] = []

    def gather(self, on: bool) -> None:
        self.said.append(on)


def test_what_the_dealer_gathers_leaves_before_it_computes_for_long_and_in_the_end() -> None:
    link = Gathering()
    dealer = Party(DEALER, {FIRST: NullLink(), SECOND: link}, {})
    dealer.let_go()
    with pytest.raises(KeyError), dealer.gathering():
        assert link.said == [True]
        dealer.let_go()
        assert link.said == [True, True]
        raise KeyError
    dealer.let_go()
    assert link.said == [True, True, False]
    with Party(FIRST, {DEALER: NullLink(), SECOND: link}, {}).gathering():
        assert link.said == [True, True, False], "evaluators wait for each other in every round"


def test_a_walk_over_a_parameter_keeps_nobody_waiting_for_what_was_dealt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link, seen = Gathering(), list[int]()
    keys = {peer: PairKey(bytes([peer]) * 32) for peer in (FIRST, SECOND)}
    dealer = Party(DEALER, {FIRST: NullLink(), SECOND: link}, keys)
    streams = [keys[peer].stream("weight") for peer in (FIRST, SECOND)]
    weight = Seeded(dealer, None, streams, (4, 6), 48, 18)
    monkeypatch.setattr(seeded, "accumulate", lambda *_: seen.append(len(link.said)))
    with dealer.gathering():
        linear(random_share(dealer, (2, 6), 48), weight)
    assert seen == [2] and link.said == [True, True, False]
