"""The three parties were told the same, or nothing leaves: a client, or whoever sits between, that tells them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from puma.client.answering.drafted import continued
from puma.client.sampling import Sampling
from puma.errors import ProtocolError, PumaError
from puma.models.config import Llama
from puma.party.limits import Limits
from puma.wire import messages as msg
from tests.client.drafts.scripted import Scripted
from tests.models import tiny
from tests.party.sessions import Sessions

CONFIG = Llama(vocab_size=8, hidden_size=8, intermediate_size=8, layers=1, heads=2)
REFUSED = "was asked for something else than"


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    folder = tmp_path_factory.mktemp("parties")
    made = Sessions(folder / "parties", Limits(sessions=8, tokens=200, reveal_logits=True))
    made.share(tiny.llama(folder / "llama", num_hidden_layers=1), "llama", reveal_logits=True)
    made.share(tiny.bert(folder / "bert", num_hidden_layers=1), "bert", outputs=("hidden", "pooled"))
    yield made


class Between:
    """What a party's guest says, changed on its way; what is sent to the guest is counted."""

    def __init__(self, link: Any, change: Callable[[msg.Request], msg.Request] | None) -> None:
        self.link, self.change, self.outputs = link, change, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.link, name)

    def recv_control(self) -> bytes:
        request = msg.decode_request(self.link.recv_control())
        return msg.encode(self.change(request) if self.change else request)

    def send(self, *pieces: Any) -> None:
        self.outputs += 1
        self.link.send(*pieces)


def told(parties: Sessions, odd: int, kind: type, work: Callable[[Any], Any], name: str, **other: Any) -> list[Between]:
    """Run a client's `work` where one party hears `other` in a message of this kind; each must fail by name."""
    ends: list[Between] = []

    def change(request: msg.Request) -> msg.Request:
        return msgspec.structs.replace(request, **other) if isinstance(request, kind) else request

    def between(rank: int, link: Any) -> Between:
        ends.append(Between(link, change if rank == odd else None))
        return ends[-1]

    with parties.session(link=between) as session:
        assert session.open(name)
        with pytest.raises(PumaError, match=REFUSED):
            work(session)
    kinds = {failure.kind for failure in parties.failures}
    assert "ProtocolError" in kinds and kinds <= {"ProtocolError", "PeerLost"}
    return ends


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_a_request_that_one_party_hears_otherwise_gives_no_output(parties: Sessions, odd: int) -> None:
    """Token types change what is computed and not how much is sent: nothing else would notice."""

    def encode(session: Any) -> Any:
        return session.encode([[1, 5, 6]], "pooled", [[0, 0, 0]])

    ends: list[Between] = []

    def between(rank: int, link: Any) -> Between:
        def change(request: msg.Request) -> msg.Request:
            if rank != odd or not isinstance(request, msg.Encode):
                return request
            return msgspec.structs.replace(request, input=msgspec.structs.replace(request.input, types=[0, 1, 0]))

        ends.append(Between(link, change))
        return ends[-1]

    with parties.session(link=between) as session:
        assert session.open("bert")
        with pytest.raises(ProtocolError, match=REFUSED):
            encode(session)
    assert [end.outputs for end in ends] == [0, 0, 0]
    with parties.session() as session:  # and they live
        assert session.open("bert") and len(encode(session)) == 1


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_nor_does_one_that_a_party_computes_by_another_plan(parties: Sessions, odd: int) -> None:
    """Messages of other sizes end it, if the words do not before."""
    ends: list[Between] = []

    def between(rank: int, link: Any) -> Between:
        def change(request: msg.Request) -> msg.Request:
            if rank != odd or not isinstance(request, msg.Encode):
                return request
            return msgspec.structs.replace(request, input=msgspec.structs.replace(request.input, quick=("inverse",)))

        ends.append(Between(link, change))
        return ends[-1]

    with parties.session(link=between) as session:
        assert session.open("bert")
        with pytest.raises(PumaError):
            session.encode([[1, 5, 6]], "pooled")
    assert [end.outputs for end in ends] == [0, 0, 0]


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_a_survey_that_one_party_hears_otherwise_names_no_plan(parties: Sessions, odd: int) -> None:
    other = msg.Encode(msg.Input([5], []), "pooled")

    def work(session: Any) -> None:
        session.variants = "auto"
        session.encode([[1, 5, 6]], "pooled")

    ends = told(parties, odd, msg.Survey, work, "bert", request=other)
    assert [end.outputs for end in ends] == [0, 0, 0]


