"""A party's daemon: one process that lets clients and owners in, and serves each session in a thread.

It knows who may come in how often, when to stop, and what to tell operators; it must not know what a session asks.
"""

from __future__ import annotations

import ctypes
import itertools
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

from puma import pool
from puma.config import Cluster
from puma.crypto import identity
from puma.crypto.signing import Signer
from puma.errors import AdmissionError, ConfigError, HandshakeError, PeerTimeout, PumaError
from puma.kernels.startup import threads, warmup
from puma.net.audit import Audit
from puma.net.guard import PLAIN, Guard, insecure, is_loopback
from puma.net.handshake import NO_COOKIE, SESSION_BYTES, Identity, Role
from puma.net.tcp import Met, listen
from puma.net.tls import Tls
from puma.party.channels import Channels, named
from puma.party.dealers import meeting
from puma.party.events import Events
from puma.party.evidence.statements import Notary
from puma.party.limits import Limits, key_of
from puma.party.metrics import Metrics, labelled
from puma.party.peers import WATCH, Peers
from puma.party.rendezvous import Rendezvous, room
from puma.party.session_thread import PartyContext, SessionThread, refusal
from puma.store.encrypted import EncryptedStore
from puma.store.library import Library
from puma.version import VERSION
from puma.wire.limits import SILENCE

EVERY = 1.0  # seconds between two looks at everything
DRAIN_SECONDS = 30.0
PATIENCE = 2.0  # seconds in which a place may become free: who has just left may still be counted
SWITCH_SECONDS = 0.0005  # a thread that a message wakes waits no longer than this for one that computes
# glibc's mallopt: freed memory is kept for the next message, as in a local trio, and given back when a session ends.
HEAP = {-3: 32 << 20, -1: 1 << 30, -2: 64 << 20}
_libc = ctypes.CDLL(None)


@dataclass(frozen=True)
class Settings:
    """How a party runs; None leaves to the cluster file what it decides."""

    key: Path
    cluster: Cluster
    store: Path
    listen: tuple[str, int] | None = None
    limits: Limits | None = None  # those of the cluster file
    audit: Path | None = None
    plain: bool = False
    threads: int | None = None  # this machine's cores, divided by the parties at this one's address
    given: Sequence[Path] = ()  # checkpoints of models with public weights


