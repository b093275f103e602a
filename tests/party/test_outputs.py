"""What clients may have of a model is the card's to say, and each party holds it, in sessions as daemons serve them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from puma.client.connect import ClusterSession
from puma.engine.admission import OWNER
from puma.errors import PolicyError, UsageError
from puma.models.config import Bert, Llama
from puma.party.limits import Limits
from puma.wire import messages as msg
from puma.wire.policy import allowed_outputs, chosen_outputs
from tests.models import tiny
from tests.party.sessions import Sessions

SIZES = {"vocab_size": 8, "hidden_size": 8, "intermediate_size": 8, "layers": 1, "heads": 2}
CAUSAL, EMBEDDER = Llama(**SIZES), Bert(**SIZES)
JUDGE, FILLER = Bert(**SIZES, labels=("a", "b")), Bert(**SIZES, predicts=True)
QUOTER = Bert(**SIZES, labels=("start", "end"), each_token=True, pooler=False)
NAMER = Llama(**SIZES, labels=("a", "b"), each_token=True)
ALL = msg.OUTPUTS


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    folder = tmp_path_factory.mktemp("parties")
    made = Sessions(folder / "parties", Limits(sessions=8, tokens=200, reveal_logits=True))
    small = {"num_hidden_layers": 1}
    made.share(tiny.llama(folder / "llama", **small), "closed")
    made.share(tiny.llama(folder / "llama", **small), "forged", outputs=ALL)  # as no owner's command would write it
    made.share(tiny.llama(folder / "llama", **small), "open", outputs=("hidden", msg.NEXT), reveal_logits=True)
    made.share(tiny.classifier(folder / "judge", **small), "judge")
    made.share(tiny.classifier(folder / "judge", **small), "wide", outputs=("logits", "hidden"))
    made.share(tiny.bert(folder / "bert", **small), "embedder")
    quoter = tiny.write(folder / "quoter", "BertForQuestionAnswering", tiny.BERT | small, "[CLS] $A [SEP]")
    made.share(quoter, "quoter")
    yield made


def opened(session: ClusterSession, name: str) -> ClusterSession:
    assert session.open(name)
    return session


def ask(session: ClusterSession, output: str) -> list[object]:
    """As a client that has forgotten what the card says."""
    session.card = None
    return list(session.encode([[1, 5, 6]], output))


@pytest.mark.parametrize(
    ("name", "output"),
    [("closed", o) for o in ("hidden", "pooled", msg.NEXT)]
    + [("forged", o) for o in ("hidden", "pooled", msg.NEXT)]
    + [(name, o) for name in ("judge", "quoter") for o in ("hidden", "pooled")]
    + [("wide", "pooled"), ("embedder", "hidden"), ("open", "pooled")],
)
def test_what_the_owner_did_not_allow_is_refused_by_all_three(parties: Sessions, name: str, output: str) -> None:
    with parties.session() as session, pytest.raises(PolicyError, match="does not let clients see"):
        ask(opened(session, name), output)
    asked = [failure for failure in parties.failures if failure]  # the last one may not have been, after two refusals
    assert {failure.kind for failure in asked} == {"PolicyError"}
    assert all(server.client.sent_bytes < 4096 for server in parties.servers)  # the card and the refusal


@pytest.mark.parametrize("rank", [0, 1, 2])
def test_one_party_alone_holds_the_policy(parties: Sessions, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the two others would give everything away, the third one still does not."""
    with parties.session() as session:
        opened(session, "closed")
        for server in parties.servers:
            if server.party.rank != rank:
                monkeypatch.setattr(server, "_allowed", lambda: OWNER)
        with pytest.raises(Exception, match="does not let clients see hidden states"):
            ask(session, "hidden")


@pytest.mark.parametrize(
    ("name", "output"),
    [("judge", "logits"), ("quoter", "logits"), ("wide", "hidden"), ("embedder", "pooled"), ("open", "hidden")],
)
def test_what_the_owner_allows_is_answered(parties: Sessions, name: str, output: str) -> None:
    with parties.session() as session:
        assert ask(opened(session, name), output)
    assert parties.failures == [None] * 3


def test_a_client_that_knows_the_card_does_not_ask(parties: Sessions) -> None:
    with parties.session() as session:
        with pytest.raises(PolicyError, match="see hidden states") as refused:
            opened(session, "judge").encode([[1, 5]], "hidden")
        assert "class logits" in refused.value.hint and "--outputs hidden" in refused.value.hint
        assert session.encode([[1, 5]], "logits")


def test_a_cluster_without_logits_gives_no_hidden_states_either(parties: Sessions) -> None:
    closed = Limits(sessions=8, tokens=200)
    with parties.limited(closed), parties.session() as session, pytest.raises(PolicyError, match="hidden states"):
        ask(opened(session, "open"), "hidden")


def test_the_head_says_what_is_usual() -> None:
    configs = (CAUSAL, EMBEDDER, JUDGE, FILLER, QUOTER, NAMER)
    usual = {config: allowed_outputs(config, msg.Card("m"), True) for config in configs}
    assert list(usual.values()) == [(), ("pooled",), ("logits",), ("tokens",), ("logits",), ("logits",)]
    assert allowed_outputs(CAUSAL, msg.Card("m", outputs=ALL), False) == ()


def test_owners_widen_it_and_cannot_give_logits_away_unawares() -> None:
    assert chosen_outputs(JUDGE, ["hidden"], False) == ("hidden", "logits")
    assert chosen_outputs(CAUSAL, [], False) == ()
    assert chosen_outputs(CAUSAL, ["hidden"], True) == ("hidden",)
    with pytest.raises(UsageError, match="can be rebuilt from hidden states"):
        chosen_outputs(CAUSAL, ["hidden"], False)
    with pytest.raises(UsageError, match="no output weights"):
        chosen_outputs(JUDGE, ["weights"], False)
