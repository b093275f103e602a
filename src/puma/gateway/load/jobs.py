"""A request between its asker, in an event loop, and the thread that has a session. It must not know what it asks."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Generator
from time import monotonic
from typing import Any

from puma.gateway.answers import Wanted
from puma.gateway.load.keys import ANYBODY, Key
from puma.gateway.watch import Watch

Run = Callable[[Any], Generator[Any, None, None]]


class Job:
    """A request in the queue and afterwards; items come in the asker's event loop. `watch` is its asker's to see.

    What is wanted is a generator over items, or a generation; `key` says whose it is, `tokens` how many it may take.
    """

    def __init__(self, run: Run | Wanted, watch: Watch, key: Key = ANYBODY, tokens: int = 0) -> None:
        self.run, self.watch, self.key, self.tokens = run, watch, key, tokens
        self.left = threading.Event()  # nobody waits for it any more
        self.came = monotonic()
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Any] = asyncio.Queue()

    def tell(self, item: Any, last: bool = False) -> None:
        """From the thread: an item, an error, or the end."""
        with contextlib.suppress(RuntimeError):  # the event loop is gone, and with it whoever waited
            self._loop.call_soon_threadsafe(self._items.put_nowait, (item, last))

    def end(self, state: str, error: Exception | None = None) -> None:
        """From the thread: no more items, and why."""
        self.watch.end(state)
        self.tell(error, last=error is None)

    def leave(self) -> None:
        """Nobody waits any more: the job ends at its next item, and `items` now."""
        self.left.set()
        self.tell(None, last=True)

    async def items(self, leave: bool = True) -> AsyncIterator[Any]:
        """What the job yields; raises its error. Leaving the iteration leaves the job, unless others read on."""
        try:
            while True:
                item, last = await self._items.get()
                if isinstance(item, Exception):
                    raise item
                if last:
                    return
                yield item
        finally:
            if leave:
                self.left.set()
