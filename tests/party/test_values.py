"""Whatever values a guest sends in messages of good form: a named error or an answer, soon, and the party lives on."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from puma.errors import ProtocolError, PumaError
from puma.party.limits import Limits
from puma.party.session_server import MAY
from puma.reference.plain_model import PlainModel
from puma.wire import messages as msg
from puma.wire.parameters import tensor_specs
from puma.wire.prompt import Seeds, payload_bytes
from tests.models import tiny
from tests.party.sessions import Sessions
from tests.party.values import spoiled, wild

SECONDS, MIB = 10.0, 400.0  # one session takes no longer, and all of them no more memory
VOCABULARY = tiny.VOCABULARY
WILD = {kind.__name__: wild(kind) for kind in get_args(msg.Request)}
KINDS = {kind.__name__: kind for kind in get_args(msg.Request)}
CALM = settings(
    max_examples=40,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


@pytest.fixture(scope="module")
def parties(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sessions]:
    folder = tmp_path_factory.mktemp("parties")
    limits = Limits(sessions=8, tokens=64, reveal_logits=True, model=1 << 20)
    made = Sessions(folder / "parties", limits, preprocessing=1 << 20)
    size = {"num_hidden_layers": 1}
    made.share(tiny.llama(folder / "llama", **size), "causal", reveal_logits=True, outputs=msg.OUTPUTS)
    filler = tiny.write(folder / "filler", "BertForMaskedLM", tiny.BERT | size, "[CLS] $A [SEP]")
    made.share(filler, "filler", outputs=msg.OUTPUTS)
    before = peak()
    yield made
    assert peak() - before < MIB, "messages took that much memory"
    for name, output in (("causal", "hidden"), ("filler", "pooled")):  # and they still serve
        with made.session() as session:
            assert session.open(name) and len(session.encode([[1, 5]], output)) == 1


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sent(parties: Sessions, role: Any, name: str, message: Any, alike: bool = True) -> None:
    """Say it to all three, with seeds that fit and data behind it where that is what comes next; then hang up."""
    started = time.monotonic()
    with parties.session(role) as session, contextlib.suppress(PumaError):
        if name:
            assert session.open(name)
        for rank, link in enumerate(session.links):
            said = fitted(message, rank) if alike else message
            link.send_control(msgspec.msgpack.encode(said))
            for size in payloads(said, rank):
                link.send(bytes(size))
        for link in session.links:
            link.set_timeout(0.3)  # who is not answered hangs up
        for link in session.links:
            msg.decode_reply(link.recv_control())
    assert time.monotonic() - started < SECONDS
    named(parties)


def named(parties: Sessions) -> None:
    """Each party has ended well or by an error of ours."""
    assert all(failure is None or " failed: " not in failure.message for failure in parties.failures), parties.failures


def fitted(message: Any, rank: int) -> Any:
    """With as many seeds as this party gets, so that a request comes further than its first look."""
    inner = message.get("input") if isinstance(message, dict) else None
    if not isinstance(inner, dict):
        return message
    masks, choices = Seeds.fresh().of(rank)
    return message | {"input": inner | {"masks": masks, "choices": choices}}


def payloads(message: Any, rank: int) -> list[int]:
    """The size of a prompt's data frame, if it is one that could be meant."""
    inner = message.get("input") if isinstance(message, dict) else None
    lengths = inner.get("lengths", []) if isinstance(inner, dict) else []
    tokens = sum(lengths)
    if not rank or not 0 < tokens < 300 or inner is None:
        return []
    return [payload_bytes(rank, tokens, VOCABULARY, tokens if inner.get("padded") else 0)]


CHOSEN = msg.Generate(msg.Input([2], []), 3, reveal=True, paced=True)
GOOD = [
    msg.Generate(msg.Input([3], []), 2), msg.Generate(msg.Input([2, 1], []), 2, temperature=0.5),
    msg.Encode(msg.Input([2, 3], []), "hidden"), msg.Encode(msg.Input([4], [], [], [0, 0, 1, 1]), "pooled"),
    msg.Encode(msg.Input([4], []), "tokens", rows=[1, 2], top=3), msg.Encode(msg.Input([4], []), msg.NEXT),
    msg.Encode(msg.Input([4, 4], [], padded=True), "pooled"),
]  # fmt: skip


@CALM
@given(st.sampled_from(GOOD).flatmap(spoiled), st.sampled_from(["causal", "filler"]), st.booleans())
def test_requests_that_almost_make_sense(parties: Sessions, message: Any, name: str, alike: bool) -> None:
    sent(parties, "client", name, message, alike)


@CALM
@given(st.sampled_from(sorted(KINDS)).flatmap(WILD.__getitem__), st.sampled_from(["client", "owner"]))
def test_any_message_of_good_form(parties: Sessions, message: Any, role: str) -> None:
    assume(message["type"] != "quit")
    sent(parties, role, "causal" if role == "client" else "", message, alike=False)


@pytest.fixture(scope="module")
def offer(tmp_path_factory: pytest.TempPathFactory) -> msg.Offer:
    config = PlainModel(tiny.llama(tmp_path_factory.mktemp("offered"), num_hidden_layers=1)).config
    return msg.Offer(msg.Card("offered"), config, tensor_specs(config), [bytes(32)], True, bytes(16))


@CALM
@given(data=st.data())
def test_offers_that_almost_make_sense(parties: Sessions, offer: msg.Offer, data: st.DataObject) -> None:
    sent(parties, "owner", "", data.draw(spoiled(offer)), alike=False)


@CALM
@given(spoiled(msg.Prepare(bytes(16), msg.Generate(msg.Input([3], []), 2))))
def test_orders_to_prepare_that_almost_make_sense(parties: Sessions, message: Any) -> None:
    sent(parties, "client", "causal", message)


@CALM
@given(spoiled(msg.Pace(True, msg.Input([1], [bytes(32)]))))
def test_words_between_two_tokens(parties: Sessions, message: Any) -> None:
    with parties.session() as session, contextlib.suppress(PumaError):
        assert session.open("causal")
        for rank, link in enumerate(session.links):
            link.set_timeout(0.3)
            for each in (msgspec.to_builtins(CHOSEN, builtin_types=(bytes,)), message):
                said = fitted(each, rank)
                link.send_control(msgspec.msgpack.encode(said))
                for size in payloads(said, rank):
                    link.send(bytes(size))
        for link in session.links * 2:
            msg.decode_reply(link.recv_control())
    named(parties)


def test_every_kind_of_request_is_understood_or_refused_here() -> None:
    """Those that a guest may not send are refused by name, and so is what only parties say to each other."""
    assert {kind.__name__ for kinds in MAY.values() for kind in kinds} <= set(KINDS)
    assert msg.Same not in MAY["client"] + MAY["owner"]
    with pytest.raises(ProtocolError):
        msg.decode_request(msgspec.msgpack.encode({"type": "same", "sha256": b""}))
