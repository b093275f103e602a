"""The next turn of a conversation goes on from what the parties keep of the one before: its own, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from puma.client.canaries.opening import commit
from puma.client.connect import ClusterSession
from puma.client.tokens.remembered import Remembered
from puma.engine.kept import Kept
from puma.errors import PeerLost, ProtocolError, PumaError, UsageError
from puma.party.limits import Limits
from puma.reference.plain_model import PlainModel
from puma.wire import messages as msg
from puma.wire.messages import Prefix
from tests.models import tiny
from tests.party.sessions import Sessions
from tests.party.steps.test_channel import greedy

FIRST = [4, 9, 6, 11, 8, 3, 7, 2, 5, 12, 1, 10]


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    folder = tmp_path_factory.mktemp("parties")
    made = Sessions(folder / "parties", Limits(sessions=8, tokens=400, reveal_logits=True))
    llama = tiny.llama(folder / "llama", num_hidden_layers=1, max_position_embeddings=256)
    made.share(llama, "llama", reveal_logits=True)
    made.clear = PlainModel(llama)  # type: ignore[attr-defined]
    yield made
    for each in made.channel:
        each.end(PeerLost("the tests are over"))


def turn(session: ClusterSession, ids: Sequence[int], tokens: int, memory: Remembered | None, **how: Any) -> list[int]:
    return [new for (new,) in session.continued([ids], tokens, memory=memory, **how)]


def by_choice(logits: Any) -> list[int]:
    return [int(logits[0].argmax())]


@pytest.mark.parametrize("how", [{}, {"paced": True}, {"ahead": 4}, {"choose": by_choice}])
def test_a_second_turn_sends_its_new_tokens_only(how: dict[str, Any], parties: Sessions) -> None:
    memory = Remembered()
    with parties.session() as session:
        assert session.open("llama")
        first = turn(session, FIRST, 4, memory, **how)
        assert first == greedy(parties, FIRST, 4) and session.held == 0
        whole = session.cost.client  # type: ignore[union-attr]
        second = [*FIRST, *first, 5, 6]
        assert turn(session, second, 3, memory, **how) == greedy(parties, second, 3)
        assert session.held == len(FIRST) + 3 and session.cost.client < whole  # type: ignore[union-attr]
        edited = [*FIRST, 7]
        assert turn(session, edited, 2, memory) == greedy(parties, edited, 2)
        assert session.held == len(FIRST)
    with parties.session() as session:  # another session of the same client, which knows what the first one asked
        assert session.open("llama")
        third = [*edited, *greedy(parties, edited, 2), 3]
        assert turn(session, third, 2, memory) == greedy(parties, third, 2) and session.held == len(edited) + 1


@pytest.mark.parametrize("how", [{"paced": True}, {"ahead": 4}])
def test_a_stream_that_was_left_is_gone_on_from(how: dict[str, Any], parties: Sessions) -> None:
    memory = Remembered()
    with parties.session() as session:
        assert session.open("llama")
        stream = session.continued([FIRST], 40, memory=memory, **how)
        found = [next(stream)[0] for _ in range(3)]
        stream.close()
        second = [*FIRST, *found, 9]
        assert turn(session, second, 3, memory) == greedy(parties, second, 3) and session.held == len(FIRST) + 2


def test_nobody_goes_on_from_anothers(parties: Sessions) -> None:
    """Who knows the name of another client's request learns nothing of it, not even whether it is there."""
    memory = Remembered()
    with parties.session(name="alice") as session:
        assert session.open("llama")
        turn(session, FIRST, 2, memory)
        prefix = Prefix(memory._known[0].name, len(FIRST))
        assert session._held(prefix), "the check itself: whose it is finds it"
    with parties.session(name="bob") as session:
        assert session.open("llama")
        told = [session.ask(msg.Taken, lambda _, p=p: msg.Recall(p)) for p in (prefix, Prefix(bytes(16), 3))]
        assert not session._held(prefix) and told[0] == told[1]
        with pytest.raises(ProtocolError, match="not at hand"):
            list(session.continued([[5]], 1, memory=_naming(prefix)))


def _naming(prefix: Prefix) -> Any:
    """A memory that names a prefix whatever the parties say of it."""
    memory = Remembered(least=0)
    memory.keep(prefix.id, [5] * prefix.length, 1)
    memory._best = lambda prompt, least: (memory._known[0], prefix)  # type: ignore[method-assign]
    begin = memory.begin
    memory.begin = lambda prompt, *_: begin([*[5] * prefix.length, *prompt], lambda _: True)  # type: ignore[method-assign]
    return memory


