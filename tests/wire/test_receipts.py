"""What is signed and committed to: one spelling, no field that could be left out, nothing that could be guessed."""

from __future__ import annotations

import hashlib

import msgspec
import pytest

from puma.errors import ProtocolError
from puma.wire import messages as msg
from puma.wire import receipts
from puma.wire.receipts import Commitment, Statement

SHARING = b"s" * 16
TENSORS = [("w", (2, 3), 48, 18, b"d" * 32), ("b", (3,), 48, 32, b"e" * 32)]


def statement(**changes: object) -> Statement:
    made = Statement(
        version="1", protocol=2, rank=0, cluster=bytes(32), session=bytes(16), number=1, kind="generate",
        request=bytes(32), said=bytes(32), model=None, links=[], began=1.0, ended=2.0,
    )  # fmt: skip
    return msgspec.structs.replace(made, **changes)


def test_a_statement_is_read_as_it_was_written_and_nothing_else_is() -> None:
    payload = receipts.encode(statement())
    assert receipts.decode(payload) == statement() and receipts.encode(receipts.decode(payload)) == payload
    for wrong in (b"", payload[:-1], payload + b"\0", msgspec.msgpack.encode({"rank": 0})):
        with pytest.raises(ProtocolError, match="cannot be read"):
            receipts.decode(wrong)
    with pytest.raises(ProtocolError, match="format 2"):
        receipts.decode(receipts.encode(statement(format=2)))
    with pytest.raises(ProtocolError):
        receipts.decode(receipts.encode(statement(rank=3)))


def test_what_is_signed_could_be_nothing_else() -> None:
    """Handshakes sign by TLS, and uploads carry bare digests: none of them begins like this."""
    payload = receipts.encode(statement())
    assert receipts.to_be_signed(payload) == b"puma/1|receipt|" + hashlib.sha256(payload).digest()


def test_the_digest_of_a_request_is_that_of_its_public_words() -> None:
    ask = msg.Generate(msg.Input([3], [b"m" * 32, b"n" * 32], [b"c" * 32]), 4)
    bare = msgspec.structs.replace(ask, input=msgspec.structs.replace(ask.input, masks=[], choices=[]))
    digest = receipts.request_digest(msg.public(ask))
    assert digest == receipts.request_digest(bare)
    assert digest != receipts.request_digest(msgspec.structs.replace(bare, tokens=5))


def test_every_part_of_a_model_is_committed_to() -> None:
    salt = b"t" * 32
    whole = receipts.committed_words(salt, SHARING, TENSORS, {"a": "w"})
    others = [
        receipts.committed_words(b"u" * 32, SHARING, TENSORS, {"a": "w"}),
        receipts.committed_words(salt, b"r" * 16, TENSORS, {"a": "w"}),
        receipts.committed_words(salt, SHARING, TENSORS[:1], {"a": "w"}),
        receipts.committed_words(salt, SHARING, TENSORS[::-1], {"a": "w"}),
        receipts.committed_words(salt, SHARING, TENSORS, {"a": "b"}),
    ]
    for i, value in enumerate(("v", (3, 2), 40, 17, b"f" * 32)):
        changed = (*TENSORS[0][:i], value, *TENSORS[0][i + 1 :])
        others.append(receipts.committed_words(salt, SHARING, [changed, TENSORS[1]], {"a": "w"}))  # type: ignore[list-item]
    assert len({whole, *others}) == len(others) + 1
    seeds = {receipts.committed_seed(SHARING, k, s) for k in (1, 2) for s in (b"1" * 32, b"2" * 32)}
    assert len(seeds) == 4


def test_without_a_salt_nothing_is_said_of_the_words() -> None:
    """The dealer knows every mask: by a plain digest it could see which published model this is."""
    assert receipts.committed_words(b"", SHARING, TENSORS, {}) == b""
    assert receipts.commitment_digest(Commitment([b"1" * 32, b"2" * 32])) == b""


def test_three_parts_make_a_commitment_unless_two_contradict() -> None:
    one, two, words = b"1" * 32, b"2" * 32, b"w" * 32
    parts = [Commitment([one, two]), Commitment([one], words), Commitment([two], words)]
    whole = receipts.joined(parts)
    assert whole == Commitment([one, two], words) and len(receipts.commitment_digest(whole)) == 32
    wrong = [
        [Commitment([two, one]), *parts[1:]],
        [Commitment([one]), *parts[1:]],
        [Commitment([one, two], words), *parts[1:]],
        [parts[0], Commitment([one], b"x" * 32), parts[2]],
        [parts[0], Commitment([two], words), parts[2]],
        [parts[0], parts[1], Commitment([one], words)],
        parts[:2],
    ]
    assert all(receipts.joined(each) is None for each in wrong)
