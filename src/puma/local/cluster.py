"""Three party processes on this machine, linked over loopback sockets: for trying, not for secrets.

The launcher plays owner and client; the parties are the same program that real deployments run. Leaving the context, an
error or the launcher's death ends all three. It must not know protocols or how a party answers.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import msgspec
from torch import Tensor

from puma import pool
from puma.client import arguments
from puma.client.channel import Judgement, judgement
from puma.client.client import Answer, Client, Encoding
from puma.client.cost import Cost
from puma.client.evidence.authority import Pinned
from puma.client.evidence.receipt import Receipt
from puma.client.evidence.session import Receipts
from puma.client.owner import Progress
from puma.client.public.content import Part
from puma.client.resume import Plan
from puma.client.session import Session
from puma.config import PARTIES
from puma.errors import AdmissionError, PumaError, UsageError
from puma.kernels import warmup
from puma.local import nursery
from puma.local.nursery import PartyProcess
from puma.local.sessions import Beside, Sessions
from puma.local.sharing import open_up, serve_adapted, serve_open, share
from puma.models.config import Config
from puma.net import Link
from puma.net.handshake import Identity
from puma.net.tcp import dial
from puma.nn.paper import PROFILES, SPLINE
from puma.reference.plain_model import PlainModel
from puma.reference.planning import Settings
from puma.store import folders
from puma.store.models import content_name, owner_key
from puma.store.prepared_requests import PreparedRequest, PreparedRequests
from puma.wire.launch import Ports, Start
from puma.wire.limits import SILENCE
from puma.wire.messages import Provenance

START_SECONDS = 120.0
PARTY = ("-m", "puma.party.launched.process")
__all__ = ["Answer", "Encoding", "LocalCluster", "Trio"]

Route = Callable[[str, str, int], int]  # who dials ("P2", "client"), whom ("P0"), the port; gives the port to dial


class Trio:
    """The three processes and a session with them; in folders below `store`, each keeps models and preprocessing.

    `route` leads links through somebody else's ports, such as a slow network's; `program` is what Python runs as a
    party. Both are for measuring. `approximation` says which functions they compute, one of nn.paper.PROFILES; parties
    and client have agreed on it once the handshake is done. `threads` are those of each party, a third of this
    machine's cores unless given.
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
    ) -> None:
        self.approximation = arguments.one_of(approximation, "approximation", [*PROFILES])
        self.threads = pool.share(PARTIES) if threads is None else arguments.count(threads, "threads", 1, pool.MOST)
        arguments.callback(progress, "progress")
        where = None if store is None else Path(arguments.path_like(store, "store")).absolute()
        self.store = where and folders.private_folder(where)
        self._program, self._route = program, route or _straight
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
        progress("starting the parties", 0, 3)
        nursery.load(self._program)
        if not warmup.state().ready:
            progress("compiling the kernels, for the first use", 0, 1)
            warmup.compile_kernels()
        session, cookie = os.urandom(16), os.urandom(32)
        digest = hashlib.sha256(f"puma local trio {self.approximation}".encode()).digest()
        for rank in range(PARTIES):
            self._processes.append(nursery.party(self._program))
            folder = str(self.store / f"p{rank}") if self.store else ""
            start = Start(rank, session, digest, cookie, folder, self.approximation, self.threads)
            _tell(self._processes[rank], start)
        ports = [self._port(rank) for rank in range(3)]
        for rank, process in enumerate(self._processes):
            _tell(process, Ports([self._route(f"P{rank}", f"P{k}", port) for k, port in enumerate(ports[:rank])]))
        self._identity, self._ports = Identity("client", 0, session, digest, cookie), ports
        for rank in range(3):
            self._links.append(self._dial(rank, self._identity))
            progress("starting the parties", rank + 1, 3)

    def _dial(self, rank: int, me: Identity) -> Link:
        port = self._route("client", f"P{rank}", self._ports[rank])
        return dial("127.0.0.1", port, me, ("party", rank), START_SECONDS, SILENCE).link

    def another(self) -> Session:
        """One more session with the same parties, whose requests are computed together with those of others like it. It
        prepares nothing ahead."""
        assert self._identity is not None
        me = replace(self._identity, session=os.urandom(16))
        links = [self._dial(rank, me) for rank in range(3)]
        self._links += links
        return self._session(me, links)

    def _session(self, me: Identity, links: list[Link]) -> Session:
        """Ours with the parties, under this identity."""
        session = Session(links, self.approximation, owns=True)
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
        """Process ids of P0, P1, P2."""
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


_TRIOS: weakref.WeakSet[Trio] = weakref.WeakSet()
os.register_at_fork(after_in_child=_let_go)


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


