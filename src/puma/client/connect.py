"""A cluster of three distant parties, as a client or an owner reaches it.

It knows addresses and keys from the cluster file and opens the three links of a session; it must not know what a
request computes.
"""

from __future__ import annotations

import hashlib
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Literal, TypeVar

from puma import config
from puma.client import arguments, seen
from puma.client.canaries.alike import read_whole
from puma.client.canaries.opening import committed
from puma.client.client import Client
from puma.client.evidence.authority import of_cluster
from puma.client.evidence.session import Receipts
from puma.client.model_info import ModelInfo
from puma.client.owner import Progress, listed
from puma.client.public.fetched import fetched
from puma.client.session import Session
from puma.client.tokens.own_files import own_files
from puma.client.turns import whole
from puma.config import Cluster
from puma.crypto import identity
from puma.errors import CheckpointError, PeerLost, ProtocolError, PumaError, StoreError, UsageError
from puma.models.files import generation
from puma.models.files.source import TOKENIZER
from puma.models.reading.wording import FILE
from puma.models.text import tokenizer_of
from puma.net import Link
from puma.net.endpoint import printable
from puma.net.guard import PLAIN, Guard, insecure
from puma.net.handshake import NO_COOKIE, SESSION_BYTES, Identity, mistaken, refusal
from puma.net.tcp import dial
from puma.net.tls import Tls
from puma.nn.paper import PROFILES, SPLINE
from puma.store.prepared_requests import PreparedRequests
from puma.version import VERSION
from puma.wire import messages as msg
from puma.wire.files import received
from puma.wire.limits import MOST_FILE_BYTES, SILENCE
from puma.wire.parameters import spec_bytes
from puma.wire.policy import allow_approximation
from puma.wire.receipts import commitment_digest
from puma.wire.twin import three

T = TypeVar("T")

DIAL_SECONDS = 8.0  # a party that is stopped takes connections and says nothing: heard of within ten seconds
OPEN_SECONDS = 1.8  # one that is not there at all: heard of within three
CAUSE_SECONDS = 1.0  # to hear from the others why a party has ended the session


