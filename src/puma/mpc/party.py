"""One computing party: its rank, its key streams, its links and the ledger of what crossed them.

A protocol is a generator written from this party's view. It yields the pieces it wants to swap with the other
evaluator and is resumed with the pieces that came back; `Party.run` drives one protocol, `together` runs several in
lockstep so that they share every message. P0, the dealer, never swaps: it only sends corrections to P2 and runs ahead.
This file must not know what the words mean.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, TypeVar, cast
from typing import Protocol as Surface

import torch
from torch import Tensor

from puma import kernels
from puma.crypto.prg import HOST, PairKey, Stream
from puma.kernels.outline import Outline
from puma.kernels.rounds import message
from puma.mpc.cost import Bytes, Ledger, Words
from puma.mpc.lookahead import Lookahead
from puma.net import Link
from puma.net.null import NullLink

T = TypeVar("T")

DEALER, FIRST, SECOND = 0, 1, 2
SHAPES = 1 << 10  # of which stand-ins are kept


class Piece(NamedTuple):
    """Part of a message: words of `bits` bits each, as one run of bits, or bytes as they are (uint8).

    There are no words at the dealer. `row`: bytes are rows that hold so many single bits each. `joined`: whether what
    comes in exchange comes back alone, or made one with the own words (kernels/rounds/message.py).
    """

    words: Tensor | None
    bits: int
    row: int = 0
    joined: int = message.ALONE

    @property
    def size(self) -> Words:
        """What of it travels."""
        shape = present(self.words).shape
        return Words(self.row, 1, shape[0]) if self.row else Words(math.prod(shape), self.bits)


Message = list[Piece]
Protocol = Generator[Message, list[Any], T]


class PrecomputedTerms(Surface):
    """What an evaluator computes of a run before the input is there: written in a rehearsal, read in the run itself.

    In a rehearsal masked values mean nothing and nothing is sent, but every mask is the one of the later run.
    """

    rehearsing: bool

    def known(self, make: Callable[[], Tensor], shape: tuple[int, ...], bits: int) -> Tensor:
        """Words that depend on no input: made and written down in the rehearsal, read in the same order in the run."""
        ...


class Meanwhile(Surface):
    """What an evaluator does while it waits for a message: work that has to be done anyway (mpc/waits)."""

    def meanwhile(self, link: Link) -> None:
        """Until something comes on this link."""
        ...

    def waited(self, seconds: float) -> None:
        """A message was waited for so long."""
        ...

    def take(self, weight: Any) -> Any:
        """What has been drawn for this parameter, which is used now."""
        ...

    def known(self) -> Tensor | None:
        """What has been made of the next product with a parameter, if anything; the words are the caller's."""
        ...

    def forget(self) -> None:
        """Nobody asks for anything at present."""
        ...


