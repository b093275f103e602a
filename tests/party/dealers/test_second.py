"""A second dealer: the same answers, and nothing that one of the two dealers says alone is used by anybody."""

from __future__ import annotations

import os
import threading
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import puma
from puma import config
from puma.audit.auditing import Auditor
from puma.audit.shared import Shared
from puma.cli import ui
from puma.client.canaries.asking import ask_like
from puma.config import Cluster, Party
from puma.crypto.prg import PairKey, fresh_secret
from puma.crypto.signing import Signer
from puma.errors import ConfigError, ProtocolError, PumaError, UsageError
from puma.local.cluster import LocalCluster
from puma.net.memory import MemoryLink, pair
from puma.party.dealers import meeting
from puma.party.dealers.beside import Beside
from puma.reference.plain_model import PlainModel
from puma.wire import canaries
from puma.wire import messages as msg
from puma.wire.twin import Digested, Twin, three
from tests.audit.trio import CHANGES, swaps
from tests.live import Live, patiently
from tests.models import tiny
from tests.threads import Threads, met


@pytest.fixture(scope="module")
def clear(tmp_path_factory: pytest.TempPathFactory) -> PlainModel:
    return PlainModel(tiny.llama(tmp_path_factory.mktemp("clear") / "llama", num_hidden_layers=1))


def answered(clear: PlainModel, trio: Threads) -> list[int]:
    with LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        answer = cluster.generate("the cat", 3)
        assert answer.receipt is not None and len(answer.receipt.statements) == 3
        return answer.token_ids


def test_answers_are_the_same_with_a_second_dealer(clear: PlainModel, memory: Path) -> None:
    with Threads() as trio:
        alone = answered(clear, trio)
    with Threads(memory, dealers=2) as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        assert cluster.generate("the cat", 3).token_ids == alone
        assert [*cluster.stream("the cat", 3)] == alone
        cluster.prepare(3, 3)
        prepared = cluster.generate("the cat", 3)
        assert prepared.token_ids == alone
        cluster.session.selftest()


def test_the_second_dealer_knows_the_keys_of_the_first_and_not_the_evaluators() -> None:
    with Threads(dealers=2) as trio:
        keys = [server.party._keys for server in trio.servers]
        assert {p: k.secret for p, k in keys[3].items()} == {p: k.secret for p, k in keys[0].items()}
        assert keys[1][2].secret not in {k.secret for k in keys[3].values()}
        assert trio.servers[3].party.rank == 0 and set(trio.servers[3].party.links) == {1, 2}


def spoiled(monkeypatch: pytest.MonkeyPatch, who: str, to: str, number: int) -> list[int]:
    """One bit of a data frame between these two is another one, the `number`th from when the list is filled."""
    armed: list[int] = []
    honest = MemoryLink.send

    def send(self: MemoryLink, *buffers: Any) -> None:
        if (self.name, self.peer) == (who, to) and armed:
            armed[0] += 1
            if armed[0] == number:
                first, *rest = (bytearray(memoryview(b).cast("B")) for b in buffers)
                first[0] ^= 1
                buffers = (first, *rest)
        honest(self, *buffers)

    monkeypatch.setattr(MemoryLink, "send", send)
    return armed


@pytest.mark.parametrize("who", ["P0", "P3"])
@pytest.mark.parametrize("number", [1, 7])
def test_a_correction_that_one_dealer_changes_is_never_used(
    clear: PlainModel, monkeypatch: pytest.MonkeyPatch, who: str, number: int
) -> None:
    """Wrong words of P0's, or a wrong digest of the second dealer's: P2 ends the request before it goes on."""
    armed = spoiled(monkeypatch, who, "P2", number)
    with Threads(dealers=2) as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        cluster.generate("the cat", 1)
        p2 = trio.servers[2].client
        before, sent = p2.sent_bytes, []
        record = p2.send
        monkeypatch.setattr(p2, "send", lambda *b: (sent.append(b), record(*b)))
        armed.append(0)
        with pytest.raises(ProtocolError, match="P0 and the second dealer sent different words"):
            cluster.generate("the cat", 1)
        assert not sent and p2.sent_bytes - before < 1000  # nothing of an answer has left P2
        with pytest.raises(PumaError):
            cluster.generate("the cat", 1)