def test_what_is_gone_is_sent_whole(parties: Sessions) -> None:
    """Of a party that keeps it no longer, and of all that were restarted."""
    memory = Remembered()
    with parties.session() as session:
        assert session.open("llama")
        ids = [*FIRST, *turn(session, FIRST, 3, memory)]
        parties.channel[2].kept._entries.clear()
        assert turn(session, ids, 2, memory) == greedy(parties, ids, 2) and session.held == 0
        ids += [*greedy(parties, ids, 2), 8]
        assert turn(session, ids, 2, memory) == greedy(parties, ids, 2) and session.held > len(FIRST)
        before = parties.channel
        before[0].end(PeerLost("P0 was restarted"))
    with parties.session() as session:
        assert session.open("llama")
        assert turn(session, ids, 2, memory) == greedy(parties, ids, 2) and session.held == 0
        assert parties.channel is not before


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"keep": b"short"}, "has no such name"),
        ({"prefix": Prefix(b"p" * 16, 0)}, "has no such name"),
        ({"prefix": Prefix(b"p" * 16, 300)}, "context|at most"),
        ({"prefix": Prefix(b"p" * 16, 4)}, "not at hand"),
    ],
)
def test_what_parties_refuse(change: dict[str, Any], why: str, parties: Sessions) -> None:
    import msgspec

    with parties.session() as session:
        assert session.open("llama")
        real = session._ask

        def asked(request: Any, *more: Any) -> Any:
            return real(lambda job: msgspec.structs.replace(request(job), **change), *more)

        session._ask = asked  # type: ignore[method-assign]
        with pytest.raises(PumaError, match=why):
            list(session.continued([[5, 6]], 2))


@pytest.mark.parametrize("limits", [{}, {"kept": 0}])
def test_a_session_of_its_own_keeps_no_more_than_its_operator_says(limits: dict[str, int], parties: Sessions) -> None:
    """One that may be audited takes no steps with others; what it leaves goes with it."""
    memory = Remembered()
    with parties.limited(replace(Limits(8, 400), **limits)):
        with parties.session() as session:
            commit(session)
            assert session.open("llama")
            assert turn(session, FIRST, 3, memory) and not memory._known, "a canary would not ask so"
            session.audited = False
            session.before.clear()  # as another program may ask
            first = turn(session, FIRST, 3, memory)
            assert turn(session, [*FIRST, *first], 2, memory) == greedy(parties, [*FIRST, *first], 2)
            assert bool(session.held) == (not limits)
        assert all(each.aside.size == 0 for each in parties.limits)


def test_what_was_drafted_is_not_kept(parties: Sessions) -> None:
    with parties.session() as session, pytest.raises(UsageError, match="drafted"):
        assert session.open("llama")
        asked = session._ask(lambda job: msg.Generate(job, 3, paced=True, drafts=2, keep=b"k" * 16), [FIRST], [])
        assert asked and session._result() is not None


def test_several_texts_are_not_kept(parties: Sessions) -> None:
    memory = Remembered()
    with parties.session() as session:
        assert session.open("llama")
        found = list(session.continued([FIRST, [3]], 2, memory=memory))
        assert [new[0] for new in found] == greedy(parties, FIRST, 2) and not memory._known
        with pytest.raises(UsageError):
            list(session.continued([[999]], 2, memory=memory))


def test_a_long_prompt_keeps_nobody_waiting(parties: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pieces go beside others' tokens, and its own answer is the same."""
    import threading

    from puma.engine import schedule

    monkeypatch.setattr(schedule, "PIECE", 16)
    long, taken = [(7 * i) % 12 + 1 for i in range(60)], list[list[int]]()
    real = parties.channel[1]._company.step

    def noted(number: int, members: Any, reads: Sequence[int]) -> Any:
        taken.append(sorted(reads))
        return real(number, members, reads)

    monkeypatch.setattr(parties.channel[1]._company, "step", noted)
    with parties.session(name="a") as going, parties.session(name="b") as late:
        assert going.open("llama") and late.open("llama")
        stream = going.continued([FIRST], 40)
        mine = [next(stream)[0]]
        found = list[list[int]]()
        other = threading.Thread(target=lambda: found.append(turn(late, long, 3, None)))
        other.start()
        mine += [new for (new,) in stream]
        other.join(30)
    assert found == [greedy(parties, long, 3)] and mine == greedy(parties, FIRST, 40)
    pieces = [reads for reads in taken if max(reads) > 1]
    assert [sum(reads) for reads in pieces[1:]] == [16, 16, 16, 12] and all(len(reads) == 2 for reads in pieces[1:])


def test_limits_of_a_party() -> None:
    kept = Limits(sessions=2, tokens=9, kept=1000, kept_seconds=5.0).keeping()
    assert isinstance(kept, Kept) and (kept.most, kept.seconds, kept.by_key) == (1000, 5.0, 750)


def test_few_that_are_gone_are_asked_for() -> None:
    """All may be gone at once, and each question is a way to the parties and back before the first token."""
    memory, asked = Remembered(), list[Prefix]()
    for number in range(9):
        memory.keep(bytes([number]) * 16, FIRST, len(FIRST))
    going = memory.begin([*FIRST, 3], lambda prefix: bool(asked.append(prefix)))
    assert len(asked) == len({prefix.id for prefix in asked}) == 3 and going.prefix is None
    assert going.rest == [*FIRST, 3]


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_parties_that_hold_different_things_under_one_name_compute_nothing(rank: int, parties: Sessions) -> None:
    """A client may give a name twice, and one party look it up before the second request has ended there."""
    memory = Remembered()
    with parties.session() as session:
        assert session.open("llama")
        ids = [*FIRST, *turn(session, FIRST, 3, memory)]
        kept = parties.channel[rank].kept
        kept._entries = {name: replace(entry, origin=b"another") for name, entry in kept._entries.items()}
        steps = [each.steps for each in parties.channel]
        with pytest.raises(PumaError, match="was asked for something else"):
            turn(session, [*ids, 5], 2, memory)
        assert [each.steps for each in parties.channel] == steps