class Daemon:
    """One party. `run` returns when `stop` was called and the last session has ended."""

    def __init__(self, settings: Settings, events: Events | None = None) -> None:
        cluster = settings.cluster
        self._guard, rank = _who(settings)
        notary = Notary(Signer.of(settings.key), cluster.digest)
        me = Identity("party", rank, bytes(SESSION_BYTES), cluster.digest, NO_COOKIE)
        limits = settings.limits or Limits.within(cluster.policy, None, None)
        self.metrics = Metrics()
        # The library first: it sees to it that the folder is this party's, and nobody else's meanwhile.
        known = cluster.known_by(cluster.parties[rank])
        library = Library(settings.store, meeting.place(rank), known, given=settings.given)
        preprocessing_store = EncryptedStore(settings.store, limits.preprocessing)
        audit = Audit(settings.audit or settings.store / "audit.jsonl")
        self.context = PartyContext(
            me, cluster, self._guard, library, limits, self.metrics, events or Events(me.name), audit,
            Rendezvous(room(len(cluster.parties), limits.sessions)),
            preprocessing_store if limits.preprocessing else None, notary=notary,
        )  # fmt: skip
        self.channels = Channels(
            rank, self.context.dial, self.context.rendezvous, notary.records, limits.keeping, self.context.dealers
        )  # fmt: skip
        self.context = replace(self.context, channel=self.channels.now)
        self._listen_on = settings.listen or _default_place(cluster, rank)
        self.threads = settings.threads or pool.share(_on_this_machine(cluster, rank))
        self._sessions: dict[bytes, SessionThread] = {}
        self._waiting: list[tuple[Met, float]] = []  # for a place, until when
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._stopping = False
        self.peers = Peers(self.context)
        self.metrics.gauges |= {
            "puma_sessions_active": lambda: {"": len(self._sessions)},
            "puma_requests_active": lambda: {"": self.channels.waiting},
            "puma_steps": lambda: {"": self.channels.steps},
            "puma_kept_bytes": lambda: {"": self.channels.kept + limits.aside.size},
            "puma_models": lambda: {"": len(library.models())},
            "puma_preprocessing_bytes": lambda: {"": sum(preprocessing_store.sizes())},
            "puma_peer_up": lambda: {labelled(peer=p): up for p, up in self.peers.reachable().items()},
        }

    @property
    def name(self) -> str:
        """The party's name, such as P1."""
        return self.context.name

    def health(self) -> tuple[bool, dict[str, Any]]:
        """Whether sessions can be served now, and what can be said about it."""
        peers = self.peers.reachable()
        healthy = all(peers.values()) and not self._stopping
        models = [listed.card.name for listed in self.context.library.models()]
        facts = {"party": self.name, "version": VERSION, "healthy": healthy, "peers": peers}
        return healthy, facts | {"stopping": self._stopping, "sessions": len(self._sessions), "models": models}

    def stop(self) -> None:
        """Refuse new sessions, and let requests that are being answered end; safe in a signal's context."""
        self._stopping = True

    def run(self, drain: float = DRAIN_SECONDS) -> None:
        """Serve until stopped, and then for `drain` seconds at most."""
        _settle(self.threads)
        context = self.context
        with listen(*self._listen_on, guard=self._guard, audit=context.audit) as port:
            guests: list[tuple[Role, int | None]] = [("client", None), ("owner", None)]
            known = meeting.peers(context.me.rank, context.dealers)
            peers: list[tuple[Role, int | None]] = [("party", rank) for rank in known if rank > context.me.rank]
            port.welcome(context.me, guests + peers, SILENCE, any_session=True)
            host, number = port.address
            facts = {"host": host, "port": number, "plain": self._plain, "threads": self.threads}
            context.events.say("party starts", version=VERSION, **facts)
            self.peers.start()
            self.channels.start()
            threading.Thread(target=self._open_models, name="puma opens models", daemon=True).start()
            next_look = end = 0.0
            while not (self._stopping and (not self._sessions or monotonic() > end)):
                self._accept(port)
                self._seat()
                if self._stopping and not end:
                    end = monotonic() + drain
                    context.events.say("party stops", sessions=len(self._sessions))
                if monotonic() > next_look:
                    next_look = monotonic() + EVERY
                    self._look()
            self._seat()  # who still waits is told why not
            self._end_all()
        self.channels.close()
        self.peers.close()
        context.library.close()
        context.events.say("party stopped")

    @property
    def _plain(self) -> bool:
        return self._guard is PLAIN

    def _accept(self, port: Any) -> None:
        try:
            met = port.accept(EVERY / 4)
        except PeerTimeout:
            return
        except HandshakeError:  # told to the stranger, and in the audit log
            self.metrics.add("puma_refused_total")
            return
        if met.role != "party":
            if self._full(met) and len(self._waiting) < self.context.limits.sessions:
                self._waiting.append((met, monotonic() + PATIENCE))
            else:
                self._admit(met)
        elif met.session == WATCH:
            self.peers.arrived(met)
        elif named(met.session):
            self.channels.arrived(met)
        else:
            self.context.rendezvous.arrived(met)

    def _seat(self) -> None:
        """Let those in who wait for a place, or refuse them when it is time."""
        waiting, self._waiting = self._waiting, []
        for met, until in waiting:
            if self._full(met) and monotonic() < until and not self._stopping:
                self._waiting.append((met, until))
            else:
                self._admit(met)

    def _full(self, met: Met) -> bool:
        """Whether there is no place, for anybody or for this key."""
        return len(self._sessions) >= self.context.limits.sessions or self._key_is_full(met)

    def _key_is_full(self, met: Met) -> bool:
        key = key_of(met)
        held = sum(key_of(session.guest) == key for session in list(self._sessions.values()))
        return held >= self.context.limits.sessions_by_key

    def _admit(self, met: Met) -> None:
        session = SessionThread(self.context, met, next(self._numbers), self._over)
        with self._lock:
            taken = met.session == WATCH or named(met.session) or met.session in self._sessions
            problem = self._objection(met, taken)
            if problem is None:
                self._sessions[met.session] = session
        session.start(problem, taken)

    def _objection(self, met: Met, taken: bool) -> PumaError | None:
        if self._stopping:
            return refusal(self.name, "it is about to stop", "ask again when it has been started again")
        if taken:
            return refusal(self.name, "another one has this number", "take a fresh number for each session")
        most, hint = self.context.limits, "try again a little later"
        if len(self._sessions) >= most.sessions:
            return refusal(self.name, f"it serves {most.sessions} already, and no more at a time", hint)
        if self._key_is_full(met):
            what = f"it serves {most.sessions_by_key} of {met.name or met.role} already, and no more at a time"
            return refusal(self.name, what, "close one of them, or try again a little later")
        try:
            self.context.limits.check_memory(self.name)
        except AdmissionError as error:
            return error
        return None

    def _over(self, session: SessionThread) -> None:
        with self._lock:
            if self._sessions.get(session.guest.session) is session:
                del self._sessions[session.guest.session]
        with suppress(AttributeError):
            _libc.malloc_trim(0)

    def _look(self) -> None:
        self.context.rendezvous.sweep()
        self.peers.look()
        self.channels.look()
        self.context.limits.aside.sweep()
        for session in self._all():
            session.watch()
            if self._stopping:
                session.finish(refusal(self.name, "it is about to stop", "ask again when it has been started again"))

    def _end_all(self) -> None:
        sessions = self._all()
        for session in sessions:
            session.end(refusal(self.name, "it stops now", "ask again when it has been started again"))
        for session in sessions:
            session.thread.join(2.0)

    def _all(self) -> Sequence[SessionThread]:
        with self._lock:
            return list(self._sessions.values())

    def _open_models(self) -> None:
        """Check what was stored, so that the first session need not wait for it."""
        library = self.context.library
        for listed in library.models():
            try:
                library.open(listed.card.name)
                self.context.events.say("model ready", model=listed.card.name, version=listed.card.version)
            except (PumaError, OSError) as error:
                self.context.events.say("model unusable", model=listed.card.name, message=str(error))


