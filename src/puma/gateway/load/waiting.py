"""Jobs that wait, by whose they are: keys take turns, and each key's jobs go in their order.

So nobody keeps others waiting by asking more. It must not know threads, nor what is asked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from puma.gateway.load.jobs import Job


class Waiting:
    """A queue for each key; it is the turn of the one that comes first."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Job]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def __iter__(self) -> Iterator[Job]:
        """In the order in which they are going to be taken."""
        queues = [deque(queue) for queue in self._queues.values()]
        while queues:
            for queue in queues:
                yield queue.popleft()
            queues = [queue for queue in queues if queue]

    def put(self, job: Job, first: bool = False) -> None:
        """One more, behind those of its key, or before them and all others."""
        if first:
            queue = self._queues.pop(job.key.name, deque())
            queue.appendleft(job)
            self._queues = {job.key.name: queue, **self._queues}
        else:
            self._queues.setdefault(job.key.name, deque()).append(job)

    def take(self) -> Job:
        """The next one; its key's others wait until it is their turn again."""
        name = next(iter(self._queues))
        queue = self._queues.pop(name)
        job = queue.popleft()
        if queue:
            self._queues[name] = queue
        return job

    def clear(self) -> list[Job]:
        """All of them, and none is left."""
        found = [*self]
        self._queues.clear()
        return found
