"""Who meets whom where a second dealer takes part, and how it comes by the dealer's keys.

It has the rank 3 and computes in P0's place. Each evaluator gives it the key that it shares with P0, so what it says
rests on nothing that P0 said; P0 tells it by digests whether these are its own. The evaluators hold it and P0 for
one peer (wire/twin.py). This file must not know sessions or steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from puma.crypto.prg import SECRET_BYTES, PairKey
from puma.errors import ProtocolError
from puma.mpc.party import DEALER, FIRST, SECOND
from puma.net import Link
from puma.party.dealers.beside import Beside
from puma.wire.canaries import pair_digest
from puma.wire.twin import Digested, Twin

SECOND_DEALER = 3
PARTIES = 3
HINT = "that party misbehaves, or runs another version: do not ask again before you know which"


class Settled(NamedTuple):
    """Links and keys with which a party computes; `other` leads from one dealer to the other, where there are two."""

    links: dict[int, Link]
    keys: dict[int, PairKey]
    other: Link | None = None
    tells: bool = False

    def heard(self, guest: Any) -> Any:
        """The guest's link, of which two dealers compare what they hear."""
        return guest if self.other is None else Beside(guest, self.other, self.tells)


def place(rank: int) -> int:
    """As which of the three parties it computes."""
    return DEALER if rank == SECOND_DEALER else rank


def peers(rank: int, dealers: int) -> list[int]:
    """Whom a party has links to, by rank."""
    return [other for other in range(PARTIES - 1 + dealers) if other != rank]


def settled(rank: int, links: Mapping[int, Link], keys: Mapping[int, PairKey]) -> Settled:
    """What this party computes with, out of what it has met the others with. ProtocolError if an evaluator gave the
    second dealer another key than it has with P0.

    Safe: the second dealer is told by each evaluator the pair key of P0 and that one, and so learns what P0 knows:
    masks. As P0, it must not collude with an evaluator. The evaluators' own key is given to nobody. That the keys
    are P0's is seen before anything is drawn from them: under half of them it would pad two things alike, and P2,
    which hears both, could try what would explain them. The digests are of 256 bits that nobody can guess.
    """
    if rank == SECOND_DEALER:
        told = {peer: PairKey(_secret(peer, links[peer])) for peer in (FIRST, SECOND)}
        _check(told, links[DEALER].recv_control())
        own = {FIRST: links[FIRST], SECOND: cast(Link, Digested(links[SECOND]))}
        return Settled(own, told, links[DEALER])
    if SECOND_DEALER not in links:
        return Settled(dict(links), dict(keys))
    second = links[SECOND_DEALER]
    if rank == DEALER:
        second.send_control(b"".join(pair_digest(keys[peer].secret) for peer in (FIRST, SECOND)))
        return Settled({peer: links[peer] for peer in (FIRST, SECOND)}, _of(keys, FIRST, SECOND), second, tells=True)
    second.send_control(keys[DEALER].secret)
    twin, other = Twin(links[DEALER], second, digests=rank == SECOND), SECOND if rank == FIRST else FIRST
    return Settled({DEALER: cast(Link, twin), other: links[other]}, _of(keys, DEALER, other))


def _of(keys: Mapping[int, PairKey], *peers: int) -> dict[int, PairKey]:
    return {peer: keys[peer] for peer in peers}


def _secret(peer: int, link: Link) -> bytes:
    found = link.recv_control()
    if len(found) != SECRET_BYTES:
        raise ProtocolError(f"P{peer} sent the second dealer no key", "run the same version of Puma everywhere")
    return found


def _check(told: Mapping[int, PairKey], digests: bytes) -> None:
    for place, (peer, key) in enumerate(told.items()):
        mine = pair_digest(key.secret)
        if digests[place * len(mine) : (place + 1) * len(mine)] != mine:
            what = f"P{peer} gave the second dealer another key than the one that P0 says it has with it"
            raise ProtocolError(what, HINT)
