"""One session at a party, from the arrival of its guest to its end, in a thread of its own.

The guest, a client or an owner, has named the session; this party dials those of lower rank and waits for those of
higher rank, all under that name, so links and keys are fresh for every session. This file must not know what is asked.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

from puma.config import PARTIES, Cluster
from puma.crypto.prg import PairKey
from puma.errors import AdmissionError, PumaError
from puma.mpc.party import Party
from puma.net.audit import Log
from puma.net.guard import Guard
from puma.net.handshake import Identity
from puma.net.tcp import Met, dial
from puma.party.channel import Channel
from puma.party.dealers import meeting
from puma.party.ending import failed, part
from puma.party.events import Events
from puma.party.evidence.statements import Evidence, Notary
from puma.party.limits import Limits
from puma.party.metrics import Metrics
from puma.party.rendezvous import MEET_SECONDS, Rendezvous
from puma.party.session_server import SessionServer
from puma.store.encrypted import EncryptedStore
from puma.store.library import Library
from puma.version import VERSION
from puma.wire import messages as msg
from puma.wire.limits import SILENCE

GRACE = 3.0  # for the session's own thread to say why, before the watch ends it


@dataclass(frozen=True)
class PartyContext:
    """What all sessions of a party share."""

    me: Identity
    cluster: Cluster
    guard: Guard
    library: Library
    limits: Limits
    metrics: Metrics
    events: Events
    audit: Log
    rendezvous: Rendezvous
    preprocessing_store: EncryptedStore | None = None  # for what is prepared ahead
    channel: Callable[[], Channel] | None = None  # where requests of all sessions are computed
    notary: Notary | None = None  # who signs receipts

    @property
    def name(self) -> str:
        """The party's name, such as P1."""
        return self.me.name

    @property
    def dealers(self) -> int:
        """How many there are: one, or two that are held against each other."""
        return len(self.cluster.parties) - PARTIES + 1

    def dial(self, rank: int, session: bytes, deadline: float, timeout: float, audit: Log | None = None) -> Met:
        """A link to another party for this session."""
        me = replace(self.me, session=session)
        host, port = self.cluster.parties[rank].host_port
        audit = audit or self.audit
        return dial(host, port, me, ("party", rank), deadline, timeout, self.guard, audit=audit)


class SessionThread:
    """A guest's session. `end` may be called from any thread, and its reason is the one that everybody is told."""

    def __init__(self, context: PartyContext, guest: Met, number: int, done: Callable[[SessionThread], None]) -> None:
        self.guest, self.number = guest, number
        self._context, self._done = context, done
        self._peers: dict[int, Any] = {}
        self._server: SessionServer | None = None
        self._reason: PumaError | None = None
        self._lost_since: float | None = None
        self._taken = False
        self.thread = threading.Thread(target=self._run, name=f"puma session {number}", daemon=True)

    def start(self, refusal: PumaError | None = None, taken: bool = False) -> None:
        """Serve, or tell the guest why not; links that wait for a session whose name is `taken` are somebody else's."""
        self._reason, self._taken = refusal, taken
        self.thread.start()

    @property
    def busy(self) -> bool:
        """Whether a request is being answered."""
        return self._server is not None and self._server.busy

    def finish(self, reason: PumaError) -> None:
        """End when the request that is being answered has been; at once if there is none."""
        if self._server is not None:
            self._server.stopping = True
        if not self.busy:
            self.end(reason)

    def end(self, reason: PumaError) -> None:
        """End now: whoever waits for a link of this session is woken."""
        self._reason = self._reason or reason
        if not self.busy:
            with suppress(PumaError):
                self.guest.link.send_control(msg.encode(failed(self._context.me.rank, self._reason)))
        for link in (*self._peers.values(), self.guest.link):
            link.fail(self._reason.message)

    def watch(self) -> None:
        """Called every second: a session that has lost a link ends, even if nobody happens to use that link."""
        links = [*self._peers.values(), self.guest.link]
        lost = next((link for link in links if link.lost), None)
        if lost is None:
            return
        self._lost_since = self._lost_since or monotonic()
        if monotonic() - self._lost_since > GRACE:
            try:
                lost.check()
            except PumaError as error:
                self.end(error)

    # -- in the session's thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._live()
        finally:
            self._server = None
            self._done(self)

    def _live(self) -> None:
        context, began = self._context, monotonic()
        facts = {"session": self.number, "role": self.guest.role, "name": self.guest.name}
        failure = None
        try:
            context.limits.bound(self.guest.link)
            if self._reason is not None:
                raise self._reason
            context.metrics.add("puma_sessions_total", role=self.guest.role)
            context.events.say("session begins", **facts)
            self._serve()
        except Exception as error:
            failure = failed(context.me.rank, self._reason or error)
        if not self._taken:
            context.rendezvous.close(self.guest.session, failure.message if failure else "this session is over")
        part(failure, self.guest.link, self._peers.values())
        if failure:
            context.metrics.add("puma_sessions_failed_total", error=failure.kind)
            facts |= {"error": failure.kind, "message": failure.message}
        context.events.say("session ends", **facts, seconds=round(monotonic() - began, 3))

    def _serve(self) -> None:
        context, rank = self._context, self._context.me.rank
        keys: dict[int, PairKey] = {}
        for peer in sorted(meeting.peers(rank, context.dealers)):
            met = self._meet(peer)
            self._peers[peer], keys[peer] = met.link, PairKey(met.secret)
        found = meeting.settled(rank, self._peers, keys)
        self.guest = replace(self.guest, link=found.heard(self.guest.link))
        server = SessionServer(
            Party(meeting.place(rank), found.links, found.keys),
            self.guest,
            context.library,
            context.limits,
            context.metrics,
            context.preprocessing_store,
            context.channel,
            Evidence(context.notary, self.guest.session, second=rank == meeting.SECOND_DEALER),
        )
        self._server = server
        if self._reason is not None:
            raise self._reason
        self.guest.link.send_control(msg.encode(msg.Ready(VERSION)))
        server.serve()

    def _meet(self, peer: int) -> Met:
        context, session = self._context, self.guest.session
        if peer < context.me.rank:
            met = context.dial(peer, session, MEET_SECONDS, SILENCE)
        else:
            met = context.rendezvous.take(session, peer, gone=lambda: self.guest.link.lost)
        return met


def refusal(name: str, reason: str, hint: str) -> AdmissionError:
    """Why a session is not served; `name` is the party's."""
    return AdmissionError(f"{name} refuses the session: {reason}", hint)
