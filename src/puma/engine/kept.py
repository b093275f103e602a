"""What this party keeps of requests that have ended, so that later ones of the same client need not read their tokens
again: caches of keys and values, for a while and within a size.

A name is found by the client alone that chose it, for the same model under the same functions. What lies here are
shares as they were while the request ran, which later steps multiply under masks of their own. The oldest goes first.
What a client goes on from is public; this file must not know links, nor what was asked.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

from puma.engine.engine import Engine
from puma.errors import ProtocolError, StoreError
from puma.models.cache import Cache
from puma.mpc.party import Party
from puma.wire.beside.kept import PREAMBLE, Prefix
from puma.wire.messages import Encode, Generate

BYTES = 1 << 30
SECONDS = 600.0
PATIENCE = 3.0  # seconds that a request which has been answered may take to be put here
LENT = 60.0  # seconds within which a request begins that goes on from what was found for it
HINT = "send the whole text"

Name = tuple[str, bytes]  # whose it is, and what its client calls it


@dataclass(frozen=True)
class _Entry:
    cache: Cache
    served: Any  # the sharing of the model, and the approximation
    size: int
    since: float
    origin: bytes  # the request that made it, alike at all parties


@dataclass(frozen=True)
class _Lent:
    until: float
    key: str
    entry: _Entry
    length: int  # tokens of it


class Kept:
    """At most `most` bytes, of them `by_key` of one client's, each for so many `seconds`; for all threads."""

    def __init__(
        self, most: int = BYTES, seconds: float = SECONDS, by_key: int = 0, clock: Callable[[], float] = monotonic
    ) -> None:
        self.most, self.seconds, self.by_key, self._clock = most, seconds, by_key or most, clock
        self._entries: dict[Name, _Entry] = {}  # the oldest first
        self._coming: dict[Name, int] = {}
        self._lent: dict[int, _Lent] = {}  # what requests are about to go on from
        self._numbers = itertools.count()
        self._changed = threading.Condition()

    def __repr__(self) -> str:
        return f"Kept({len(self._entries)} requests)"

    @property
    def size(self) -> int:
        """Bytes of all that is kept."""
        with self._changed:
            self._sweep()
            return sum(entry.size for entry in self._entries.values())

    def expect(self, key: str, name: bytes) -> None:
        """A request has begun that will be put here under this name, or spoiled."""
        with self._changed:
            self._coming[key, name] = self._coming.get((key, name), 0) + 1

    def put(self, key: str, job: Generate, served: Any, cache: Cache, origin: bytes = b"") -> None:
        """Keep the one prompt of this cache, which nobody changes any more, as the request asks; what it stands for
        goes. `origin` names that request, among all that any client makes."""
        size, name = bytes_of(cache), (key, job.keep)
        with self._changed:
            self._came(name)
            self._entries.pop(name, None)
            if self.seconds > 0 and size <= min(self.most, self.by_key):
                self._entries[name] = _Entry(cache, served, size, self._clock(), origin)
            if job.prefix is not None and job.prefix.last:
                self._entries.pop((key, job.prefix.id), None)
            self._sweep()

    def spoil(self, key: str, name: bytes) -> None:
        """A request that was expected is not kept."""
        with self._changed:
            self._came((key, name))

    def find(self, key: str, prefix: Prefix, served: Any) -> Cache:
        """A cache of its own with the first tokens of what this client named so; StoreError if that is not here."""
        return self._entry(key, prefix, served).cache.beginning(prefix.length)

    def _entry(self, key: str, prefix: Prefix, served: Any) -> _Entry:
        name = key, prefix.id
        with self._changed:
            self._changed.wait_for(lambda: name not in self._coming, PATIENCE)
            self._sweep()
            entry = self._entries.get(name)
        if entry is None or entry.served != served or not 0 < prefix.length <= entry.cache.length:
            raise StoreError("what the request goes on from is not kept here, or not any more", HINT)
        return entry

    def lend(self, key: str, prefix: Prefix, served: Any) -> tuple[int, bytes]:
        """Hold what `find` would give for a request that is about to begin, for a while: a number for it, and which
        request made it. StoreError, too, where too much is held so that is kept no more."""
        entry = self._entry(key, prefix, served)
        with self._changed:
            self._sweep()
            if self._gone(key) > self.by_key or self._gone() > self.most:
                raise StoreError("too much is held here that requests are about to go on from", HINT)
            number = next(self._numbers)
            self._lent[number] = _Lent(self._clock() + LENT, key, entry, prefix.length)
            return number, entry.origin

    def taken(self, number: int) -> Cache | None:
        """What was lent, which is not held any longer; None if nobody came for it in time."""
        with self._changed:
            self._sweep()
            found = self._lent.pop(number, None)
        return None if found is None else found.entry.cache.beginning(found.length)

    def forget(self, key: str) -> None:
        """Nobody of this key asks for anything any more."""
        with self._changed:
            self._entries = {name: entry for name, entry in self._entries.items() if name[0] != key}

    def sweep(self) -> None:
        """Let go of what is too old."""
        with self._changed:
            self._sweep()

    def _gone(self, key: str = "") -> int:
        """Bytes of what is lent, to this client or to any, and is kept no more."""
        lent = {id(held.entry): held.entry for held in self._lent.values() if key in ("", held.key)}
        return sum(lent[each].size for each in lent.keys() - set(map(id, self._entries.values())))

    def _came(self, name: Name) -> None:
        left = self._coming.get(name, 0) - 1
        self._coming.pop(name, None)
        if left > 0:
            self._coming[name] = left
        self._changed.notify_all()

    def _sweep(self) -> None:
        now, until = self._clock(), self._clock() - self.seconds
        self._lent = {number: held for number, held in self._lent.items() if held.until > now}
        self._entries = {name: entry for name, entry in self._entries.items() if entry.since > until}
        for owner in {key for key, _ in self._entries}:
            self._bound([name for name in self._entries if name[0] == owner], self.by_key)
        self._bound([*self._entries], self.most)

    def _bound(self, names: list[Name], most: int) -> None:
        """Of these the oldest go until the others take no more than that."""
        total = sum(self._entries[name].size for name in names)
        for name in names:
            if total <= most:
                return
            total -= self._entries.pop(name).size


