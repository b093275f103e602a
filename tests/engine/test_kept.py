"""What is kept of requests: found by whom it is of alone, for a while, within a size, the oldest given up first."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from puma.engine.kept import LENT, AtHand, Kept, bytes_of
from puma.errors import ProtocolError, StoreError
from puma.models.cache import Cache
from puma.mpc.party import Party
from puma.mpc.share import Share
from puma.wire.beside.kept import Prefix
from puma.wire.messages import Encode, Generate, Input

PARTY = Party(1, {}, {})
SERVED = b"model", "spline"


def name(number: int) -> bytes:
    return bytes([number]) * 16


def cache(tokens: int = 4) -> Cache:
    """Of one prompt: 2 layers, keys and values of 2 heads with 3 numbers each."""
    made = Cache(2)
    made.held = torch.ones(1, tokens, dtype=torch.bool)
    for layer in made.layers:
        words = torch.zeros(1, 2, tokens, 3, dtype=torch.int64)
        layer.k = layer.v = Share(PARTY, words, words, 48, 16)
    return made


SIZE = bytes_of(cache())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def job(number: int, prefix: Prefix | None = None) -> Generate:
    return Generate(Input([1], []), 1, keep=name(number), prefix=prefix)


def there(kept: Kept, key: str, number: int, length: int = 4, served: Any = SERVED) -> bool:
    try:
        return kept.find(key, Prefix(name(number), length), served).length == length
    except StoreError:
        return False


def test_a_client_finds_its_own_and_nobody_elses() -> None:
    kept = Kept()
    kept.put("client alice", job(1), SERVED, cache())
    assert there(kept, "client alice", 1) and there(kept, "client alice", 1, 2)
    assert not there(kept, "client bob", 1) and not there(kept, "client alice", 2)
    assert not there(kept, "client alice", 1, 5) and not there(kept, "client alice", 1, 0)
    assert not there(kept, "client alice", 1, served=(b"another", "spline"))
    assert not there(kept, "client alice", 1, served=(b"model", "puma"))
    kept.put("client bob", job(1), SERVED, cache(7))
    assert there(kept, "client alice", 1) and not there(kept, "client alice", 1, 7), "names are each client's own"


def test_what_was_found_is_a_cache_of_its_own() -> None:
    kept, whole = Kept(), cache()
    kept.put("a", job(1), SERVED, whole)
    found = kept.find("a", Prefix(name(1), 3), SERVED)
    found.layers[0].k = None
    found.held = found.held[:, :1]
    assert whole.length == 4 and there(kept, "a", 1)


def test_only_for_a_while() -> None:
    clock = Clock()
    kept = Kept(seconds=10, clock=clock)
    kept.put("a", job(1), SERVED, cache())
    clock.now = 6
    kept.put("a", job(2), SERVED, cache())
    assert there(kept, "a", 1) and kept.size == 2 * SIZE
    clock.now = 10
    assert not there(kept, "a", 1) and there(kept, "a", 2) and kept.size == SIZE
    clock.now = 16
    kept.sweep()
    assert not kept._entries


def test_the_oldest_goes_first_and_one_client_has_a_part() -> None:
    kept = Kept(most=4 * SIZE, by_key=3 * SIZE)
    kept.put("b", job(9), SERVED, cache())
    for number in range(5):
        kept.put("a", job(number), SERVED, cache())
    assert [there(kept, "a", number) for number in range(5)] == [False, False, True, True, True]
    assert there(kept, "b", 9), "one client's requests do not push out another's beyond its part"
    kept.put("c", job(1), SERVED, cache())
    assert not there(kept, "b", 9) and kept.size == 4 * SIZE
    kept.put("a", job(7), SERVED, cache(16))
    assert not there(kept, "a", 7, 16) and there(kept, "a", 4), "what is larger than its part is not kept at all"
    nothing = Kept(0)
    nothing.put("a", job(1), SERVED, cache())
    assert not nothing.size


def test_who_goes_on_for_the_last_time_leaves_the_new_one_only() -> None:
    kept = Kept()
    kept.put("a", job(1), SERVED, cache())
    kept.put("a", job(2, Prefix(name(1), 3)), SERVED, cache(5))
    assert there(kept, "a", 1) and there(kept, "a", 2, 5)
    kept.put("a", job(3, Prefix(name(2), 3, True)), SERVED, cache(6))
    assert there(kept, "a", 1) and not there(kept, "a", 2) and there(kept, "a", 3, 6)


def test_one_that_is_about_to_be_kept_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = Kept()
    kept.expect("a", name(1))
    later = threading.Timer(0.05, kept.put, ("a", job(1), SERVED, cache()))
    later.start()
    assert there(kept, "a", 1)
    kept.expect("a", name(2))
    kept.spoil("a", name(2))
    assert not there(kept, "a", 2) and not kept._coming
    monkeypatch.setattr("puma.engine.kept.PATIENCE", 0.05)
    kept.expect("a", name(3))
    assert not there(kept, "a", 3), "and not for ever"


def engine(party: Party) -> Any:
    """One of this party's, of which no more is asked."""
    return SimpleNamespace(party=party)


