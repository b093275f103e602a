"""What one key can make a party spend is bounded: sessions, tokens, bytes, the size of a model, and what waits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from puma.config import Policy
from puma.engine.admission import OWNER, admit
from puma.errors import AdmissionError, InputError, ProtocolError, UsageError
from puma.models.config import Bert, Llama
from puma.net.endpoint import Inbox
from puma.net.frame import Kind
from puma.net.memory import pair
from puma.party.limits import GIB, GUEST_FRAME, GUEST_QUEUE, Allowance, Flight, Limits
from puma.store.encrypted import EncryptedStore
from puma.store.preprocessing import Header
from puma.wire import messages as msg
from puma.wire.parameters import shared_bytes, tensor_specs
from tests.models import tiny
from tests.party.sessions import Sessions

BERT = Bert(vocab_size=30522, hidden_size=768, intermediate_size=3072, layers=12, heads=12, predicts=True)
WIDE = Llama(vocab_size=32000, hidden_size=8192, intermediate_size=28672, layers=80, heads=64, kv_heads=8)


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Sessions:
    """Three parties that hold a model."""
    folder = tmp_path_factory.mktemp("parties")
    made = Sessions(folder / "parties")
    made.share(tiny.llama(folder / "llama", num_hidden_layers=1), "llama")
    return made


@pytest.mark.parametrize(("rows", "top"), [(3_000_000, 1), (300, 1), (64, 64)])
def test_more_masked_places_than_a_request_may_have(rows: int, top: int) -> None:
    job = msg.Encode(msg.Input([16], []), "tokens", rows=[0] * rows, top=top)
    with pytest.raises(InputError, match="too many for one request"):
        admit(BERT, "spline", job, OWNER)
    admit(BERT, "spline", msg.Encode(msg.Input([16], []), "tokens", rows=[0] * 16, top=64), OWNER)


def test_rows_and_tokens_where_there_are_none() -> None:
    with pytest.raises(UsageError, match="have no masked places"):
        admit(BERT, "spline", msg.Encode(msg.Input([16], []), "pooled", rows=[0]), OWNER)
    with pytest.raises(UsageError, match="no tokens are to be generated"):
        admit(WIDE, "spline", msg.Generate(msg.Input([16], []), 0), OWNER)


# -- models ---------------------------------------------------------------------------------------------------------


def test_the_size_of_a_model_is_told_before_anything_is_made() -> None:
    limits = Limits(1, 1)
    limits.check_model(BERT)
    with pytest.raises(AdmissionError, match=r"take 3\d\d\.\d GiB, and this party takes 64 at most") as refused:
        limits.check_model(WIDE)
    assert "--max-model" in refused.value.hint
    assert shared_bytes(BERT) == sum(6 * spec.shape[0] * (spec.shape[1:] or (1,))[0] for spec in tensor_specs(BERT))
    Limits(1, 1, model=400 * GIB).check_model(WIDE)


def test_an_offer_beyond_the_limit_leaves_nothing_on_disk(tmp_path: Path) -> None:
    parties = Sessions(tmp_path / "parties", Limits(1, 100, model=20_000))
    with pytest.raises(AdmissionError, match="this party takes"):
        parties.share(tiny.llama(tmp_path / "llama"), "llama")
    assert not list((tmp_path / "parties").glob("p*/uploads/*"))


@pytest.mark.parametrize(
    "wrong",
    [{"layers": 1 << 24}, {"layers": 4097}, {"heads": 1, "hidden_size": 1 << 24}, {"labels": ["a"] * (1 << 17)}],
)
def test_configs_that_would_be_dear_to_look_at_are_not_read(wrong: dict[str, Any]) -> None:
    """Each layer is made before the parameters can be counted, and has angles for half a head."""
    offer = msgspec.to_builtins(msg.Offer(msg.Card("m"), WIDE, [], [], True, bytes(16)))
    offer["config"] |= wrong
    with pytest.raises(ProtocolError, match="cannot be read"):
        msg.decode_request(msgspec.msgpack.encode(offer))


# -- by key ---------------------------------------------------------------------------------------------------------


def test_a_key_has_three_quarters_unless_the_operator_says_otherwise() -> None:
    usual = Limits.within(Policy(max_sessions=16, max_tokens=100), None, 500, preprocessing=4000)
    assert (usual.sessions, usual.sessions_by_key, usual.tokens) == (16, 12, 100)
    assert usual.preprocessing_by_key == 3000
    assert [Limits(most, 1).sessions_by_key for most in (1, 2, 3, 4)] == [1, 2, 3, 3]
    assert Limits.within(Policy(), 2, None, sessions_by_key=1).sessions_by_key == 1


def test_tokens_come_back_within_an_hour() -> None:
    now = [0.0]
    allowance = Allowance(3600, lambda: now[0])
    allowance.spend("client alice", 3600)
    with pytest.raises(AdmissionError, match="client alice has had its 3600 tokens of this hour"):
        allowance.spend("client alice", 1)
    allowance.spend("client bob", 3600)
    now[0] = 60.5
    allowance.spend("client alice", 60)
    with pytest.raises(AdmissionError):
        allowance.spend("client alice", 1)
    now[0] = 9000.0
    allowance.spend("client carol", 1)
    assert set(allowance._left) == {"client carol"}  # whoever has all of it again is forgotten


def test_tokens_are_counted_over_the_sessions_of_a_key(parties: Sessions) -> None:
    with parties.limited(Limits(8, 200, tokens_by_key=10)):
        _spend(parties)


def _spend(parties: Sessions) -> None:
    for _ in range(2):
        with parties.session() as session:
            assert session.open("llama") and len(list(session.continued([[1, 5, 6]], 2))) == 2
    with parties.session() as session, pytest.raises(AdmissionError, match="its 10 tokens"):
        assert session.open("llama")
        list(session.continued([[1, 5, 6]], 2))
    with parties.session(name="bob") as session:
        assert session.open("llama") and list(session.continued([[1]], 1))


def test_tokens_under_way_are_counted_by_key_and_given_back() -> None:
    flight = Flight(10)
    flight.begin("client alice", 6)
    with pytest.raises(AdmissionError, match="client alice has 6 tokens under way, and may have 10 with 5 more"):
        flight.begin("client alice", 5)
    flight.begin("client alice", 4)
    flight.begin("client bob", 10)
    flight.end("client alice", 6)
    flight.begin("client alice", 6)
    for key in ("alice", "bob"):
        flight.end(f"client {key}", 10)
    assert not flight._now
    Flight(0).begin("client alice", 1 << 40)


def test_a_request_gives_its_tokens_back_however_it_ends(parties: Sessions) -> None:
    limits = Limits(8, 200, tokens_under_way=10)
    with parties.limited(limits):
        for _ in range(2):
            with parties.session() as session:
                assert session.open("llama") and len(list(session.continued([[1, 5, 6]], 2))) == 2
        with parties.session() as session, pytest.raises(AdmissionError, match="tokens under way, and may have 10"):
            assert session.open("llama")
            list(session.continued([[1, 5, 6]], 8))
        with parties.session() as session:
            assert session.open("llama")
            stream = session.continued([[1, 5, 6]], 7, paced=True)
            next(stream)
            stream.close()
            assert len(list(session.continued([[1, 5, 6]], 7))) == 7
        assert not any(each.flight._now for each in parties.limits)


def test_how_often_a_key_asks_within_a_minute(parties: Sessions) -> None:
    with parties.limited(Limits(8, 200, requests_by_key=2)), parties.session() as session:
        assert session.open("llama")
        for _ in range(2):
            assert len(list(session.continued([[1]], 1))) == 1
        with pytest.raises(AdmissionError, match="client alice has had its 2 requests of this minute") as refused:
            list(session.continued([[1]], 1))
        assert "--requests-by-key" in refused.value.hint
    with parties.limited(Limits(8, 200, requests_by_key=1)), parties.session() as session:
        assert session.open("llama")
        session.variants = "auto"  # a plan takes the processor like a request
        with pytest.raises(AdmissionError, match="has had its 1 requests"):
            list(session.continued([[1]], 1))


def test_preprocessing_is_counted_by_key(memory: Path) -> None:
    store = EncryptedStore(memory, 10_000)

    def made(key: str, number: int) -> None:
        header = Header(id=bytes([number] * 16), rank=1, sharing=bytes(16), request=msg.Generate(msg.Input([1], []), 1))
        writer = store.begin(header, key, 4000)
        try:
            writer.write(bytes(1500))
            writer.finish()
        finally:
            writer.discard()

    made("client alice", 1)
    made("client alice", 2)
    with pytest.raises(AdmissionError, match="at most for one key"):
        made("client alice", 3)
    made("client bob", 4)
    store.drop(bytes(16), bytes([1] * 16))
    made("client alice", 5)


# -- what waits -----------------------------------------------------------------------------------------------------


def test_empty_frames_fill_a_queue_too() -> None:
    inbox = Inbox(10_000)
    count = 0
    while inbox.put(Kind.CONTROL, memoryview(b""), 0):
        count += 1
        assert count < 1000
    for _ in range(count):
        inbox.take(Kind.CONTROL, 0)
    assert inbox.bytes == 0


def test_a_guest_has_little_room_until_it_opens_a_model(parties: Sessions) -> None:
    link, _ = pair("P1", "client")
    limits = Limits(1, 4096)
    limits.bound(link)
    assert link.inbox.bound == GUEST_QUEUE and link.accepts[Kind.DATA] == GUEST_FRAME < link.limits[Kind.DATA]
    with parties.session() as session:
        assert session.open("llama")
        room = [server.client.accepts[Kind.DATA] for server in parties.servers]
    assert room == [GUEST_FRAME] * 3  # a vocabulary of 28 needs no more
    limits.prompts(link, lambda tokens, flags: tokens << 13)
    assert link.accepts[Kind.DATA] == 4096 << 13