class AtHand:
    """What one session has asked for, and its next request goes on from: that one and no other."""

    def __init__(self) -> None:
        self._found: tuple[Prefix, Party, Kept, int] | None = None
        self._origin = b""  # of what was found, and then of what was taken

    def recall(self, kept: Kept, key: str, prefix: Prefix, served: Any, party: Party) -> str:
        """Find it among what is kept of a client, whose shares are this party's; what is wrong with it, or nothing."""
        self._taken()
        try:
            number, self._origin = kept.lend(key, prefix, served)
            self._found = prefix, party, kept, number
        except StoreError as error:
            return error.message
        return ""

    def take(self, request: Generate | Encode, engine: Engine) -> Cache | None:
        """What the request goes on from, if it names something: the model's preamble, or what was asked for before;
        else ProtocolError. `engine` is the one that will compute the request."""
        found, cache, origin = self._found, self._taken(), self._origin
        self._origin = b""
        if not isinstance(request, Generate) or request.prefix is None:
            return None
        if request.prefix.id == PREAMBLE:
            return engine.preamble()
        if found is None or cache is None or found[:2] != (request.prefix, engine.party):
            raise ProtocolError("the request goes on from what is not at hand", "recall it before each request")
        self._origin = origin
        return cache

    def bound(self, digest: bytes) -> bytes:
        """A digest of what a client said, and of what was taken last for it. Parties that hold different things under
        one name, as a client that gives a name twice may have it, so find that out before they compute with them."""
        return hashlib.sha256(digest + self._origin).digest() if self._origin else digest

    def _taken(self) -> Cache | None:
        found, self._found = self._found, None
        return None if found is None else found[2].taken(found[3])


def bytes_of(cache: Cache) -> int:
    """What the keys and values of a cache of shares take in memory."""
    parts = [part for layer in cache.layers for x in (layer.k, layer.v) for part in x.components]
    return sum(part.numel() * part.element_size() for part in parts)
