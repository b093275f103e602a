"""Receipts of sessions: honest parties never contradict each other, and who deviates is named before it counts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from puma.client.evidence.checks import check
from puma.client.evidence.receipt import Receipt
from puma.client.owner import Owner, card_of
from puma.crypto.signing import Signer
from puma.engine.company import Frames, Outcome
from puma.errors import ProtocolError, ReceiptError
from puma.local.cluster import LocalCluster
from puma.net.chain import Chain, Head, Heads
from puma.net.endpoint import Endpoint
from puma.net.frame import Kind
from puma.party.evidence import records, statements
from puma.party.evidence.records import Records
from puma.party.evidence.statements import Evidence, Notary
from puma.party.limits import Limits
from puma.reference.plain_model import PlainModel
from puma.wire import messages as msg
from puma.wire import receipts
from puma.wire.receipts import Signed, Statement
from tests.models import tiny
from tests.party.sessions import Sessions
from tests.threads import Threads

IDS = [[1, 5, 6]]


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    folder = tmp_path_factory.mktemp("parties")
    made = Sessions(folder / "parties", Limits(sessions=8, tokens=200, reveal_logits=True))
    size = {"num_hidden_layers": 1}
    made.share(tiny.llama(folder / "llama", **size), "llama", reveal_logits=True)
    made.share(tiny.bert(folder / "bert", **size), "bert")
    yield made


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("clear") / "llama", num_hidden_layers=1))


# -- honest parties ---------------------------------------------------------------------------------------------------


def test_every_request_of_a_session_over_its_own_links_has_a_receipt(clear: PlainModel) -> None:
    with Threads() as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        session = cluster.session
        answer = cluster.generate("the cat", 3)
        assert answer.receipt is not None and answer.receipt is cluster.receipt
        stopped = cluster.stream("the dog", 4, top_k=2) if session.reveals else cluster.stream("the dog", 4)
        next(stopped)
        del stopped  # left in the middle
        session.selftest()
        list(session.continued([[1, 5], [1, 5, 6, 7]], 2, paced=True))
        assert session.receipts is not None
        kept = [*session.receipts.kept]
        kinds = [each.statements[0].kind for each in kept]
        assert kinds == ["publish", "generate", "generate", "selftest", "generate"]
        assert [each.statements[0].number for each in kept] == [1, 2, 3, 4, 5]
        first, second = (each.ends(1, "P2", "own") for each in kept[1:3])
        assert first is not None and second is not None and first.sent.frames < second.sent.frames
        assert first.received.size > 0 and kept[1].ends(0, "P2", "own").received.frames == 0  # type: ignore[union-attr]
        assert kept[1].commitment and all(each.commitment == kept[1].commitment for each in kept[2:])
        for each in kept:
            check(each, None)
            assert each.local


def test_requests_in_company_have_receipts_of_the_steps_that_they_took(parties: Sessions) -> None:
    receipts_of: dict[str, list[Receipt]] = {}

    def ask(name: str, tokens: int) -> None:
        with parties.session(name=name) as session:
            assert session.open("llama")
            list(session.continued(IDS, tokens))
            list(session.continued(IDS, 2, choose=lambda logits: [int(row.argmax()) for row in logits]))
            assert session.receipts is not None
            receipts_of[name] = [*session.receipts.kept]

    threads = [threading.Thread(target=ask, args=each, daemon=True) for each in (("alice", 4), ("bob", 6))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for name, tokens in (("alice", 4), ("bob", 6)):
        one, two = (each.ends(1, "P2", "company") for each in receipts_of[name])
        assert one is not None and two is not None
        assert (one.sent.frames, two.sent.frames, one.sent.size) == (tokens, tokens + 2, 0)
        own = receipts_of[name][1].ends(1, "P2", "own")
        assert own is not None and own.sent.frames == 0
    alice, bob = (receipts_of[name][0].ends(1, "P2", "company") for name in ("alice", "bob"))
    assert alice is not None and bob is not None and alice.sent.digest != bob.sent.digest


def test_what_is_prepared_has_a_receipt_and_so_has_its_use(clear: PlainModel, memory: Path) -> None:
    with Threads(memory) as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        cluster.prepare(2, 2)
        before = cluster.receipt
        answer = cluster.generate("cat", 2)
        assert answer.cost.prepared is not None and answer.receipt is not None and before is not None
        assert before.statements[0].kind == "prepare"
        dealt, used = (each.ends(0, "P2", "own") for each in (before, answer.receipt))
        assert dealt is not None and used is not None
        assert dealt.sent == used.sent and dealt.sent.frames > 0  # all of it was dealt beforehand
        told, later = (each.ends(1, "P2", "own") for each in (before, answer.receipt))
        assert told is not None and later is not None and told.sent.frames == 0 < later.sent.frames


def test_owners_get_receipts_too(parties: Sessions, tmp_path: Path) -> None:
    with parties.session("owner", "olga") as session:
        model = PlainModel(tiny.bert(tmp_path / "bert", num_hidden_layers=1))
        Owner(session, tmp_path / "state").upload(model.config, model.params, card_of("another", "1", {}))
        assert session.receipt is not None
        assert session.receipt.statements[0].kind == "publish" and session.receipt.statements[0].model is None


def test_a_party_keeps_what_it_signed_and_the_marks_of_its_chains(parties: Sessions) -> None:
    with parties.session() as session:
        assert session.open("llama")
        list(session.continued(IDS, 3))
        receipt = session.receipt
    assert receipt is not None
    name = receipt.statements[0].session
    kept = [notary.records.session(name) for notary in parties.notaries]
    for rank, each in enumerate(kept):
        assert each is not None and each.statements == [receipt.signed[rank]] and len(each.steps) == 3
    one, two = (parties.notaries[rank].records for rank in (1, 2))
    step = kept[1].steps[0]  # type: ignore[union-attr]
    mine, theirs = one.step_trails(*step), two.step_trails(*step)
    assert mine is not None and theirs is not None
    assert mine["P2"]["sent"] == theirs["P1"]["received"] and len(mine["P2"]["sent"]) > 8
    assert mine["P2"]["sent"] != mine["P2"]["received"]


# -- parties that deviate ---------------------------------------------------------------------------------------------


def asked(clear: PlainModel, trio: Threads) -> None:
    with LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        cluster.generate("the cat", 2)


def lying(monkeypatch: pytest.MonkeyPatch, trio: Threads, rank: int, lie: Callable[[Statement], Statement]) -> None:
    """This party signs something else than it should, from the second report on, which is the first answer."""
    notary = trio.notaries[rank]
    honest = Notary.sign

    def sign(self: Notary, statement: Statement) -> Signed:
        return honest(self, lie(statement) if self is notary and statement.number > 1 else statement)

    monkeypatch.setattr(Notary, "sign", sign)


@pytest.mark.parametrize("rank", range(3))
def test_who_lies_about_frames_is_named_with_the_other_end(
    clear: PlainModel, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    def lie(statement: Statement) -> Statement:
        first = statement.links[0]
        sent = msgspec.structs.replace(first.sent, digest=bytes(32))
        return msgspec.structs.replace(
            statement, links=[msgspec.structs.replace(first, sent=sent), *statement.links[1:]]
        )

    with Threads() as trio:
        lying(monkeypatch, trio, rank, lie)
        with pytest.raises(ReceiptError, match=f"P{rank}"):
            asked(clear, trio)
        assert trio.session.over


def test_a_receipt_that_was_good_before_is_not_good_again(clear: PlainModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """P1 signs nothing new: it repeats what it signed of the request before."""
    said: list[Signed] = []
    honest = Notary.sign
    with Threads() as trio:

        def sign(self: Notary, statement: Statement) -> Signed:
            made = honest(self, statement)
            if self is trio.notaries[1]:
                said.append(made)
                return said[-2] if len(said) == 3 else made
            return made

        monkeypatch.setattr(Notary, "sign", sign)
        with LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
            cluster.generate("the cat", 2)
            with pytest.raises(ReceiptError, match="P1 signed for another place in the session"):
                cluster.generate("the cat", 2)


def test_who_signs_nothing_is_named(clear: PlainModel, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Evidence.statement
    with Threads() as trio:
        monkeypatch.setattr(Evidence, "statement", lambda self, *a: None if self._rank == 2 else honest(self, *a))
        with pytest.raises(ReceiptError, match="P2 signed no statement"):
            asked(clear, trio)


def test_an_end_that_hashes_another_frame_than_travelled_is_noticed(
    clear: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if P1 sent P2 something else than it says, in one bit of one frame in the middle of a request."""
    honest, counted = Endpoint._take, [0]

    def take(self: Any, kind: Kind, size: int | None) -> memoryview:
        payload = honest(self, kind, size)
        if (self.name, self.peer, kind) == ("P2", "P1", Kind.DATA):
            counted[0] += 1
            if counted[0] == 5:
                chain: Chain = self._chains.received[Kind.DATA]
                chain._state = bytes([chain._state[0] ^ 1]) + chain._state[1:]
        return payload

    monkeypatch.setattr(Endpoint, "_take", take)
    with Threads() as trio, pytest.raises(ReceiptError, match=r"what P1 sent and what P2 received .* P1 or P2"):
        asked(clear, trio)


