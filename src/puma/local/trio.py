"""The three party processes on this machine, and a session with them over sockets of its own.

The parties are the same program that real deployments run; an error or the launcher's death ends all three. It must not
know how a party answers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import msgspec
from torch import Tensor

from puma import pool
from puma.client import arguments
from puma.client.evidence.authority import Pinned
from puma.client.evidence.session import Receipts
from puma.client.owner import Progress
from puma.client.public.content import Part
from puma.client.session import Session
from puma.config import MOST_DEALERS, PARTIES
from puma.errors import PumaError
from puma.kernels.startup import warmup
from puma.local import nursery
from puma.local.nursery import PartyProcess
from puma.local.sharing import open_up, share
from puma.models.config import Config
from puma.net import Link, sockets
from puma.net.handshake import Identity
from puma.net.tcp import dial
from puma.nn.paper import PROFILES, SPLINE
from puma.store import folders
from puma.store.prepared_requests import PreparedRequests
from puma.wire.launch import Ports, Start
from puma.wire.limits import SILENCE
from puma.wire.messages import Provenance
from puma.wire.twin import three

START_SECONDS = 120.0
MEET_SECONDS, PATIENCE = 8.0, 1.0  # for parties that have been there; for a port that does not answer
PARTY = ("-m", "puma.party.launched.process")

Route = Callable[[str, str, int], int]  # who dials ("P2", "client"), whom ("P0"), the port; gives the port to dial


def end(processes: list[PartyProcess], links: list[Link], owner: int) -> None:
    """End parties and links of the process `owner`, by which they were started; any other leaves them alone."""
    if os.getpid() != owner:
        return
    for process in processes:
        process.kill()
        process.gone(None)
        for pipe in process.pipes():
            with contextlib.suppress(OSError):
                pipe.close()
    for link in links:
        link.close()


def _let_go() -> None:
    """In a forked process: hold no pipe to a party, so that parties end when the one that started them does."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for trio in list(_TRIOS):
        for process in trio._processes:
            for pipe in process.pipes():
                if not pipe.closed:
                    os.dup2(nothing, pipe.fileno())
    os.close(nothing)


def _silent(what: str, done: int, of: int) -> None:
    """No progress wanted."""


def _straight(dialer: str, listener: str, port: int) -> int:
    """No detour wanted."""
    return port


