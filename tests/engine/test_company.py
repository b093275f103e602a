"""Members of several clients in one company: each gets what it gets alone, whoever comes, waits, stops or goes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from puma.engine.company import Company, Member, Outcome
from puma.engine.generation import Turn
from puma.mpc.party import DEALER, Party
from puma.mpc.share import Share
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Encode, Generate
from puma.wire.steps import Item
from tests.engine.stepping import Asked, asked, engine, indices
from tests.models import tiny, zoo
from tests.trio import parties, trio, value
from tests.watching.positions import watching

PROMPTS = [[2, 5, 7], [3], [4, 9, 6, 11, 8], [5, 1, 12]]
Run = Callable[[Company, Callable[[Asked, str], Member]], list[list[Share]]]


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1))


def paced(clear: PlainModel, prompt: list[int], tokens: int) -> Asked:
    return asked(clear, [prompt], lambda job: Generate(job, tokens, paced=True))


def run(clear: PlainModel, work: Run, blocks: bool = False, members: list[Party] | None = None) -> list[list[Any]]:
    """What `work` does at each of three parties; of all shares that it gave, those of the three together."""

    def at(party: Party) -> list[list[Share]]:
        mine = engine(clear, party, blocks)

        def member(job: Asked, key: str) -> Member:
            return Member(Item(key.encode() * 16, 1), key, (b"m", "spline", ()), mine, [job.at(party)])

        return work(Company(party), member)

    found = parties(at, members) if members else parties(at)
    return [[list(shares) for shares in zip(*each, strict=True)] for each in zip(*found, strict=True)]


def tokens(outcomes: list[Outcome]) -> list[Share]:
    """The first result of each: indices of next tokens."""
    return [outcome.shares[0] for outcome in outcomes]


def test_members_come_wait_stop_and_go(clear: PlainModel) -> None:
    """Three clients: b waits for a step, c comes late and leaves early, a gets all it asked for.

    With parameters that are drawn at each use the dealer looks ahead, in vain where somebody comes or goes.
    """
    answers = [clear.greedy(ids, 6) for ids in PROMPTS]
    jobs = [paced(clear, ids, count) for ids, count in zip(PROMPTS, (6, 4, 9), strict=False)]

    def work(company: Company, member: Any) -> list[list[Share]]:
        a, b, c = (member(job, key) for job, key in zip(jobs, "abc", strict=True))
        found = [tokens(company.step(number, who)) for number, who in enumerate(([a, b], [b, a], [c, a]))]
        assert b.requests[0].cache is not a.requests[0].cache
        found.append(tokens(company.step(3, [a, b, c])))
        assert b.requests[0].cache is c.requests[0].cache and a.requests[0].cache.prompts == 3
        company.drop(c)
        assert a.requests[0].cache.prompts == 2
        last = company.step(4, [a, b])
        assert [outcome.last for outcome in last] == [False, True]
        final = company.step(5, [a])
        assert final[0].last and not company._members
        return [*found, tokens(last), tokens(final)]

    with watching() as seen:
        found = run(clear, work, blocks=True)
    places = {0: (0, 1, 1, 0, 0, 0), 1: (1, 0, None, 1, 1, None), 2: (None, None, 0, 2, None, None)}
    for prompt, where in places.items():
        got = [indices(step[place])[0] for step, place in zip(found, where, strict=True) if place is not None]
        assert got == answers[prompt][: len(got)]
    assert seen.draws > 100 and not seen.repeats, "no step, and no look ahead, draws what has been drawn"


def test_answers_of_an_encoders_prompts_go_apart_and_together_again(tmp_path: Path) -> None:
    """What one client has been answered is no part of another's, whoever waits for a step."""
    t5 = PlainModel(zoo.write(tmp_path, "t5"))
    answers, jobs = [t5.greedy(ids, 4) for ids in PROMPTS[:2]], [paced(t5, ids, 4) for ids in PROMPTS[:2]]
    who = ("ab", "ab", "b", "a", "ba")

    def work(company: Company, member: Any) -> list[list[Share]]:
        two = {key: member(job, key) for key, job in zip("ab", jobs, strict=True)}
        return [tokens(company.step(number, [two[key] for key in keys])) for number, keys in enumerate(who)]

    found = run(t5, work)
    got = {key: [indices(step[keys.index(key)])[0] for step, keys in zip(found, who, strict=False) if key in keys]
           for key in "ab"}  # fmt: skip
    assert got == {"a": answers[0], "b": answers[1]}


def test_an_encoding_goes_with_generations(clear: PlainModel) -> None:
    job, states = paced(clear, PROMPTS[0], 2), asked(clear, [PROMPTS[2]], lambda given: Encode(given, "hidden"))

    def work(company: Company, member: Any) -> list[list[Share]]:
        going, encoded = member(job, "a"), member(states, "b")
        first = company.step(0, [going])
        both = company.step(1, [going, encoded])
        assert [outcome.last for outcome in both] == [True, True]
        return [tokens(first), tokens(both)]

    found = run(clear, work)
    assert [*indices(found[0][0]), *indices(found[1][0])] == clear.greedy(PROMPTS[0], 2)
    (plain,) = Plain(clear.config, clear.plain).encode([PROMPTS[2]], "hidden")
    assert float((value(found[1][1]) - plain).abs().max()) < 0.02


