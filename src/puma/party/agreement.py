"""Whether the three parties were told the same: a running digest of all that a client says in public.

Each word is put into the digest as it comes, and told to both others at once; what they were told is looked at just
before something leaves for the client. So nobody waits: the others' words have long come when a first output is ready.
This file must not know what the words mean, and sees no seed and no share.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Mapping

from puma.errors import ProtocolError
from puma.net import Link
from puma.wire import messages as msg


class Agreement:
    """One party's half, for one session: `say` or `note` each word of the client, `check` before each answer.

    The digest is SHA-256 over the one before and the canonical bytes of the word, its place in the session, the sharing
    of the model and the approximation: parties that agree now have agreed on everything so far.
    """

    def __init__(self, rank: int, links: Mapping[int, Link]) -> None:
        self._rank, self._links = rank, dict(links)  # those of the session, whatever a run puts in their place
        self._digest, self._words = bytes(32), 0
        self._told: deque[bytes] = deque()  # and not yet compared

    @property
    def digest(self) -> bytes:
        """Of all words so far."""
        return self._digest

    def note(self, word: msg.Request, *context: object) -> None:
        """Put a word into the digest; the next one that is said tells the others of it."""
        self._words += 1
        content = msg.canonical(self._digest, self._words, *context, msg.public(word))
        self._digest = hashlib.sha256(b"puma/1|said|" + content).digest()

    def say(self, word: msg.Request, *context: object) -> None:
        """Put a word into the digest and tell both others.

        Safe: the digest is over what all parties are told in the clear; no seed is in it.
        """
        self.note(word, *context)
        for link in self._links.values():
            link.send_control(msg.encode(msg.Same(self._digest)))
        self._told.append(self._digest)

    def check(self) -> None:
        """ProtocolError unless both others were told the same as this party, up to the last word that was said."""
        while self._told:
            mine = self._told.popleft()
            for rank, link in self._links.items():
                theirs = msg.decode_request(link.recv_control())
                if theirs != msg.Same(mine):
                    what = f"P{rank} was asked for something else than P{self._rank}"
                    raise ProtocolError(what, "one of the parties or the client misbehaves")
