"""Prompts that join and leave a batch get what each gets alone, and what one asker does hurts no other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from puma.client.batch import Batch, Rows
from puma.client.sampling import Sampler, Sampling
from puma.errors import AdmissionError, InputError, PolicyError, UsageError
from puma.reference.plain_model import PlainModel
from puma.wire import messages as msg
from tests.models import tiny
from tests.threads import Threads

PROMPTS = [[2, 5, 7], [3], [4, 9, 6, 11, 8], [5, 1, 12]]


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("batch"), num_hidden_layers=1))


@pytest.fixture(scope="module")
def answers(clear: PlainModel) -> list[list[int]]:
    return [clear.greedy(ids, 8) for ids in PROMPTS]


@pytest.fixture(scope="module")
def trio(clear: PlainModel) -> Iterator[Threads]:
    with Threads() as found:
        found.share(clear.config, clear.params, reveal_logits=True)
        yield found


def run(batch: Batch, answers: dict[Rows, list[list[int]]], steps: int = 99) -> None:
    """So many steps, or until all have ended; what comes is put behind the answers so far."""
    for _ in range(steps):
        if batch.empty:
            return
        for rows, found in batch.step().items():
            for i, new in found.items():
                answers.setdefault(rows, [[] for _ in rows.prompts])[i] += new


@pytest.mark.parametrize("reveal", [False, True], ids=["parties", "client"])
def test_each_gets_its_own_tokens(reveal: bool, trio: Threads, answers: list[list[int]]) -> None:
    choose = Sampler(Sampling()) if reveal else None
    found: dict[Rows, list[list[int]]] = {}
    with Batch(trio.session, reveal) as batch:
        first = batch.add([PROMPTS[0], PROMPTS[1]], 6, choose=choose)
        second = batch.add([PROMPTS[2]], 2, choose=choose)
        run(batch, found, 2)
        batch.drop(first, [1])
        third = batch.add([PROMPTS[3]], 3, choose=choose)
        run(batch, found, 1)
        batch.drop(first)
        run(batch, found)
        late = batch.add([PROMPTS[1]], 2, choose=choose)
        run(batch, found)
    assert found[first] == [answers[0][:3], answers[1][:2]]
    assert found[second] == [answers[2][:2]] and found[third] == [answers[3][:3]] and found[late] == [answers[1][:2]]
    assert trio.session.cost is not None and not trio.session.over


def test_a_temperature_is_each_ones_own(trio: Threads, answers: list[list[int]]) -> None:
    found: dict[Rows, list[list[int]]] = {}
    with Batch(trio.session) as batch:
        greedy, warm = batch.add([PROMPTS[0]], 5), batch.add([PROMPTS[1]], 4, temperature=1.0)
        run(batch, found)
    assert found[greedy] == [answers[0][:5]] and len(found[warm][0]) == 4


def test_a_batch_that_is_left_leaves_the_session_usable(
    trio: Threads, clear: PlainModel, answers: list[list[int]]
) -> None:
    with Batch(trio.session) as batch:
        batch.add([PROMPTS[0]], 8)
        batch.step()
    left = trio.session.cost
    assert [new for (new,) in trio.session.continued([PROMPTS[0]], 3)] == answers[0][:3]
    assert left is not None and trio.session.cost is not None and left.rounds < trio.session.cost.rounds


def test_what_does_not_fit_is_refused_before_anything_is_sent(
    trio: Threads, clear: PlainModel, answers: list[list[int]]
) -> None:
    found: dict[Rows, list[list[int]]] = {}
    with Batch(trio.session, limit=24) as batch:
        rows = batch.add([PROMPTS[0]], 4)
        run(batch, found, 1)
        for prompts, tokens, error in (
            ([[]], 2, InputError),
            ([[clear.config.vocab_size]], 2, InputError),
            ([[-1]], 2, InputError),
            ([PROMPTS[1]], 0, UsageError),
            ([PROMPTS[1]], 24, AdmissionError),
            ([[1] * (clear.config.context + 1)], 1, InputError),
        ):
            with pytest.raises(error):
                batch.add(prompts, tokens)
        assert not batch.fits([PROMPTS[1]], 20) and batch.fits([PROMPTS[1]], 16)
        with pytest.raises(AdmissionError, match="no room"):
            batch.add([PROMPTS[1]], 20)
        with pytest.raises(UsageError, match="another way"):
            batch.add([PROMPTS[1]], 2, choose=Sampler(Sampling()))
        run(batch, found)
        with pytest.raises(UsageError, match="nothing is under way"):
            batch.step()
    assert found[rows] == [answers[0][:4]]


def test_who_may_not_see_logits_gets_no_batch_of_them(clear: PlainModel) -> None:
    with Threads() as trio:
        trio.share(clear.config, clear.params)
        with pytest.raises(PolicyError):
            Batch(trio.session, reveal=True)


def test_a_plan_is_asked_for_by_the_length_that_parties_may_know(trio: Threads, clear: PlainModel) -> None:
    """Texts of secret length are padded before anybody hears of them, in what is asked about the network, too."""
    said, session = list[msg.Request](), trio.session
    links = session.links
    session.links = [_Hears(link, said) for link in links]  # type: ignore[misc]
    session.variants = "auto"
    try:
        with Batch(session, drafts=2) as batch:
            batch.add([PROMPTS[0], PROMPTS[1]], 2, width=16)
            batch.step()
    finally:
        session.links, session.variants = links, "lean"
    surveys = [word.request for word in said if isinstance(word, msg.Survey)]
    begun = [word for word in said if isinstance(word, msg.Generate)]
    assert len(surveys) == len(begun) == 3
    assert all(each.input.lengths == [16, 16] and each.input.padded for each in (*surveys, *begun))


class _Hears:
    """A link of which words are written down."""

    def __init__(self, link: Any, said: list[msg.Request]) -> None:
        self._link, self._said = link, said

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def send_control(self, payload: bytes) -> None:
        self._said.append(msg.decode_request(payload))
        self._link.send_control(payload)
