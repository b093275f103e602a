"""What the leader of three parties knows of all requests that could take steps, and what it says next.

A request takes a step once all three parties have said that it may, and have named the same digest of what its client
said: then it has the same shape everywhere, so that a client who tells parties different things harms nobody else. This
file must not know links, threads or time.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from puma.engine.company import Member
from puma.engine.schedule import Ready, Schedule
from puma.errors import ProtocolError
from puma.wire.steps import Item, Left, May, Step

FOLLOWERS = (0, 2)
LEADER = 1
LATEST = 4096  # requests that are over and whose last words may still come
MOST = 1 << 14  # requests, and grants of one, that are not over: more are no clients'


@dataclass(eq=False)
class _Known:
    """A request: this party's own member, once it is here, and what each of the others has allowed."""

    item: Item
    own: Member | None = None
    others: dict[int, list[tuple[int, bytes]]] = field(default_factory=lambda: {rank: [] for rank in FOLLOWERS})
    checked: int = 0  # grants that all three have given alike
    planned: int = 0  # results that will have come after what has been said
    read: int = 0  # tokens of its prompt

    @property
    def agreed(self) -> int:
        """Results that all three allow."""
        return self.own.grants[self.checked - 1][0] if self.own is not None and self.checked else 0

    def odd(self) -> int | None:
        """Compare what has come of grants; the party that was told otherwise, if one was."""
        if self.own is None:
            return None
        for each in range(self.checked, min(len(self.own.grants), *map(len, self.others.values()))):
            for rank, grants in self.others.items():
                if grants[each] != self.own.grants[each]:
                    return rank
            self.checked = each + 1
        return None


class Lead:
    """The leader's half: it hears what the parties allow, and gives the words of which all three then act alike."""

    def __init__(self, schedule: Schedule | None = None, followers: Sequence[int] = FOLLOWERS) -> None:
        self._schedule, self._followers = schedule or Schedule(), followers
        self._known: dict[Item, _Known] = {}
        self._past: OrderedDict[Item, None] = OrderedDict()  # that take no more steps
        self._leaving: deque[Left] = deque()
        self._latest: list[_Known] = []  # of the last step
        self._number = 0

    def own(self, member: Member) -> None:
        """This party's member has come, or has been allowed more steps, or is closed."""
        if member.item in self._past:  # else it would be held for ever, and all that it has read with it
            return
        known = self._of(member.item)
        known.own = member
        self._compare(known)

    def may(self, rank: int, word: May) -> None:
        """Another party allows more steps. ProtocolError if it takes something back, or for what would fill memory."""
        if word.item in self._past:
            return
        known = self._of(word.item)
        grants = known.others[rank]
        if max(len(self._known), len(grants) - known.checked) > MOST:
            raise ProtocolError(f"P{rank} allows more than anybody can have asked for", "look at that party")
        if grants and word.steps <= grants[-1][0]:
            raise ProtocolError(f"P{rank} allows fewer steps than before", "run the same version of Puma everywhere")
        grants.append((word.steps, word.sha256))
        self._compare(known)

    def gone(self, item: Item) -> None:
        """Nobody waits for it any more, at one party at least."""
        self._leave(item)

    def over(self, members: Sequence[Member]) -> None:
        """These have got all that they were owed."""
        for member in members:
            self._known.pop(member.item, None)

    def words(self) -> list[Left]:
        """Requests that take no more steps, of which everybody has yet to hear."""
        found = [*self._leaving]
        self._leaving.clear()
        return found

    @property
    def ready(self) -> bool:
        """Whether there is something to compute."""
        return any(_may_go(known) for known in self._known.values())

    @property
    def hesitates(self) -> bool:
        """Whether some that took the last step have not been heard of since, and may be at any moment."""
        return any(
            known.own is not None and not known.own.closed and known.item in self._known and not _may_go(known)
            for known in self._latest
        )

    def step(self) -> Step | None:
        """The next step; None if nothing is ready."""
        ready = [_ready(known) for known in self._known.values() if _may_go(known)]
        chosen = self._schedule.choose(ready)
        if not chosen:
            return None
        self._latest = [each.name for each in chosen]
        for known in self._latest:  # of one client's requests those come first that have waited longest
            self._known[known.item] = self._known.pop(known.item)
        reads = [self._plan(each.name, each.rows if each.begins else 0) for each in chosen]
        self._number += 1
        return Step(self._number - 1, [known.item for known in self._latest], reads)

    def _plan(self, known: _Known, rows: int) -> int:
        """A step of this request has been said, which reads so many tokens of its prompt."""
        known.read += rows
        if not rows or known.own is None or known.read >= known.own.first:
            known.planned += 1
            self._compare(known)
        return rows

    def _of(self, item: Item) -> _Known:
        return self._known.setdefault(item, _Known(item, others={rank: [] for rank in self._followers}))

    def _compare(self, known: _Known) -> None:
        odd = known.odd()
        if odd is not None:
            self._leave(known.item, f"P{odd} was asked for something else than P{LEADER}")
        elif known.own is not None and known.own.closed and known.planned >= known.own.granted:
            self._leave(known.item)

    def _leave(self, item: Item, problem: str = "") -> None:
        self._known.pop(item, None)
        self._past[item] = None
        if len(self._past) > LATEST:
            self._past.popitem(last=False)
        self._leaving.append(Left(item, problem))


def _may_go(known: _Known) -> bool:
    return known.own is not None and known.agreed > known.planned


def _ready(known: _Known) -> Ready:
    own = known.own
    assert own is not None
    begins = known.planned == 0
    rows = own.first - known.read if begins else own.reads(known.planned)
    return Ready(known, own.key, own.served, begins, rows, own.pieces)
