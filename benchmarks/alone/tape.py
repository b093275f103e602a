"""Links that note what comes, and links that play it again, for a party that shall compute with nobody else about.

They must not know what is computed.
"""

from __future__ import annotations

from collections.abc import Sequence

from puma.net import Link
from puma.net.endpoint import Buffer, owned
from puma.net.null import NullLink


class Recorder:
    """A `Link` as it is, of which data frames that come are kept."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.came: list[bytes] = []

    def send(self, *buffers: Buffer) -> None:
        """As the link's."""
        self._link.send(*buffers)

    def recv(self, size: int) -> memoryview:
        """As the link's; a copy is kept, for the frame is the caller's to change."""
        payload = self._link.recv(size)
        self.came.append(bytes(payload))
        return payload

    def __getattr__(self, name: str) -> object:
        return getattr(self._link, name)


class Player(NullLink):
    """A link to nobody on which the same data frames come again, each a fresh copy that lies ready: on a real link a
    thread of its own has received what comes early."""

    def __init__(self, came: Sequence[bytes]) -> None:
        self._frames = iter([_copied(frame) for frame in came])

    def recv(self, size: int) -> memoryview:
        """The next frame."""
        payload = next(self._frames)
        assert len(payload) == size, "this is another run than the recorded one"
        return payload


def _copied(frame: bytes) -> memoryview:
    payload = owned(len(frame))
    payload[:] = frame
    return payload
