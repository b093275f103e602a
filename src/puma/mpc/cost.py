"""What a protocol costs: declared beside it, and counted where bytes leave a party.

Every primitive carries `@declares(...)`: its rounds and the bits of all three parties, online and offline, as functions
of its arguments. Tests compare the declaration with the ledger; the table in docs/protocol.md is generated from it.
This file knows sizes, never words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

FRAME_HEADER_BYTES = 32


def wire_bytes(bits: int) -> int:
    """Bytes that one word of a `bits`-bit ring takes on the wire."""
    return (bits + 7) // 8


def wire_bits(bits: int) -> int:
    """Bits that one word of a `bits`-bit ring takes on the wire."""
    return 8 * wire_bytes(bits)


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


@dataclass(frozen=True)
class Declaration:
    """A primitive's declared cost: a formula to compute it and the same formula to print."""

    name: str
    cost: Callable[..., Cost]
    formula: str
    source: str


DECLARED: dict[str, Declaration] = {}


def declares(formula: str, source: str, cost: Callable[..., Cost]) -> Callable[[F], F]:
    """Attach the declared cost to a primitive; `cost` takes the primitive's own arguments."""

    def attach(function: F) -> F:
        name = function.__name__
        DECLARED[name] = Declaration(name, cost, formula, source)
        return function

    return attach
