"""Receipts of requests of every kind: with open weights, of conversations, with drafts, by another plan."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from puma.client.evidence.checks import check
from puma.client.evidence.receipt import Receipt
from puma.client.session import Session
from puma.client.tokens.remembered import Remembered
from puma.errors import PeerLost
from puma.local.cluster import LocalCluster
from puma.reference.plain_model import PlainModel
from puma.wire import messages as msg
from puma.wire import receipts
from tests.models import tiny
from tests.party.sessions import Sessions
from tests.threads import Threads, pinned

PROMPT = [1, 5, 6, 7, 8, 9, 10, 11, 12, 13]


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    folder = tmp_path_factory.mktemp("parties")
    made = Sessions(folder / "parties")
    made.share(tiny.llama(folder / "llama", num_hidden_layers=1), "llama")
    yield made
    for each in made.channel:
        each.end(PeerLost("the tests are over"))


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("clear") / "llama", num_hidden_layers=1))


def bound(session: Session, receipt: Receipt, **other: object) -> msg.Generate:
    """The receipt is of what the session asked last, and of nothing that differs from it in these fields."""
    (word, *_) = session.said
    assert isinstance(word, msg.Generate)
    assert {each.request for each in receipt.statements} == {receipts.request_digest(word)}
    for name, value in other.items():
        assert receipts.request_digest(replace(word, **{name: value})) != receipt.statements[0].request, name
    return word


def test_of_open_weights_the_card_says_which_they_are(clear: PlainModel) -> None:
    with Threads() as trio, LocalCluster(clear, trio=trio, weights="open") as cluster:  # type: ignore[arg-type]
        receipt, session = cluster.generate("the cat", 2).receipt, cluster.session
        assert receipt is not None and receipt.commitment == b""
        check(receipt, None)
        bound(session, receipt, tokens=3)
        card, model = session.card, receipt.statements[0].model
        assert card is not None and card.weights is not None and model is not None
        assert model.card == receipts.card_digest(session.config, card)
        others = replace(card, weights=replace(card.weights, sha256=bytes(32)))
        assert receipts.card_digest(session.config, others) != model.card
        ends = receipt.ends(1, "P2", "own")
        assert ends is not None and ends.sent.frames > 0


def test_a_turn_of_a_conversation_is_bound_to_what_it_goes_on_from(parties: Sessions) -> None:
    memory, kept = Remembered(), list[Receipt]()
    with parties.session() as session:
        assert session.open("llama") and session.receipts is not None
        prompt = PROMPT
        for _ in range(2):
            found = [token for (token,) in session.continued([prompt], 3, memory=memory)]
            prompt = [*prompt, *found, 4]
            kept = [*session.receipts.kept]
            check(kept[-1], pinned(parties.notaries))
        word = bound(session, kept[-1], keep=bytes(16), prefix=None)
        assert word.prefix is not None
        bound(session, kept[-1], prefix=replace(word.prefix, length=word.prefix.length - 1))
        first, second = (each.ends(1, "P2", "company") for each in kept)
        assert first is not None and second is not None
        assert second.sent.frames > first.sent.frames and second.sent.digest != first.sent.digest


def test_drafts_are_in_the_receipt_and_so_is_what_became_of_them(clear: PlainModel) -> None:
    with Threads() as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        said = set[bytes]()
        for draft in ("lookup", None):
            answer = cluster.generate("the cat the cat the", 6, draft=draft)
            receipt = answer.receipt
            assert receipt is not None
            check(receipt, None)
            said.add(receipt.statements[0].said)
            if draft:
                bound(cluster.session, receipt, drafts=0, tokens=5)
        assert len(said) == 2


def test_another_plan_is_another_request(clear: PlainModel) -> None:
    with Threads() as trio, LocalCluster(clear, trio=trio, variants="quick") as cluster:  # type: ignore[arg-type]
        receipt = cluster.generate("the cat", 2).receipt
        assert receipt is not None
        check(receipt, None)
        (word, *_) = cluster.session.said
        assert isinstance(word, msg.Generate) and word.input.quick
        bound(cluster.session, receipt, input=replace(word.input, quick=()))
