"""What a protocol costs: declared beside it, and counted where bytes leave a party.

Every primitive carries `@declares(...)`: a formula to print, and its rounds and the bits of all three parties, online
and offline, as functions of its arguments. Tests compare the declaration with the ledger. What is made of primitives
declares a formula only: the dry run counts it. The table in docs/protocol.md is printed from the declarations by
`python -m puma.measure.cost_table`. This file knows sizes, never words.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache, wraps
from typing import Any, NamedTuple, TypeVar, cast

F = TypeVar("F", bound=Callable[..., Any])

FRAME_HEADER_BYTES = 32


def message_bytes(count: int, bits: int) -> int:
    """Bytes of `count` words of a `bits`-bit ring that travel as one run of bits, filled up to a whole byte."""
    return (count * bits + 7) // 8


class Words(NamedTuple):
    """`runs` runs of `numel` words of a `bits`-bit ring, each filled up to a whole byte, as they travel."""

    numel: int
    bits: int
    runs: int = 1


class Bytes(int):
    """How many bytes such words take, and which they are."""

    words: tuple[Words, ...]

    @classmethod
    @lru_cache(maxsize=1 << 14)  # the same few messages again and again
    def of(cls, *words: Words) -> Bytes:
        """The bytes of one frame."""
        size = cls(sum(w.runs * message_bytes(w.numel, w.bits) for w in words))
        size.words = words
        return size


def message_bits(count: int, bits: int) -> int:
    """Bits of the bytes of `count` words."""
    return 8 * message_bytes(count, bits)


@dataclass
class Entry:
    """What was spent under one name."""

    rounds: int = 0
    online: int = 0
    offline: int = 0
    frames_online: int = 0
    frames_offline: int = 0
    seconds: float = 0.0

    def add(self, other: Entry) -> None:
        """Add what another entry counts."""
        for name in self.__dataclass_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def online_bytes(self) -> int:
        """Payload and frame headers sent online."""
        return self.online + FRAME_HEADER_BYTES * self.frames_online

    @property
    def offline_bytes(self) -> int:
        """Payload and frame headers sent as corrections."""
        return self.offline + FRAME_HEADER_BYTES * self.frames_offline


@dataclass
class Ledger:
    """Counts what this party sends, by the innermost named scope."""

    entries: dict[str, Entry] = field(default_factory=dict[str, Entry])
    _stack: list[str] = field(default_factory=lambda: ["other"])
    _since: float = field(default_factory=time.perf_counter)

    def sent(self, count: int, online: bool) -> None:
        """A frame of `count` payload bytes leaves."""
        entry = self._entry()
        if online:
            entry.online += count
            entry.frames_online += 1
        else:
            entry.offline += count
            entry.frames_offline += 1

    def round(self) -> None:
        """A round between the evaluators begins."""
        self._entry().rounds += 1

    def swapped(self, count: int) -> None:
        """A round, in which a frame of `count` payload bytes leaves: both of the above at once."""
        entry = self._entry()
        entry.online += count
        entry.frames_online += 1
        entry.rounds += 1

    def awaited(self, size: int) -> None:
        """A frame of corrections is taken from the dealer, who books it."""

    @contextmanager
    def scope(self, name: str) -> Generator[None, None, None]:
        """Book everything inside under `name` (an inner scope takes precedence)."""
        self._settle()
        self._stack.append(name)
        try:
            yield
        finally:
            self._settle()
            self._stack.pop()

    def total(self) -> Entry:
        """All scopes together."""
        self._settle()
        result = Entry()
        for entry in self.entries.values():
            result.add(entry)
        return result

    @property
    def current(self) -> str:
        """The innermost scope."""
        return self._stack[-1]

    def reset(self) -> None:
        """Forget all counts."""
        self.entries.clear()
        self._since = time.perf_counter()

    def _entry(self) -> Entry:
        name = self._stack[-1]
        entry = self.entries.get(name)
        if entry is None:
            entry = self.entries[name] = Entry()
        return entry

    def _settle(self) -> None:
        now = time.perf_counter()
        self._entry().seconds += now - self._since
        self._since = now


@dataclass(frozen=True)
class Cost:
    """Rounds between the evaluators, and bits sent by all parties together."""

    rounds: int
    online: int
    offline: int

    def __add__(self, other: Cost) -> Cost:
        """One after the other."""
        return Cost(self.rounds + other.rounds, self.online + other.online, self.offline + other.offline)

    def beside(self, other: Cost) -> Cost:
        """Both in lockstep, sharing their messages."""
        return replace(self + other, rounds=max(self.rounds, other.rounds))


FREE = Cost(0, 0, 0)


def local(*_: Any, **__: Any) -> Cost:
    """The cost of what each party does by itself."""
    return FREE


@dataclass(frozen=True)
class Size:
    """What a cost function sees of a secret that does not exist yet: a share, or a product if `dealt` is set."""

    shape: tuple[int, ...]
    bits: int
    frac: int = 0
    dealt: bool | None = None
    opened: tuple[tuple[int, int], ...] = ()

    def numel(self) -> int:
        """How many elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Declaration:
    """A formula to print, its source, and the cost as a function of the arguments; None for what is made of others."""

    name: str
    formula: str
    source: str
    cost: Callable[..., Cost] | None


DECLARED: dict[str, Declaration] = {}


def declares(formula: str, source: str, cost: Callable[..., Cost] | None = None) -> Callable[[F], F]:
    """Attach a declared cost to a function; `cost` takes the function's own arguments."""

    def attach(function: F) -> F:
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        DECLARED[name] = Declaration(name, formula, source, cost)
        return function if cost or inspect.isgeneratorfunction(function) else _recalled(function)

    return attach


def repeated(function: F) -> F:
    """What comes again and again inside something that is declared: dry parties remember it there."""
    return _recalled(function, inside=True)


def _recalled(function: F, inside: bool = False) -> F:
    """What is made of primitives, for dry parties: they remember it by the formats of its arguments (recall.py)."""

    @wraps(function)
    def called(*arguments: Any, **named: Any) -> Any:
        recall = getattr(getattr(arguments[0], "party", None), "recall", None)
        return function(*arguments, **named) if recall is None else recall.call(function, arguments, named, inside)

    return cast(F, called)