class Party:
    """Rank 0 is the dealer (holds masks only), 1 and 2 are the evaluators.

    `links` maps a peer's rank to its link and `keys` to the secret shared with it; both are None for a dry run on
    outlines, which counts exactly what a real run would send without computing anything. Whatever the party
    holds lies on `device`: masks are brought there as they are drawn, and messages as they come (`kernels.from_wire`).
    """

    clear = False  # whether it holds values themselves (mpc/clear.py)

    def __init__(
        self, rank: int, links: dict[int, Link] | None = None, keys: dict[int, PairKey] | None = None, lane: int = 0,
        device: torch.device | str | None = None,
    ) -> None:  # fmt: skip
        self.rank = rank
        self.is_dealer = rank == DEALER  # P0, who holds masks only
        self.lane = lane
        self.links: dict[int, Link] = links or {}
        self.dry = links is None
        self.device = torch.device("meta" if self.dry else device or "cpu")
        self.device = HOST if self.device == HOST else self.device  # the same object, which is quickly told
        self.ledger = Ledger()
        self.precomputed: PrecomputedTerms | None = None
        self.lookahead: Lookahead | None = None  # at the dealer only
        self.foreseen: Meanwhile | None = None  # at evaluators only
        self.on_watch: Any = None  # who notes what leaves its reach (mpc/watch.py)
        self.recall: Any = None  # of a dry party that remembers what things cost (mpc/recall.py)
        self.approximation = "spline"  # which functions the floors above compute; the same at all parties
        self.quick: tuple[str, ...] = ()  # which of them in fewer rounds and more words; the same at all parties
        self._keys = keys or {}
        self._streams: dict[tuple[int, str], Stream] = {}
        self._nothing: dict[tuple[int, ...], Tensor] = {}
        self._gather: Callable[[bool], None] | None = None
        self._zero = torch.zeros((), dtype=torch.int64, device=self.device)

    def __repr__(self) -> str:
        return f"Party(rank={self.rank}{', dry' if self.dry else ''})"

    def nothing(self, shape: Sequence[int]) -> Tensor:
        """A stand-in of this shape for words that this party does not hold; takes no memory and no time. Only to be
        read."""
        if self.dry:
            return cast(Tensor, Outline(shape))
        shape = tuple(shape)
        found = self._nothing.get(shape)
        if found is None:
            if len(self._nothing) >= SHAPES:
                self._nothing.clear()
            found = self._nothing[shape] = self._zero.expand(shape)
        return found

    def outline(self, shape: Sequence[int], count: int) -> Tensor:
        """A public mask of a dry run: of this shape, with so many entries that are True."""
        return cast(Tensor, Outline(shape, torch.bool, count))

    def note_range(self, what: str, x: Any, limit: float) -> None:
        """x must stay below the limit, which no party can see; a clear one looks."""

    # -- randomness ---------------------------------------------------------------------------------------------

    def words(self, evaluator: int, purpose: str, shape: Sequence[int]) -> Tensor | None:
        """Fresh uniform 64-bit words common to the dealer and `evaluator`; None at the other evaluator."""
        if self.rank != evaluator and self.rank != DEALER:
            return None
        if self.dry:
            return self.nothing(shape)
        stream = self._streams.get((evaluator, purpose)) or self._stream(evaluator, purpose)
        return stream.words(shape, self.device)

    def own_words(self, purpose: str, shape: Sequence[int]) -> Tensor | tuple[Tensor, Tensor]:
        """Fresh words: the dealer gets the pair (with P1, with P2), an evaluator its own."""
        if self.rank == DEALER:
            return present(self.words(FIRST, purpose, shape)), present(self.words(SECOND, purpose, shape))
        return present(self.words(self.rank, purpose, shape))

    def common_words(self, purpose: str, shape: Sequence[int]) -> Tensor:
        """Fresh uniform 64-bit words common to the evaluators; nothing at the dealer, who must not know them."""
        if self.is_dealer or self.dry:
            return self.nothing(shape)
        other = SECOND if self.rank == FIRST else FIRST
        stream = self._streams.get((other, purpose))
        if stream is None:
            stream = self._streams[other, purpose] = self._keys[other].stream(purpose, self.lane)
        return stream.words(tuple(shape), self.device)

    def random_bytes(self, evaluator: int, purpose: str, count: int) -> Tensor | None:
        """Fresh uniform bytes (uint8) common to the dealer and `evaluator`; None at the other evaluator."""
        if self.rank != evaluator and self.rank != DEALER:
            return None
        if self.dry:
            return _bytes(count)
        stream = self._streams.get((evaluator, purpose)) or self._stream(evaluator, purpose)
        return stream.bytes(count, self.device)

    def _stream(self, evaluator: int, purpose: str) -> Stream:
        stream = self._streams.get((evaluator, purpose))
        if stream is None:
            peer = evaluator if self.is_dealer else DEALER
            stream = self._keys[peer].stream(purpose, self.lane)
            self._streams[evaluator, purpose] = stream
        return stream

    @property
    def pairs(self) -> dict[int, PairKey]:
        """What is drawn from at present: the secret that this party has in common with each other one."""
        return dict(self._keys)

    def child_keys(self, label: str) -> dict[int, PairKey]:
        """Keys of their own for one run, shared by the same parties."""
        return {peer: key.child(label) for peer, key in self._keys.items()}

    @contextmanager
    def under(
        self, keys: dict[int, PairKey], links: dict[int, Link], precomputed: PrecomputedTerms | None = None
    ) -> Generator[None, None, None]:
        """Meanwhile draw from other keys, from their start, and talk over other links; then go on as before."""
        before = self._keys, self._streams, self.links
        self._keys, self._streams, self.links, self.precomputed = keys, {}, links, precomputed
        try:
            yield
        finally:
            self._keys, self._streams, self.links = before
            self.precomputed = None

    @contextmanager
    def stage(self, label: str) -> Generator[None, None, None]:
        """Meanwhile draw from streams of this stage's own, so that they start at a place known beforehand.

        A label must serve only once, except to draw the same masks for the same values again.
        """
        before = self._keys, self._streams
        self._keys, self._streams = self.child_keys(label), {}
        try:
            yield
        finally:
            self._keys, self._streams = before

    @contextmanager
    def silent(self) -> Generator[None, None, None]:
        """Meanwhile the dealer says nothing and books nothing."""
        before = self.links, self.ledger
        nobody: dict[int, Link] = {peer: NullLink() for peer in self.links}
        self.links, self.ledger = nobody, Ledger()
        try:
            yield
        finally:
            self.links, self.ledger = before

    @contextmanager
    def gathering(self) -> Generator[None, None, None]:
        """Meanwhile small frames of the dealer's may leave together, since it is ahead and waits for nobody."""
        gather = getattr(self.links.get(SECOND), "gather", None) if self.is_dealer else None
        if gather is None:
            yield
            return
        gather(True)
        self._gather = gather
        try:
            yield
        finally:
            self._gather = None
            gather(False)

    def let_go(self) -> None:
        """Before the dealer computes for long: what it has gathered leaves."""
        if self._gather is not None:
            self._gather(True)

    # -- messages -----------------------------------------------------------------------------------------------

    def correction(self, payload: Tensor | None, count: int) -> Tensor | None:
        """Offline, dealer to P2: `count` bytes. Returns them at P2 and None elsewhere.

        The caller pads the payload with a stream that P2 lacks (k01).
        """
        if self.rank == FIRST or count == 0:
            return torch.empty(0, dtype=torch.uint8, device=self.device) if count == 0 and self.rank == SECOND else None
        if self.is_dealer:
            # a second dealer sends a digest where the first one sends the words (wire/twin.py)
            self.ledger.sent(getattr(self.links.get(SECOND), "digest_bytes", count), online=False)
            if not self.dry:
                self.links[SECOND].send(kernels.to_wire(present(payload)))
            return None
        if self.dry:
            self.ledger.awaited(count)
            return _bytes(count)
        return kernels.from_wire(self.links[DEALER].recv(count), self.device)

    def exchange(self, pieces: Message) -> list[Tensor | None]:
        """Online, both evaluators at once: one message each way, pieces of the same shapes back. One round."""
        if self.rank == DEALER:
            return [None] * len(pieces)
        if self.dry:
            self.ledger.sent(Bytes.of(*(piece.size for piece in pieces)), online=True)
            self.ledger.round()
            return [p.words for p in pieces]
        # The dealer runs far ahead: what it has sent would hide for long that it is gone.
        self.links[DEALER].check()
        parts: list[Any] = [(piece.words, piece.bits) for piece in pieces]  # an evaluator has words for all of them
        lengths = message.sizes(parts)
        written = message.write(parts, lengths)
        self.ledger.swapped(len(written))
        link = self.links[SECOND if self.rank == FIRST else FIRST]
        link.send(written)
        came = self._awaited(link, len(written))
        return [*message.read(came, parts, lengths, [piece.joined for piece in pieces])]

    def _awaited(self, link: Link, size: int) -> memoryview:
        """The other's message."""
        if self.foreseen is None:
            return link.recv(size)
        started = time.perf_counter()
        self.foreseen.meanwhile(link)
        found = link.recv(size)
        self.foreseen.waited(time.perf_counter() - started)
        return found

    def run(self, protocol: Protocol[T]) -> T:
        """Drive one protocol to its end, exchanging a message for each of its rounds."""
        reply: Any = None
        while True:
            try:
                pieces = protocol.send(reply)
            except StopIteration as stop:
                return stop.value
            reply = self.exchange(pieces)


def present(x: T | None) -> T:
    """x, which this party holds; for what is None at those that do not."""
    assert x is not None
    return x


def together(*protocols: Protocol[Any]) -> Protocol[list[Any]]:
    """Run protocols in lockstep: what they send in the same round travels in one message."""
    results: list[Any] = [None] * len(protocols)
    replies: dict[int, Any] = {i: None for i in range(len(protocols))}
    while replies:
        waiting: list[tuple[int, int]] = []
        message: Message = []
        for i, reply in replies.items():
            try:
                pieces = protocols[i].send(reply)
            except StopIteration as stop:
                results[i] = stop.value
                continue
            waiting.append((i, len(pieces)))
            message.extend(pieces)
        if not waiting:
            break
        received = yield message
        replies, start = {}, 0
        for i, count in waiting:
            replies[i] = received[start : start + count]
            start += count
    return results


def _bytes(count: int) -> Tensor:
    """Bytes of a dry run."""
    return cast(Tensor, Outline((count,), torch.uint8))
