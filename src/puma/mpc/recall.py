"""What a dry party remembers: which messages a function of given formats took, so that it runs once for each of them.

In a dry run nothing depends on words, so what a function costs and the formats of what it gives follow from the formats
of its arguments, and from what the plan says of the functions that it is asked about: runs by several plans remember
for each other. A `Trace` is the ledger of such a run: every message with the words in it, both of the evaluator that
runs and of the dealer whose corrections it takes. It must not know what is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, cast

from torch import Tensor

from puma.kernels.outline import Outline
from puma.mpc.cost import Bytes, Ledger, Words
from puma.mpc.party import Party
from puma.mpc.raising import Raised
from puma.mpc.share import Additive, Share

MAXIMA: tuple[Literal["maxima"], Literal["quick maxima"]] = ("maxima", "quick maxima")  # lean ones, and quick ones
CONTENTS = 1 << 12  # elements of a public tensor whose contents are looked at; a larger one is not remembered


class Event(NamedTuple):
    """A frame, and under which component it was booked: an evaluator's of a round, the dealer's corrections, or an
    answer of each party. Or instead of frames the maxima of rows, by how many rows there are and how many entries each
    has, as words of their ring: what these send, engine/maxima.py tells of all lengths at once."""

    component: str
    kind: Literal["round", "dealt", "answer", "maxima", "quick maxima"]
    words: tuple[Words, ...]


class Consulted(tuple[str, ...]):
    """The functions of a plan, which notes what it is asked about: what a function costs depends on no other."""

    asked: set[object]

    def __new__(cls, names: Iterable[str]) -> Consulted:
        """Of these functions; nothing has been asked."""
        plan = super().__new__(cls, names)
        plan.asked = set()
        return plan

    def __contains__(self, name: object) -> bool:
        self.asked.add(name)
        return super().__contains__(name)


@dataclass(eq=False)
class Call:
    """What a function did once: its messages, those of what it called again and again, the formats of its result, what
    its arguments now remember, and what the plan had said when it was asked."""

    events: list[Event] = field(default_factory=list[Event])
    inner: dict[Call, int] = field(default_factory=dict["Call", int])
    result: Any = None
    opened: list[dict[tuple[int, int], Share]] = field(default_factory=list[dict[tuple[int, int], Share]])
    plan: dict[object, bool] = field(default_factory=dict[object, bool])

    @cached_property
    def form(self) -> tuple[object, ...]:
        """All of its messages but how many words they have; once nothing is added any more."""
        return tuple((n, e.component, e.kind, tuple((w.bits, w.runs) for w in e.words)) for e, n in self.booked())

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """How many words they have."""
        return tuple(w.numel for e, _ in self.booked() for w in e.words)

    def booked(self) -> Iterator[tuple[Event, int]]:
        """All of its messages, and how often each comes."""
        yield from ((event, 1) for event in self.events)
        for call, times in self.inner.items():
            yield from ((event, times * n) for event, n in call.booked())


class Trace(Ledger):
    """The messages since the last `taken`: those of calls, with how often each was made, and all others."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[Call, int] = {}
        self._into = Call()
        self.calls[self._into] = 1

    def sent(self, count: int, online: bool) -> None:
        assert isinstance(count, Bytes) and online
        self._into.events.append(Event(self.current, "answer", count.words))

    def round(self) -> None:
        event = self._into.events.pop()
        self._into.events.append(event._replace(kind="round"))

    def awaited(self, size: int) -> None:
        assert isinstance(size, Bytes)
        self._into.events.append(Event(self.current, "dealt", size.words))

    def maxima(self, rows: int, entries: int, bits: int, quick: bool) -> None:
        """The maxima of so many rows."""
        self._into.events.append(Event(self.current, MAXIMA[quick], (Words(rows, bits), Words(entries, bits))))

    def record(self, call: Call, function: Callable[[], Any]) -> Any:
        """Book what a function sends to a call of its own."""
        before, self._into = self._into, call
        try:
            return function()
        finally:
            self._into = before

    @property
    def recording(self) -> bool:
        """Whether a call is being recorded."""
        return self.calls.get(self._into) is None

    def made(self, call: Call) -> None:
        """A call is made, perhaps again, and perhaps inside another that is being recorded."""
        calls = self._into.inner if self.recording else self.calls
        calls[call] = calls.get(call, 0) + 1

    def taken(self) -> dict[Call, int]:
        """All messages so far, which are forgotten here."""
        calls, self._into = self.calls, Call()
        self.calls = {self._into: 1}
        return calls