class ClusterSession(Session):
    """A session with three distant parties; whose role it is decides what they answer."""

    def __init__(self, links: Sequence[Link], cluster: Cluster) -> None:
        super().__init__(links)
        self.cluster = cluster
        self.seen: seen.Found = "same"  # what the open model's files are to what was written down
        weakref.finalize(self, hang_up, list(links), os.getpid())

    def ready(self) -> None:
        """Wait until the parties have met; the first one that refuses says why."""
        found = at_once([lambda link=link: self._reply(link) for link in self.links])
        for reply in found:
            if not isinstance(reply, msg.Ready):
                raise ProtocolError("a party did not begin with its greeting", "run the same version everywhere")
            if reply.version != VERSION:
                what = f"the parties run puma {reply.version}, this is {VERSION}"
                raise ProtocolError(what, "run the same version of Puma everywhere")

    @whole
    def models(self) -> list[msg.Listed]:
        """What all three parties hold alike; sizes are those of all three together."""
        return listed(self)

    def use(
        self, name: str = "", approximation: str = SPLINE, tokenizer: str | Path | None = None,
        record: Path | None = None, accept_changes: bool = False,
    ) -> ModelInfo:  # fmt: skip
        """Open a model at all parties, which must agree about it; the only one there is unless a name is given.

        It will be computed with this approximation; PolicyError unless the model's owner allows that. With a `record`,
        UsageError for files that are not those which were seen before, unless their change is accepted; `tokenizer` is
        the client's own.
        """
        own = None if tokenizer is None else own_files(Path(tokenizer))
        if approximation not in PROFILES:
            raise UsageError(f"there is no approximation {approximation}", f"choose one of {', '.join(PROFILES)}")
        self.approximation = approximation
        if not name:
            names = [listed.card.name for listed in self.models()]
            if len(names) != 1:
                hint = f"choose one of {', '.join(names)}" if names else "its owner runs `puma share` first"
                raise UsageError(f"the cluster serves {len(names)} models", hint)
            name = names[0]
        if not self.open(name):
            hint = "`puma models list` shows which there are; if its owner just replaced it, ask again"
            raise StoreError(f"the three parties do not hold one model {name}", hint)
        assert self.config is not None
        card = self.card or msg.Card(name)
        allow_approximation(card, approximation)
        if record is not None:
            model = f"{self.cluster.digest.hex()}/{card.name}"
            mine = frozenset() if own is None else seen.ALL if own.whole else {TOKENIZER}
            if own and own.whole and FILE not in own.files:  # the owner's decides how texts are put to the model
                mine = {file.name for file in card.files} - {FILE}
            committed = commitment_digest(self.commitment) if self.commitment else b""
            if card.weights is not None:  # that everybody may know: their own digest
                committed = card.weights.sha256
            digests = seen.digests(self.config, card, committed)
            self.seen = seen.check(record, model, digests, accept_changes, mine)
        file = next((file for file in card.files if file.name == TOKENIZER), None)
        words = own.tokenizer if own else self._tokenizer(file)
        self.table = fetched(self.config, card, self.sharing, self._numbers)
        found = ModelInfo(card.name, self.config, words, card.eos)
        found.hides = card.hides
        found.max_tokens = min(self.cluster.policy.max_tokens, card.max_tokens or self.cluster.policy.max_tokens)
        files = {file.name: (lambda file=file: self.fetch(file)) for file in card.files}
        kept = {name: read for name, read in files.items() if name in (FILE, generation.FILE)}
        found.files = kept | own.files if own and own.whole else files
        return found

    def _tokenizer(self, file: msg.File | None) -> Any:
        """The one that its owner sent along."""
        if file is None:
            raise CheckpointError("the model came without its tokenizer.json", "its owner uploads it again, with one")
        return tokenizer_of(self.fetch(file), f"the model's {TOKENIZER}", "upload it again")

    @whole
    def fetch(self, file: msg.File) -> bytes:
        """A file of the open model's card. One party sends it, and all three have agreed on its checksum."""
        if file.size > MOST_FILE_BYTES:
            raise ProtocolError(f"{printable(file.name.encode())} has {file.size} bytes", "ask the model's owner")
        self._begin()
        with self._exchange():
            self.links[0].send_control(msg.encode(msg.Fetch(file.name)))
            self._name_lost()
            content = b"".join(received(self.links[0], file.size))
        self._reported = True
        if hashlib.sha256(content).digest() != file.sha256:
            self._end(f"P0 sent another {printable(file.name.encode())} than all parties agreed on")
            raise ProtocolError(self._why, "P0 misbehaves")
        return content

    @whole
    def _numbers(self, spec: msg.TensorSpec) -> bytes:
        """The numbers of a public tensor that the open model's card names, as the first evaluator holds them."""
        self._begin()
        with self._exchange():
            self.links[1].send_control(msg.encode(msg.Fetch(spec.name)))
            self._name_lost()
            content = b"".join(received(self.links[1], spec_bytes(spec)))
        self._reported = True
        return content

    @contextmanager
    def _exchange(self, sending: bool = False) -> Iterator[None]:
        try:
            with super()._exchange(sending):
                yield
        except PeerLost as error:
            raise self._cause(error) from None

    def _cause(self, error: PumaError) -> PumaError:
        """Who ends a session says why, and the others only who did it: look for the reason at all of them."""
        for link in self.links:
            link.set_timeout(CAUSE_SECONDS)
            end = monotonic() + CAUSE_SECONDS
            try:
                while monotonic() < end or link.lost:
                    self._reply(link)
            except ProtocolError:
                continue
            except PumaError as found:
                return found
        return error


