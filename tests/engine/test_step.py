"""One step over requests of all kinds gives each what it gets alone; prompts join and leave, and nobody notices."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from puma.engine.request import Request, leave
from puma.errors import ProtocolError
from puma.mpc.cost import Entry
from puma.mpc.party import Party
from puma.reference.float_session import Plain
from puma.reference.plain_model import PlainModel
from puma.wire.messages import Encode, Generate
from tests.engine.stepping import Asked, Said, asked, engine, generated, indices
from tests.models import tiny, zoo
from tests.trio import dry, parties, trio, value
from tests.watch import draws

PROMPTS = [[2, 5, 7], [3], [4, 9, 6, 11, 8], [5, 1, 12]]
Model = tuple[PlainModel, list[list[int]]]


@pytest.fixture(scope="module", params=["llama", "t5"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A model, and eight tokens that answer each prompt."""
    folder = tmp_path_factory.mktemp(request.param)
    clear = PlainModel(
        tiny.llama(folder, num_hidden_layers=1) if request.param == "llama" else zoo.write(folder, request.param)
    )
    return clear, [clear.greedy(ids, 8) for ids in PROMPTS]


def paced(clear: PlainModel, which: list[int], tokens: int) -> Asked:
    return asked(clear, [PROMPTS[i] for i in which], lambda job: Generate(job, tokens, paced=True))


def test_requests_of_every_kind_in_one_step(model: Model) -> None:
    clear, answers = model
    going, late = paced(clear, [0, 1], 4), paced(clear, [2], 3)
    sampled = asked(clear, [PROMPTS[3]], lambda job: Generate(job, 2, temperature=0.01, paced=True))
    states = [asked(clear, [PROMPTS[i]], lambda job: Encode(job, "hidden")) for i in (0, 2)]

    def steps(party: Party) -> list:
        mine = engine(clear, party)
        first, others = going.at(party), [late.at(party), *(job.at(party) for job in states), sampled.at(party)]
        found = []
        for number, requests in enumerate(([first], [first, *others], [first, others[0], others[3]])):
            with party.stage(f"step {number}"):
                mine.step(requests)
            found.append([request.due for request in requests])
        assert others[0].cache is first.cache and [r.owed for r in (first, *others)] == [[1, 1], [1], [0], [0], [0]]
        return found

    found = parties(steps)
    due = [[[list(d) for d in zip(*r)] for r in zip(*step, strict=True)] for step in zip(*found, strict=True)]
    tokens = [[indices(r[0]) for r in step if r[0][0].frac == 0] for step in due]
    assert tokens[0] == [[answers[0][0], answers[1][0]]]
    assert tokens[1][:2] == [[answers[0][1], answers[1][1]], [answers[2][0]]]
    assert tokens[2][:2] == [[answers[0][2], answers[1][2]], [answers[2][1]]]
    for (shares,), ids in zip(due[1][2:4], (PROMPTS[0], PROMPTS[2]), strict=True):
        (plain,) = Plain(clear.config, clear.plain).encode([ids], "hidden")
        assert float((value(shares) - plain).abs().max()) < 0.02


def schedule(clear: PlainModel) -> tuple[Asked, list[Said], list[list[tuple[int, int]]]]:
    """Two prompts; a long one joins, the first leaves, the second gets its last token, two join as one leaves and end
    before it. With it the (prompt, place) of each token of each result."""
    first, late = paced(clear, [0, 1], 4), [paced(clear, [3], 2), paced(clear, [0], 1)]
    words = [Said(), Said(join=[paced(clear, [2], 5)]), Said(leave=[0]), Said(join=late), Said()]
    rows = [
        [(0, 0), (1, 0)],
        [(0, 1), (1, 1)],
        [(0, 2), (1, 2), (2, 0)],
        [(1, 3), (2, 1)],
        [(2, 2), (3, 0), (0, 0)],
        [(2, 3), (3, 1)],
        [(2, 4)],
    ]
    return first, words, rows


@pytest.mark.parametrize("blocks", [False, True], ids=["kept", "drawn"])
def test_who_joins_and_leaves_gets_its_own_tokens(model: Model, blocks: bool) -> None:
    """With parameters that are drawn at each use, too, where the dealer looks ahead and is overtaken by who joins."""
    clear, answers = model
    first, words, rows = schedule(clear)
    found = parties(lambda party: generated(clear, party, first, words, blocks))
    wanted = [[answers[prompt][place] for prompt, place in result] for result in rows]
    assert [indices(shares) for shares in zip(*found, strict=True)] == wanted


def test_what_is_sent_is_what_a_dry_run_counts(model: Model) -> None:
    clear, _ = model
    first, words, _ = schedule(clear)

    def entries(party: Party) -> dict[str, Entry]:
        generated(clear, party, first, words)
        return party.ledger.entries

    def counted(found: list[dict[str, Entry]]) -> list[dict[str, tuple[int, int, int]]]:
        return [{name: (e.rounds, e.online_bytes, e.offline_bytes) for name, e in f.items()} for f in found]

    assert counted(parties(entries)) == counted([entries(party) for party in dry()])


def test_no_stream_begins_twice_and_no_place_serves_twice(model: Model) -> None:
    """Whatever joins and leaves: at the evaluators each key, purpose and position of a stream is drawn once."""
    clear, _ = model
    first, words, _ = schedule(clear)
    members = trio({(0, 1): b"\x11" * 32, (0, 2): b"\x12" * 32, (1, 2): b"\x13" * 32})
    with draws() as drawn:
        parties(partial(generated, clear, first=first, words=words), members)
    for name, taken in drawn.items():
        streams: dict[tuple[bytes, str], int] = {}
        for draw in taken:
            if draw.purpose in ("choice", "sign"):
                continue  # seeds of a prompt, which the client drew for it alone
            assert streams.get((draw.key, draw.purpose), 0) == draw.start, (name, draw.purpose)
            streams[draw.key, draw.purpose] = draw.start + draw.blocks
        assert len(streams) >= 7  # one a step at least


def test_rows_that_are_not_there_cannot_leave(model: Model) -> None:
    request = Request.of(Generate(paced(model[0], [0, 1], 2).job.input, 2), torch.zeros(1))  # type: ignore[arg-type]
    for rows in ([2], [-1], [0, 0]):
        with pytest.raises(ProtocolError, match="cannot leave"):
            leave([request], rows)
