"""Sessions with three parties that serve strangers, in threads of this process: what daemons do, without sockets."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from puma.client.connect import ClusterSession
from puma.client.evidence.session import Receipts
from puma.client.owner import Owner, card_of
from puma.client.public import content
from puma.client.public.table import PublicTable
from puma.client.resume import Plan
from puma.crypto.signing import Signer
from puma.engine.lead import LEADER
from puma.models import in_the_open
from puma.mpc.party import Party
from puma.net.tcp import Met
from puma.party.channel import Channel
from puma.party.dealers.meeting import place, settled
from puma.party.ending import failed, part
from puma.party.evidence.records import Records
from puma.party.evidence.statements import Evidence, Notary
from puma.party.limits import Limits
from puma.party.metrics import Metrics
from puma.party.session_server import SessionServer
from puma.reference.plain_model import PlainModel
from puma.store.encrypted import EncryptedStore
from puma.store.library import Library
from tests.threads import keyed, met, pinned

CLUSTER: Any = SimpleNamespace(digest=bytes(32), policy=SimpleNamespace(max_tokens=1 << 20))
Role = Literal["client", "owner"]


def channels(
    timeout: float = 20, records: Sequence[Records | None] = (None, None, None, None), dealers: int = 1
) -> list[Channel]:
    """All ends of a channel."""
    name = os.urandom(16)
    (links, keys), (words, _) = met(timeout, dealers), met(timeout, dealers)
    made: list[Channel] = []
    for rank in range(2 + dealers):
        found = settled(rank, links[rank], keys[rank])
        said = {peer: link for peer, link in words[rank].items() if LEADER in (peer, rank)}
        made.append(Channel(place(rank), found.links, said, found.keys, records[rank], name))
    for each in made:
        each.start()
    return made


class Sessions:
    """Three parties that keep their models below `folder`; `session` lets a guest in.

    Requests are computed in company, over a `channel` that is made anew once it has ended.
    """

    def __init__(self, folder: Path, limits: Limits | None = None, preprocessing: int = 1 << 24) -> None:
        self.notaries = [Notary(Signer.fresh(), bytes(32)) for _ in range(3)]
        self._records = [notary.records for notary in self.notaries]
        self._channels, self._making = channels(records=self._records), threading.Lock()
        self.folder = folder
        self.limits = [replace(limits or Limits(sessions=8, tokens=200)) for _ in range(3)]  # each counts for itself
        self.libraries = [Library(folder / f"p{rank}", rank) for rank in range(3)]
        self.stores = [EncryptedStore(folder / f"p{rank}", preprocessing) for rank in range(3)]
        self.metrics = [Metrics() for _ in range(3)]
        self.servers: list[SessionServer] = []
        self.plan: Plan | None = None  # of the model that was shared last, with its seeds
        self.failures: list[Any] = []  # of each party of the latest session, None where it ended well

    @contextmanager
    def session(
        self, role: Role = "client", name: str = "alice", link: Callable[[int, Any], Any] | None = None
    ) -> Iterator[ClusterSession]:
        """A session that is open meanwhile; `link` may stand between a party and its guest."""
        links, keys = met()
        session = os.urandom(16)
        ends = [keyed(role, f"P{rank}", timeout=20) for rank in range(3)]
        theirs: list[Any] = [end for _, end in ends]
        self.servers = servers = list[SessionServer]()
        self.failures = ["still there"] * 3
        for rank in range(3):
            between = link(rank, theirs[rank]) if link else theirs[rank]
            guest = Met(between, role, 0, b"", name, name, session)
            party = Party(rank, links[rank], keys[rank])
            kept = self.libraries[rank], self.limits[rank], self.metrics[rank], self.stores[rank]
            evidence = Evidence(self.notaries[rank], session)
            servers.append(SessionServer(party, guest, *kept, lambda rank=rank: self.channel[rank], evidence))
        threads = [threading.Thread(target=self._serve, args=(server,), daemon=True) for server in servers]
        for thread in threads:
            thread.start()
        opened = ClusterSession([mine for mine, _ in ends], CLUSTER)
        opened.receipts = Receipts(session, bytes(32), pinned(self.notaries))
        try:
            yield opened
        finally:
            opened.close()
            for thread in threads:
                thread.join(30)
            assert not any(thread.is_alive() for thread in threads), "a party hangs"

    @contextmanager
    def limited(self, limits: Limits) -> Iterator[None]:
        """Meanwhile the parties serve within these limits."""
        before, self.limits = self.limits, [replace(limits) for _ in range(3)]
        yield
        self.limits = before

    @property
    def channel(self) -> list[Channel]:
        """Of the three parties, the same at all of them."""
        with self._making:
            if any(each.over for each in self._channels):
                self._channels = channels(records=self._records)
            return self._channels

    def _serve(self, server: SessionServer) -> None:
        rank, failure = server.party.rank, None
        try:
            server.serve()
        except Exception as error:
            failure = failed(rank, error)
        self.failures[rank] = failure
        part(failure, server.client, server.party.links.values())

    def share(self, checkpoint: Path, name: str, owner: str = "olga", **card: Any) -> PlainModel:
        """Let an owner, who is known by this fingerprint, upload a checkpoint under this name."""
        clear = PlainModel(checkpoint)
        files = {label: read() for label, read in clear.files.items()}
        with self.session("owner", owner) as session:
            made = card_of(name, "1", files, clear.eos, **card)
            uploading = Owner(session, self.folder / "state")
            uploading.upload(clear.config, clear.params, made, files)
            self.plan = uploading.plan
        return clear

    def open_up(self, checkpoint: Path, name: str, owner: str = "olga") -> PublicTable:
        """Let an owner give weights that everybody may know; the table in which clients look their tokens up."""
        clear = PlainModel(checkpoint)
        config = in_the_open(clear.config)
        found = content.digested(content.parts(config, clear.params), lambda *_: None)
        files = {label: read() for label, read in clear.files.items()}
        card = card_of(name, "1", files, clear.eos, weights=content.weights_of(config, found))
        with self.session("owner", owner) as session:
            Owner(session, self.folder / "state").open_up(config, found, card, files)
        matrix = content.matrix_of(config, found)
        assert matrix is not None
        return PublicTable(matrix)