def test_parties_that_open_other_shares_than_they_say_are_refused(
    clear: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P2's masked words are other ones: what it commits to contradicts P1."""
    honest = receipts.committed_words
    with Threads() as trio:

        def words(salt: bytes, *rest: Any) -> bytes:
            found = honest(salt, *rest)
            return bytes(32) if threading.current_thread() is trio._threads[2] else found

        monkeypatch.setattr(receipts, "committed_words", words)
        with pytest.raises(ProtocolError, match="commit to different shares"):
            asked(clear, trio)


# -- bounds -----------------------------------------------------------------------------------------------------------


def test_records_are_bounded_and_the_oldest_go_first() -> None:
    records = Records(most=20_000)
    marks = {"P1": {"sent": bytes(800), "received": b""}}
    for number in range(50):
        records.step(b"channel", number, marks)
    assert records.size <= 20_000
    assert records.step_trails(b"channel", 0) is None and records.step_trails(b"channel", 49) == marks
    signed = Signed(bytes(1000), bytes(64), bytes(44))
    for session in range(40):
        records.signed(bytes([session]), signed, marks, [(b"channel", session)])
    assert records.size <= 20_000
    assert records.session(bytes([0])) is None and records.session(bytes([39])) is not None
    records.signed(bytes([39]), signed, marks, [])
    assert len(records.session(bytes([39])).statements) == 2  # type: ignore[union-attr]


def test_a_session_that_goes_on_and_on_takes_no_more_and_more() -> None:
    """As a gateway's does: what is told of it counts all of its steps, and what is kept are the latest."""
    notary = Notary(Signer.fresh(), bytes(32))
    evidence = Evidence(notary, b"s" * 16)
    head = Head(1, 2, bytes(32))
    for number in range(statements.LATEST + 5):
        evidence.took(Outcome([], {}, 0.0, True, Frames(b"channel", number, {1: Heads(head, head)})))
    for _ in range(records.LATEST + 5):
        signed = evidence.statement(msg.SelfTest(), bytes(32), 0.0)
    assert signed is not None
    assert receipts.decode(signed.statement).links[0].sent.frames == statements.LATEST + 5
    kept = notary.records.session(b"s" * 16)
    assert kept is not None and kept.statements[-1] == signed and len(kept.statements) == records.LATEST
    assert len(kept.steps) == statements.LATEST and kept.steps[-1] == (b"channel", statements.LATEST + 4)


def test_without_a_notary_nothing_is_hashed_and_nothing_signed(clear: PlainModel) -> None:
    with Threads(signed=False) as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        assert cluster.generate("the cat", 1).receipt is None
        assert all(link.heads is None for link in cluster.session.links)


# -- secrecy ----------------------------------------------------------------------------------------------------------


def test_no_label_serves_twice_on_a_link(parties: Sessions, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two chains under one key could be told apart by nobody, and disclosing one would open the other."""
    labels: list[tuple[int, str]] = []
    honest = Endpoint.chain

    def chain(self: Endpoint, label: str, words: bool = False) -> None:
        labels.append((id(self), label))
        honest(self, label, words)

    monkeypatch.setattr(Endpoint, "chain", chain)
    with parties.session() as session:
        for name in ("llama", "bert", "llama"):
            assert session.open(name)
        list(session.continued(IDS, 3))
        session.selftest()
    assert len(labels) == len(set(labels)) > 12
    assert {"session", "model 3"} <= {label for _, label in labels}


def test_a_receipt_does_not_tell_how_much_others_asked(parties: Sessions) -> None:
    """The same request alone and beside a longer one has the same receipt but for times, numbers and heads."""
    told: list[list[Any]] = []
    for beside in (False, True):
        with parties.session(name="alice") as session, parties.session(name="bob") as other:
            assert session.open("llama") and other.open("llama")
            theirs = other.continued([[1, 5, 6, 7, 8, 9]] * 3, 4) if beside else iter(())
            mine = session.continued(IDS, 4)
            for _ in range(4):
                next(theirs, None)
                next(mine)
            _ = list(theirs), list(mine)
            assert session.receipt is not None
            links = [each.links for each in session.receipt.statements]
            told.append(
                [(e.peer, e.place, e.sent.frames, e.sent.size, e.received.size) for each in links for e in each]
            )
    assert told[0] == told[1]


def test_the_dealer_gets_no_salt_and_the_evaluators_the_same(parties: Sessions) -> None:
    """It knows the masks: with the salt it could see whether the weights are some that were published."""
    zero, one, two = (library.open("llama") for library in parties.libraries)
    assert zero is not None and one is not None and two is not None
    assert zero.manifest.salt == b"" and len(one.manifest.salt) == 32 and one.manifest.salt == two.manifest.salt
    bert = parties.libraries[1].open("bert")
    assert bert is not None and bert.manifest.salt != one.manifest.salt
