"""Steps that read several tokens of a text: each gives what one at a time gives, what was wrong is cut off, and no mask
serves twice. Those who take the same steps without drafts notice nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from puma.engine.company import Company, Member
from puma.engine.generation import Turn
from puma.engine.request import Request
from puma.mpc.party import Party
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Generate
from puma.wire.steps import Item
from tests.engine.stepping import Asked, asked, engine, indices
from tests.engine.test_company import run, tokens
from tests.models import tiny
from tests.trio import dry, parties
from tests.watching.positions import watching

PROMPTS = [[2, 5, 7], [3], [4, 9, 6, 11, 8]]


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=1))


@pytest.fixture(scope="module")
def answers(clear: PlainModel) -> list[list[int]]:
    return [clear.greedy(ids, 9) for ids in PROMPTS]


def drafted(clear: PlainModel, which: Sequence[int], count: int) -> Asked:
    return asked(clear, [PROMPTS[i] for i in which], lambda job: Generate(job, count, paced=True, drafts=4))


def said(
    clear: PlainModel, kept: Sequence[Sequence[int]], texts: Sequence[Sequence[int]], parents: Any = None
) -> tuple[Any, Any, Any]:
    """A client's word: what counts, and shares of what is read next, one token behind the other unless said."""
    follows = parents or [[*range(len(text) - 1)] for text in texts]
    return asked(clear, texts, lambda job: Generate(job, 1)), list(kept), follows


def turn(party: Party, word: tuple[Any, Any, Any]) -> Turn:
    given, kept, follows = word
    return Turn(given=given.at(party).given, kept=kept, follows=follows)


def words(clear: PlainModel, answers: list[list[int]]) -> list[tuple[Any, Any, Any]]:
    """Of two texts: all right and one wrong; then several side by side, of which the last one is right; then one each;
    then nothing counts."""
    a, b, wrong = answers[0], answers[1], 1
    return [
        said(clear, [[0], [0]], [[a[0], a[1], a[2]], [b[0], wrong]]),
        said(
            clear, [[0, 1, 2], [0]], [[a[3], wrong, wrong, wrong], [b[1], wrong, wrong, b[2]]], [[0, 1, 0], [0, 1, 0]]
        ),
        said(clear, [[0], [0, 3]], [[a[4]], [b[3]]]),
        said(clear, [[], [0]], [[a[4]], [b[4]]]),
    ]


GAINED = [[0], [1, 2, 3], [4], [5], [5]], [[0], [1], [2, 3], [4], [5]]


@pytest.mark.parametrize("blocks", [False, True], ids=["kept", "drawn"])
def test_who_is_drafted_beside_who_is_not(clear: PlainModel, answers: list[list[int]], blocks: bool) -> None:
    """With parameters that are drawn at each use, too, where the dealer looks ahead for the one and not the other."""
    jobs = drafted(clear, [0, 1], 9), asked(clear, [PROMPTS[2]], lambda job: Generate(job, 5, paced=True))
    spoken = words(clear, answers)

    def work(company: Company, member: Any) -> list[list[Any]]:
        a, b = member(jobs[0], "a"), member(jobs[1], "b")
        found = [tokens(company.step(0, [a, b]))]
        for step, word in enumerate(spoken, 1):
            a.turns[step] = turn(company.party, word)
            assert a.reads(step) == sum(1 + len(p) for p in word[2]) and b.reads(step) == 1
            found.append(tokens(company.step(step, [b, a] if step % 2 else [a, b])))
        assert a.requests[0].owed == [9 - 6, 9 - 6] and not b.requests
        return found

    with watching() as seen:
        found = run(clear, work, blocks)
    for step, results in enumerate(found):
        mine, other = results[step % 2], results[1 - step % 2]
        assert indices(other) == [answers[2][step]]
        got, follows = indices(mine), [[], []] if step == 0 else spoken[step - 1][2]
        for text, start in ((0, 0), (1, 1 + len(follows[0]))):
            rows = [0, 3] if (text, step) == (1, 2) else range(len(GAINED[text][step]))
            assert [got[start + row] for row in rows] == [answers[text][place] for place in GAINED[text][step]]
    assert seen.draws > 100 and not seen.repeats, "what was cut off leaves no mask to be used again"


def test_a_cut_leaves_what_was_read_once(clear: PlainModel, answers: list[list[int]]) -> None:
    """The same columns as without drafts, and ends even."""
    job, spoken = drafted(clear, [0, 1], 9), words(clear, answers)

    def work(company: Company, member: Any) -> list[list[Any]]:
        a = member(job, "a")
        company.step(0, [a])
        for step, word in enumerate(spoken, 1):
            a.turns[step] = turn(company.party, word)
            company.step(step, [a])
        cache = a.requests[0].cache
        # prompts, the tokens that counted, and what the last step read
        assert cache.held.sum(1).tolist() == [3 + 4 + 1, 1 + 4 + 1] and bool(cache.held[:, -1].all())
        assert cache.layers[0].k.shape[2] == cache.length == 8
        assert not bool(cache.layers[0].k.components[0][1, :, :2].any()), "nothing stands before the shorter one"
        return []

    run(clear, work)


def test_a_dry_run_counts_a_step_with_drafts(clear: PlainModel) -> None:
    """What is sent does not depend on whether drafts are right, and takes no more rounds than a step without."""
    job = drafted(clear, [0], 9)
    spoken = [said(clear, [[0]], text) for text in ([[5]], [[5, 6, 7, 8]])]

    def spent(party: Party) -> list[tuple[int, int, int]]:
        company, found = Company(party), []
        member = Member(Item(b"a" * 16, 1), "a", (b"m", "spline"), engine(clear, party), [job.at(party)])  # type: ignore[arg-type]
        company.step(0, [member])
        for step, word in enumerate(spoken, 1):
            member.turns[step] = turn(party, word)
            company.step(step, [member])
            total = party.ledger.total()
            found.append((total.rounds, total.online_bytes, total.offline_bytes))
        return found

    real = parties(spent)
    assert real == [spent(party) for party in dry()]
    (one, few, _), (several, many, _) = real[1]
    assert one == several and few < many


def test_owed_and_reads_follow_the_rows(clear: PlainModel) -> None:
    request = Request(drafted(clear, [0, 1], 9).job, None, [9, 9], [(3, 9), (1, 9)])
    assert request.reads == [1, 1] and request.rows == range(2)
    request.follows = [[0, 0], [0]]
    assert request.reads == [3, 2]
