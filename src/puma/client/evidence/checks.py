"""Whether a receipt holds: its signatures, that the three statements agree, that both ends of every link do, and, where
the client was there, that all of it is what the client has seen.

Statements are compared with each other and with facts; this file must not know links or requests, nor act on an answer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import combinations

from puma.client.evidence.authority import Authority
from puma.client.evidence.receipt import PARTIES, Receipt
from puma.crypto.signing import signed
from puma.errors import ProtocolError, ReceiptError
from puma.net.chain import Heads
from puma.net.handshake import PROTOCOL
from puma.version import VERSION
from puma.wire import receipts
from puma.wire.receipts import CLIENT, Commitment, Ends, Head, Place, Statement

HINT = (
    "one of the parties misbehaves, or runs another version: keep the receipt, and ask the operators before you go on"
)
COMMON: tuple[tuple[str, str], ...] = (  # fields that are the same at all three, and how they are called
    ("cluster", "cluster"),
    ("session", "session"),
    ("number", "place in the session"),
    ("kind", "kind of request"),
    ("request", "request"),
    ("said", "words of the client"),
    ("version", "version of Puma"),
    ("protocol", "protocol"),
)
SERVED = ("name", "card", "sharing", "approximation")  # of the model, likewise
PLACES: tuple[Place, ...] = ("own", "company")
WHERE = {"own": "", "company": " in steps with others"}


@dataclass(frozen=True)
class Seen:
    """What a client knows of a request itself. `links` are the heads of its own links, by rank, where they are hashed;
    `model` name, card, sharing and approximation, and `commitment` what the parties said when it was opened."""

    cluster: bytes
    session: bytes
    number: int
    request: bytes
    model: tuple[str, bytes, bytes, str] | None = None
    commitment: Commitment | None = None
    links: dict[int, Heads] = field(default_factory=dict[int, Heads])


def check(receipt: Receipt, authority: Authority | None) -> None:
    """ReceiptError unless the receipt holds by itself; without an authority whatever keys signed it count."""
    if len(receipt.signed) != PARTIES:
        raise _error(f"the receipt has {len(receipt.signed)} statements, not {PARTIES}")
    try:
        statements = receipt.statements
    except ProtocolError as error:
        raise _error(error.message) from None
    for rank, each in enumerate(statements):
        if each.rank != rank:
            raise _error(f"P{each.rank}'s statement stands in P{rank}'s place")
        _signature(receipt, rank, authority)
    if authority is None and len(set(receipt.fingerprints)) != PARTIES:
        raise _error("one key signed for two parties")
    _agreed(statements)
    _models(statements)
    for rank, each in enumerate(statements):
        _times(rank, each)
    _links(receipt)


def check_seen(receipt: Receipt, seen: Seen) -> None:
    """ReceiptError unless a receipt that holds by itself says what this client has seen."""
    for rank, each in enumerate(receipt.statements):
        facts = (
            ("cluster", each.cluster == seen.cluster),
            ("session", each.session == seen.session),
            ("request", each.request == seen.request),
            ("version of Puma", (each.version, each.protocol) == (VERSION, PROTOCOL)),
            ("model", seen.model is None or (each.model is not None and _served(each) == seen.model)),
        )
        for what, same in facts:
            if not same:
                raise _error(f"P{rank} signed for another {what} than it was asked for")
        if each.number != seen.number:
            what = f"P{rank} signed for report {each.number} of the session where {seen.number} was due"
            raise _error(f"{what}: a receipt was repeated, or one left out")
        _client_links(receipt, rank, seen)
    told = [each.model.commitment for each in receipt.statements if each.model is not None]
    if seen.commitment is not None and receipts.joined(told) != seen.commitment:
        raise _error("the parties computed with other shares of the model than they opened")


def _signature(receipt: Receipt, rank: int, authority: Authority | None) -> None:
    each, statement = receipt.signed[rank], receipt.statements[rank]
    if authority is not None and (why := authority.objection(rank, each, statement.ended)):
        raise _error(f"P{rank}'s statement is not P{rank}'s: {why}")
    if not signed(each.key, each.signature, receipts.to_be_signed(each.statement)):
        raise _error(f"P{rank}'s signature does not hold: its statement was changed")


def _agreed(statements: tuple[Statement, ...]) -> None:
    for name, called in COMMON:
        _same([getattr(each, name) for each in statements], called)


def _models(statements: tuple[Statement, ...]) -> None:
    _same([each.model is None for each in statements], "model")
    models = [each.model for each in statements if each.model is not None]
    if not models:
        return
    for name in SERVED:
        _same([getattr(model, name) for model in models], "model" if name == "name" else f"model's {name}")
    zero, one, two = (model.commitment for model in models)
    if not any(each.seeds or each.words for each in (zero, one, two)):
        return  # public weights: the card has their digest
    if [len(each.seeds) for each in (zero, one, two)] != [2, 1, 1] or zero.words:
        raise _error("a party commits to what is not its part of the model")
    for a, b, alike, what in (
        (0, 1, zero.seeds[0] == one.seeds[0], "masks"),
        (0, 2, zero.seeds[1] == two.seeds[0], "masks"),
        (1, 2, one.words == two.words, "masked words"),
    ):
        if not alike:
            raise _error(f"P{a} and P{b} commit to different {what} of the model: one of them does not hold its part")


def _times(rank: int, statement: Statement) -> None:
    sound = all(math.isfinite(x) and x >= 0 for x in (statement.began, statement.ended))
    if not sound or statement.ended < statement.began:
        raise _error(f"P{rank} names times that make no sense")


def _links(receipt: Receipt) -> None:
    """Both ends of every link between parties."""
    for rank, each in enumerate(receipt.statements):
        named = [(ends.peer, ends.place) for ends in each.links]
        strange = [peer for peer, _ in named if peer not in {CLIENT, *(f"P{r}" for r in range(PARTIES) if r != rank)}]
        if strange or len(set(named)) != len(named):
            raise _error(f"P{rank} names links that there are not")
    for a, b in combinations(range(PARTIES), 2):
        for place in PLACES:
            one, other = receipt.ends(a, f"P{b}", place), receipt.ends(b, f"P{a}", place)
            if one is None and other is None:
                continue
            if one is None or other is None:
                silent, loud = (a, b) if one is None else (b, a)
                raise _error(f"P{silent} says nothing of its link to P{loud}{WHERE[place]}")
            _compared((f"P{a}", one.sent), (f"P{b}", other.received), place)
            _compared((f"P{b}", other.sent), (f"P{a}", one.received), place)


def _client_links(receipt: Receipt, rank: int, seen: Seen) -> None:
    mine = seen.links.get(rank)
    if mine is None:
        return
    theirs: Ends | None = receipt.ends(rank, CLIENT, "own")
    if theirs is None or theirs.words is None or mine.said is None:
        raise _error(f"P{rank} says nothing of its link to the client")
    _compared(("the client", Head(*mine.sent)), (f"P{rank}", theirs.received), "own")
    _compared((f"P{rank}", theirs.sent), ("the client", Head(*mine.received)), "own")
    _compared(("the client", Head(*mine.said)), (f"P{rank}", theirs.words), "own", "control frames")


def _compared(sender: tuple[str, Head], receiver: tuple[str, Head], place: Place, what: str = "data frames") -> None:
    (one, sent), (other, received) = sender, receiver
    if sent == received:
        return
    counted = "steps" if place == "company" else what
    if sent.frames != received.frames:
        how = f"{sent.frames} {counted} and {received.frames}"
    elif sent.size != received.size:
        how = f"{sent.size} bytes and {received.size}"
    else:
        how = f"other {what}"
    wrong = other if one == "the client" else one if other == "the client" else f"{one} or {other}"
    raise _error(
        f"what {one} sent and what {other} received are not the same{WHERE[place]} ({how}): {wrong} says what is not so"
    )


def _same(values: list[object], called: str) -> None:
    """ReceiptError that names who says something else than the two others, if two agree."""
    odd = [rank for rank, value in enumerate(values) if values.count(value) == 1]
    if odd:
        alone = f"P{odd[0]} signed for another {called} than the others"
        raise _error(alone if len(odd) == 1 else f"no two parties signed for the same {called}")


def _served(statement: Statement) -> tuple[str, bytes, bytes, str] | None:
    model = statement.model
    return None if model is None else (model.name, model.card, model.sharing, model.approximation)


def _error(what: str) -> ReceiptError:
    return ReceiptError(what, HINT)