def test_a_plan_by_the_network_is_made_once_for_a_size(parties: Sessions) -> None:
    with parties.session() as session:
        assert session.open("bert")
        session.variants = "auto"
        before = session.encode([[1, 5, 6]], "pooled")
        made = dict(session.plans)
        again = session.encode([[1, 6, 5]], "pooled")
        assert len(made) == 1 and session.plans == made and before[0].shape == again[0].shape


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_so_do_temperatures(parties: Sessions, odd: int) -> None:
    ends = told(
        parties, odd, msg.Generate, lambda s: list(s.continued([[1, 5]], 3, temperature=0.5)), "llama", temperature=0.75
    )
    assert [end.outputs for end in ends] == [0, 0, 0]


@pytest.mark.parametrize("odd", [0, 1, 2])
def test_who_goes_on_is_agreed_before_the_next_output(parties: Sessions, odd: int) -> None:
    """One party is told to stop after the first token; that one is out, and no second one follows at any of them."""
    ends = told(parties, odd, msg.Pace, lambda s: list(s.continued([[1, 5]], 3, paced=True)), "llama", more=False)
    assert max(end.outputs for end in ends) == 2  # the token and its flag


def test_how_many_drafts_were_right_is_agreed_before_the_next_output(parties: Sessions) -> None:
    """Parties that cut their caches otherwise would compute a product of shares that do not fit."""

    def work(session: Any) -> None:
        answer = [step[0] for step in session.continued([[1, 5]], 6)]
        draft = Scripted({(1, 5): answer}, 2, lambda at, place: False, 28)
        list(continued(session, [[1, 5]], 6, draft, {}, Sampling()))

    told(parties, 1, msg.Pace, work, "llama", kept=[[0]])  # the others hear that drafts count, too


def test_what_was_said_before_counts(parties: Sessions) -> None:
    """A word that is answered at once, and that nobody looked at then, shows with the next request."""
    ends = told(parties, 1, msg.Take, lambda s: _take_then_ask(s), "llama", id=bytes(16))
    assert [end.outputs for end in ends] == [0, 0, 0]


def _take_then_ask(session: Any) -> Any:
    session._begin()
    session._send(lambda _: msg.Take(b"1" * 16), [b"", b""])
    session._replies(msg.Taken)
    session._reported = True
    return list(session.continued([[1, 5]], 1))


def test_agreement_takes_no_round_and_few_bytes(parties: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two small frames to the others for each word of the client, and none for a token that nobody paces."""
    sent: dict[int, int] = {}

    def counting(link: Any, rank: int) -> Callable[[bytes], None]:
        real = link.send_control

        def send_control(payload: bytes) -> None:
            sent[rank] = sent.get(rank, 0) + len(payload)
            real(payload)

        return send_control

    with parties.session() as session:
        assert session.open("llama")
        for server in parties.servers:
            for link in server.party.links.values():
                monkeypatch.setattr(link, "send_control", counting(link, server.party.rank))
        tokens = [new for (new,) in session.continued([[1, 5]], 4)]
        once = dict(sent)
        assert [new for (new,) in session.continued([[1, 5]], 4, paced=True)] == tokens
    assert set(once.values()) == {2 * len(msg.encode(msg.Same(bytes(32))))}
    assert {rank: sent[rank] - once[rank] for rank in sent} == {rank: 4 * once[rank] for rank in once}


def test_equal_words_have_one_spelling() -> None:
    """Whatever the order of a mapping; and the seeds, of which each party gets its own, are no part of it."""
    config = msg.TensorSpec("w", (2,), 48, 18)
    orders = ((("a", "w"), ("b", "w")), (("b", "w"), ("a", "w")))
    offers = [
        msg.Offer(msg.Card("m"), CONFIG, [config], [bytes([i]) * 32], True, bytes(16), dict(order))
        for i, order in enumerate(orders)
    ]
    assert msg.canonical(msg.public(offers[0])) == msg.canonical(msg.public(offers[1]))


def test_a_plan_is_part_of_the_word() -> None:
    words = [msg.Encode(msg.Input([3], [bytes(32)], quick=quick), "hidden") for quick in ((), ("norm",))]
    assert msg.canonical(msg.public(words[0])) != msg.canonical(msg.public(words[1]))
