"""Which of the requests that could take a step take the next one: those under way first, new ones a bounded amount.

Keys take turns by what their requests read (deficit round robin: M. Shreedhar and G. Varghese, "Efficient fair queuing
using deficit round-robin", IEEE/ACM Transactions on Networking 4(3), 1996), so that no client keeps others waiting by
asking more. Sizes, keys and models are all that this file knows; they are public.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

ROWS = 128  # texts under way that one step advances
PREFILL = 512  # tokens of prompts that one step reads beside them: those under way wait no longer
PIECE = 128  # of one prompt, while others are under way
QUANTUM = 32  # tokens that a key may have more each time its turn comes


@dataclass(frozen=True)
class Ready:
    """A request that could take a step: whose it is, of which model, and how many rows the step would read.

    `begins`: its prompt has not been read. It may be read in `pieces`, of as many rows as it is given.
    """

    name: Any
    key: str
    served: Any
    begins: bool
    rows: int
    pieces: bool = False


class Turns:
    """Whose turn it is among keys; what a key has not used it keeps as long as something of it waits."""

    def __init__(self) -> None:
        self._order: deque[str] = deque()
        self._left: dict[str, int] = {}

    def take(self, waiting: Sequence[Ready], budget: int) -> list[Ready]:
        """Some of these, of `budget` rows together; one that is larger goes by itself."""
        queues: dict[str, deque[Ready]] = {}
        for ready in waiting:
            queues.setdefault(ready.key, deque()).append(ready)
        self._order.extend(key for key in queues if key not in self._left)
        self._left = {key: self._left.get(key, 0) for key in [*self._left, *queues]}
        taken: list[Ready] = []
        while any(queues.values()) and budget > 0:
            key = self._order[0]
            queue = queues.get(key)
            if not queue:
                self._forget(key)
                continue
            while queue and queue[0].rows <= self._left[key]:
                if taken and queue[0].rows > budget:
                    return taken  # and it is still this key's turn
                budget -= queue[0].rows
                self._left[key] -= queue[0].rows
                taken.append(queue.popleft())
            if queue:
                self._left[key] += QUANTUM
                self._order.rotate(-1)
            else:
                self._forget(key)
        return taken

    def _forget(self, key: str) -> None:
        self._order.remove(key)
        del self._left[key]


class Schedule:
    """What the next step is made of, step after step."""

    def __init__(self, rows: int = ROWS, prefill: int = PREFILL) -> None:
        self._rows, self._prefill = rows, prefill
        self._going, self._beginning = Turns(), Turns()
        self._latest: dict[Any, int] = {}  # the step in which a model had its last turn
        self._count = 0

    def choose(self, ready: Sequence[Ready]) -> list[Ready]:
        """All of one model, which take turns, too; nothing if nothing is ready. Rows of a prompt that may be read in
        pieces are those of the next one."""
        if not ready:
            return []
        served = min({r.served: None for r in ready}, key=lambda s: self._latest.get(s, -1))
        self._latest = {s: n for s, n in self._latest.items() if any(r.served == s for r in ready)}
        self._count += 1
        self._latest[served] = self._count
        mine = [r for r in ready if r.served == served]
        going = self._going.take([r for r in mine if not r.begins], self._rows)
        piece = min(PIECE, self._prefill) if going else self._prefill
        new = [replace(r, rows=min(r.rows, piece)) if r.pieces else r for r in mine if r.begins]
        return going + self._beginning.take(new, self._prefill)
