"""Links between parties that are threads of one process: the same surface, counters and errors as the
links between machines, without a wire. Tests and dry runs use them. It must not know who holds the two
ends."""

from __future__ import annotations

from puma.net.endpoint import QUEUE_BYTES, TIMEOUT, Endpoint, ended, owned, stopped, stuck
from puma.net.frame import Kind


class MemoryLink(Endpoint):
    """One end of a link inside this process."""

    other: MemoryLink  # the other end; `pair` ties them

    def _transmit(self, kind: Kind, sequence: int, pieces: list[memoryview], size: int) -> None:
        # One copy, as on a wire: the sender may change its buffer, and the receiver may write into its own.
        payload = owned(size)
        low = 0
        for piece in pieces:
            payload[low : low + len(piece)] = piece
            low += len(piece)
        if not self.other.inbox.put(kind, payload, self.timeout):
            raise stuck(self.peer, self.timeout)

    def _finish(self, message: str | None) -> None:
        self.other.inbox.end(stopped(self.name, message))
        self.inbox.end(ended(self.peer, message))


def pair(
    name_a: str, name_b: str, timeout: float = TIMEOUT, queue_bytes: int = QUEUE_BYTES
) -> tuple[MemoryLink, MemoryLink]:
    """A link between a and b: the end that a holds, and the end that b holds."""
    a = MemoryLink(name_a, name_b, timeout, queue_bytes)
    b = MemoryLink(name_b, name_a, timeout, queue_bytes)
    a.other, b.other = b, a
    return a, b
