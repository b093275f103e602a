"""A party's process: meet the peers and the client, then serve the client's requests until it quits, and meanwhile
further sessions of the launcher's threads.

Started by a launcher that writes one JSON line to standard input (who we are, the session, the cookie) and later the
peers' ports. When standard input closes the launcher is gone, and so are we. This file must not know what is asked.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from puma.crypto.prg import PairKey
from puma.crypto.signing import Signer
from puma.errors import HandshakeError, PeerTimeout, PumaError
from puma.kernels.startup import threads, warmup
from puma.mpc.party import Party
from puma.net import Link
from puma.net.audit import NOWHERE, Log
from puma.net.handshake import Identity
from puma.net.tcp import Listener, Met, dial, listen
from puma.party.channels import Channels, Dial, named
from puma.party.dealers import meeting
from puma.party.ending import failed, part
from puma.party.evidence.records import Records
from puma.party.evidence.statements import Evidence, Notary
from puma.party.joint import Place
from puma.party.launched import nursery
from puma.party.rendezvous import Rendezvous
from puma.party.server import Server
from puma.wire.launch import Ports, Start
from puma.wire.limits import SILENCE

T = TypeVar("T")


SWITCH_SECONDS = 0.0005  # a thread that a message wakes waits no longer than this for one that computes
LINKS = 64  # that may wait for a channel
HOUR = 3600.0
PATIENCE = 7 * 24 * 3600.0  # between two words of a client, who may think as long as it likes

Serve = Callable[[Party, Met, Place], Any]  # until the guest leaves

_starts = msgspec.json.Decoder(Start)
_ports = msgspec.json.Decoder(Ports)


def meet(start: Start, fingerprint: str = "") -> tuple[Party, Any, Listener, Dial]:
    """Listen, tell the launcher the port and the key that signs, dial the parties of lower rank, wait for the others
    and the client; how to reach the former again.
    """
    me = Identity("party", start.rank, start.session, start.config, start.cookie)
    listener = listen(start.host)
    peers = meeting.peers(start.rank, start.dealers)
    higher = [rank for rank in peers if rank > start.rank]
    listener.welcome(me, [("client", 0), *(("party", r) for r in higher)], timeout=SILENCE, any_session=True)
    print(listener.address[1], fingerprint, flush=True)
    ports = _told(_ports).ports
    threading.Thread(target=_leave_with_launcher, daemon=True).start()
    met = [dial(start.host, ports[r], me, ("party", r), timeout=SILENCE) for r in peers if r < start.rank]
    met += [listener.accept(60.0) for _ in range(len(higher) + 1)]
    links: dict[int, Link] = {m.rank: m.link for m in met if m.role == "party"}
    keys = {m.rank: PairKey(m.secret) for m in met if m.role == "party"}
    client = next(m.link for m in met if m.role == "client")
    client.set_timeout(PATIENCE)
    found = meeting.settled(start.rank, links, keys)
    party, client = Party(meeting.place(start.rank), found.links, found.keys), found.heard(client)
    party.approximation = start.approximation

    def again(rank: int, session: bytes, deadline: float, timeout: float, audit: Log | None = None) -> Met:
        there = replace(me, session=session)
        return dial(start.host, ports[rank], there, ("party", rank), deadline, timeout, audit=audit or NOWHERE)

    return party, client, listener, again


def run(start: Start) -> int:
    """Serve; on an error tell everybody why, by name."""
    notary = Notary(Signer.fresh(), start.config)  # a key as old as this process: the launcher alone can know it
    party, client, listener, again = meet(start, notary.signer.fingerprint)
    warmup.compile_kernels()  # the launcher has seen to it that they only need loading
    failure, second = None, start.rank == meeting.SECOND_DEALER
    try:
        evidence = Evidence(notary, start.session, second)
        server = Server(party, client, start.store, owner=True, evidence=evidence)  # who started us owns what it shares

        def guest(own: Party, met: Met, place: Place) -> None:
            mine = Evidence(notary, met.session, second)
            Server(own, met.link, owner=True, library=server.library, place=place, evidence=mine).serve()

        Guests(start, listener, again, guest, notary.records).start()
        server.serve()
    except Exception as error:
        failure = failed(start.rank, error)
    part(failure, client, party.links.values())
    return 1 if failure else 0


def _told(decoder: msgspec.json.Decoder[T]) -> T:
    """The launcher's next line; without a launcher there is nothing to do."""
    line = sys.stdin.readline()
    if not line:
        raise SystemExit(0)
    return decoder.decode(line)


def _leave_with_launcher() -> None:
    while sys.stdin.readline():
        pass
    os._exit(0)


class Guests:
    """Lets in whoever comes to this party's port once the first session has begun; `serve` answers one.

    Threads of the launcher that ask at a time have such sessions, each its own. The first session has links between the
    parties; these have none: what they ask is computed in company, over the channel for which the parties meet when the
    first of them comes.
    """

    def __init__(self, start: Start, listener: Listener, dial: Dial, serve: Serve, records: Records) -> None:
        self._rank, self._approximation, self._listener, self._serve = start.rank, start.approximation, listener, serve
        self._rendezvous = Rendezvous(LINKS)
        self._channels = Channels(start.rank, dial, self._rendezvous, records, dealers=start.dealers)
        self._begun = False

    def start(self) -> None:
        """Let them in from now on."""
        threading.Thread(target=self._accept, name="puma lets guests in", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                met = self._listener.accept(HOUR)
            except (PeerTimeout, HandshakeError):
                continue
            if met.role == "party" and named(met.session):
                self._channels.arrived(met)
            elif met.role == "party":
                met.link.fail("the parties have met")
            else:
                self._begin()
                threading.Thread(target=self._guest, args=(met,), name="puma serves a guest", daemon=True).start()

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            sys.setswitchinterval(SWITCH_SECONDS)
            self._channels.start()

    def _guest(self, met: Met) -> None:
        met.link.set_timeout(PATIENCE)
        party, failure = Party(meeting.place(self._rank), {}, {}), None
        party.approximation = self._approximation
        try:
            self._serve(party, met, Place(self._channels.now, met.session))
        except Exception as error:
            failure = failed(self._rank, error)
        with suppress(PumaError):
            part(failure, met.link, ())


def main() -> int:
    """One party of a local trio, told what it needs by its standard input; the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher ends us
    start = _told(_starts)
    threads.use(start.threads)
    return run(start)


if __name__ == "__main__":
    nursery.begin(main)