def test_a_request_takes_what_was_recalled_for_it() -> None:
    kept, hand, other = Kept(), AtHand(), Party(1, {}, {})
    kept.put("a", job(1), SERVED, cache())
    prefix = Prefix(name(1), 3)
    going = Generate(Input([1], []), 1, prefix=prefix)
    assert "not kept here" in hand.recall(kept, "b", prefix, SERVED, PARTY)
    with pytest.raises(ProtocolError, match="not at hand"):
        hand.take(going, engine(PARTY))
    assert hand.recall(kept, "a", prefix, SERVED, PARTY) == ""
    found = hand.take(going, engine(PARTY))
    assert found is not None and found.length == 3 and not kept._lent
    for ask, party in ((Prefix(name(1), 2), PARTY), (prefix, other)):
        hand.recall(kept, "a", ask, SERVED, PARTY)
        with pytest.raises(ProtocolError, match="not at hand"):
            hand.take(going, engine(party))
    hand.recall(kept, "a", prefix, SERVED, PARTY)
    assert hand.take(Encode(Input([1], []), "hidden"), engine(PARTY)) is None
    with pytest.raises(ProtocolError, match="not at hand"):
        hand.take(going, engine(PARTY))


def test_what_was_taken_is_in_the_digest_of_what_was_said() -> None:
    kept, hand, digest = Kept(), AtHand(), bytes(32)
    going = Generate(Input([1], []), 1, prefix=Prefix(name(1), 3))
    found = set[bytes]()
    for origin in (b"one", b"another"):
        kept.put("a", job(1), SERVED, cache(), origin)
        assert hand.recall(kept, "a", Prefix(name(1), 3), SERVED, PARTY) == ""
        hand.take(going, engine(PARTY))
        found.add(hand.bound(digest))
    assert len(found) == 2 and digest not in found
    hand.take(Generate(Input([1], []), 1), engine(PARTY))
    assert hand.bound(digest) == digest, "nothing was taken for this one"


def test_what_nobody_comes_for_is_not_held_for_ever() -> None:
    """Each session could hold in memory what is not kept any more, and ask for nothing."""
    clock, prefix = Clock(), Prefix(name(1), 3)
    kept, hand, others = Kept(clock=clock), AtHand(), [AtHand() for _ in range(3)]
    kept.put("a", job(1), SERVED, cache())
    for each in (hand, hand, *others):
        assert each.recall(kept, "a", prefix, SERVED, PARTY) == ""
    assert len(kept._lent) == 4
    kept.put("a", job(2, Prefix(name(1), 3, True)), SERVED, cache(5))
    clock.now = LENT - 1
    assert hand.take(Generate(Input([1], []), 1, prefix=prefix), engine(PARTY)) is not None and len(kept._lent) == 3
    clock.now = LENT
    kept.sweep()
    assert not kept._lent
    with pytest.raises(ProtocolError, match="not at hand"):
        others[0].take(Generate(Input([1], []), 1, prefix=prefix), engine(PARTY))


def test_what_is_lent_takes_no_more_memory_than_what_is_kept() -> None:
    """A client could have session after session hold what its next request has pushed out."""
    clock = Clock()
    kept, hands = Kept(most=4 * SIZE, by_key=2 * SIZE, clock=clock), [AtHand() for _ in range(5)]
    said = list[str]()
    for number, hand in enumerate(hands):
        kept.put("a", job(1), SERVED, cache(), bytes([number]))
        said += [hand.recall(kept, "a", Prefix(name(1), 3), SERVED, PARTY)]
    assert said[:3] == [""] * 3 and all("too much is held" in each for each in said[3:])
    kept.put("b", job(1), SERVED, cache())
    assert AtHand().recall(kept, "b", Prefix(name(1), 3), SERVED, PARTY) == "", "another client has its own part"
    clock.now = LENT
    assert hands[4].recall(kept, "a", Prefix(name(1), 3), SERVED, PARTY) == ""
