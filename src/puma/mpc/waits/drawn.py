"""Masks of the parameters that an evaluator comes to next, drawn while it waits.

They are the bytes that it would draw where it uses them, and nobody else is told. Where a rehearsal makes the products
of P1's masks, all that is left to it is a product with m less the mask: then this difference is what it keeps, so that
the step reads one matrix instead of two. Safe: P1 holds both, and nothing is sent.

Bytes lie in pages that are kept: memory that the system gives anew has to be cleared first, which takes longer than to
draw. The lowest page that is free comes next, so that pages mostly lie one behind the other and bytes of several are
read where they lie. Where a rehearsal stands beside the run it goes on in the same waits. This file must not know
models.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager

from torch import Tensor

from puma import kernels
from puma.crypto.prg import Reader
from puma.mpc.party import FIRST
from puma.mpc.seeded import Seeded, rest_bytes
from puma.mpc.share import Share
from puma.mpc.waits.rehearsed import Rehearsal
from puma.net import Link
from puma.net.endpoint import owned

PAGE = 312 * 840  # bytes of a mask that are drawn at a time while nothing comes: some 30 us; whole words of any ring
FORESEEN = 512 << 20  # bytes that are drawn ahead, at most
LATE, SLOW = 8, 1e-3  # a network is slow where so many rounds one after the other waited so many seconds each


class Drawn:
    """The mask of a parameter, drawn in part: its first `done` bytes, in some of the pages of a memory; or, `less`, the
    bytes of m less the mask."""

    def __init__(self, weight: Seeded, memory: Tensor, less: bool = False) -> None:
        self.size, self.done, self.less = rest_bytes(weight.shape, weight.bits), 0, less
        self.pages = list[int]()
        self._memory, self._weight = memory, weight
        self._held: Tensor | None = None  # m, once it has been read of
        self._stream = weight.stream()
        self._reader: Reader | None = None

    def draw(self, page: int) -> None:
        """The next bytes."""
        part = self._memory[page * PAGE : page * PAGE + min(PAGE, self.size - self.done)]
        self._reader = self._reader or self._stream.reader(0)
        self._reader.into(part)
        if self.less:
            if self._held is None:
                (self._held,) = self._weight.held()
            kernels.taken_off(self._held[self.done : self.done + part.numel()], part, self._weight.bits)
        self.pages.append(page)
        self.done += part.numel()

    def read(self, low: int, high: int, buffer: Tensor) -> Tensor:
        """Bytes that are there, as they lie or in the buffer."""
        first, last = low // PAGE, max(low, high - 1) // PAGE
        begin = self.pages[first]
        if self.pages[first : last + 1] == [*range(begin, begin + last - first + 1)]:
            start = begin * PAGE + low - first * PAGE
            return self._memory[start : start + high - low]
        at = 0
        for number in range(first, last + 1):
            page = self._memory[self.pages[number] * PAGE :][:PAGE]
            piece = page[max(0, low - number * PAGE) : high - number * PAGE]
            buffer[at : at + piece.numel()] = piece
            at += piece.numel()
        return buffer[:at]


class Foreseen:
    """What an evaluator does in its waits; see `Meanwhile` in mpc/party.py.

    After a parameter the next ones in the order given are wanted, as many as fit; what is drawn of others is forgotten.
    """

    def __init__(self, weights: Sequence[Seeded], most: int = FORESEEN) -> None:
        self._weights, self._most = list(weights), most
        self._places: dict[int, list[int]] = {}  # of one that serves several layers there are as many
        for place, weight in enumerate(weights):
            self._places.setdefault(id(weight), []).append(place)
        self._drawn: dict[int, Drawn] = {}  # by place
        self._read: list[Drawn] = []  # of which the pages are free once the run waits again
        self._memory: Tensor | None = None  # of all pages; there is none before the first wait
        self._free = list[int]()  # pages, the lowest first
        self._waits = deque[float](maxlen=LATE)
        self._first, self._wanted = 0, -1  # the next one, and the one from which on they were wanted last
        self._rehearsal: Rehearsal | None = None
        self.less = False  # whether of a parameter that is wanted from now on m less the mask is kept

    def __repr__(self) -> str:
        return f"Foreseen({len(self._weights)} parameters)"

    @property
    def slow(self) -> bool:
        """Whether rounds have waited long of late."""
        return len(self._waits) == LATE and min(self._waits) >= SLOW

    @contextmanager
    def beside(self, rehearsal: Rehearsal) -> Generator[None, None, None]:
        """Meanwhile this one tells what comes to be multiplied."""
        self._rehearsal, self.less = rehearsal, self._weights[0].party.rank == FIRST
        try:
            yield
        finally:
            self._rehearsal, self.less = None, False
            rehearsal.end()

    def meanwhile(self, link: Link) -> None:
        """Draw until something comes on this link."""
        if not self.slow:
            return
        if self._rehearsal is not None:
            self._rehearsal.wait()
        memory, free = self._pages()
        if self._wanted != self._first:
            self._want(self._first, memory)
        for drawn in self._drawn.values():
            while drawn.done < drawn.size:
                if not free or not link.quiet:
                    return
                drawn.draw(heapq.heappop(free))

    def waited(self, seconds: float) -> None:
        """A round waited so long for its message."""
        self._waits.append(seconds)
        if self._rehearsal is not None:
            self._rehearsal.go_on()

    def take(self, weight: Seeded) -> Drawn | None:
        """The mask's first bytes, as many as are drawn already, until the run waits again; those of the parameters
        behind it are wanted from now on."""
        places = self._places.get(id(weight))
        if places is None:
            return None
        place = min(places, key=lambda place: (place - self._first) % len(self._weights))
        found, self._first = self._drawn.pop(place, None), place + 1
        if found is not None:
            self._read.append(found)
        return found

    def forget(self) -> None:
        """Let go of all memory: nobody asks for anything at present."""
        self._drawn, self._read, self._memory, self._free, self._wanted = {}, [], None, [], -1

    def known(self) -> Tensor | None:
        """What a rehearsal has made of the next product with a parameter."""
        return None if self._rehearsal is None else self._rehearsal.take()

    def _pages(self) -> tuple[Tensor, list[int]]:
        """The memory of all, and those that nothing lies in."""
        if self._memory is None:
            sizes = (-(-rest_bytes(w.shape, w.bits) // PAGE) for w in self._weights)
            count = min(self._most // PAGE, sum(sizes))
            self._memory = kernels.from_wire(owned(count * PAGE), self._weights[0].device)
            self._free = [*range(count)]
        self._release(self._read)
        self._read = []
        return self._memory, self._free

    def _want(self, first: int, memory: Tensor) -> None:
        """The parameters from this place on, as many as fit."""
        before, left, self._drawn, self._wanted = self._drawn, self._most, {}, first
        for place in range(first, first + len(self._weights) - 1):
            place %= len(self._weights)
            drawn = self._drawn[place] = before.pop(place, None) or Drawn(self._weights[place], memory, self.less)
            left -= drawn.size
            if left <= 0:
                break
        self._release(before.values())

    def _release(self, those: Iterable[Drawn]) -> None:
        for drawn in those:
            for page in drawn.pages:
                heapq.heappush(self._free, page)


def foreseen(parameters: Sequence[Share]) -> Foreseen | None:
    """For an evaluator that draws masks where it uses them; None for any other party."""
    drawn = [p for p in parameters if isinstance(p, Seeded) and not p.keep and len(p.shape) == 2]
    if len(drawn) < 2 or drawn[0].party.dry or drawn[0].party.is_dealer:
        return None
    return Foreseen(drawn)
