"""Sessions with three parties that serve strangers, in threads of this process: what daemons do, without sockets."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

from puma.client.connect import ClusterSession
from puma.client.owner import Owner, card_of
from puma.crypto.prg import PairKey, fresh_secret
from puma.mpc.party import Party
from puma.net.memory import pair
from puma.net.tcp import Met
from puma.party.limits import Limits
from puma.party.metrics import Metrics
from puma.party.server import failed, part
from puma.party.session_server import SessionServer
from puma.reference.plain_model import PlainModel
from puma.store.encrypted import EncryptedStore
from puma.store.library import Library

CLUSTER: Any = SimpleNamespace(digest=bytes(32), policy=SimpleNamespace(max_tokens=1 << 20))
Role = Literal["client", "owner"]


class Sessions:
    """Three parties that keep their models below `folder`; `session` lets a guest in."""

    def __init__(self, folder: Path, limits: Limits | None = None, preprocessing: int = 1 << 24) -> None:
        self.folder = folder
        self.limits = [replace(limits or Limits(sessions=8, tokens=200)) for _ in range(3)]  # each counts for itself
        self.libraries = [Library(folder / f"p{rank}", rank) for rank in range(3)]
        self.stores = [EncryptedStore(folder / f"p{rank}", preprocessing) for rank in range(3)]
        self.metrics = [Metrics() for _ in range(3)]
        self.servers: list[SessionServer] = []
        self.failures: list[Any] = []  # of each party of the latest session, None where it ended well

    @contextmanager
    def session(
        self, role: Role = "client", name: str = "alice", link: Callable[[int, Any], Any] | None = None
    ) -> Iterator[ClusterSession]:
        """A session that is open meanwhile; `link` may stand between a party and its guest."""
        secrets = {(0, 1): fresh_secret(), (0, 2): fresh_secret(), (1, 2): fresh_secret()}
        links: list[dict[int, Any]] = [{}, {}, {}]
        for a, b in secrets:
            links[a][b], links[b][a] = pair(f"P{a}", f"P{b}", timeout=20)
        ends = [pair(role, f"P{rank}", timeout=20) for rank in range(3)]
        theirs: list[Any] = [end for _, end in ends]
        self.servers, self.failures = [], ["still there"] * 3
        for rank in range(3):
            keys = {b if a == rank else a: PairKey(s) for (a, b), s in secrets.items() if rank in (a, b)}
            between = link(rank, theirs[rank]) if link else theirs[rank]
            guest = Met(between, role, 0, b"", name, name)
            party = Party(rank, links[rank], keys)
            self.servers.append(
                SessionServer(
                    party, guest, self.libraries[rank], self.limits[rank], self.metrics[rank], self.stores[rank]
                )
            )
        threads = [threading.Thread(target=self._serve, args=(rank,), daemon=True) for rank in range(3)]
        for thread in threads:
            thread.start()
        opened = ClusterSession([mine for mine, _ in ends], CLUSTER)
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

    def _serve(self, rank: int) -> None:
        server, failure = self.servers[rank], None
        try:
            server.serve()
        except Exception as error:
            failure = failed(rank, error)
        self.failures[rank] = failure
        part(failure, server.client, server.party.links.values())

    def share(self, checkpoint: Path, name: str, **card: Any) -> PlainModel:
        """Let the owner upload a checkpoint under this name."""
        clear = PlainModel(checkpoint)
        files = {label: read() for label, read in clear.files.items()}
        with self.session("owner", "olga") as session:
            made = card_of(name, "1", files, clear.eos, **card)
            Owner(session, self.folder / "state").upload(clear.config, clear.params, made, files)
        return clear
