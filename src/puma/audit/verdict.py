"""Who deviated: what the parties disclosed of a canary beside what honest ones would have sent.

A frame depends on what its sender has heard before. P0 hears nothing, so whatever it sent otherwise is its own doing;
of P1 and P2, who swap a frame each round, it is whoever was the first, because the other's frame of the same round was
on its way already. What comes after may be an honest party's answer to what it was sent. This file must not know how
a replay is made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from puma.audit.replay import Expected, announced
from puma.client.canaries.recorded import Script
from puma.net.chain import MARK_BYTES
from puma.wire import canaries
from puma.wire.canaries import PAIRS, Disclosure, Pledge

Heads = Mapping[str, Mapping[str, bytes]]  # by the peer's name, of what a statement says was sent and received


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The party that deviated, or two of which one did; in what, and from which data frame of that link on."""

    parties: list[int]
    what: str
    frame: int | None = None

    def __str__(self) -> str:
        who = " or ".join(f"P{rank}" for rank in self.parties)
        return f"{who}: {self.what}" + ("" if self.frame is None else f", from data frame {self.frame} on")


def judged(
    expected: Expected, pledges: Sequence[Pledge], disclosures: Sequence[Disclosure], scripts: Sequence[Script],
    statements: Sequence[Heads] = (),
) -> list[Finding]:  # fmt: skip
    """Nothing if all three did what they should have. `statements` are the heads of the parties' last receipts."""
    found = _secrets(pledges, disclosures)
    links, parted = _contradicted(expected, disclosures), _parted(expected, disclosures)
    found += links + _blamed(parted)
    if not found:
        found += _answers(expected, scripts) + _receipts(expected, statements)
    return found


def secrets_of(pledges: Sequence[Pledge], disclosures: Sequence[Disclosure]) -> list[bytes]:
    """The secret of each pair, as PAIRS has them: the one that was pledged, whichever of the two discloses it."""
    found: list[bytes] = []
    for low, high in PAIRS:
        wanted = _of_pair(pledges[low].pairs, low, high)
        known = [_of_pair(disclosures[low].secrets, low, high), _of_pair(disclosures[high].secrets, high, low)]
        found.append(next((each for each in known if canaries.pair_digest(each) == wanted), known[0]))
    return found


def _of_pair(listed: Sequence[bytes], mine: int, other: int) -> bytes:
    return listed[[rank for rank in range(3) if rank != mine].index(other)]


def _secrets(pledges: Sequence[Pledge], disclosures: Sequence[Disclosure]) -> list[Finding]:
    """Who disclosed another secret than the one whose digest it gave before the session began."""
    return [
        Finding([pledge.rank], "it disclosed another secret than it had pledged")
        for pledge, disclosure in zip(pledges, disclosures, strict=True)
        if [canaries.pair_digest(secret) for secret in disclosure.secrets] != pledge.pairs
    ]


def _marks(of: Mapping[str, Mapping[str, bytes]], peer: int, direction: str) -> bytes:
    return of.get(f"P{peer}", {}).get(direction, b"")


def _first(one: bytes, other: bytes) -> int | None:
    """From which frame on two trails part."""
    most = max(len(one), len(other))
    ends = range(0, most, MARK_BYTES)
    return next((i for i, at in enumerate(ends) if one[at : at + MARK_BYTES] != other[at : at + MARK_BYTES]), None)


def _parted(expected: Expected, disclosures: Sequence[Disclosure]) -> dict[tuple[int, int], int]:
    """Of each link and direction the first frame that its sender sent otherwise, by its own signed word."""
    found: dict[tuple[int, int], int] = {}
    for i in range(3):
        for j in [rank for rank in range(3) if rank != i]:
            should, did = (_marks(of, j, "sent") for of in (expected.trails[i], disclosures[i].trails))
            if (at := _first(should, did)) is not None:
                found[i, j] = at
    return found


def _contradicted(expected: Expected, disclosures: Sequence[Disclosure]) -> list[Finding]:
    """Where a receiver's word is another than a sender's: the sender alone if its own word is not what it should be."""
    found: list[Finding] = []
    for i in range(3):
        for j in [rank for rank in range(3) if rank != i]:
            said, heard = _marks(disclosures[i].trails, j, "sent"), _marks(disclosures[j].trails, i, "received")
            at, own = _first(said, heard), _first(_marks(expected.trails[i], j, "sent"), said)
            if at is not None and own is None:
                what = f"what P{i} says that it sent to P{j} is not what P{j} says that it received"
                found.append(Finding([i, j], what, at))
    return found


def _blamed(parted: Mapping[tuple[int, int], int]) -> list[Finding]:
    """Of those who sent something else, whoever could not have done so because of another."""
    found = [_sent(0, to, parted[0, to]) for to in (1, 2) if (0, to) in parted]
    dealt = bool(found)
    never = 1 << 62
    first = {rank: parted.get((rank, 3 - rank), never) for rank in (1, 2)}
    for rank in (1, 2):
        if (rank, 0) in parted:
            found.append(_sent(rank, 0, parted[rank, 0]))
        elif first[rank] < never and first[rank] <= first[3 - rank] and not (dealt and rank == 2):
            found.append(_sent(rank, 3 - rank, first[rank]))
    return found


def _sent(rank: int, to: int, at: int) -> Finding:
    return Finding([rank], f"it sent P{to} something else than the protocol says", at)


def _answers(expected: Expected, scripts: Sequence[Script]) -> list[Finding]:
    """Who told the client something else than follows from frames that are all as they should be."""
    found: list[Finding] = []
    for rank, script in enumerate(scripts):
        if announced(script.replies) != expected.headers[rank]:
            found.append(Finding([rank], "it announced another answer than it should have"))
        elif script.outputs != expected.outputs[rank]:
            pairs = zip(script.outputs, expected.outputs[rank], strict=False)
            at = next((i for i, (one, other) in enumerate(pairs) if one != other), None)
            found.append(Finding([rank], "it gave the client other shares of an answer than it should have", at))
    return found


def _receipts(expected: Expected, statements: Sequence[Heads]) -> list[Finding]:
    """Whose receipt says something else than the frames that it sent."""
    return [
        Finding([rank], "its receipt is not of the frames that it sent and received")
        for rank, heads in enumerate(statements)
        if any(dict(heads.get(peer, {})) != each for peer, each in expected.heads[rank].items())
    ]
