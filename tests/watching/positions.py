"""Every draw from a stream of masks is noted, in every test: no holder may read a position of a stream twice.

A holder is who keeps a key: a party by its rank, or the outsiders of this process, client and owner, together. What
may be read again is said here and nowhere else: masks of weights at the parties, which cover the same words at each
use; what an auditor computes again of a session that is over, and sends to nobody; what a party draws while nothing
leaves it (a rehearsal, the dealer's look at a later step, a recording that is played to it again); what decrypts a
file. Keys that tests write out are open: each party under them is a holder of its own, and outsiders are not asked.
Streams called "test ..." carry inputs that tests share openly, what a client samples with ("sampling") masks nothing,
and what a test itself draws is its own affair.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from puma.crypto import prg
from puma.crypto.prg import BLOCK, PairKey, Reader, Stream
from puma.net.null import NullLink

REPORT = "PUMA_TEST_REPEATS"  # names the file to which processes that tests start write what they read twice
HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # the tests
PRG = prg.__file__
FEW = 8  # different bytes; a fresh secret of 32 bytes has no fewer but once in 10^27
OUTSIDER = "an outsider"
_numbers = itertools.count()
_open_secrets: set[bytes] = set()
_open_keys: set[bytes] = set()


class Positions:
    """What has been read of each stream, by holder, and which positions were read twice."""

    def __init__(self, tells: bool = False) -> None:
        self.draws, self.repeats, self._tells = 0, list[str](), tells
        self._read: dict[tuple[Any, bytes], list[tuple[int, int]]] = {}
        self._lock = threading.Lock()

    def note(self, holder: Any, key: bytes, purpose: str, start: int, end: int) -> None:
        """Bytes `start` to `end` of a stream were read by this holder."""
        with self._lock:
            self.draws += 1
            spans = self._read.setdefault((holder, key), [])
            if any(low < end and start < high for low, high in spans):
                self._say(f"{holder} reads bytes {start} to {end} of a stream {purpose!r} a second time")
            if spans and spans[-1][1] == start:
                spans[-1] = spans[-1][0], end
            else:
                spans.append((start, end))

    def _say(self, what: str) -> None:
        self.repeats.append(what)
        path = os.environ.get(REPORT) if self._tells else None
        if path:
            with Path(path).open("a") as file:  # at once: a party's process ends without tidying up
                file.write(what + "\n")


class Noted(Reader):
    """A reader that says what it reads."""

    __slots__ = ("_at", "_holder", "_key", "_purpose")

    def __init__(self, reader: Reader, stream: Stream, at: int, holder: Any) -> None:
        super().__init__(reader.context, reader._head, reader.left)
        self._at, self._key, self._purpose, self._holder = at, stream._key, stream.purpose, holder

    def into(self, buffer: torch.Tensor) -> torch.Tensor:
        end = self._at + buffer.numel()
        _now[-1].note(self._holder, self._key, self._purpose, self._at, end)
        self._at = end
        return super().into(buffer)


_now = [Positions(tells=True)]


@contextmanager
def watching() -> Iterator[Positions]:
    """Meanwhile draws are noted apart, and what is read twice is for the caller to judge."""
    _now.append(Positions())
    try:
        yield _now[-1]
    finally:
        _now.pop()


def _holder(stream: Stream) -> Any:
    """Who reads this stream now; None if it may."""
    if stream.purpose.startswith("test ") or stream.purpose == "sampling":
        return None
    if threading.current_thread().name.startswith("puma replays"):
        return None
    frame: FrameType | None = sys._getframe(2)
    while frame and frame.f_code.co_filename == PRG:
        frame = frame.f_back
    if frame and os.path.dirname(frame.f_code.co_filename).startswith(HERE):
        return None
    at_rest = stream.purpose == "preprocessing at rest"  # what encrypts a file also decrypts it
    while frame:
        known = frame.f_locals
        for found in (known.get("self"), known.get("party")):
            if at_rest and type(found).__name__ == "EncryptedWriter":
                return "the writer"
            party = found if hasattr(found, "_streams") and hasattr(found, "rank") else getattr(found, "party", None)
            if hasattr(party, "_streams") and hasattr(party, "rank") and not at_rest:
                return _of(party, stream)
        frame = frame.f_back
    return None if at_rest or stream._key in _open_keys else OUTSIDER


def _of(party: Any, stream: Stream) -> Any:
    if stream.purpose.startswith("weight ") or any(isinstance(link, NullLink) for link in party.links.values()):
        return None
    second = any(type(link).__name__ == "Digested" for link in party.links.values())
    name = "P3" if second else f"P{party.rank}"
    if stream._key not in _open_keys:
        return name
    return f"{name} number {party.__dict__.setdefault('_test_number', next(_numbers))}"


def _is_open(secret: bytes) -> bool:
    return len(set(secret)) < FEW or secret.isascii() or secret in _open_secrets


def install() -> None:
    """From now on every draw of this process is noted."""
    draw, reader, stream_of, child_of = Stream._draw, Stream.reader, PairKey.stream, PairKey.child

    def noting(stream: Stream, size: int) -> np.ndarray:
        start, holder = stream._position, _holder(stream)
        result = draw(stream, size)
        if holder is not None and size:
            _now[-1].note(holder, stream._key, stream.purpose, start * BLOCK, stream._position * BLOCK)
        return result

    @wraps(reader)
    def noted(stream: Stream, start: int, size: int = 0) -> Reader:
        result, holder = reader(stream, start, size), _holder(stream)
        return result if holder is None else Noted(result, stream, stream._position * BLOCK + start, holder)

    @wraps(stream_of)
    def stream(key: PairKey, purpose: str, lane: int = 0) -> Stream:
        result = stream_of(key, purpose, lane)
        if _is_open(key._secret):
            _open_keys.add(result._key)
        return result

    @wraps(child_of)
    def child(key: PairKey, label: str) -> PairKey:
        result = child_of(key, label)
        if _is_open(key._secret):
            _open_secrets.add(result._secret)
        return result

    Stream._draw, Stream.reader, PairKey.stream, PairKey.child = noting, noted, stream, child  # type: ignore[method-assign]
