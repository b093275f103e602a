"""Receipts as three honest parties would sign them, and the same with something changed and signed again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from puma.client.evidence.authority import Pinned
from puma.client.evidence.checks import Seen
from puma.client.evidence.receipt import Receipt
from puma.crypto.signing import Signer
from puma.net.chain import Head as ChainHead
from puma.net.chain import Heads
from puma.net.handshake import PROTOCOL
from puma.party.evidence.statements import Notary
from puma.version import VERSION
from puma.wire.receipts import CLIENT, Commitment, Ends, Head, Served, Statement

SIGNERS = [Signer.fresh() for _ in range(3)]
PINNED = Pinned([signer.fingerprint for signer in SIGNERS])
CLUSTER, SESSION, SAID, REQUEST, CARD, SHARING = (bytes([i]) * 32 for i in range(6))
SESSION = SESSION[:16]
SEEDS, WORDS = [b"1" * 32, b"2" * 32], b"w" * 32
PARTS = [Commitment(SEEDS), Commitment(SEEDS[:1], WORDS), Commitment(SEEDS[1:], WORDS)]


def frames(sender: str, receiver: str, place: str = "own") -> Head:
    """What these two say went from one to the other."""
    name = f"{sender} {receiver} {place}".encode().ljust(32, b".")
    return Head(sum(name) % 100 + 1, 0 if place == "company" else sum(name), name)


def statement(rank: int) -> Statement:
    """Of P0, P1 or P2."""
    me, links = f"P{rank}", list[Ends]()
    for place in ("own", "company"):
        for peer in (f"P{other}" for other in range(3) if other != rank):
            links.append(Ends(peer, place, frames(me, peer, place), frames(peer, me, place)))
    links.append(Ends(CLIENT, "own", frames(me, CLIENT), frames(CLIENT, me), frames("words", me)))
    model = Served("tiny", CARD, SHARING, "spline", PARTS[rank])
    return Statement(
        version=VERSION, protocol=PROTOCOL, rank=rank, cluster=CLUSTER, session=SESSION, number=3, kind="generate",
        request=REQUEST, said=SAID, model=model, links=links, began=100.0, ended=101.5,
    )  # fmt: skip


def receipt(change: Callable[[int, Statement], Statement] = lambda _, each: each) -> Receipt:
    """Signed by the three parties, each what `change` makes of its statement."""
    return Receipt(tuple(Notary(SIGNERS[rank], CLUSTER).sign(change(rank, statement(rank))) for rank in range(3)))


def seen() -> Seen:
    """What the client of that request knows."""
    links = {
        rank: Heads(
            ChainHead(*astuple(frames(CLIENT, f"P{rank}"))),
            ChainHead(*astuple(frames(f"P{rank}", CLIENT))),
            ChainHead(*astuple(frames("words", f"P{rank}"))),
            ChainHead(0, 0, bytes(32)),
        )
        for rank in range(3)
    }
    whole = Commitment(SEEDS, WORDS)
    return Seen(CLUSTER, SESSION, 3, REQUEST, ("tiny", CARD, SHARING, "spline"), whole, links)


def astuple(head: Head) -> tuple[int, int, bytes]:
    return head.frames, head.size, head.digest


def changed(who: int, **fields: Any) -> Receipt:
    """One party signs other fields than it should."""
    return receipt(lambda rank, each: msgspec.structs.replace(each, **fields) if rank == who else each)
