"""Requests of several clients that take steps together at one party, over the same links and keys.

A step is made of whatever requests its number was said for; between two steps clients' words are heeded, and rows leave
or join. What a client is owed, and what it said, stays with its member; of another's it finds nothing. Who asks, who
says which step comes next, and how results reach a client, this file must not know.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from puma import pool
from puma.engine.admission import in_pieces
from puma.engine.engine import Engine
from puma.engine.generation import Turn, gone_on, results
from puma.engine.kept import Kept
from puma.engine.lookahead import Ahead
from puma.engine.rehearsing import step
from puma.engine.request import Request, apart, cut, finished, leave
from puma.errors import PumaError
from puma.mpc.cost import Entry
from puma.mpc.party import Party
from puma.mpc.share import Share
from puma.net.chain import Heads
from puma.wire.messages import Encode, Generate
from puma.wire.steps import Item, Left, Step, following

Served = tuple[bytes, str, tuple[str, ...]]  # a sharing of a model, its functions, and which of them are quick


@dataclass(frozen=True)
class Frames:
    """Heads of the hash chains over all frames of a step, by peer; which channel took it, and its number there."""

    channel: bytes
    number: int
    heads: Mapping[int, Heads]


@dataclass(frozen=True)
class Outcome:
    """What a step gave one member: shares for its client, in the order in which they leave, none where some of its
    prompt is still to be read; its part of the cost.

    `last`: nothing more is owed. `frames` are those of the step, where they are hashed.
    """

    shares: list[Share]
    spent: Mapping[str, Entry]
    cpu_seconds: float
    last: bool
    frames: Frames | None = None


@dataclass(frozen=True)
class Ended:
    """A member takes no more steps: why, unless its client wanted it so."""

    problem: PumaError | None = None


Event = Outcome | Ended


def _nobody(event: Event) -> None:
    """Whoever asked hears nothing yet."""


@dataclass(eq=False)
class Member:
    """A client's request among those of others. `tell` hears what becomes of it, from another thread.

    `grants` are what the client has allowed: results in all, with a digest of all that it had said by then; each step
    but the first heeds one of the `turns`, or goes on as before where there is none. Those that give no result, because
    they read some of a prompt that may be read in `pieces`, do not count. `closed`: no more will be allowed.
    """

    item: Item
    key: str  # whose it is, for fairness
    served: Served
    engine: Engine  # of this party, for what it is served
    requests: list[Request]
    tell: Callable[[Event], None] = _nobody
    grants: list[tuple[int, bytes]] = field(default_factory=list[tuple[int, bytes]])
    turns: dict[int, Turn] = field(default_factory=dict[int, Turn])  # by the step before which they are heeded
    steps: int = 0  # that it has taken
    said: bytes = b""  # the digest with which what its steps are made of was granted last
    closed: bool = False
    pieces: bool = False
    keeps: bytes = b""  # under which name its client is going to look for it

    @classmethod
    def of(cls, item: Item, key: str, served: Served, engine: Engine, request: Request) -> Member:
        """Of a request that has just come."""
        job = request.job
        keeps = job.keep if isinstance(job, Generate) else b""
        return cls(item, key, served, engine, [request], pieces=in_pieces(engine.config, job), keeps=keeps)

    @property
    def granted(self) -> int:
        """Results that its client has allowed."""
        return self.grants[-1][0] if self.grants else 0

    @property
    def latest(self) -> bytes:
        """The digest with which the next result was granted."""
        return next((digest for steps, digest in self.grants if steps > self.steps), b"")

    @property
    def first(self) -> int:
        """Tokens of the prompts with which it comes."""
        return self.requests[0].job.input.tokens

    def fits(self, reads: int) -> bool:
        """Whether its next step can read so many tokens of its prompt."""
        if self.steps:
            return not reads
        unread = self.requests[0].unread or self.first
        return 0 < reads <= unread if self.pieces else reads == unread

    def reads(self, step: int) -> int:
        """How many rows one of its later steps reads: of each text one, and its drafts."""
        turn = self.turns.get(step)
        if turn is None or not turn.follows:
            return len(self.requests[0].job.input.lengths)
        return sum(1 + len(parents) for parents in turn.follows)

    @property
    def rows(self) -> int:
        """Texts or images."""
        return len(self.requests[0].job.input.lengths)


class Company:
    """All members at one party, for one thread."""

    def __init__(self, party: Party, kept: Kept | None = None) -> None:
        self.party, self.kept = party, kept or Kept(0)
        self._members: list[Member] = []
        self._engine: Engine | None = None
        self._ahead: Ahead | None = None  # for this engine
        self._history = bytes(32)  # digest of the leader's words so far

    def step(self, number: int, members: Sequence[Member], reads: Sequence[int] = ()) -> list[Outcome]:
        """Advance these members, which are served alike, by one; what it gave each. The number comes once.

        Of a member whose prompt may be read in pieces `reads` says how many tokens of it are; 0 for all, and once it
        has been read.
        """
        self._members += [member for member in members if member not in self._members]
        for member, tokens in zip(members, reads, strict=bool(reads)):
            member.requests[0].piece = tokens if member.steps == 0 else 0
        partly = [member for member in members if member.requests[0].partly]
        for member in partly:
            member.said = member.latest
        self._heed([member for member in members if member not in partly])
        going = [request for member in members for request in member.requests]
        apart(self._requests(), going)
        parts = [sum(request.width for request in member.requests) for member in members]
        self.party.ledger.reset()
        cpu = pool.spent()
        self._compute(number, members, reads or [0] * len(members), going)
        self.party.ledger.total()
        cpu = pool.spent() - cpu
        given = [[] if member in partly else results(member.requests) for member in members]
        over = self._after(members)
        outcomes: list[Outcome] = []
        for member, shares, part in zip(members, given, parts, strict=True):
            spent = {name: _part(entry, part, sum(parts)) for name, entry in self.party.ledger.entries.items()}
            outcomes.append(Outcome(shares, spent, cpu * part / sum(parts), member in over))
        return outcomes

    def hear(self, word: Left) -> None:
        """The leader has said that a request takes no more steps, whether or not it is here; before it is dropped."""
        self._history = following(self._history, word)

    def drop(self, member: Member, keep: bool = True) -> None:
        """It takes no more steps; its rows leave the caches that it shares. What is to be kept of it is, unless it was
        told otherwise."""
        if member in self._members:
            for request in member.requests if keep else ():
                self._keep(member, request)
            self._leave({id(member): range(sum(len(r.owed) for r in member.requests))})
            self._members.remove(member)
            self._rest()
        self._spoil(member)

    def _compute(
        self, number: int, members: Sequence[Member], reads: Sequence[int], going: Sequence[Request]
    ) -> None:  # fmt: skip
        engine, labels = members[0].engine, _Labels(self._history, number, members, reads)
        if self._ahead is None or self._engine is not engine:
            if self._ahead is not None:
                self._ahead.end()
            if self._engine is not None:
                self._engine.rest()
            self._ahead, self._engine = Ahead(engine), engine
        self.party.approximation = members[0].served[1]
        self._ahead.begin(number, going, labels.of)
        self._history = labels.after(number)
        with self.party.stage(labels.of(number)):
            step(engine, going)

    def _heed(self, members: Sequence[Member]) -> None:
        """What the clients of these said since their last step: who leaves, what was chosen, who joins."""
        turns = {id(m): m.turns.pop(m.steps, Turn()) if m.steps else None for m in members}
        for member in members:
            if (turn := turns[id(member)]) is not None and turn.kept:
                cut(member.requests, turn.kept)
        self._leave({name: turn.leave for name, turn in turns.items() if turn is not None})
        for member in members:
            turn = turns[id(member)]
            if turn is None or not turn.plain:
                member.said = member.latest
            if turn is not None:
                member.requests = gone_on(member.requests, turn)
            member.steps += 1

    def _after(self, members: Sequence[Member]) -> list[Member]:
        """Rows that have all they are owed leave; the members of which none is left."""
        rows = {id(m): finished(m.requests) for m in members if not isinstance(m.requests[0].job, Encode)}
        for member in members:
            for request in member.requests:
                if not any(request.owed):
                    self._keep(member, request)
        self._leave(rows)
        over = [m for m in members if id(m) not in rows or not m.requests]
        self._members = [m for m in self._members if m not in over]
        self._rest()
        return over

    def _rest(self) -> None:
        """Nothing is computed until somebody asks again, if nobody is left."""
        if self._engine is not None and not self._members:
            self._engine.rest()

    def _keep(self, member: Member, request: Request) -> None:
        """What has been computed of this one text stays for later requests of its client, if it asked for that."""
        job = request.job
        if isinstance(job, Generate) and job.keep and request.cache is not None and not request.unread:
            cache, origin = request.cache.apart([request.first]), _named(member.item)
            self.kept.put(member.key, job, member.served[:2], cache, origin)
            member.keeps = b""

    def _spoil(self, member: Member) -> None:
        """Nobody need wait for what it would have kept."""
        if member.keeps:
            self.kept.spoil(member.key, member.keeps)
            member.keeps = b""

    def _leave(self, rows: Mapping[int, Sequence[int]]) -> None:
        """Of members by their ids, these rows: out of all caches at once, because members share them."""
        gone, start = list[int](), 0
        for member in self._members:
            gone += [start + row for row in rows.get(id(member), ())]
            start += sum(len(request.owed) for request in member.requests)
        if not gone:
            return
        leave(self._requests(), gone)
        for member in self._members:
            member.requests = [r for r in member.requests if r.owed]

    def _requests(self) -> list[Request]:
        return [request for member in self._members for request in member.requests]


def _named(item: Item) -> bytes:
    """A request, among all that any client makes."""
    return item.session + item.number.to_bytes(8, "little")


class _Labels:
    """Names of the streams of a step, and of those that follow if the same requests go on and nothing else is said.

    No number comes twice under one channel's keys. A name holds besides all that the leader has said before, and what
    the step's clients have said: two parties that were told different things, by the leader or by a client, draw masks
    that have nothing to do with each other. Else what one of them sends to a client could be masks under which the
    other computes for another client.
    """

    def __init__(self, history: bytes, number: int, members: Sequence[Member], reads: Sequence[int]) -> None:
        self._items, self._said, self._first = [m.item for m in members], [m.said for m in members], number
        self._read = [0] * len(members)  # of prompts in the steps that follow
        self._histories = [following(history, Step(number, self._items, list(reads)), self._said)]

    def after(self, number: int) -> bytes:
        """The digest of all words up to the step with this number."""
        while self._first + len(self._histories) <= number:
            step = Step(self._first + len(self._histories), self._items, self._read)
            self._histories.append(following(self._histories[-1], step, self._said))
        return self._histories[number - self._first]

    def of(self, number: int) -> str:
        """The name of the streams of the step with this number."""
        return f"step {number} {self.after(number).hex()}"


def _part(entry: Entry, mine: int, of: int) -> Entry:
    """A member's part of what was spent: all rounds and seconds, in which it took part, and bytes by its rows."""
    parts: dict[str, Any] = {
        name: getattr(entry, name) * mine // of for name in ("online", "offline", "frames_online", "frames_offline")
    }
    return Entry(rounds=entry.rounds, seconds=entry.seconds, **parts)
