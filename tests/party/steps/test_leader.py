"""What a party takes no step for, whatever the leader says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from puma.engine.company import Member
from puma.engine.request import Request
from puma.errors import ProtocolError
from puma.party.channel import Channel
from puma.wire.messages import Generate, Input
from puma.wire.steps import Item, Step

A, B = Item(b"a" * 16, 1), Item(b"b" * 16, 1)


def member(item: Item, model: bytes) -> Member:
    nothing: Any = None
    asked = Request.of(Generate(Input([3], []), 1), nothing)
    return Member(item, "alice", (model, "spline"), nothing, [asked], grants=[(1, b"digest")])


def taken(step: Step, models: Sequence[bytes]) -> list[Member]:
    """The members of a step that a party takes; of two clients, with these models."""
    channel, found = Channel(0, {}, {}, {}), list[Member]()

    def noted(number: int, members: Sequence[Member], reads: Sequence[int]) -> list[Any]:
        found.extend(members)
        return []

    channel._company.step = noted  # type: ignore[method-assign]
    channel._members = {item: member(item, model) for item, model in zip((A, B), models, strict=True)}
    with pytest.raises(ValueError, match="zip"):  # the step gives nothing here
        channel._step(step)
    return found


def test_a_step_of_requests_that_are_here_is_taken() -> None:
    assert [each.item for each in taken(Step(0, [B, A], [3, 3]), [b"m", b"m"])] == [B, A]


@pytest.mark.parametrize(
    ("step", "models"),
    [
        (Step(1, [A], [3]), [b"m", b"m"]),  # a number that does not follow
        (Step(0, [A, Item(b"c" * 16, 1)], [3, 3]), [b"m", b"m"]),  # a request that no client of this party has made
        (Step(0, [A, A], [3, 3]), [b"m", b"m"]),  # one twice, which its client has allowed one step
        (Step(0, [A, B], [3, 3]), [b"m", b"n"]),  # of two models: the second would be computed with the first's weights
        (Step(0, [A, B], [3]), [b"m", b"m"]),  # without saying what is read of one
        (Step(0, [A, B], [3, 4]), [b"m", b"m"]),  # more than its prompt has
        (Step(0, [A, B], [3, 2]), [b"m", b"m"]),  # less, of one that is not read in pieces
        (Step(0, [A, B], [0, 3]), [b"m", b"m"]),  # nothing, of one that has taken no step
    ],
)
def test_other_steps_are_refused(step: Step, models: Sequence[bytes]) -> None:
    with pytest.raises(ProtocolError, match="cannot be taken here"):
        taken(step, models)
