"""Two dealers hear a guest, and the second goes on only with what P0 has heard, too.

Both draw the same pads. If they were told different things they would pad different words alike, and P2, which hears
a frame from one and its digest from the other, could try which words explain both. So P0 tells the second dealer a
digest of each frame as it comes, and hears nothing of it. This file must not know what a guest says.
"""

from __future__ import annotations

import hashlib
from typing import Any

from puma.errors import ProtocolError
from puma.net import Link

HINT = "the client misbehaves, or one of the two dealers does"
DIGEST_BYTES = 32


class Beside:
    """A dealer's link to its guest; `other` leads to the other dealer, which is told what came, or tells."""

    def __init__(self, guest: Any, other: Link, tells: bool) -> None:
        self._guest, self._other, self._tells = guest, other, tells

    def __getattr__(self, name: str) -> Any:
        return getattr(self._guest, name)

    def recv_control(self) -> bytes:
        """The next control frame; ProtocolError at the second dealer if P0 heard another one."""
        payload = self._guest.recv_control()
        if self._tells:
            self._other.send_control(_digest(payload))
        else:
            self._compare(payload, self._other.recv_control())
        return payload

    def recv(self, size: int) -> memoryview:
        """The next data frame; errors as of `recv_control`."""
        payload = self._guest.recv(size)
        if self._tells:
            self._other.send(_digest(payload))
        else:
            self._compare(payload, bytes(self._other.recv(DIGEST_BYTES)))
        return payload

    def _compare(self, payload: bytes | memoryview, told: bytes) -> None:
        if _digest(payload) != told:
            raise ProtocolError("P0 and the second dealer were told different things", HINT)


def _digest(payload: bytes | memoryview) -> bytes:
    """Safe: it goes to whoever has been told the same."""
    return hashlib.sha256(payload).digest()