class Recall:
    """The memory of dry runs of one approximation, by plans that are `Consulted`."""

    def __init__(self, party: Party, trace: Trace) -> None:
        self._party, self._trace = party, trace
        self._known: dict[Hashable, list[Call]] = {}

    def call(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], named: Mapping[str, Any], inside: bool
    ) -> Any:
        """The function's result, whether it runs or is remembered, `inside` another one, too."""
        given = (*arguments, *named.values())
        formats = None if self._trace.recording and not inside else _format(given)
        if formats is None:
            return function(*arguments, **named)
        key = (function, self._trace.current, self._party.on_watch is None, tuple(named), formats)
        known, plan = self._known.setdefault(key, []), self._party.quick
        call = next((one for one in known if all((name in plan) is said for name, said in one.plan.items())), None)
        sums = _sums(given)
        if call is None:
            call = self._recorded(lambda: function(*arguments, **named))
            call.opened = [dict(z.opened) for z in sums]
            known.append(call)
        for z, opened in zip(sums, call.opened, strict=True):
            z.opened.update(opened)
        self._trace.made(call)
        return _anew(call.result)

    def _recorded(self, function: Callable[[], Any]) -> Call:
        """What a function does, and what it asks the plan about; whoever called it has asked that, too."""
        call, plan = Call(), self._party.quick
        assert isinstance(plan, Consulted)
        before, plan.asked = plan.asked, set()
        call.result = self._trace.record(call, function)
        call.plan = {name: name in plan for name in tuple(plan.asked)}
        plan.asked |= before
        return call

    def maxima(self, x: Share, quick: bool) -> Share:
        """What `compare.maximum` gives along the last dimension: only its size is noted, so nothing else may be sent in
        its rounds."""
        *rows, entries = x.shape
        self._trace.maxima(math.prod(rows), entries, x.bits, quick)
        a, b = x[..., 0].components
        return Share(x.party, a, b, x.bits, x.frac)


def _format(x: Any) -> Hashable:
    """What a cost can depend on; None for what this file does not know."""
    if isinstance(x, Additive):
        return Additive, x.shape, x.bits, x.frac, x.dealt, x.unproven, tuple(x.opened)
    if isinstance(x, Share):
        return type(x), x.shape, x.bits, x.frac
    if isinstance(x, Raised):
        return Raised, x.shape, x.bits, x.frac, x.low
    if isinstance(x, Outline):
        return x.shape, x.count
    if isinstance(x, Tensor):
        if x.is_meta:
            return x.shape
        return (x.shape, x.dtype, tuple(_contents(x))) if x.numel() <= CONTENTS else None
    if isinstance(x, (list, tuple)):
        parts = tuple(map(_format, x))  # type: ignore[arg-type]
        return None if None in parts else parts
    return ("public", x) if isinstance(x, (int, float, str, type(None))) else None


def _contents(x: Any) -> list[int]:
    return x.reshape(-1).tolist()


def _sums(x: Any) -> list[Additive]:
    """The products among arguments, in order: they remember what has been opened of them."""
    if isinstance(x, Additive):
        return [x]
    return [z for each in cast("Sequence[Any]", x) for z in _sums(each)] if isinstance(x, (list, tuple)) else []


def _anew(x: Any) -> Any:
    """The same format once more: what is opened of one result is not of another."""
    if isinstance(x, Additive):
        again = copy(x)
        again.opened = dict(x.opened)
        return again
    if not isinstance(x, (list, tuple)):
        return x
    parts = map(_anew, cast("Sequence[Any]", x))
    kind: Any = type(cast("Sequence[Any]", x))
    return kind(*parts) if hasattr(kind, "_fields") else kind(parts)