def _tell(process: PartyProcess, words: msgspec.Struct) -> None:
    try:
        process.stdin.write(msgspec.json.encode(words).decode() + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        raise PumaError("a party process died while starting", "run `puma doctor`") from None


class Trio:
    """The three processes and a session with them; in folders below `store`, each keeps models and preprocessing.

    `route` leads links through others' ports on the loopback, such as a slow network's; `program` is what Python runs
    as a party. Both are for measuring. `approximation` says which functions they compute, one of nn.paper.PROFILES;
    parties and client have agreed on it once the handshake is done. `threads` are those of each party, this machine's
    cores divided by them unless given. With two `dealers` a fourth process computes what P0 does, and nothing that one
    of them says is used before the other has said the same.
    """

    def __init__(
        self,
        progress: Progress | None = None,
        store: str | Path | None = None,
        *,
        route: Route | None = None,
        program: Sequence[str] = PARTY,
        approximation: str = SPLINE,
        threads: int | None = None,
        dealers: int = 1,
    ) -> None:
        self.dealers = arguments.count(dealers, "dealers", 1, MOST_DEALERS)
        self.approximation = arguments.one_of(approximation, "approximation", [*PROFILES])
        self.threads = pool.share(self._count) if threads is None else arguments.count(threads, "threads", 1, pool.MOST)
        arguments.callback(progress, "progress")
        where = None if store is None else Path(arguments.path_like(store, "store")).absolute()
        self.store = where and folders.private_folder(where)
        self._program, self._route = program, route or _straight
        self._host = sockets.local() if route is None else "127.0.0.1"
        self._identity: Identity | None = None
        self._ports: list[int] = []
        self._keys: list[str] = []  # by which the parties sign
        self._processes: list[PartyProcess] = []
        self._links: list[Link] = []
        self._end = weakref.finalize(self, end, self._processes, self._links, os.getpid())
        _TRIOS.add(self)
        try:
            self._start(progress or _silent)
            assert self._identity is not None
            self.session = self._session(self._identity, self._links)
            if self.store:
                self.session.prepared_requests = PreparedRequests(self.store / "client")
        except BaseException:
            self.kill()
            raise

    def _start(self, progress: Progress) -> None:
        count = self._count
        progress("starting the parties", 0, count)
        nursery.load(self._program)
        if not warmup.state().ready:
            progress("compiling the kernels, for the first use", 0, 1)
            warmup.compile_kernels()
        session, cookie = os.urandom(16), os.urandom(32)
        said = f"puma local trio {self.approximation}{' twice' * (self.dealers - 1)}"
        digest = hashlib.sha256(said.encode()).digest()
        for rank in range(count):
            self._processes.append(nursery.party(self._program))
            folder = str(self.store / f"p{rank}") if self.store else ""
            how = self.approximation, self.threads, self.dealers, self._host
            start = Start(rank, session, digest, cookie, folder, *how)
            _tell(self._processes[rank], start)
        ports = [self._port(rank) for rank in range(count)]
        for rank, process in enumerate(self._processes):
            _tell(process, Ports([self._route(f"P{rank}", f"P{k}", port) for k, port in enumerate(ports[:rank])]))
        self._identity, self._ports = Identity("client", 0, session, digest, cookie), ports
        for rank in range(count):
            self._links.append(self._dial(rank, self._identity))
            progress("starting the parties", rank + 1, count)

    @property
    def _count(self) -> int:
        """Of parties, a second dealer among them."""
        return PARTIES - 1 + self.dealers

    def _dial(self, rank: int, me: Identity, seconds: float = START_SECONDS, patience: float | None = None) -> Link:
        port = self._route("client", f"P{rank}", self._ports[rank])
        return dial(self._host, port, me, ("party", rank), seconds, SILENCE, patience=patience).link

    def another(self) -> Session:
        """One more session with the same parties, whose requests are computed together with those of others like it. It
        prepares nothing ahead."""
        assert self._identity is not None
        me = replace(self._identity, session=os.urandom(16))
        # A party that does not listen any more has ended, and whoever waits for this session is to hear of it at once.
        links = list[Link]()
        try:
            for rank in range(self._count):
                links.append(self._dial(rank, me, MEET_SECONDS, PATIENCE))
        except PumaError:
            for link in links:
                link.fail("another party cannot be reached")
            raise
        self._links += links
        return self._session(me, links)

    def _session(self, me: Identity, links: list[Link]) -> Session:
        """Ours with the parties, under this identity."""
        session = Session(three(links), self.approximation, owns=True)
        session.receipts = Receipts(me.session, me.config, Pinned(self._keys, local=True))
        return session

    def share(
        self, config: Config, params: Mapping[str, Tensor], progress: Progress | None = None,
        alias: Mapping[str, str] | None = None, name: str = "model", reveal_logits: bool = False,
    ) -> None:  # fmt: skip
        """Share a model and open it; the parties keep it below the store, or in memory where there is none.

        A parameter in `alias` is not sent: it is another one under one more name. `reveal_logits`: clients may see
        logits, to sample from them.
        """
        share(self.session, config, params, progress, alias, name, reveal_logits)

    def open_up(
        self, config: Config, parts: Sequence[Part], progress: Progress | None = None,
        alias: Mapping[str, str] | None = None, name: str = "model", reveal_logits: bool = False,
        plan: Provenance | None = None,
    ) -> None:  # fmt: skip
        """Open a model whose weights everybody may know: the parties map the files where they lie, once for all three,
        and whatever lies in none is written down once, below the store if there is one."""
        open_up(self.session, config, parts, self.store, progress, alias, name, reveal_logits, plan)

    def _port(self, rank: int) -> int:
        line = self._processes[rank].stdout.readline()
        port, _, key = line.strip().partition(" ")
        if not port.isdigit():
            raise PumaError(f"P{rank} did not start", "run `puma doctor`; PUMA_DEBUG=1 shows the parties' errors")
        self._keys.append(key)
        return int(port)

    @property
    def pids(self) -> list[int]:
        """Process ids of P0, P1, P2 and, where there is one, the second dealer."""
        return [p.pid for p in self._processes]

    def close(self) -> None:
        """End the session; a party that does not leave by itself is killed. In a forked process nothing happens."""
        if not self.session.turns.here:
            return
        self.session.close()
        for process in self._processes:
            process.gone(2.0)
        self.kill()

    def kill(self) -> None:
        """End the processes, however they are; in a forked process nothing happens."""
        self._end()

    def __enter__(self) -> Trio:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.close() if kind is None else self.kill()


_TRIOS: weakref.WeakSet[Trio] = weakref.WeakSet()
os.register_at_fork(after_in_child=_let_go)
