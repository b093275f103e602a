"""A client's commitment to a session, and how it is opened.

The three parties' signed words are kept as they came; that they fit together is seen before anything is asked. This
file must not know what is asked.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from puma.client.canaries import alike
from puma.client.channel import MISBEHAVES, PartyChannel
from puma.client.session import Session
from puma.crypto.prg import fresh_secret
from puma.crypto.signing import Signer, signed
from puma.errors import ProtocolError
from puma.wire import canaries
from puma.wire.canaries import PAIRS, Commit, Committed, Disclosed, Pledge, Reveal, Sealed

S = TypeVar("S", bound=Session)


@dataclass(frozen=True, repr=False)
class Opening:
    """What a client knows of its commitment; `pledges` are the parties' answers, `pairs` the digests that they gave."""

    nonce: bytes
    canary: bool
    sha256: bytes
    pledges: list[Sealed]
    pairs: list[bytes]


def commit(channel: PartyChannel, canary: bool = False) -> Opening:
    """Say, so that nobody can read it, whether this session is a canary; before its first request.

    ProtocolError if the parties do not hold the same secrets in pairs, or do not sign what they say.
    """
    channel.audited = True
    channel.before.append(alike.check)
    nonce = fresh_secret()
    sha256 = canaries.commitment(nonce, canary)
    with channel.turns.whole():
        replies = channel.ask(Committed, lambda _: Commit(sha256))
    pledges = [canaries.pledge_of(reply.pledge.payload) for reply in replies]
    for rank, (reply, pledge) in enumerate(zip(replies, pledges, strict=True)):
        if not _signed(reply.pledge, pledge) or (pledge.rank, pledge.commitment) != (rank, sha256):
            raise ProtocolError(f"P{rank} did not sign the commitment that it was sent", MISBEHAVES)
        if pledge.session != pledges[0].session:
            raise ProtocolError(f"P{rank} names another session than P0", MISBEHAVES)
    return Opening(nonce, canary, sha256, [reply.pledge for reply in replies], paired(pledges))


def committed(dial: Callable[[Any], S], progress: Any = None) -> S:
    """A session that begins as canaries do, whichever of a cluster's it is."""
    session = dial(progress)
    try:
        commit(session)
    except BaseException:
        session.close()
        raise
    return session


def paired(pledges: list[Pledge]) -> list[bytes]:
    """The digests of the pairs' secrets, as PAIRS has them; ProtocolError where two parties do not hold the same."""
    found: list[bytes] = []
    for low, high in PAIRS:
        one = pledges[low].pairs[[r for r in range(3) if r != low].index(high)]
        other = pledges[high].pairs[[r for r in range(3) if r != high].index(low)]
        if one != other:
            raise ProtocolError(f"P{low} and P{high} do not hold the same secret: one of them deviates", MISBEHAVES)
        found.append(one)
    return found


def reveal(channel: PartyChannel, opening: Opening, owner: Signer | None = None) -> list[Sealed]:
    """Open a canary: what each party discloses, signed. `owner` signs that it agrees; one's own parties need none."""
    consent = owner.sign(canaries.consented(opening.sha256, opening.pairs)) if owner else b""
    word = Reveal(opening.nonce, opening.pairs, owner.key if owner else b"", consent)
    with channel.turns.whole():
        return [reply.disclosure for reply in channel.ask(Disclosed, lambda _: word)]


def _signed(found: Sealed, pledge: Pledge) -> bool:
    return signed(found.key, found.signature, canaries.to_be_signed(pledge, found.payload))
