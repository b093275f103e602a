"""Three servers in threads of this process, with fresh keys and memory links: sessions that start in no time."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from puma.client.evidence.authority import Pinned
from puma.client.evidence.session import Receipts
from puma.client.session import Session
from puma.crypto.prg import PairKey, fresh_secret
from puma.crypto.signing import Signer
from puma.errors import PeerLost, PumaError
from puma.local.sharing import open_up, share
from puma.mpc.party import Party
from puma.net.chain import link_key
from puma.net.memory import MemoryLink, pair
from puma.party.channel import Channel
from puma.party.dealers.meeting import SECOND_DEALER, peers, place, settled
from puma.party.evidence.statements import Evidence, Notary
from puma.party.joint import Place
from puma.party.server import Server
from puma.store import folders
from puma.store.prepared_requests import PreparedRequests
from puma.wire import messages as msg
from puma.wire.twin import three


class Threads:
    """What `Trio` is, with threads; the parties' folders lie below `store`."""

    def __init__(
        self, store: Path | None = None, approximation: str = "spline", signed: bool = True, threads: int | None = None,
        dealers: int = 1,
    ) -> None:  # fmt: skip
        self.store, self.pids = store and folders.private_folder(store), [os.getpid()] * 3
        self.dealers, self._count = dealers, 2 + dealers
        links, keys = met(600, dealers)
        ends = [keyed("client", f"P{rank}", timeout=600) for rank in range(self._count)]
        self.session = Session(three([mine for mine, _ in ends]), approximation, owns=True)
        session = os.urandom(16)
        self.notaries = [Notary(Signer.fresh(), bytes(32)) for _ in range(self._count)]
        if signed:
            self.session.receipts = Receipts(session, bytes(32), pinned(self.notaries[:3]))
        if store:
            self.session.prepared_requests = PreparedRequests(store / "client")
        self._approximation, self._channels, self.beside = approximation, list[Channel](), list[Server]()
        self._making = threading.Lock()
        self.servers = []
        for rank in range(self._count):
            folder = str(store / f"p{rank}") if store else ""
            found = settled(rank, links[rank], keys[rank])
            party = Party(place(rank), found.links, found.keys)
            party.approximation = approximation
            evidence = Evidence(self.notaries[rank] if signed else None, session, second=rank == SECOND_DEALER)
            self.servers.append(Server(party, found.heard(ends[rank][1]), folder, owner=True, evidence=evidence))
        self._threads = [threading.Thread(target=serve, args=(server,), daemon=True) for server in self.servers]
        for thread in self._threads:
            thread.start()

    @property
    def channel(self) -> list[Channel]:
        """Of the three, for sessions beside the first."""
        from tests.party.sessions import channels  # which stand on links of this file

        with self._making:
            if not self._channels:
                self._channels = channels(600, dealers=self.dealers)
            return self._channels

    def another(self) -> Session:
        """One more session, whose requests are computed together with those of others like it."""
        ends, name = [pair("client", f"P{rank}", timeout=600) for rank in range(self._count)], os.urandom(16)
        for rank in range(self._count):
            party = Party(place(rank), {}, {})
            party.approximation = self._approximation
            where = Place(lambda rank=rank: self.channel[rank], name)
            library = self.servers[rank].library
            self.beside.append(Server(party, ends[rank][1], owner=True, library=library, place=where))
            self._threads.append(threading.Thread(target=serve, args=(self.beside[-1],), daemon=True))
            self._threads[-1].start()
        return Session(three([mine for mine, _ in ends]), self._approximation, owns=True)

    def lose(self, rank: int, why: str) -> None:
        """One party is gone, for everybody."""
        for server in (self.servers[rank], *self.beside[rank :: self._count]):
            server.client.fail(why)
        if self._channels:
            self._channels[rank].end(PeerLost(why, "start it again"))

    def share(self, *model: Any, **how: Any) -> None:
        share(self.session, *model, **how)

    def open_up(self, config: Any, parts: Any, progress: Any = None, *how: Any, **named: Any) -> None:
        open_up(self.session, config, parts, self.store, progress, *how, **named)

    def close(self) -> None:
        self.session.close()
        for channel in self._channels:
            channel.end(PeerLost("the parties stop", "start others"))
        for server in self.beside:  # as processes that end, which wait for no client
            server.client.close()
        for thread in self._threads:
            thread.join(20)
        assert not any(thread.is_alive() for thread in self._threads), "a party hangs"

    kill = close

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def met(timeout: float = 20, dealers: int = 1) -> tuple[list[dict[int, Any]], list[dict[int, PairKey]]]:
    """Links and keys of parties that have just met."""
    count = 2 + dealers
    links: list[dict[int, Any]] = [{} for _ in range(count)]
    keys: list[dict[int, PairKey]] = [{} for _ in range(count)]
    for a, b in [(low, high) for high in range(count) for low in peers(high, dealers) if low < high]:
        secret = fresh_secret()
        links[a][b], links[b][a] = keyed(f"P{a}", f"P{b}", timeout=timeout, secret=secret)
        keys[a][b], keys[b][a] = PairKey(secret), PairKey(secret)
    return links, keys


def keyed(one: str, other: str, timeout: float, secret: bytes | None = None) -> tuple[MemoryLink, MemoryLink]:
    """A link in memory whose ends have a key for hash chains in common, as a handshake would give them."""
    ends = pair(one, other, timeout=timeout)
    ends[0].chain_key = ends[1].chain_key = link_key(secret or fresh_secret())
    return ends


def pinned(notaries: Sequence[Notary]) -> Pinned:
    """Who signs for P0, P1 and P2."""
    return Pinned([notary.signer.fingerprint for notary in notaries], local=True)


def serve(server: Server) -> None:
    """As a party's process does: on an error everybody is told."""
    try:
        server.serve()
        for link in server.party.links.values():
            link.close()
    except PumaError as error:
        for link in server.party.links.values():
            link.fail(error.message)
        with contextlib.suppress(PumaError):
            server.client.send_control(msg.encode(msg.Failed(type(error).__name__, error.message, error.hint)))
        server.client.close()