@pytest.mark.parametrize("place", [0, 1])
def test_texts_that_go_on_differently_begin_together(clear: PlainModel, place: int) -> None:
    """One client chooses from logits, for which it hears them; the other's token nobody opens."""
    chooses = asked(clear, [PROMPTS[0]], lambda job: Generate(job, 2, paced=True, reveal=True))
    other, answers = paced(clear, PROMPTS[1], 2), [clear.greedy(ids, 2) for ids in PROMPTS]
    said = asked(clear, [[answers[0][0]]], lambda job: Generate(job, 1))

    def work(company: Company, member: Any) -> list[list[Share]]:
        a, b = member(chooses, "a"), member(other, "b")
        both = [b, a] if place else [a, b]
        found = [tokens(company.step(0, both))]
        a.turns[1] = Turn(given=said.at(company.party).given)
        return [*found, tokens(company.step(1, both))]

    found = run(clear, work)
    assert [int(value(step[place])[0].argmax()) for step in found] == answers[0]
    assert [indices(step[1 - place])[0] for step in found] == answers[1]


def test_clients_say_who_leaves_and_joins_their_own(clear: PlainModel) -> None:
    """Rows are counted within a client's own request; another's stay where they are."""
    two = asked(clear, [PROMPTS[0], PROMPTS[1]], lambda job: Generate(job, 3, paced=True))
    other, late = paced(clear, PROMPTS[3], 3), paced(clear, PROMPTS[2], 2)

    def work(company: Company, member: Any) -> list[list[Share]]:
        b, a = member(other, "b"), member(two, "a")
        found = [tokens(company.step(0, [b, a]))]
        a.turns[1] = Turn(leave=[0], join=[late.at(company.party)])
        found.append(tokens(company.step(1, [a, b])))
        return [*found, tokens(company.step(2, [a, b]))]

    first, second, third = run(clear, work)
    answers = [clear.greedy(ids, 3) for ids in PROMPTS]
    assert indices(first[1]) == [answers[0][0], answers[1][0]]
    assert indices(second[0]) == [answers[1][1], answers[2][0]] and indices(third[0]) == [answers[1][2], answers[2][1]]
    assert [indices(step[place])[0] for step, place in ((first, 0), (second, 1), (third, 1))] == answers[3]


def test_what_one_client_asks_changes_no_word_of_anothers(clear: PlainModel) -> None:
    """Under the same keys, with another text of the same length beside it: bit by bit the same at every party."""
    mine = paced(clear, PROMPTS[2], 2)

    def beside(other: Asked) -> list[list[torch.Tensor]]:
        def at(party: Party) -> list[torch.Tensor]:
            company, made = Company(party), engine(clear, party)
            one, two = (
                Member(Item(key.encode() * 16, 1), key, (b"m", "spline", ()), made, [job.at(party)])
                for key, job in (("a", other), ("b", mine))
            )
            steps = [company.step(number, [one, two])[1].shares for number in range(2)]
            return [component.clone() for shares in steps for share in shares for component in share.components]

        return parties(at, trio())

    with watching():  # the same shares of one prompt are read twice, here and nowhere else
        first, second = beside(paced(clear, [3, 1, 9], 2)), beside(paced(clear, [7, 2, 11], 2))
    for rank in range(3):
        assert len(first[rank]) == 8
        for one, other in zip(first[rank], second[rank], strict=True):
            assert torch.equal(one, other), f"P{rank}"


def test_each_pays_for_its_rows(clear: PlainModel) -> None:
    """Alone all of it; in company bytes by rows, and the rounds in which it took part."""

    def bytes_of(outcome: Outcome) -> int:
        return sum(entry.online_bytes + entry.offline_bytes for entry in outcome.spent.values())

    spent: dict[int, Any] = {}

    def work(company: Company, member: Any) -> list[list[Share]]:
        a, b, c = (member(paced_, key) for paced_, key in zip(jobs, "abc", strict=True))
        alone = company.step(0, [a])[0]
        total = company.party.ledger.total()
        assert bytes_of(alone) == total.online_bytes + total.offline_bytes
        both = company.step(1, [b, c])
        spent[company.party.rank] = [bytes_of(each) for each in both]
        if company.party.rank != DEALER:
            assert len({sum(e.rounds for e in each.spent.values()) for each in both}) == 1
        return [tokens([alone])]

    jobs = [paced(clear, PROMPTS[i], 2) for i in (0, 0, 2)]
    run(clear, work)
    for one, other in spent.values():
        assert abs(other / one - 5 / 3) < 0.05
