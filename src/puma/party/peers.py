"""Whether the other parties can be reached: one quiet link to each, opened again whenever it is lost.

The party of higher rank dials, as for sessions. The links carry nothing but beats, by which it is noticed within ten
seconds that a process is gone or stopped. This file must not know sessions.
"""

from __future__ import annotations

import threading

from puma.errors import PumaError
from puma.net import Link
from puma.net.audit import NOWHERE
from puma.net.handshake import SESSION_BYTES
from puma.net.tcp import Met
from puma.party.dealers import meeting
from puma.party.session_thread import PartyContext

WATCH = bytes(SESSION_BYTES)  # the session that these links name, and no other
DIAL_SECONDS = 5.0
EVERY = 1.0
LIFE = 7 * 24 * 3600.0  # these links are silent by nature


class Peers:
    """The links to the other parties; `look` is called every second or so and dials where one is lacking."""

    def __init__(self, context: PartyContext) -> None:
        self._context = context
        self._peers = sorted(meeting.peers(context.me.rank, context.dealers))
        self._links: dict[int, Link] = {}
        self._known: dict[int, bool] = {}
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._dial, args=(rank,), name=f"puma looks for P{rank}", daemon=True)
            for rank in self._peers
            if rank < context.me.rank
        ]

    def start(self) -> None:
        """Begin to look for the other parties."""
        for thread in self._threads:
            thread.start()

    def arrived(self, met: Met) -> None:
        """A party of higher rank has opened its link."""
        before = self._links.get(met.rank)
        self._links[met.rank] = met.link
        if before is not None:
            before.close()

    def reachable(self) -> dict[str, bool]:
        """Each of the others that this party computes with, by name."""
        return {f"P{rank}": self._alive(rank) for rank in self._peers}

    def look(self) -> None:
        """Say when a party comes or goes."""
        for name, alive in self.reachable().items():
            rank = int(name[1:])
            if self._known.get(rank, False) != alive:
                self._known[rank] = alive
                self._context.events.say("peer reachable" if alive else "peer lost", peer=name)

    def close(self) -> None:
        """Look no more, and close the quiet links."""
        self._over.set()
        for link in list(self._links.values()):
            link.close()

    def _alive(self, rank: int) -> bool:
        link = self._links.get(rank)
        return link is not None and not link.lost

    def _dial(self, rank: int) -> None:
        said = ""
        while not self._over.wait(EVERY):
            if self._alive(rank):
                continue
            try:
                met = self._context.dial(rank, WATCH, DIAL_SECONDS, LIFE, NOWHERE)
                said, self._links[rank] = "", met.link
                if self._over.is_set():
                    met.link.close()
            except PumaError as error:
                if error.message != said:  # once, not every second
                    said = error.message
                    self._context.events.say("peer cannot be reached", peer=f"P{rank}", message=said)