class LocalCluster(Client):
    """A model served by three processes on this machine.

    `source` is a folder, a GGUF file, a hub name, a model already opened, or None for the embedded model. In the
    folder `store` the parties keep their shares, so that the next cluster with this model need not share it again,
    and whatever `prepare` computed ahead. `trio` are processes already started, which stay. `reveal_logits` is the
    owner's policy: may clients see logits, to sample from them. `approximation` is "spline", "puma" or "mpcformer";
    spline, or the trio's, unless given. `adapter` is a LoRA adapter's folder or hub name, which is merged. `plan` says
    how number formats are made that follow the model; `variants` is as for `connect`. With `weights` "open" only the
    prompt and what is made of it are hidden: the parties read the model files where they lie, and nothing is shared but
    an adapter, which stays secret. `threads` are those of each party, a third of this machine's cores unless given.
    Raises the errors of puma.errors.
    """

    in_company = False  # its first session's requests are not computed together with others': see `another`

    def __init__(
        self,
        source: str | Path | PlainModel | None = None,
        progress: Progress | None = None,
        trio: Trio | None = None,
        store: str | Path | None = None,
        reveal_logits: bool = False,
        approximation: str | None = None,
        adapter: str | Path | None = None,
        plan: Settings | None = None,
        weights: Literal["hidden", "open"] = "hidden",
        threads: int | None = None,
        variants: str = "lean",
    ) -> None:
        self.variants = arguments.variants(variants)
        if threads is not None:
            arguments.count(threads, "threads", 1, pool.MOST)
            if trio is not None:
                raise UsageError("these parties have their threads already", "pass them to Trio")
        arguments.flag(reveal_logits, "reveal_logits")
        arguments.one_of(weights, "weights", ["hidden", "open"])
        arguments.callback(progress, "progress")
        if not (source is None or isinstance(source, PlainModel)):
            source = arguments.path_like(source, "a model")
        if adapter is not None:
            adapter = arguments.path_like(adapter, "an adapter")
            if isinstance(source, PlainModel):
                raise UsageError("an adapter is merged when a model is opened", "pass it to PlainModel")
        if approximation is not None:
            arguments.one_of(approximation, "approximation", [*PROFILES])
        if trio is not None and not hasattr(trio, "session"):
            raise UsageError(f"parties cannot be of type {type(trio).__name__}", "pass a Trio, or leave it out")
        if trio is not None and approximation not in (None, trio.session.approximation):
            raise UsageError(
                f"these parties compute with {trio.session.approximation}, not {approximation}", "start others"
            )
        if trio is None:
            nursery.load(PARTY)  # meanwhile the model is read
        clear = self.model = source if isinstance(source, PlainModel) else PlainModel(source, adapter)
        chosen = approximation or (trio.session.approximation if trio is not None else SPLINE)
        self.plan = clear.plan(plan, progress, chosen)
        self._own = trio is None
        self.sharing: Plan | None = None  # what was shared, with its seeds; not if the parties held it already
        self._trio = trio or Trio(progress, store, approximation=chosen, threads=threads)
        self._sessions = Sessions(self._trio.session, self._another)
        self._beside: weakref.WeakSet[Session] = weakref.WeakSet()
        try:
            serve = self._opened if weights == "open" else self._shared
            self._name = serve(clear, reveal_logits, progress)
        except BaseException:
            if self._own:
                self._trio.kill()
            raise

    def _shared(self, clear: PlainModel, reveal_logits: bool, progress: Progress | None) -> str:
        """Share the model, unless the parties' store holds it; what it is called."""
        name, params = "", clear.params
        if self._trio.store:
            key = owner_key(self._trio.store / "owner")
            name = content_name(key, self.model.name, self.model.config, params)
        first = self._trio.session
        if not name or not first.open(name) or first.reveals != reveal_logits:
            told = self.plan.provenance
            how = (progress, None, name or "model", reveal_logits, told)
            self.sharing = share(first, self.model.config, params, *how)
        return name or "model"

    def _opened(self, clear: PlainModel, reveal_logits: bool, progress: Progress | None) -> str:
        """Let the parties find the weights where they lie, and share what of an adapter is secret; what the model is
        called."""
        if clear.made_of[1] is not None:
            return serve_adapted(self._trio, clear, progress, reveal_logits, self.plan.provenance)
        told = self.plan.provenance
        return serve_open(self._trio, clear.config, clear.params, clear.name, progress, reveal_logits, told)

    @property
    def session(self) -> Session:
        """The calling thread's session with the three processes: the trio's own as long as one thread asks, and while
        something is prepared, which that one alone uses up."""
        prepared = self._trio.session.prepared_requests
        found = self._trio.session if prepared is not None and prepared.all() else self._sessions.mine()
        found.variants = self.variants
        return found

    def another(self) -> Beside:
        """The same parties and model in one more session, whose requests are computed together with those of others
        like it; PumaError where there can be none."""
        session = self._another()
        if session is None:
            raise AdmissionError("these parties take no further sessions", "ask one request at a time")
        self._beside.add(session)
        session.variants = self.variants
        return Beside(session, self.model)

    def _another(self) -> Session | None:
        """A session for one more thread, if the parties let it in."""
        first, another = self._trio.session, getattr(self._trio, "another", None)
        if another is None:
            return None
        session: Session = another()
        if not session.open(self._name) or session.sharing != first.sharing:
            session.close()
            return None
        session.out_of_range, session.table = first.out_of_range, first.table
        return session

    @property
    def out_of_range(self) -> Judgement:
        """As of all clients; for all threads."""
        return self._sessions.first.out_of_range

    @out_of_range.setter
    def out_of_range(self, value: Judgement) -> None:
        for session in (*self._sessions.all(), *self._beside):
            session.out_of_range = judgement(value)

    @property
    def cost(self) -> Cost:
        """What the last request of this thread cost, or the last of all if this thread has made none."""
        found = (self._sessions.present() or self._sessions.latest).cost
        if found is None:
            raise UsageError("no request has finished yet", "run generate or encode first")
        return found

    @property
    def receipt(self) -> Receipt | None:
        """As of all clients; of this thread's last request, or the last of all if this thread has made none."""
        return (self._sessions.present() or self._sessions.latest).receipt

    def prepare(self, prompt: int, tokens: int | None = None, batch: int = 1) -> PreparedRequest:
        """As of all clients; of the first session, whose parties keep it."""
        self._sessions.first.variants = self.variants
        return self._prepare(self._sessions.first, prompt, tokens, batch)

    @property
    def pids(self) -> list[int]:
        """Process ids of P0, P1, P2."""
        return self._trio.pids

    def close(self) -> None:
        """End the three processes; harmless when repeated."""
        self._sessions.close()
        if self._own:
            self._trio.close()

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if self._own:
            self._trio.__exit__(kind)
