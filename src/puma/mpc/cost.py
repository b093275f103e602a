"""What a protocol costs: declared beside it, and counted where bytes leave a party.

Every primitive carries `@declares(...)`: its rounds and the bits of all three parties, online and offline, as functions
of its arguments. Tests compare the declaration with the ledger; the table in docs/protocol.md is generated from it by
`python -m puma.mpc.cost`. This file knows sizes, never words.
"""

from __future__ import annotations

import importlib
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

FRAME_HEADER_BYTES = 32


def message_bytes(count: int, bits: int) -> int:
    """Bytes of `count` words of a `bits`-bit ring that travel as one run of bits, filled up to a whole byte."""
    return (count * bits + 7) // 8


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

    entries: dict[str, Entry] = field(default_factory=dict)
    _stack: list[str] = field(default_factory=lambda: ["other"])
    _since: float = field(default_factory=time.perf_counter)

    def sent(self, count: int, online: bool) -> None:
        entry = self._entry()
        if online:
            entry.online += count
            entry.frames_online += 1
        else:
            entry.offline += count
            entry.frames_offline += 1

    def round(self) -> None:
        self._entry().rounds += 1

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Book everything inside under `name` (an inner scope takes precedence)."""
        self._settle()
        self._stack.append(name)
        try:
            yield
        finally:
            self._settle()
            self._stack.pop()

    def total(self) -> Entry:
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
        self.entries.clear()
        self._since = time.perf_counter()

    def _entry(self) -> Entry:
        return self.entries.setdefault(self._stack[-1], Entry())

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
        return math.prod(self.shape)


@dataclass(frozen=True)
class Declaration:
    """A primitive's declared cost: a function of its arguments, and a formula to print."""

    name: str
    cost: Callable[..., Cost]
    formula: str
    source: str


DECLARED: dict[str, Declaration] = {}
ROOMS = "share arithmetic boolean lookup compare fixed retrieval splines roots paper attention functional"


def declares(formula: str, source: str, cost: Callable[..., Cost]) -> Callable[[F], F]:
    """Attach the declared cost to a primitive; `cost` takes the primitive's own arguments."""

    def attach(function: F) -> F:
        name = f"{function.__module__.rpartition('.')[2]}.{function.__name__}"
        DECLARED[name] = Declaration(name, cost, formula, source)
        return function

    return attach


def table() -> str:
    """Everything declared by the modules loaded so far, as a Markdown table."""
    lines = ["| primitive | bits an element, all parties together | source |", "|---|---|---|"]
    found = sorted(DECLARED.values(), key=lambda d: ROOMS.find(d.name.partition(".")[0]))  # whatever was loaded first
    lines += [f"| `{d.name}` | {d.formula} | {d.source} |" for d in found]
    return "\n".join(lines)


def documented() -> str:
    """The whole table, as docs/protocol.md shows it. The floor above is loaded by name: nothing here depends on it."""
    for name in ("puma.mpc.compare", "puma.nn.functional", "puma.nn.sampling"):
        importlib.import_module(name)
    return importlib.import_module("puma.mpc.cost").table()


if __name__ == "__main__":
    print(documented())
