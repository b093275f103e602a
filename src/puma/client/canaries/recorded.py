"""What a client said to a party and heard of it in a canary, word by word, so that it can be said again.

It holds seeds and answers in the clear, of a prompt that means nothing. This file must not know what is said.
"""

from __future__ import annotations

from typing import Any

import msgspec

from puma.net import Buffer, Link


class Script(msgspec.Struct, forbid_unknown_fields=True):
    """Of one party: control and data frames that it was sent, and those that it sent, each in their order."""

    words: list[bytes] = []
    frames: list[bytes] = []
    replies: list[bytes] = []
    outputs: list[bytes] = []

    def __repr__(self) -> str:
        return f"Script({len(self.words)} words)"


class Recorded:
    """A link of which everything is written down. All else is the link's own."""

    def __init__(self, link: Link) -> None:
        self._link, self.script = link, Script([], [], [], [])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def send(self, *buffers: Buffer) -> None:
        """One data frame."""
        self.script.frames.append(b"".join(bytes(buffer) for buffer in buffers))
        self._link.send(*buffers)

    def send_control(self, payload: Buffer) -> None:
        """One control frame."""
        self.script.words.append(bytes(payload))
        self._link.send_control(payload)

    def recv(self, size: int) -> memoryview:
        """The next data frame."""
        found = self._link.recv(size)
        self.script.outputs.append(bytes(found))
        return found

    def recv_control(self) -> bytes:
        """The next control frame."""
        found = self._link.recv_control()
        self.script.replies.append(found)
        return found
