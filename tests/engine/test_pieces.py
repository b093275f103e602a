"""Prompts that are read in pieces, and prompts that go on from what was kept: the same answers, and nobody waits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from puma.engine.company import Company, Member, Outcome
from puma.engine.kept import Kept
from puma.engine.request import Request
from puma.mpc.party import DEALER, Party
from puma.mpc.share import Share
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Generate, Input, Prefix
from puma.wire.steps import Item
from tests.engine.stepping import Asked, asked, engine, indices
from tests.models import tiny
from tests.trio import parties
from tests.watching.positions import watching

LONG, SHORT = [4, 9, 6, 11, 8, 3, 7, 2, 5, 12, 1], [2, 5, 7]
NOBODY: Any = None
NAME, SERVED = b"n" * 16, (b"m", "spline", ())


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("llama"), num_hidden_layers=2))


def paced(clear: PlainModel, prompt: list[int], tokens: int, **named: Any) -> Asked:
    return asked(clear, [prompt], lambda job: Generate(job, tokens, paced=True, **named))


def member(made: Any, request: Request, key: str) -> Member:
    return Member.of(Item(key.encode() * 16, 1), key, SERVED, made, request)


def taken(steps: list[list[list[Share]]]) -> list[list[list[int]]]:
    """Of each step, of each member, the tokens that the three parties' shares are of; none where none were given."""
    return [
        [indices([mine[0] for mine in three]) if three[0] else [] for three in zip(*step, strict=True)]
        for step in zip(*steps, strict=True)
    ]


def shares(outcomes: list[Outcome]) -> list[list[Share]]:
    return [outcome.shares for outcome in outcomes]


def test_a_long_prompt_in_pieces_beside_one_that_goes_on(clear: PlainModel) -> None:
    """Another has its tokens in every step; parameters are drawn at each use, and so the dealer looks ahead."""
    jobs = paced(clear, LONG, 3), paced(clear, SHORT, 7)

    def at(party: Party) -> list[list[list[Share]]]:
        company, made = Company(party), engine(clear, party, blocks=True)
        one, other = (member(made, job.at(party), key) for job, key in zip(jobs, "ab", strict=True))
        found = [shares(company.step(0, [other], [3]))]
        for number, reads in enumerate((4, 4, 3), 1):
            found.append(shares(company.step(number, [other, one], [0, reads])))
        assert one.requests[0].cache is not None and one.requests[0].cache.length == len(LONG)
        for number in (4, 5):
            found.append(shares(company.step(number, [one, other], [0, 0])))
        return [*found, shares(company.step(6, [other], [0]))]

    with watching() as seen:
        found = taken(parties(at))
    mine, other = clear.greedy(LONG, 3), clear.greedy(SHORT, 7)
    assert [step[1] for step in found[1:4]] == [[], [], mine[:1]], "nothing before all of it has been read"
    assert [found[0][0], *(step[0] for step in found[1:4])] == [[token] for token in other[:4]]
    assert [step[0] for step in found[4:6]] == [[token] for token in mine[1:]]
    assert not seen.repeats


def test_pieces_of_several_prompts_go_together(clear: PlainModel) -> None:
    """Rows of unequal lengths behind unequal ones; what nobody holds is gone when they part."""
    other = LONG[::-1][:7]
    jobs = paced(clear, LONG, 2), paced(clear, other, 2)

    def at(party: Party) -> list[list[list[Share]]]:
        company, made = Company(party), engine(clear, party)
        one, two = (member(made, job.at(party), key) for job, key in zip(jobs, "ab", strict=True))
        steps = [[3, 5], [6, 1], [2, 1], [0, 0]]
        found = [shares(company.step(n, [one, two], reads)) for n, reads in enumerate(steps)]
        assert one.steps == two.steps == 2
        return found

    found = taken(parties(at))
    assert found[2:] == [[[a], [b]] for a, b in zip(clear.greedy(LONG, 2), clear.greedy(other, 2), strict=True)]


def test_what_is_kept_is_gone_on_from(clear: PlainModel) -> None:
    """The second turn reads its own tokens alone, from any place on; what was kept stays as it was."""
    first, second = paced(clear, LONG, 3, keep=NAME), [*LONG, *clear.greedy(LONG, 3), 5, 9]
    held = len(LONG) + 2
    turns = [
        (paced(clear, second[n:], 2, prefix=Prefix(NAME, n)), n) for n in (held, 4)
    ]  # the last token of an answer has not been read

    def at(party: Party) -> list[list[list[Share]]]:
        kept = Kept()
        company, made = Company(party, kept), engine(clear, party)
        one = member(made, first.at(party), "a")
        for number in range(3):
            company.step(number, [one], [len(LONG) if number == 0 else 0])
        assert kept.size > 0 and not company._members
        found, number = [], 3
        for job, length in turns:
            prefix = kept.find("a", Prefix(NAME, length), SERVED[:2])
            request = job.at(party)
            request.cache = prefix
            two = member(made, request, "a")
            for _ in range(2):
                found.append(shares(company.step(number, [two], [two.requests[0].unread])))
                number += 1
        return found

    answer = [[[token]] for token in clear.greedy(second, 2)]
    with watching() as seen:
        assert taken(parties(at)) == answer * 2
    assert not seen.repeats


def test_who_leaves_is_kept_too_unless_the_parties_were_told_otherwise(clear: PlainModel) -> None:
    job = paced(clear, SHORT, 9, keep=NAME)

    def at(party: Party) -> list[bool]:
        found = []
        for keep in (True, False):
            kept = Kept()
            company, made = Company(party, kept), engine(clear, party)
            one = member(made, job.at(party), "a")
            kept.expect("a", NAME)
            company.step(0, [one], [3])
            company.step(1, [one], [0])
            company.drop(one, keep)
            assert not kept._coming
            found.append(bool(kept.size))
        return found

    with watching():  # the same shares are read twice, here and nowhere else
        assert parties(at) == [[True, False]] * 3


def test_a_member_reads_what_it_may(clear: PlainModel) -> None:
    def fits(prompts: list[list[int]], *reads: int) -> list[bool]:
        job = Generate(Input([len(ids) for ids in prompts], []), 1)
        one = member(SimpleNamespace(config=clear.config), Request.of(job, NOBODY), "a")
        return [one.fits(count) for count in reads]

    assert fits([LONG], 4, 11, 12, 0) == [True, True, False, False]
    assert fits([LONG, SHORT], 14, 11) == [True, False], "several are read at once"


def test_only_a_dealer_without_pieces_looks_ahead(clear: PlainModel) -> None:
    def at(party: Party) -> list[bool]:
        company, made = Company(party), engine(clear, party, blocks=True)
        one = member(made, paced_long.at(party), "a")
        seen = []
        for number, reads in enumerate((4, 7, 0)):
            company.step(number, [one], [reads])
            seen.append(party.lookahead is not None)
        return seen

    paced_long = paced(clear, LONG, 4)
    found = parties(at)
    assert found[DEALER] == [False, False, True] and not any(found[1])
