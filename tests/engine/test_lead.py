"""The leader says a step only of requests that all three parties were told alike, and who leaves."""

from __future__ import annotations

from typing import Any

import pytest

from puma.engine.company import Member
from puma.engine.lead import Lead
from puma.engine.request import Request
from puma.errors import ProtocolError
from puma.wire.messages import Generate, Input
from puma.wire.steps import Item, Left, May

NOBODY: Any = None


def item(number: int) -> Item:
    return Item(bytes([number]) * 16, 1)


def member(number: int, steps: int = 1, said: bytes = b"a") -> Member:
    """A member that may take so many steps."""
    job = Generate(Input([3], []), 9, paced=True)
    made = Member(item(number), "alice", (b"m", "spline", ()), NOBODY, [Request.of(job, NOBODY)])
    made.grants.append((steps, said * 32))
    return made


def told(lead: Lead, number: int, steps: int = 1, said: bytes = b"a", ranks: tuple[int, ...] = (0, 2)) -> None:
    for rank in ranks:
        lead.may(rank, May(item(number), steps, said * 32))


def taken(lead: Lead) -> list[int]:
    step = lead.step()
    return [] if step is None else [each.session[0] for each in step.items]


def test_a_request_waits_for_all_three() -> None:
    lead = Lead()
    lead.own(member(1))
    assert not lead.ready and taken(lead) == []
    told(lead, 1, ranks=(2,))
    assert not lead.ready
    told(lead, 2)  # others may have heard of one that is not here yet
    told(lead, 1, ranks=(0,))
    assert lead.ready and taken(lead) == [1] and taken(lead) == []
    lead.own(member(2))
    assert taken(lead) == [2] and lead.words() == []


def test_a_word_that_comes_after_the_end_is_forgotten() -> None:
    """A client may be gone for one party while another one still lets it go on."""
    lead = Lead()
    lead.own(member(1))
    lead.gone(item(1))
    told(lead, 1)
    assert lead.words() == [Left(item(1))] and not lead._known and not lead.ready
    told(lead, 2)
    assert [*lead._known] == [item(2)]


def test_as_many_steps_as_the_least_party_allows() -> None:
    lead, mine = Lead(), member(1)
    lead.own(mine)
    told(lead, 1)
    mine.grants.append((2, b"b" * 32))
    lead.own(mine)
    told(lead, 1, 2, b"b", ranks=(0,))
    assert taken(lead) == [1] and taken(lead) == []
    assert lead.hesitates, "its last word may come at any moment"
    told(lead, 1, 2, b"b", ranks=(2,))
    assert not lead.hesitates and taken(lead) == [1]


@pytest.mark.parametrize("odd", [0, 2])
def test_who_was_told_otherwise_is_named_and_nothing_is_computed(odd: int) -> None:
    lead = Lead()
    told(lead, 1, ranks=(0, 2))
    told(lead, 2, said=b"x", ranks=(odd,))
    told(lead, 2, ranks=(2 - odd,))
    lead.own(member(1))
    lead.own(member(2))
    assert lead.words() == [Left(item(2), f"P{odd} was asked for something else than P1")]
    assert taken(lead) == [1]


def test_who_was_told_of_another_number_of_steps_is_odd_too() -> None:
    lead = Lead()
    lead.own(member(1, steps=4))
    told(lead, 1, 4, ranks=(0,))
    told(lead, 1, 5, ranks=(2,))
    assert lead.words()[0].problem.startswith("P2 was asked") and not lead.ready


def test_a_client_that_is_gone_leaves_the_others() -> None:
    lead = Lead()
    for number in (1, 2):
        lead.own(member(number, steps=3))
        told(lead, number, 3)
    assert taken(lead) == [1, 2]
    lead.gone(item(1))
    assert lead.words() == [Left(item(1))] and taken(lead) == [2] and not lead.hesitates


def test_one_that_closes_leaves_once_what_was_allowed_is_said() -> None:
    lead, mine = Lead(), member(1, steps=2)
    lead.own(mine)
    told(lead, 1, 2)
    assert taken(lead) == [1]
    mine.closed = True
    lead.own(mine)
    assert lead.words() == []
    assert taken(lead) == [1] and lead.words() == [Left(item(1))]


def test_nothing_is_taken_back() -> None:
    lead = Lead()
    told(lead, 1, 2, ranks=(0,))
    with pytest.raises(ProtocolError, match="P0 allows fewer"):
        told(lead, 1, 2, ranks=(0,))


def test_pieces_of_a_prompt_are_no_results() -> None:
    """It may take one step that has a result; those that read some of its prompt do not count."""
    lead, long, short = Lead(), member(1, steps=2), member(2, steps=9)
    long.requests[0].job = Generate(Input([300], []), 9, paced=True)
    long.pieces = True
    for each, steps in ((short, 9), (long, 2)):
        lead.own(each)
        told(lead, each.item.session[0], steps)
    said = [step for _ in range(6) if (step := lead.step()) is not None]
    reads = [dict(zip((item.session[0] for item in step.items), step.reads, strict=True)) for step in said]
    assert [each.get(1) for each in reads] == [300, 0, None, None, None, None], "nobody was under way"
    lead, long = Lead(), member(1, steps=2)
    long.requests[0].job = Generate(Input([300], []), 9, paced=True)
    long.pieces = True
    lead.own(short)
    told(lead, 2, 9)
    lead.step()
    lead.own(long)
    told(lead, 1, 2)
    said = [step for _ in range(6) if (step := lead.step()) is not None]
    reads = [dict(zip((item.session[0] for item in step.items), step.reads, strict=True)) for step in said]
    assert [each.get(1) for each in reads] == [128, 128, 44, 0, None, None]
    assert all(each[2] == 0 for each in reads)


def test_more_rows_of_one_client_than_fit_take_turns() -> None:
    lead = Lead()
    for number in range(5):
        lead.own(member(number, steps=40))
        told(lead, number, 40)
    lead._schedule._rows = 2
    lead.step()  # all begin
    counts = [number for _ in range(20) for number in taken(lead)]
    assert {counts.count(number) for number in range(5)} == {8}


def test_another_party_fills_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """By requests that nobody has made, or by steps of one that nobody has asked for."""
    monkeypatch.setattr("puma.engine.lead.MOST", 3)
    for requests, steps in ((9, 1), (1, 9)):
        lead = Lead()
        with pytest.raises(ProtocolError, match="P2 allows more than anybody"):
            for number in range(requests):
                for step in range(1, 1 + steps):
                    lead.may(2, May(item(number), step, bytes(32)))
        assert len(lead._known) <= 4


def test_what_takes_no_more_steps_is_not_held() -> None:
    """Another party has given it up while this one hears its client's next word: its caches would stay for ever."""
    lead, mine = Lead(), member(1)
    lead.own(mine)
    lead.gone(item(1))
    lead.own(mine)
    assert lead.words() == [Left(item(1))] and not lead._known