@pytest.mark.parametrize("who", ["P0", "P3"])
def test_an_answer_that_one_dealer_changes_is_refused(
    clear: PlainModel, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    armed = spoiled(monkeypatch, who, "client", 1)
    with Threads(dealers=2) as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        armed.append(0)
        with pytest.raises(ProtocolError, match="P0 and the second dealer sent different words"):
            cluster.generate("the cat", 1)


def test_a_dealer_that_has_other_seeds_is_refused_before_anything_is_computed(clear: PlainModel) -> None:
    """P1 gives the second dealer another key than it has with P0, or the owner other seeds: all the same."""
    with Threads(dealers=2) as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        trio.servers[3].party._keys[1] = trio.servers[3].party._keys[1].child("another")
        trio.servers[3].party._streams.clear()
        with pytest.raises(ProtocolError, match="sent different words"):
            cluster.generate("the cat", 1)


def test_what_the_second_dealer_sends_is_counted_as_it_leaves(
    clear: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Digests to P2 and answers to the client, with their headers: alone and in company."""
    left, honest = list[int](), MemoryLink.send

    def send(self: MemoryLink, *buffers: Any) -> None:
        if self.name == "P3":
            left.append(32 + sum(memoryview(b).nbytes for b in buffers))
        honest(self, *buffers)

    monkeypatch.setattr(MemoryLink, "send", send)
    with Threads(dealers=2) as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        for asked in (cluster, cluster.another()):
            left.clear()
            cost = asked.generate("the cat", 2).cost
            assert (
                cost.second is not None
                and cost.second == cost.per_party[3] == cost.bytes()["second_dealer"] == sum(left) > 0
            )
            assert cost.second < cost.per_party[0] and cost.total == sum(cost.per_party) + cost.client
            assert len(cost.cpu_by_party) == 4
            assert ui.cost_line(cost, 2).endswith(f"offline, {ui.amount(cost.second)} of them by the second dealer")
    with Threads() as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        cost = cluster.generate("the cat", 2).cost
        assert cost.second is None and "second" not in ui.cost_line(cost, 2) and "second_dealer" not in cost.bytes()


# -- the link that stands for both ------------------------------------------------------------------------------------


def pairs() -> tuple[Twin, MemoryLink, MemoryLink]:
    """A twin, and the two dealers' ends."""
    (first, zero), (second, three_) = pair("P2", "P0", timeout=2), pair("P2", "P3", timeout=2)
    return Twin(first, second), zero, three_


def test_both_are_told_the_same_and_either_end_is_noticed() -> None:
    twin, zero, other = pairs()
    twin.send(b"a", b"b")
    twin.send_control(b"word")
    for end in (zero, other):
        assert bytes(end.recv(2)) == b"ab" and end.recv_control() == b"word"
    assert (twin.name, twin.peer, twin.lost) == ("P2", "P0", False) and twin.sent_bytes == 2 * (32 + 2 + 32 + 4)
    other.send_control(msg.encode(msg.Failed("ProtocolError", "no", "")))
    other.fail("it is over")
    found = msg.decode_reply(twin.recv_control())  # though P0 says nothing
    assert found == msg.Failed("ProtocolError", "the second dealer: no", "")
    assert twin.lost
    with pytest.raises(ProtocolError, match="P3 stopped: it is over"):
        twin.check()


@pytest.mark.parametrize("kind", ["ProtocolError", "AdmissionError"])
def test_why_p0_fails_is_told_though_the_second_dealer_says_nothing(kind: str) -> None:
    """It may wait for the client, who would wait for it."""
    twin, zero, _ = pairs()
    failed = msg.Failed(kind, "no", "")
    zero.send_control(msg.encode(failed))
    assert msg.decode_reply(twin.recv_control()) == failed


def test_digests_stand_for_frames_on_one_side() -> None:
    (first, zero), (second, other) = pair("P2", "P0", timeout=2), pair("P2", "P3", timeout=2)
    twin, third = Twin(first, second, digests=True), Digested(other)
    zero.send(b"abc", b"d")
    third.send(b"ab", b"cd")
    assert bytes(twin.recv(4)) == b"abcd" and third.name == "P3"
    zero.send(b"abcd")
    third.send(b"abce")
    with pytest.raises(ProtocolError, match="different words"):
        twin.recv(4)


@pytest.mark.parametrize("rank", [1, 2])
def test_an_evaluator_that_gives_another_key_is_named_before_anything_is_drawn(rank: int) -> None:
    """Else the second dealer would pad with half of P0's streams what P0 never dealt, and P2 could compare both."""
    links, keys = met(dealers=2)
    keys[rank][0] = PairKey(fresh_secret())
    for other in range(3):
        meeting.settled(other, links[other], keys[other])
    with pytest.raises(ProtocolError, match=f"P{rank} gave the second dealer another key"):
        meeting.settled(3, links[3], keys[3])


@pytest.mark.parametrize("data", [False, True], ids=["words", "data"])
def test_who_hears_something_else_than_the_other_dealer_goes_no_further(data: bool) -> None:
    (guest, one), (other_guest, two), (zero, three_) = (pair("client", f"P{i}", timeout=2) for i in range(3))
    first, second = Beside(one, zero, tells=True), Beside(two, three_, tells=False)
    for said, heard in ((b"abcd", b"abcd"), (b"abcd", b"abce")):
        for end, payload in ((guest, said), (other_guest, heard)):
            end.send(payload) if data else end.send_control(payload)
        assert bytes(first.recv(4) if data else first.recv_control()) == said and first.name == "P0"
        if said == heard:
            assert bytes(second.recv(4) if data else second.recv_control()) == heard
            continue
        with pytest.raises(ProtocolError, match="were told different things"):
            second.recv(4) if data else second.recv_control()


def test_a_client_that_tells_the_dealers_different_seeds_gets_no_digest_to_p2(
    clear: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Threads(dealers=2) as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        cluster.generate("the cat", 1)
        twin, digests = cluster.session.links[0], trio.servers[3].party.links[2]
        before, honest = digests.sent_bytes, twin._second.send_control  # type: ignore[attr-defined]

        def other(payload: bytes) -> None:
            word = msg.decode_request(payload)
            if isinstance(word, msg.Generate):
                seeds = [bytes(len(seed)) for seed in word.input.masks]
                payload = msg.encode(replace(word, input=replace(word.input, masks=seeds)))
            honest(payload)

        monkeypatch.setattr(twin._second, "send_control", other)  # type: ignore[attr-defined]
        with pytest.raises(PumaError, match="P0 and the second dealer were told different things"):
            cluster.generate("the cat", 1)
        assert digests.sent_bytes - before < 500, "nothing but what it says of public words"


def told(one: msg.Request | msg.Reply, other: msg.Request | msg.Reply) -> Any:
    twin, zero, second = pairs()
    zero.send_control(msg.encode(one))
    second.send_control(msg.encode(other))
    payload = twin.recv_control()
    return msg.decode_reply(payload) if payload[:1] else None


def test_what_two_dealers_may_say_otherwise() -> None:
    cheap, dear = msg.Report([], 1.0, 1.0, 1.0, 0.0), msg.Report([], 2.0, 2.0, 2.0, 0.0)
    assert told(cheap, dear) == cheap
    assert told(msg.Taken(""), msg.Taken("gone")) == msg.Taken("gone") == told(msg.Taken("gone"), msg.Taken(""))
    failed = msg.Failed("ProtocolError", "no", "")
    assert told(failed, cheap) == failed
    assert told(cheap, failed) == replace(failed, message="the second dealer: no")
    for one, other in (
        (msg.Result((1,), 3, 0), msg.Result((2,), 3, 0)),
        (cheap, msg.Result((2,), 3, 0)),
        (msg.Ready("1"), msg.Ready("2")),
    ):
        with pytest.raises(ProtocolError, match="different messages"):
            told(one, other)
    with pytest.raises(PumaError, match="different parts"):
        told(msg.Held(1), msg.Held(2))


def sealed(what: canaries.Pledge | canaries.Disclosure) -> canaries.Sealed:
    return canaries.Sealed(canaries.encode(what), b"signed by " + os.urandom(4), b"")


def test_both_pledge_and_disclose_alike() -> None:
    pledge = canaries.Pledge(0, bytes(16), bytes(32), [bytes(32)] * 2)
    one = canaries.Committed(sealed(pledge))
    assert told(one, canaries.Committed(sealed(pledge))) == one
    with pytest.raises(ProtocolError, match="different messages"):
        told(one, canaries.Committed(sealed(replace(pledge, pairs=[bytes(32), b"1" * 32]))))
    disclosure = canaries.Disclosure(0, bytes(16), bytes(32), [bytes(32)] * 2, {"P2": {"sent": b"12345678"}})
    shown = canaries.Disclosed(sealed(disclosure))
    assert told(shown, canaries.Disclosed(sealed(replace(disclosure, trails={})))) == shown
    with pytest.raises(ProtocolError, match="different messages"):
        told(shown, canaries.Disclosed(sealed(replace(disclosure, secrets=[bytes(32), b"1" * 32]))))


def test_of_a_model_both_must_hold_the_same() -> None:
    twin, zero, second = pairs()

    def holds(one: msg.Holds, other: msg.Holds) -> Any:
        zero.send_control(msg.encode(one))
        second.send_control(msg.encode(other))
        return msg.decode_request(twin.recv_control())

    assert holds(msg.Holds(b"s", True), msg.Holds(b"s", False)) == msg.Holds(b"s", False)
    assert holds(msg.Holds(b"s", True), msg.Holds(b"", False, "lost")).problem == "lost"
    with pytest.raises(PumaError, match="do not hold one sharing"):
        holds(msg.Holds(b"s", True), msg.Holds(b"t", True))


def test_who_meets_whom() -> None:
    assert [meeting.peers(rank, 1) for rank in range(3)] == [[1, 2], [0, 2], [0, 1]]
    assert [meeting.peers(rank, 2) for rank in range(4)] == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert [meeting.place(rank) for rank in range(4)] == [0, 1, 2, 0]
    assert three([1, 2, 3]) == [1, 2, 3]  # type: ignore[list-item]


# -- processes --------------------------------------------------------------------------------------------------------


@pytest.mark.processes
def test_four_processes_answer_alone_and_in_company(clear: PlainModel) -> None:
    with LocalCluster(clear, dealers=2) as cluster:
        assert len(cluster.pids) == 4
        alone = cluster.generate("the cat", 2).token_ids
        found: list[list[int]] = []
        threads = [
            threading.Thread(target=lambda: found.append(cluster.generate("the cat", 2).token_ids)) for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert found == [alone, alone]


def test_there_is_no_third_dealer(clear: PlainModel) -> None:
    with pytest.raises(UsageError, match="dealers cannot be 3"):
        LocalCluster(clear, dealers=3)


@pytest.mark.slow
@pytest.mark.processes
def test_four_daemons_share_a_model_answer_and_notice_who_is_lost(tmp_path: Path) -> None:
    with Live(tmp_path, second=True) as live:
        live.share(tiny.llama(tmp_path / "llama", num_hidden_layers=1), "llama")
        with live.connect("llama", record=tmp_path / "state" / "seen.json") as cluster:
            answer = cluster.generate("the cat", 2)
            assert answer.receipt is not None and puma.receipt.verify(answer.receipt, live.cluster)
            assert cluster.generate("the cat", 2).token_ids == answer.token_ids
            live.kill(3)
            with pytest.raises(PumaError, match="P3"):
                for _ in range(20):
                    cluster.generate("the cat", 2)
        live.start(3)
        live.healthy()
        with patiently(live, "llama") as cluster:
            assert cluster.generate("the cat", 2).token_ids == answer.token_ids


# -- beside what else there is ----------------------------------------------------------------------------------------


@pytest.mark.masks_again  # an auditor shares the model again, in this process
def test_a_session_with_two_dealers_is_audited_like_any_other(clear: PlainModel) -> None:
    for deviates in (False, True):
        with Threads(dealers=2) as trio:
            cluster = LocalCluster(clear, trio=trio)  # type: ignore[arg-type]
            assert cluster.sharing is not None
            if deviates:
                swaps(3, CHANGES["shifted"])(trio.servers[1])
            shared = Shared(cluster.sharing, clear.params)
            like = [msg.Generate(msg.Input([3], []), 2)]
            report = Auditor(Signer.fresh(), shared=shared).audit(trio.session, None, partial(ask_like, said=like))
            assert report.accused == (["P1"] if deviates else [])


def test_in_company_nothing_is_used_either_that_only_one_dealer_says(
    clear: PlainModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    armed = spoiled(monkeypatch, "P0", "P2", 3)
    with Threads(dealers=2) as trio, LocalCluster(clear, trio=trio) as cluster:  # type: ignore[arg-type]
        beside = cluster.another()
        alone = cluster.generate("the cat", 2).token_ids
        assert beside.generate("the cat", 2).token_ids == alone
        armed.append(0)
        with pytest.raises(PumaError, match="P0 and the second dealer sent different words"):
            beside.generate("the cat", 2)


def test_open_weights_have_a_second_dealer_too(clear: PlainModel) -> None:
    with Threads(dealers=2) as trio:
        cluster = LocalCluster(clear, trio=trio, weights="open")  # type: ignore[arg-type]
        assert cluster.generate("the cat", 2).token_ids == cluster.generate("the cat", 2).token_ids


def test_a_cluster_file_names_a_second_dealer() -> None:
    parties = tuple(Party(rank, f"127.0.0.1:77{rank:02}", name=f"p{rank}") for rank in range(4))
    found = config.checked(Cluster(parties, ca="ca.pem"))
    assert config.parse(config.to_toml(found)).parties == found.parties
    assert found.digest != config.checked(Cluster(parties[:3], ca="ca.pem")).digest
    for wrong in (parties[:2], parties[1:], (*parties[:2], parties[3])):
        with pytest.raises(ConfigError, match="ranks are"):
            config.checked(Cluster(wrong, ca="ca.pem"))
