"""One session's evidence at one party: chains over its links, and a signed statement with each report.

It reads heads of chains and digests, all of which may be published. This file must not know what a request means, nor
how a link hashes.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from puma.crypto.signing import Signer
from puma.engine.company import Outcome
from puma.mpc.party import Party
from puma.net import Link
from puma.net.chain import Head, Heads
from puma.net.handshake import PROTOCOL
from puma.party.canaries.commitment import Commitment
from puma.party.evidence.records import Records
from puma.store.models import Model, commitment
from puma.version import VERSION
from puma.wire import messages as msg
from puma.wire import receipts
from puma.wire.receipts import CLIENT, Ends, Served, Signed, Statement

EMPTY = bytes(32)
LATEST = 4096  # steps of a session that are named to whoever asks later: a session may live for months


@dataclass(frozen=True)
class Notary:
    """What all sessions of a party share: its signature, the digest of its cluster, and what it keeps."""

    signer: Signer
    cluster: bytes
    records: Records = field(default_factory=Records)

    def sign(self, statement: Statement) -> Signed:
        """The statement, signed."""
        payload = receipts.encode(statement)
        signature = self.signer.sign(receipts.to_be_signed(payload))
        return Signed(payload, signature, self.signer.key, self.signer.certificates)


class Evidence:
    """Of one session, from its first data frame on. Without a notary nothing is hashed, and nothing signed; a `second`
    dealer signs no receipts, which are of three parties, and pledges as P0 does."""

    def __init__(self, notary: Notary | None = None, session: bytes = bytes(16), second: bool = False) -> None:
        self._notary, self._session = None if second else notary, session
        self._signer = notary and notary.signer
        self._rank, self._links, self._client = 0, dict[int, Link](), None
        self._opens = self._reports = 0
        self._served: Served | None = None
        self._lines: dict[int, list[bytes]] = {}  # of steps in company: sent to each peer, received from it
        self._steps: deque[tuple[bytes, int]] = deque(maxlen=LATEST)
        self._taken = 0  # steps in all
        self.commitment = Commitment(0, session, {}, {}, None)  # to whether this is a canary

    def watch(self, party: Party, client: Any, owned: bool = False) -> None:
        """Hash what goes over the session's own links from now on; `owned`: its client owns all models here."""
        self._rank, self._links, self._client = party.rank, dict(party.links), client
        self.commitment = Commitment(party.rank, self._session, party.pairs, self._links, self._signer, owned)
        if self._notary is not None:
            for link in self._links.values():
                link.chain("session")

    def opened(self, model: Model, approximation: str) -> None:
        """This model is served from now on; what goes over the client's link belongs to it."""
        if not model.manifest.public:  # else there is nothing that its owner could hide
            self.commitment.served(model.manifest.owner)
        if self._notary is None or self._client is None:
            return
        self._opens += 1
        self._client.chain(f"model {self._opens}", words=True)
        manifest = model.manifest
        card = receipts.card_digest(manifest.config, manifest.card)
        committed = commitment(manifest, self._rank) or receipts.Commitment([])
        self._served = Served(manifest.name, card, manifest.sharing, approximation, committed)

    def took(self, outcome: Outcome) -> None:
        """The session's request took a step in company."""
        if self._notary is None or outcome.frames is None:
            return
        number, heads = outcome.frames.number, outcome.frames.heads
        for peer, each in heads.items():
            lines = self._lines.setdefault(peer, [receipts.company(self._session)] * 2)
            pair = (each.sent.digest, each.received.digest)
            lines[:] = [receipts.after(line, number, head) for line, head in zip(lines, pair, strict=True)]
        self._steps.append((outcome.frames.channel, number))
        self._taken += 1

    def statement(self, request: msg.Request, said: bytes, began: float) -> Signed | None:
        """What this party says of a request that it has answered; None without a notary."""
        self._reports += 1
        if self._notary is None:
            return None
        found = Statement(
            version=VERSION,
            protocol=PROTOCOL,
            rank=self._rank,
            cluster=self._notary.cluster,
            session=self._session,
            number=self._reports,
            kind=type(request).__name__.lower(),
            request=receipts.request_digest(msg.public(request)),
            said=said,
            model=self._served,
            links=self._ends(),
            began=began,
            ended=max(time.time(), began),  # a clock may be set back meanwhile
        )
        signed = self._notary.sign(found)
        trails = {f"P{peer}": link.trails for peer, link in self._links.items()}
        self._notary.records.signed(self._session, signed, trails, [*self._steps])
        return signed

    def _ends(self) -> list[Ends]:
        found: list[Ends] = []
        for peer, link in self._links.items():
            if (heads := link.heads) is not None:
                found.append(Ends(f"P{peer}", "own", told(heads.sent), told(heads.received)))
        for peer, lines in self._lines.items():
            sent, received = (receipts.Head(self._taken, 0, line) for line in lines)
            found.append(Ends(f"P{peer}", "company", sent, received))
        heads: Heads | None = self._client.heads if self._client is not None else None
        if heads is not None and heads.heard is not None:
            found.append(Ends(CLIENT, "own", told(heads.sent), told(heads.received), told(heads.heard)))
        return found


def told(head: Head) -> receipts.Head:
    """A head as statements have it."""
    return receipts.Head(*head)
