"""What a client, the parties and an auditor say of canaries: sessions whose prompts mean nothing and that are opened
afterwards, so that everybody's part in them can be computed again.

Every audited session begins with a commitment. That it is a canary's shows when it is opened, and not before; of a
session that was not committed to as a canary nothing is ever disclosed. This file must not know who opens what.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, TypeVar

import msgspec

from puma.errors import ProtocolError
from puma.wire.fields import Digest, Id, Name

T = TypeVar("T")
PAIRS = ((0, 1), (0, 2), (1, 2))  # of parties, in the order in which their digests and secrets are listed
MOST_BYTES = 12 << 20  # of what a party says


class Sealed(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """An encoded Pledge or Disclosure, the signature over it, the public key (DER) that checks it and, where a CA
    vouches for that key, its certificates (PEM)."""

    payload: Annotated[bytes, msgspec.Meta(max_length=MOST_BYTES)]
    signature: Annotated[bytes, msgspec.Meta(max_length=2048)]
    key: Annotated[bytes, msgspec.Meta(max_length=4096)]
    certificates: Annotated[bytes, msgspec.Meta(max_length=1 << 16)] = b""


class Commit(msgspec.Struct, frozen=True, tag="commit", forbid_unknown_fields=True):
    """Before the first request of a session that may be audited: `sha256` says, to whoever learns its opening, whether
    the session is a canary. From now on it is computed over its own links alone. Answered by Committed."""

    sha256: Digest


class Committed(msgspec.Struct, frozen=True, tag="committed"):
    """A party's signed Pledge."""

    pledge: Sealed


class Reveal(msgspec.Struct, frozen=True, tag="reveal", forbid_unknown_fields=True):
    """This session was a canary: its opening. The model's owner signs, by the key (DER), that what it was computed
    with may be disclosed. Answered by Disclosed; no request comes after it."""

    nonce: Digest
    pairs: Annotated[list[Digest], msgspec.Meta(min_length=3, max_length=3)]  # as all parties have pledged them
    key: Annotated[bytes, msgspec.Meta(max_length=4096)] = b""
    consent: Annotated[bytes, msgspec.Meta(max_length=2048)] = b""


class Disclosed(msgspec.Struct, frozen=True, tag="disclosed"):
    """A party's signed Disclosure."""

    disclosure: Sealed


class Pledge(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Before anything is computed: the commitment that a party was told, and digests of the secrets that it shares with
    the two others, the lower rank first."""

    rank: int
    session: Id
    commitment: Digest
    pairs: Annotated[list[Digest], msgspec.Meta(min_length=2, max_length=2)]


class Disclosure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The secrets themselves, and the marks of all data frames that went over the session's links, by the peer's name,
    as `sent` and `received` (net/chain.py)."""

    rank: int
    session: Id
    commitment: Digest
    secrets: Annotated[list[Digest], msgspec.Meta(min_length=2, max_length=2)]
    trails: dict[Name, dict[Name, bytes]]


_canonical = msgspec.msgpack.Encoder(order="deterministic")
_pledges = msgspec.msgpack.Decoder(Pledge)
_disclosures = msgspec.msgpack.Decoder(Disclosure)


def commitment(nonce: bytes, canary: bool) -> bytes:
    """What is said of a session before it begins.

    Safe: a nonce has 256 bits that nobody else knows, so neither kind can be told from the other or opened as it.
    """
    kind = b"canary" if canary else b"no canary"
    return hashlib.sha256(b"puma/1|" + kind + b"|" + nonce).digest()


def pair_digest(secret: bytes) -> bytes:
    """By which two holders of a pair secret say that they hold the same. Safe: it has 256 bits."""
    return hashlib.sha256(b"puma/1|pair|" + secret).digest()


def consented(sha256: bytes, pairs: list[bytes]) -> bytes:
    """What an owner signs: for this session and no other, whose secrets are fresh."""
    return b"puma/1|consent|" + hashlib.sha256(_canonical.encode([sha256, *pairs])).digest()


def encode(what: Pledge | Disclosure) -> bytes:
    """The one spelling."""
    return _canonical.encode(what)


def pledge_of(payload: bytes) -> Pledge:
    """ProtocolError if it is none."""
    return _decoded(_pledges, payload)


def disclosure_of(payload: bytes) -> Disclosure:
    """ProtocolError if it is none."""
    return _decoded(_disclosures, payload)


def to_be_signed(what: Pledge | Disclosure, payload: bytes) -> bytes:
    """What a party's signature is over: it could be taken for nothing else that a key signs."""
    kind = b"pledge" if isinstance(what, Pledge) else b"disclosure"
    return b"puma/1|" + kind + b"|" + hashlib.sha256(payload).digest()


def _decoded(decoder: msgspec.msgpack.Decoder[T], payload: bytes) -> T:
    try:
        return decoder.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ProtocolError(f"a party's word cannot be read: {error}", "run the same version everywhere") from None
