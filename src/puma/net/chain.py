"""Hash chains over the frames of a link: one for each direction and kind, the same at both ends.

A state is a hash keyed with the state before, and what is published of it is one step away: who lacks the key of the
link learns nothing of a frame from it, however few bits the frame has. BLAKE3 (O'Connor, Aumasson, Neves and
Wilcox-O'Hearn, 2020) because SHA-256 takes three times as long.

A large frame between parties carries the state that its sender makes of it. Whoever receives it hashes one of these in
`LOOKS`, chosen by chance and told to nobody, and believes the others; in a session that may be opened, all. This file
must not know what a frame says, nor who looks at a chain.
"""

from __future__ import annotations

import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from blake3 import blake3
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from puma.net.frame import Kind

KEY_BYTES = 32
MARK_BYTES = 8  # of each state, in the trail
MOST_MARKS = 1 << 17  # of a trail: the frames after these leave none
NO_KEY = bytes(KEY_BYTES)  # of links that never leave a process
STATE_BYTES = 32
STAMPED = 64 << 10  # bytes of a frame from which on it carries a state: hashing it takes longer than reading 32 more
SMALL = 2 << 10  # bytes of a frame that is copied in order to be hashed by one call
LOOKS = 16  # more often than anybody audits: who lies about frames is found before who says truly that it deviates


class Head(NamedTuple):
    """What may be published of a chain: how many frames and bytes it is over, and 32 bytes that follow from all of
    them."""

    frames: int
    size: int
    digest: bytes


class Heads(NamedTuple):
    """Of data frames sent and received, and of control frames likewise where they are chained."""

    sent: Head
    received: Head
    said: Head | None = None
    heard: Head | None = None


class Chain:
    """Frames of one direction and kind, in their order; for one thread at a time. `trail` holds a mark of each state,
    by which two chains can be seen to part."""

    __slots__ = ("_state", "frames", "size", "trail")

    def __init__(self, key: bytes, direction: str) -> None:
        self._state = blake3(b"puma/1|chain|" + direction.encode(), key=key).digest()
        self.frames = self.size = 0
        self.trail = bytearray()

    def add(self, pieces: Sequence[bytes | memoryview], size: int) -> None:
        """One more frame, of `size` bytes, made of these pieces."""
        self.believe(self.after(pieces, size), size)

    def after(self, pieces: Sequence[bytes | memoryview], size: int) -> bytes:
        """The state behind one more frame, which is not added."""
        # The length behind what it is of: before it, all would be hashed a few bytes off a block, which takes longer.
        parts = *pieces, size.to_bytes(8, "little")
        first, *more = (b"".join(parts),) if size < SMALL else parts
        digest = blake3(first, key=self._state)
        for piece in more:
            digest.update(piece)
        return digest.digest()

    def believe(self, state: bytes, size: int) -> None:
        """One more frame, of `size` bytes, behind which the state is this one."""
        self._state = state
        self.frames += 1
        self.size += size
        if self.frames <= MOST_MARKS:
            self.trail += state[:MARK_BYTES]

    def stamped(self, pieces: Sequence[memoryview], size: int) -> list[memoryview]:
        """A frame as it leaves, and behind it the state that it makes; hashed before it is copied, while it is near."""
        self.add(pieces, size)
        return [*pieces, memoryview(self._state)]

    @property
    def head(self) -> Head:
        """Over all frames so far."""
        return Head(self.frames, self.size, blake3(b"puma/1|head", key=self._state).digest())

    def __repr__(self) -> str:
        return f"Chain({self.frames} frames)"


@dataclass(frozen=True)
class Chains:
    """All chains of one end of a link; `stamping`: large data frames carry their sender's state."""

    sent: dict[Kind, Chain]
    received: dict[Kind, Chain]
    stamping: bool = False

    @classmethod
    def begun(cls, key: bytes, label: str, name: str, peer: str, words: bool) -> Chains:
        """At the end that is called `name`; `words`: control frames are chained as well, as they are with clients, who
        hash all that comes."""
        own = chain_key(key, label)
        kinds = {Kind.DATA: "", Kind.CONTROL: " words"} if words else {Kind.DATA: ""}
        sent, received = ({kind: Chain(own, who + what) for kind, what in kinds.items()} for who in (name, peer))
        return cls(sent, received, not words)

    def stamp(self, kind: Kind, size: int) -> int:
        """How many bytes a frame of this kind and size carries besides."""
        return STATE_BYTES if self.stamping and kind is Kind.DATA and size >= STAMPED else 0

    @property
    def heads(self) -> Heads:
        """Of all of them, now."""
        found = [chains[Kind.DATA].head for chains in (self.sent, self.received)]
        words = [chains[Kind.CONTROL].head for chains in (self.sent, self.received) if Kind.CONTROL in chains]
        return Heads(*found, *words)

    @property
    def trails(self) -> dict[str, bytes]:
        """The marks of data frames that were sent and received."""
        return {
            "sent": bytes(self.sent[Kind.DATA].trail),
            "received": bytes(self.received[Kind.DATA].trail),
        }


def link_key(secret: bytes) -> bytes:
    """The key of all chains of a link, by the secret of its two ends, about which nothing follows from it."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=b"puma/1|frames").derive(secret)


def frame_digest(pieces: Sequence[bytes | memoryview]) -> bytes:
    """32 bytes that follow from a frame, for whoever has the frame, too, and compares."""
    digest = blake3(b"puma/1|frame|")
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


def chain_key(key: bytes, label: str) -> bytes:
    """The key of the chains under this label, by that of the link; who is told it can follow these chains alone."""
    return hmac.digest(key, b"puma/1|label|" + label.encode(), "sha256")


def looks() -> bool:
    """Whether a frame that says what it hashes to is hashed all the same; nobody can know beforehand."""
    return int.from_bytes(os.urandom(2)) % LOOKS == 0
