"""One party's end of what the three parties compute in company: a thread that takes the leader's steps in their order.

Links and keys belong to the channel, not to a client: whatever clients ask goes through its steps together. Words about
steps travel on links of their own, so that nobody waits for them in the middle of a computation. A link that is lost
ends the channel, and nothing that it drew masks for is computed again. This file must not know what is asked.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from time import monotonic

from puma.crypto.prg import PairKey
from puma.engine.company import Company, Ended, Frames, Member
from puma.engine.engine import Engine
from puma.engine.kept import Kept
from puma.engine.lead import LEADER, Lead
from puma.errors import PeerTimeout, ProtocolError, PumaError
from puma.mpc.party import Party
from puma.net import Link
from puma.net.endpoint import again
from puma.party import loading
from puma.party.ending import told
from puma.party.evidence.records import Records
from puma.store.models import Model
from puma.wire import steps
from puma.wire.steps import Gone, Item, Left, May, Step

AHEAD = 2  # steps that have been said and not computed: the dealer works at the second while others do at the first
LINGER, MOST_LINGER = 0.25, 0.05  # of the last step's time, and seconds: a client may be about to say that it goes on
ENGINES = 4  # models that are kept ready
MOST = 1 << 14  # words of the leader that wait to be heeded: it says steps that few ahead, and who leaves once
SILENCE = 7 * 24 * 3600.0  # words about steps come when somebody asks


class Channel:
    """`links` carry what is computed, one to each other party, and `words` what is said about steps: the leader's to
    both others, theirs to the leader. With `records` the frames of each step are hashed; `name` is the channel's there.
    What is `kept` of requests goes with the channel.
    """

    def __init__(
        self, rank: int, links: Mapping[int, Link], words: Mapping[int, Link], keys: Mapping[int, PairKey],
        records: Records | None = None, name: bytes = b"", kept: Kept | None = None,
    ) -> None:  # fmt: skip
        self.party = Party(rank, dict(links), dict(keys))
        self._links, self._words = dict(links), dict(words)
        self._records, self._name = records, name
        self.kept = kept or Kept()
        self._company = Company(self.party, self.kept)
        self._engines: OrderedDict[bytes, Engine] = OrderedDict()
        self._members: dict[Item, Member] = {}
        self._lead = Lead(followers=[*words]) if rank == LEADER else None
        self._changed = threading.Condition()
        self._todo: deque[Step | Left] = deque()
        self._number = 0  # of the next step
        self._stepped, self._took = 0.0, 0.0  # when the last step ended, and how long it took
        self._over: PumaError | None = None
        names = f"puma P{rank}"
        self._threads = [threading.Thread(target=self._run, name=f"{names} computes", daemon=True)]
        for other, link in self._words.items():
            link.set_timeout(SILENCE)
            listen = threading.Thread(target=self._listen, args=(other,), name=f"{names} hears P{other}", daemon=True)
            self._threads.append(listen)

    def start(self) -> None:
        """Take steps from now on."""
        for thread in self._threads:
            thread.start()

    @property
    def over(self) -> PumaError | None:
        """Why no more steps are taken."""
        return self._over

    @property
    def waiting(self) -> int:
        """Requests that are here."""
        return len(self._members)

    @property
    def steps(self) -> int:
        """Steps that have been taken, or begun."""
        return self._number

    def engine(self, model: Model) -> Engine:
        """For requests of this model; the latest ones are kept ready."""
        sharing = model.manifest.sharing
        with self._changed:
            if sharing not in self._engines:
                self._engines[sharing] = loading.opened(self.party, model)
            self._engines.move_to_end(sharing)
            if len(self._engines) > ENGINES:
                self._engines.popitem(last=False)
            return self._engines[sharing]

    def allow(self, member: Member) -> None:
        """A member has come, or has been granted more steps, or is closed; raises why the channel is over, if it is."""
        with self._changed:
            self._check()
            if member.closed and member.item not in self._members:
                return  # the leader has heard so first, and has said that it is over
            if member.item not in self._members and member.keeps:
                self.kept.expect(member.key, member.keeps)
            self._members.setdefault(member.item, member)
            if self._lead is not None:
                self._lead.own(member)
            elif not member.closed:
                self._tell(LEADER, May(member.item, *member.grants[-1]))
            self._changed.notify_all()

    def leave(self, member: Member) -> None:
        """Nobody waits for it any more. It stays until the leader has said from which step on it takes none."""
        with self._changed:
            if self._over is not None or member.item not in self._members:
                return
            if self._lead is not None:
                self._lead.gone(member.item)
            else:
                self._tell(LEADER, Gone(member.item))
            self._changed.notify_all()

    def look(self) -> None:
        """Called now and then: a link that is lost ends the channel even while nothing is computed."""
        self.kept.sweep()
        for link in (*self._links.values(), *self._words.values()):
            if link.lost:
                try:
                    link.check()
                except PumaError as error:
                    self.end(error)

    def end(self, why: PumaError) -> None:
        """No more steps: all members are told, and so are the other parties."""
        with self._changed:
            if self._over is not None:
                return
            self._over = why
            told(f"P{self.party.rank}'s channel", why)
            members = [*self._members.values()]
            self._members.clear()
            self._changed.notify_all()
        for link in (*self._links.values(), *self._words.values()):
            link.fail(why.message)
        for member in members:
            member.tell(Ended(again(why)))

    def join(self, seconds: float) -> None:
        """Wait for its threads, once it has ended."""
        for thread in self._threads:
            thread.join(seconds)

    def _check(self) -> None:
        if self._over is not None:
            raise again(self._over)

    def _tell(self, rank: int, word: steps.Word) -> None:
        self._words[rank].send_control(steps.encode(word))

    # -- in threads of its own --------------------------------------------------------------------------------------

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except PumaError as error:
            self.end(error)
        except Exception as error:
            told(f"P{self.party.rank}", error)
            self.end(ProtocolError(f"P{self.party.rank} failed: {type(error).__name__}: {error}"))

    def _listen(self, rank: int) -> None:
        self._guarded(lambda: self._hear(rank))

    def _hear(self, rank: int) -> None:
        while self._over is None:
            try:
                word = steps.decode(self._words[rank].recv_control())
            except PeerTimeout:
                continue
            with self._changed:
                if self._lead is None and isinstance(word, Step | Left):
                    if len(self._todo) > MOST:
                        raise ProtocolError(f"P{rank} says more than anybody can heed", "look at that party")
                    self._todo.append(word)
                elif self._lead is not None and isinstance(word, May):
                    self._lead.may(rank, word)
                elif self._lead is not None and isinstance(word, Gone):
                    self._lead.gone(word.item)
                else:
                    raise ProtocolError(
                        f"P{rank} says what is not its to say", "run the same version of Puma everywhere"
                    )
                self._changed.notify_all()

    def _run(self) -> None:
        self._guarded(self._work)

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._next():
                    self._check()
                self._check()
                word = self._todo.popleft()
            if isinstance(word, Step):
                self._step(word)
            else:
                self._left(word)

    def _next(self) -> bool:
        """Whether there is something to do; else wait a little."""
        pause = None
        if self._lead is not None:
            pause = self._say(self._lead)
        if not self._todo and self._over is None:
            self._changed.wait(pause)
        return bool(self._todo) and self._over is None

    def _say(self, lead: Lead) -> float | None:
        """Tell everybody what comes next; how long to wait if somebody may join the next step in a moment."""
        for left in lead.words():
            self._everybody(left)
        while sum(isinstance(word, Step) for word in self._todo) < AHEAD and lead.ready:
            rest = self._stepped + min(LINGER * self._took, MOST_LINGER) - monotonic()
            if not self._todo and lead.hesitates and rest > 0:
                return rest
            step = lead.step()
            if step is None:
                break
            self._everybody(step)
            for left in lead.words():
                self._everybody(left)
        return None

    def _everybody(self, word: Step | Left) -> None:
        for rank in self._words:
            self._tell(rank, word)
        self._todo.append(word)

    def _step(self, step: Step) -> None:
        with self._changed:
            members = [member for item in step.items if (member := self._members.get(item)) is not None]
            allowed = len(members) == len(step.items) == len(step.reads) and all(
                member.steps < member.granted and member.fits(reads)
                for member, reads in zip(members, step.reads, strict=True)
            )
            alike = len({member.served for member in members}) == 1 and len(set(step.items)) == len(members)
            if step.number != self._number or not (allowed and alike):
                raise ProtocolError(f"step {step.number} cannot be taken here", "run the same version everywhere")
        self._number += 1
        began = monotonic()
        self._chain(step.number)
        outcomes = self._company.step(step.number, members, step.reads)
        frames = self._frames(step.number)
        self._stepped, self._took = monotonic(), monotonic() - began
        with self._changed:
            last = [member for member, outcome in zip(members, outcomes, strict=True) if outcome.last]
            for member in last:
                del self._members[member.item]
            if self._lead is not None:
                self._lead.over(last)
        for member, outcome in zip(members, outcomes, strict=True):
            member.tell(replace(outcome, frames=frames))

    def _chain(self, number: int) -> None:
        """Hash the frames of a step by themselves: what is told of it opens no other."""
        if self._records is not None:
            for link in self._links.values():
                link.chain(f"step {number}")

    def _frames(self, number: int) -> Frames | None:
        """Of the step that is over."""
        if self._records is None:
            return None
        self._records.step(self._name, number, {f"P{rank}": link.trails for rank, link in self._links.items()})
        return Frames(self._name, number, {rank: heads for rank, link in self._links.items() if (heads := link.heads)})

    def _left(self, left: Left) -> None:
        with self._changed:
            member = self._members.pop(left.item, None)
        self._company.hear(left)
        if member is None:
            return
        self._company.drop(member, keep=not left.problem)
        problem = ProtocolError(left.problem, "one of the parties or the client misbehaves") if left.problem else None
        member.tell(Ended(problem))