def _who(settings: Settings) -> tuple[Guard, int]:
    """What guards the links, and which of the parties this is; ConfigError if the key is none of theirs."""
    credentials, cluster = identity.load(settings.key), settings.cluster
    tls = Tls(credentials.certificate, credentials.key, cluster)
    rank = next((rank for role, rank in tls.seats if role == "party" and rank is not None), None)
    if rank is None:
        hint = "compare `puma keys show` with `puma cluster show`"
        raise ConfigError(f"{settings.key} is the key of no party in the cluster file", hint)
    if not settings.plain:
        return tls, rank
    insecure(party.host_port[0] for party in cluster.parties)
    return PLAIN, rank


def _default_place(cluster: Cluster, rank: int) -> tuple[str, int]:
    """All addresses of this machine, unless the cluster file has it on the loopback alone."""
    host, port = cluster.parties[rank].host_port
    return (host if is_loopback(host) else "0.0.0.0", port)


def _on_this_machine(cluster: Cluster, rank: int) -> int:
    """How many parties have this one's address."""
    return sum(party.host_port[0] == cluster.parties[rank].host_port[0] for party in cluster.parties)


def _settle(computing: int) -> None:
    """What a process needs that computes for several sessions in threads."""
    threads.use(computing)
    sys.setswitchinterval(SWITCH_SECONDS)
    with suppress(AttributeError):
        for option, value in HEAP.items():
            _libc.mallopt(option, value)
    warmup.compile_kernels()
