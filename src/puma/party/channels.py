"""Where a party's channel comes from: the parties meet for one when they start, and again whenever it has ended.

P2, or a second dealer where there is one, names it and dials those of lower rank; who is dialled dials likewise, under
the same name. Links and so pair secrets are fresh each time.
This file must not know what a channel computes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from time import monotonic

from puma.crypto.prg import PairKey
from puma.engine.kept import Kept
from puma.errors import PeerLost, PeerTimeout, PumaError
from puma.mpc.party import FIRST, SECOND
from puma.net import Link
from puma.net.audit import Log
from puma.net.endpoint import again, remaining
from puma.net.handshake import SESSION_BYTES
from puma.net.tcp import Met
from puma.party.channel import Channel
from puma.party.dealers import meeting
from puma.party.evidence.records import Records
from puma.party.rendezvous import MEET_SECONDS, Rendezvous
from puma.wire.limits import SILENCE

PREFIX = bytes(7) + b"\x01"  # of the sessions that links of channels name, and no guest's
LINKS, WORDS = b"\x00", b"\x01"  # what a link is for, after it
PAUSE, MOST_PAUSE = 0.2, 2.0  # seconds between two attempts
PATIENCE = 8.0  # that a request waits for a channel: as long as three parties that run need to meet
HINT = "look at the logs of the parties, then ask again"

Dial = Callable[[int, bytes, float, float, Log | None], Met]


def named(session: bytes) -> bool:
    """Whether a link that names this session is for a channel."""
    return session.startswith(PREFIX)


class Channels:
    """The present channel of a party; `dial` reaches parties of lower rank, others' links come to `arrived`. Each keeps
    what it is told to in a `kept` of its own. With two `dealers` the second one takes part."""

    def __init__(
        self, rank: int, dial: Dial, rendezvous: Rendezvous, records: Records | None = None,
        kept: Callable[[], Kept] = Kept, dealers: int = 1,
    ) -> None:  # fmt: skip
        self._rank, self._dial, self._rendezvous, self._records = rank, dial, rendezvous, records
        self._kept, self._dealers = kept, dealers
        self._changed = threading.Condition()
        self._channel: Channel | None = None
        self._meeting: set[bytes] = set()
        self._closed = False
        self._why: PumaError | None = None  # the last one ended, or could not be

    def start(self) -> None:
        """From now on there is a channel whenever all parties can be reached."""
        if self._rank == (meeting.SECOND_DEALER if self._dealers > 1 else SECOND):
            threading.Thread(target=self._keep, name="puma keeps a channel", daemon=True).start()

    def now(self) -> Channel:
        """The channel; raises why there is none, if that lasts."""
        end = monotonic() + PATIENCE
        with self._changed:
            while self._channel is None or self._channel.over is not None:
                if self._closed or not remaining(end):
                    why = self._why or PeerTimeout("the parties have not met to compute together", HINT)
                    raise again(why)
                self._changed.wait(min(PAUSE, remaining(end)))
            return self._channel

    @property
    def waiting(self) -> int:
        """Requests that are computed, or wait for their next step."""
        return self._channel.waiting if self._channel is not None else 0

    @property
    def steps(self) -> int:
        """Steps that the present channel has taken."""
        return self._channel.steps if self._channel is not None else 0

    @property
    def kept(self) -> int:
        """Bytes of memory for requests that later ones may go on from."""
        return self._channel.kept.size if self._channel is not None else 0

    def arrived(self, met: Met) -> None:
        """A link of a channel has come."""
        name = met.session[:-1]
        self._rendezvous.arrived(met)
        with self._changed:
            known = name in self._meeting or self._closed
            self._meeting.add(name)
        if not known:
            threading.Thread(target=self._meet, args=(name,), name="puma meets for a channel", daemon=True).start()

    def look(self) -> None:
        """Called every second: a channel that has lost a link ends."""
        if self._channel is not None:
            self._channel.look()

    def close(self) -> None:
        """End the channel, and begin no other."""
        with self._changed:
            self._closed = True
            channel, self._channel = self._channel, None
            self._changed.notify_all()
        if channel is not None:
            channel.end(PeerLost(f"P{self._rank} stops", HINT))
            channel.join(1.0)

    def _keep(self) -> None:
        pause = PAUSE
        while not self._closed:
            if self._channel is None or self._channel.over is not None:
                name = PREFIX + os.urandom(SESSION_BYTES - len(PREFIX) - 1)
                pause = PAUSE if self._meet(name) else min(2 * pause, MOST_PAUSE)
            with self._changed:
                self._changed.wait(pause)

    def _meet(self, name: bytes) -> bool:
        """Bring about the channel of this name; whether it is there."""
        met: dict[tuple[int, bytes], Met] = {}
        try:
            for peer, kind in self._wanted():
                met[peer, kind] = self._link(peer, name + kind)
            secrets = {peer: PairKey(each.secret) for (peer, kind), each in met.items() if kind == LINKS}
            found = meeting.settled(self._rank, _of(met, LINKS), secrets)
            if found.other is not None:
                found.other.close()  # clients are heard in sessions
        except PumaError as error:
            self._why = error
            for each in met.values():
                each.link.fail(f"P{self._rank} could not meet all parties")
            for kind in (LINKS, WORDS):
                self._rendezvous.close(name + kind, "the parties could not meet")
            return False
        finally:
            with self._changed:
                self._meeting.discard(name)
        place, words = meeting.place(self._rank), _of(met, WORDS)
        self._begin(Channel(place, found.links, words, found.keys, self._records, name, self._kept()))
        return True

    def _begin(self, channel: Channel) -> None:
        with self._changed:
            closed, old = self._closed, self._channel
            if not closed:
                self._channel = channel
                channel.start()
            self._changed.notify_all()
        if closed:
            channel.end(PeerLost(f"P{self._rank} stops", HINT))
        if old is not None:
            old.end(PeerLost("the parties have met anew", HINT))

    def _wanted(self) -> list[tuple[int, bytes]]:
        """Those of lower rank first: they are dialled, and so hear of it."""
        peers = sorted(meeting.peers(self._rank, self._dealers))
        return [(peer, k) for peer in peers for k in (LINKS, WORDS) if k == LINKS or FIRST in (peer, self._rank)]

    def _link(self, peer: int, session: bytes) -> Met:
        if peer < self._rank:
            return self._dial(peer, session, MEET_SECONDS, SILENCE, None)
        return self._rendezvous.take(session, peer, gone=lambda: self._closed)


def _of(met: Mapping[tuple[int, bytes], Met], kind: bytes) -> dict[int, Link]:
    """The links that are for this."""
    return {peer: each.link for (peer, of), each in met.items() if of == kind}
