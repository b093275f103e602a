"""What a party signs of a request that it has answered, and what it commits to of a model; docs/receipts.md.

A statement holds nothing but what everyone may know, and heads of hash chains, from which nothing follows for whoever
lacks the keys of the links. This file must not know who signs, nor how chains are made.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec

from puma.errors import ProtocolError
from puma.wire.fields import Digest, Id, Name, Seeds, Shape, Size

FORMAT = 1
MOST_BYTES = 1 << 16  # of a statement
CLIENT = "client"  # how statements call the other end of a guest's link
Place = Literal["own", "company"]


class Commitment(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What a party says it holds of a model: a digest of each seed of masks, the lower evaluator's first, and, at an
    evaluator, of all masked words; empty for a model that came without a salt."""

    seeds: Seeds
    words: Id = b""


class Head(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Of a chain (net/chain.py). In company `frames` counts steps, and bytes are not told."""

    frames: Size
    size: Size
    digest: Digest


class Ends(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What went over the links to one peer, P0 to P2 or the client, as the one who states it saw it: over the session's
    own links, or in steps in company. `words` are control frames of the client."""

    peer: Name
    place: Place
    sent: Head
    received: Head
    words: Head | None = None


class Served(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which model was computed, with which functions."""

    name: Name
    card: Digest
    sharing: Id
    approximation: Name
    commitment: Commitment


class Statement(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one party says of one request; `began` and `ended` are seconds since 1970 by its clock."""

    format: int = FORMAT
    version: Name
    protocol: int
    rank: Annotated[int, msgspec.Meta(ge=0, le=2)]
    cluster: Digest
    session: Id
    number: Size
    kind: Name
    request: Digest
    said: Digest
    model: Served | None
    links: Annotated[list[Ends], msgspec.Meta(max_length=16)]
    began: float
    ended: float


class Signed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An encoded statement, the signature over it, the public key (DER) that checks it and, where a CA vouches for that
    key, its certificates (PEM)."""

    statement: Annotated[bytes, msgspec.Meta(max_length=MOST_BYTES)]
    signature: Annotated[bytes, msgspec.Meta(max_length=2048)]
    key: Annotated[bytes, msgspec.Meta(max_length=4096)]
    certificates: Annotated[bytes, msgspec.Meta(max_length=MOST_BYTES)] = b""


_canonical = msgspec.msgpack.Encoder(order="deterministic")
_statements = msgspec.msgpack.Decoder(Statement)


def encode(statement: Statement) -> bytes:
    """The one spelling of a statement."""
    return _canonical.encode(statement)


def decode(payload: bytes) -> Statement:
    """ProtocolError if it is none, or of another format."""
    try:
        found = _statements.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ProtocolError(f"a statement cannot be read: {error}", "it was made by another version of Puma") from None
    if found.format != FORMAT:
        raise ProtocolError(f"a statement has format {found.format}, not {FORMAT}", "read it with the version it names")
    return found


def to_be_signed(statement: bytes) -> bytes:
    """What the signature is over: it could be taken for nothing else that a key signs."""
    return b"puma/1|receipt|" + hashlib.sha256(statement).digest()


def request_digest(public: object) -> bytes:
    """Of what everyone may know of a request (messages.public)."""
    return hashlib.sha256(b"puma/1|request|" + _canonical.encode(public)).digest()


def card_digest(config: object, card: object) -> bytes:
    """Of all that is said of a model."""
    return hashlib.sha256(b"puma/1|card|" + _canonical.encode([config, card])).digest()


def company(session: bytes) -> bytes:
    """The first line over the steps of a session; each step of a link and direction makes the next."""
    return hashlib.sha256(b"puma/1|company|" + session).digest()


def after(line: bytes, number: int, head: bytes) -> bytes:
    """The line over one more step, by its number and the head of its chain."""
    return hashlib.sha256(line + number.to_bytes(8, "little") + head).digest()


def committed_seed(sharing: bytes, evaluator: int, seed: bytes) -> bytes:
    """Safe: a seed has 256 bits, so nothing about it or its masks follows from this."""
    return hashlib.sha256(f"puma/1|seed {evaluator}|".encode() + sharing + seed).digest()


def committed_words(
    salt: bytes, sharing: bytes, tensors: Iterable[tuple[str, Shape, int, int, bytes]], alias: Mapping[str, str]
) -> bytes:
    """Of all masked words: of each tensor its name, shape, ring, fraction bits and the SHA-256 of its words; nothing
    without a salt.

    Safe: the salt is the evaluators' and the owner's. The dealer, who knows the masks, could else try known weights.
    """
    if not salt:
        return b""
    return hmac.digest(salt, sharing + _canonical.encode([[*map(list, tensors)], dict(alias)]), "sha256")


def joined(commitments: Sequence[Commitment]) -> Commitment | None:
    """All that the three parties commit to together, from what each says in the order of their ranks; None if two of
    them differ about what both hold."""
    if [len(each.seeds) for each in commitments] != [2, 1, 1] or commitments[0].words:
        return None
    dealer, first, second = commitments
    alike = dealer.seeds == [*first.seeds, *second.seeds] and first.words == second.words
    return Commitment(dealer.seeds, first.words) if alike else None


def commitment_digest(all_three: Commitment) -> bytes:
    """The commitment of a model in 32 bytes; empty for one that came without a salt: nothing holds its words."""
    if not all_three.words:
        return b""
    return hashlib.sha256(b"puma/1|commitment|" + b"".join(all_three.seeds) + all_three.words).digest()
