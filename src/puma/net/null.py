"""A link to nobody: what is sent is swallowed, and zeros come. Rehearsals and lookahead stand on it, which run a
protocol for the masks that it draws. It must not know what those are."""

from __future__ import annotations

from puma.net.endpoint import Buffer, owned


class NullLink:
    """A `Link` whose peer never was; nothing is counted, because nothing leaves."""

    name, peer, timeout = "nobody", "nobody", 0.0
    sent_bytes = received_bytes = 0
    lost = quiet = False
    heads = None

    @property
    def trails(self) -> dict[str, bytes]:
        """Nothing came or left."""
        return {}

    def send(self, *buffers: Buffer) -> None:
        """Nothing leaves."""

    def recv(self, size: int) -> memoryview:
        """As many zeros."""
        buffer = owned(size)
        buffer[:] = bytes(size)
        return buffer

    def send_control(self, payload: Buffer) -> None:
        """Nothing leaves."""

    def recv_control(self) -> bytes:
        """Nothing."""
        return b""

    def set_timeout(self, seconds: float) -> None:
        """Nobody is waited for."""

    def chain(self, label: str, words: bool = False) -> None:
        """There is nothing to hash."""

    def doubt(self) -> None:
        """Nothing comes."""

    def check(self) -> None:
        """Nobody is gone who never was there."""

    def fail(self, message: str) -> None:
        """There is nobody to tell."""

    def close(self) -> None:
        """There is nothing to close."""