def at_once(calls: Sequence[Callable[[], T]]) -> list[T]:
    """The results of these calls, made in threads of their own; or the first error, at once."""
    results: dict[int, T] = {}
    errors: list[BaseException] = []
    changed = threading.Condition()

    def work(i: int, call: Callable[[], T]) -> None:
        try:
            found = call()
        except BaseException as error:
            with changed:
                errors.append(error)
                changed.notify_all()
            return
        with changed:
            results[i] = found
            changed.notify_all()

    for i, call in enumerate(calls):
        threading.Thread(target=work, args=(i, call), daemon=True).start()
    with changed:
        changed.wait_for(lambda: errors or len(results) == len(calls))
        if errors:
            # One that names the reason is worth more than one that names who was told of it.
            changed.wait_for(lambda: not all(isinstance(e, PeerLost) for e in errors), CAUSE_SECONDS)
            raise next((e for e in errors if not isinstance(e, PeerLost)), errors[0])
        return [results[i] for i in range(len(calls))]


def open_session(
    cluster: str | Path | Cluster, key: str | Path, role: Literal["client", "owner"], plain: bool = False,
    progress: Progress | None = None,
) -> ClusterSession:  # fmt: skip
    """Three links, and three parties that have met. `plain` is for parties started with --insecure on this machine.

    `progress` hears for whom we wait. HandshakeError for a key that this role cannot use or that the parties do not
    know, PeerLost for a party that is not there.
    """
    found = cluster if isinstance(cluster, Cluster) else config.read(cluster)
    guard = _guard(found, key, plain, role)
    me = Identity(role, 0, os.urandom(SESSION_BYTES), found.digest, NO_COOKIE)
    links: list[Link] = []
    over = threading.Event()

    ranks = [party.rank for party in found.parties]
    waiting = [*ranks]

    def say() -> None:
        if progress and waiting:
            progress(
                f"waiting for {' and '.join(f'P{rank}' for rank in waiting)}", len(ranks) - len(waiting), len(ranks)
            )

    def reach(rank: int) -> Any:
        host, port = found.parties[rank].host_port
        link = dial(host, port, me, ("party", rank), DIAL_SECONDS, SILENCE, guard, patience=OPEN_SECONDS).link
        links.append(link)
        waiting.remove(rank)
        say()
        if over.is_set():
            link.fail("another party could not be reached")
        return link

    say()
    try:
        reached = at_once([lambda rank=rank: reach(rank) for rank in ranks])
        session = ClusterSession(reached, found)
        session.ready()
        session.links = three(session.links)
        session.receipts = Receipts(me.session, found.digest, of_cluster(found))
    except BaseException as error:
        over.set()
        for link in links:
            link.fail(f"the {role} gives up: {error}"[:200])
        raise
    return session


def _guard(cluster: Cluster, key: str | Path, plain: bool, role: Literal["client", "owner"]) -> Guard:
    """What guards the links; HandshakeError if the cluster file says that the key is for something else.

    A key that it does not name may be known to the parties all the same: their copies decide.
    """
    credentials = identity.load(key)
    tls = Tls(credentials.certificate, credentials.key, cluster)
    if tls.seats and (role, None) not in tls.seats:
        raise refusal("role", mistaken(tls.seats, role))
    if plain:
        insecure(party.host_port[0] for party in cluster.parties)
        return PLAIN
    return tls


def hang_up(links: Sequence[Link], owner: int) -> None:
    """Close links of the process `owner`, which nobody holds any more; a forked process leaves them alone."""
    for link in links if os.getpid() == owner else ():
        with suppress(PumaError):
            link.close()


