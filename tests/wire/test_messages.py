"""Whatever comes as a message is understood or refused by name; nothing else happens."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from puma.errors import ProtocolError
from puma.models.config import Llama
from puma.wire import messages as msg
from puma.wire.beside.kept import Prefix, Recall
from puma.wire.canaries import Sealed

CONFIG = Llama(vocab_size=8, hidden_size=8, intermediate_size=8, layers=1, heads=2)
CARD = msg.Card("m", "1", [2], [msg.File("tokenizer.json", 3, bytes(32))])
SPEC = msg.TensorSpec("w", (2, 3), 48, 18)
REQUESTS = [
    msg.Open("m", "puma"), msg.Generate(msg.Input([1], []), 3, paced=True),
    msg.Encode(msg.Input([1, 2], [bytes(32)], [], [0, 0, 1]), "hidden"), msg.Take(bytes(16)), msg.Quit(),
    msg.SelfTest(), msg.Same(bytes(32)), msg.Holds(b"s", True), msg.Fits(bytes(32), (b"a", b"b")),
    msg.Offer(CARD, CONFIG, [SPEC], [bytes(32)], True, bytes(16)), msg.Checksum(bytes(32)), msg.Publish(), msg.List(),
    msg.Delete("m"), msg.Fetch("f"), msg.Pace(True), Recall(Prefix(bytes(16), 5)),
    msg.Survey(msg.Encode(msg.Input([3], [], quick=("norm",)), "hidden")),
    msg.Pace(True, msg.Input([1, 1], [bytes(32)], padded=True)),
    msg.Commit(bytes(32)), msg.Reveal(bytes(32), [bytes(32)] * 3, b"key", b"signature"),
    msg.Prepare(bytes(16), msg.Generate(msg.Input([1], []), 3)), msg.Generate(msg.Input([1], []), 3, beams=4),
]  # fmt: skip
REPLIES = [
    msg.Committed(Sealed(b"pledge", b"signature", b"key")), msg.Disclosed(Sealed(b"disclosure", b"signature", b"key")),
    msg.Report([msg.Spent("mlp", 0.1, 1, 2, 3)], 1.0, 0.5, 0.1, 9.0), msg.Result((1,), 34, 14), msg.Ready("1"),
    msg.Opened(bytes(16), CONFIG, CARD), msg.Surveyed(("norm",), 0.04, 4e8),
    msg.Taken(""), msg.Failed("StoreError", "no", ""), msg.Held(3, True),
    msg.Listing([msg.Listed(CARD, CONFIG, bytes(16), 5)]),
]  # fmt: skip
DECODERS = (msg.decode_request, msg.decode_reply)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def read(payload: bytes) -> None:
    for decode in DECODERS:
        try:
            decode(payload)
        except ProtocolError as error:
            assert error.hint and len(error.message) < 1000


def test_every_kind_of_message_is_here() -> None:
    for found, union in ((REQUESTS, msg.Request), (REPLIES, msg.Reply)):
        assert {type(message) for message in found} == set(get_args(union))


@pytest.mark.parametrize("message", [*REQUESTS, *REPLIES], ids=lambda m: type(m).__name__)
def test_what_is_said_is_heard(message: msg.Request | msg.Reply) -> None:
    decode = DECODERS[0] if message in REQUESTS else DECODERS[1]
    assert decode(msg.encode(message)) == message


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused(payload: bytes) -> None:
    read(payload)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([msgspec.msgpack.encode(m) for m in [*REQUESTS, *REPLIES]]), st.data())
def test_damage_is_refused_or_harmless(payload: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(payload) - 1))
    read(payload[:at] + data.draw(st.binary(max_size=9)) + payload[at + data.draw(st.integers(0, 9)) :])


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["generate", "offer", "result", "report", "opened", "publish"]), st.dictionaries(
    st.sampled_from(["input", "tokens", "card", "config", "tensors", "seeds", "shape", "bits", "frac", "sharing"]),
    ANYTHING, max_size=6,
))  # fmt: skip
def test_fields_of_other_kinds_are_refused(tag: str, fields: dict[str, object]) -> None:
    read(msgspec.msgpack.encode({"type": tag} | fields))


@pytest.mark.parametrize(
    "payload", [b"\x91" * 100_000, b"\x81\xa1a" * 50_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
)
def test_depth_and_announced_lengths_cost_nothing(payload: bytes) -> None:
    for decode in DECODERS:
        with pytest.raises(ProtocolError):
            decode(payload)
