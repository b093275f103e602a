"""What three honest parties would have sent in a session: the same program in one process, from the same secrets.

All that a party does follows from what its client said, from the shares that it holds, and from its pairs' secrets. So
three servers in threads, with links in memory, send what it would have sent, frame by frame. This file must not know
what the real ones did.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from puma.audit.shared import Shared
from puma.client.canaries.recorded import Script
from puma.client.owner import Owner
from puma.client.public.content import placed
from puma.client.session import Session
from puma.crypto.prg import PairKey, fresh_secret
from puma.errors import FrameError, PumaError
from puma.mpc.party import Party
from puma.net.chain import link_key
from puma.net.endpoint import Buffer
from puma.net.memory import pair
from puma.net.null import NullLink
from puma.party.server import Server
from puma.store import folders
from puma.store.library import InMemory
from puma.store.models import commitment
from puma.wire import messages as msg
from puma.wire.canaries import PAIRS
from puma.wire.receipts import Commitment

SECONDS = 3600.0  # that a party may compute between two frames
HINT = "the session was computed by another version of Puma"

Trails = dict[str, dict[str, bytes]]  # by the peer's name, of what was sent and received


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of P0, P1 and P2: the marks of frames by peer, the heads of the chains that they make, and what goes to the
    client: announcements of results, and their words; what they commit to of the model, if there is one: nothing of one
    whose weights are open."""

    trails: list[Trails]
    heads: list[dict[str, dict[str, bytes]]]
    headers: list[list[bytes]]
    outputs: list[list[bytes]]
    commitments: list[Commitment] = []


class Scripted(NullLink):
    """The client's link in a replay: what it said comes again, and what it hears is written down."""

    def __init__(self, words: Sequence[bytes], frames: Sequence[bytes]) -> None:
        self._words, self._frames = deque(words), deque(frames)
        self.replies: list[bytes] = []
        self.outputs: list[bytes] = []

    def recv_control(self) -> bytes:
        """The client's next word; at the end it leaves."""
        return self._words.popleft() if self._words else msg.encode(msg.Quit())

    def recv(self, size: int) -> memoryview:
        """The client's next words of shares. FrameError if it sent others."""
        if not self._frames or len(self._frames[0]) != size:
            raise FrameError("the client did not send what this request takes", HINT)
        return memoryview(bytearray(self._frames.popleft()))

    def send_control(self, payload: Buffer) -> None:
        """A reply."""
        self.replies.append(bytes(payload))

    def send(self, *buffers: Buffer) -> None:
        """Words of an answer."""
        self.outputs.append(b"".join(bytes(memoryview(buffer)) for buffer in buffers))


def replayed(
    shared: Shared | None, opened: msg.Open | None, scripts: Sequence[Script], secrets: Sequence[bytes]
) -> Expected:
    """The session with these secrets of the pairs, as PAIRS has them, in which the client said this to P0, P1 and P2
    after it had opened a model, or none. Raises what a party raises that is asked so."""
    libraries = [InMemory(rank) for rank in range(3)] if shared is None else uploaded(shared)
    first = [] if opened is None else [msg.encode(opened)]
    clients = [Scripted([*first, *script.words], script.frames) for script in scripts]
    parties = _trio(secrets)
    for party in parties:
        if opened is not None:
            party.approximation = opened.approximation
        for link in party.links.values():
            link.chain("session")
    servers = [
        Server(p, client, owner=True, library=library)
        for p, client, library in zip(parties, clients, libraries, strict=True)
    ]
    with _serving(servers):
        pass
    return Expected(
        [{f"P{peer}": link.trails for peer, link in party.links.items()} for party in parties],
        [{f"P{peer}": _heads(link) for peer, link in party.links.items()} for party in parties],
        [announced(client.replies) for client in clients],
        [client.outputs for client in clients],
        [] if shared is None else [_commitment(library, shared, rank) for rank, library in enumerate(libraries)],
    )


def _commitment(library: InMemory, shared: Shared, rank: int) -> Commitment:
    model = library.open(shared.plan.card.name)
    assert model is not None  # that was uploaded a moment ago
    return commitment(model.manifest, rank) or Commitment([])


def announced(replies: Sequence[bytes]) -> list[bytes]:
    """Of what a party said to a client the announcements of results."""
    return [reply for reply in replies if isinstance(msg.decode_reply(reply), msg.Result)]


def uploaded(shared: Shared) -> list[InMemory]:
    """What each party holds of a model: its owner uploads it once more, under the same seeds, or opens it up again."""
    ends = [pair("owner", f"P{rank}", timeout=SECONDS) for rank in range(3)]
    libraries = [InMemory(rank) for rank in range(3)]
    parties = _trio([fresh_secret() for _ in PAIRS])
    servers = [
        Server(p, end, owner=True, library=library)
        for p, (_, end), library in zip(parties, ends, libraries, strict=True)
    ]
    with _serving(servers):
        session = Session([mine for mine, _ in ends], owns=True)
        try:
            for each in [shared] if shared.base is None else [shared.base, shared]:
                _given(Owner(session), each)
        finally:
            session.close()
    return libraries


def _given(owner: Owner, shared: Shared) -> None:
    card = msgspec.structs.replace(shared.plan.card, files=[])
    plan = msgspec.structs.replace(shared.plan, card=card)
    if not shared.given:
        owner.upload(plan.config, shared.params, plan.card, alias=plan.alias, plan=plan)
        return
    with TemporaryDirectory(prefix="puma-", dir=folders.MEMORY_FOLDER) as folder:
        places = placed(shared.given, Path(folder))
        owner.open_up(plan.config, shared.given, plan.card, places=places, sharing=plan.sharing)


def _trio(secrets: Sequence[bytes]) -> list[Party]:
    """Three parties that are linked in memory."""
    links: list[dict[int, Any]] = [{}, {}, {}]
    keys: list[dict[int, PairKey]] = [{}, {}, {}]
    for (a, b), secret in zip(PAIRS, secrets, strict=True):
        ends = pair(f"P{a}", f"P{b}", timeout=SECONDS)
        links[a][b], links[b][a] = ends
        keys[a][b], keys[b][a] = PairKey(secret), PairKey(secret)
        for end in ends:
            end.chain_key = link_key(secret)
    return [Party(rank, links[rank], keys[rank]) for rank in range(3)]


@contextmanager
def _serving(servers: Sequence[Server]) -> Any:
    """Meanwhile they serve; in the end they have, or the first error is raised."""
    errors: list[BaseException] = []

    def work(server: Server) -> None:
        try:
            server.serve()
        except BaseException as error:
            errors.append(error)
            why = error.message if isinstance(error, PumaError) else str(error)
            for link in (*server.party.links.values(), server.client):
                link.fail(why)

    threads = [
        threading.Thread(target=work, args=(s,), name=f"puma replays P{s.party.rank}", daemon=True) for s in servers
    ]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]


def _heads(link: Any) -> dict[str, bytes]:
    heads = link.heads
    return {"sent": heads.sent.digest, "received": heads.received.digest}