class RemoteCluster(Client):
    """A model served by three distant parties, as `connect` gives it."""

    in_company = True  # requests of its session are computed together with those of others

    def __init__(
        self, session: ClusterSession, model: ModelInfo, dial: Callable[[], ClusterSession] | None = None
    ) -> None:  # fmt: skip
        self._session, self.model, self._dial = session, model, dial

    @property
    def session(self) -> Session:
        """The session with the three parties, dialled when it is first asked for."""
        return self._session

    @property
    def seen(self) -> seen.Found:
        """Whether config, tokenizer and chat template are "new" to this client, the "same" as before, or "changed", as
        it accepted."""
        return self._session.seen

    def another(self) -> RemoteCluster:
        """The same model in one more session, for requests beside this one's: AdmissionError where the parties let no
        more in, StoreError if its owner has replaced it meanwhile."""
        if self._dial is None:
            raise UsageError("this cluster does not know how it came to be", "make another by `connect`")
        session, first = self._dial(), self._session
        try:
            session.approximation, session.out_of_range = first.approximation, first.out_of_range
            session.variants, session.plans, session.table = first.variants, first.plans, first.table
            name, how = self.model.name, first.approximation
            opened = read_whole(session.use(name, how)) if first.audited else session.open(name)
            if not opened or session.sharing != first.sharing:
                raise StoreError(f"{self.model.name} has been replaced", "connect anew")
            return RemoteCluster(session, self.model, self._dial)
        except BaseException:
            session.close()
            raise

    @property
    def variants(self) -> str:
        """Which functions take fewer rounds and more words: "lean" none, "quick" what sends little more, "auto" what
        takes less time on the parties' network, or their names (nn.variants)."""
        return self.session.variants

    @variants.setter
    def variants(self, value: str) -> None:
        self.session.variants = arguments.variants(value)

    def close(self) -> None:
        """Tell the parties that the client leaves; harmless when repeated."""
        self._session.close()

    def __enter__(self) -> RemoteCluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(
    cluster: str | Path | Cluster = "cluster.toml", model: str = "", key: str | Path = "client.key", *,
    plain: bool = False, approximation: str = SPLINE, prepared_requests: str | Path | None = None,
    progress: Progress | None = None,
    tokenizer: str | Path | None = None, accept_changes: bool = False, record: str | Path | None = None,
    variants: str | None = None,
    audited: bool = False,
) -> RemoteCluster:  # fmt: skip
    """Ask a model that three distant parties serve: by its name, or the only one there is.

    `cluster` is the file that says who they are, and `key` the client's key that they know. `approximation` says which
    functions they compute, "spline", "puma" or "mpcformer", as far as the model's owner allows, and `variants` which of
    them take fewer rounds and more words: "lean" none, "quick" what sends little more, "auto" as the parties' network
    has it, or their names; auto unless given, and lean in an audited session, which cannot ask how the network is.
    `prepared_requests` is a folder in memory for what `prepare` gives and later requests use up, in this session or
    another. `progress` hears for which parties we wait.

    The model's config, tokenizer and chat template must be those that this client saw before, as it is written down in
    the file `record`, unless it says `accept_changes`. `tokenizer` is its own tokenizer.json instead, or a folder that
    holds one and perhaps a template. An `audited` session begins as canaries do (`puma audit`), so that parties cannot
    tell it from one; it is computed by itself, not in steps with other clients' requests. Raises the errors of
    puma.errors; AdmissionError or PolicyError where the parties refuse, UsageError for files that have changed.
    """
    if not isinstance(cluster, Cluster):
        cluster = arguments.path_like(cluster, "a cluster file")
    if not isinstance(model, str):
        raise UsageError(f"a model cannot be of type {type(model).__name__}", "pass its name")
    arguments.one_of(approximation, "approximation", [*PROFILES])
    if prepared_requests is not None:
        prepared_requests = arguments.path_like(prepared_requests, "a folder of prepared requests")
    key, plain = arguments.path_like(key, "a key"), arguments.flag(plain, "plain")
    arguments.flag(accept_changes, "accept_changes")
    tokenizer = None if tokenizer is None else arguments.path_like(tokenizer, "a tokenizer")
    record = None if record is None else arguments.path_like(record, "a record")
    arguments.callback(progress, "progress")
    audited = arguments.flag(audited, "audited")
    variants = arguments.distant(variants, audited)
    bare = partial(open_session, cluster, key, "client", plain)
    again = partial(committed, bare) if audited else bare
    session = again(progress)
    session.variants = variants
    try:
        session.prepared_requests = PreparedRequests(prepared_requests) if prepared_requests else None
        where = Path(record) if record else seen.state_file()
        found = session.use(model, approximation, tokenizer, where, accept_changes)
        return RemoteCluster(session, read_whole(found) if audited else found, again)
    except BaseException:
        session.close()
        raise
