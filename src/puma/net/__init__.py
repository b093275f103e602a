"""Links between two parties: ordered, counted, bounded, with errors that name the peer. This room moves
bytes and knows neither shares nor what is said; who may speak at all is settled by the handshake before
a link exists."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from puma.net.chain import Heads
from puma.net.endpoint import Buffer

__all__ = ["Buffer", "Link"]


@runtime_checkable
class Link(Protocol):
    """One duplex link to one peer; `send`, `recv`, `fail` and `close` may each come from a thread of its own.

    Data and control frames are two queues: each keeps its order, and waiting for one kind leaves the other
    untouched.
    """

    @property
    def timeout(self) -> float:
        """How long a silence, in seconds, is borne."""
        ...

    @property
    def lost(self) -> bool:
        """Whether nothing more can come, though what has come may still wait to be taken."""
        ...

    @property
    def quiet(self) -> bool:
        """Whether nothing has come that `recv` could begin with."""
        ...

    @property
    def name(self) -> str:
        """Who we are on this link."""
        ...

    @property
    def peer(self) -> str:
        """Who the other side is, such as "P2"."""
        ...

    @property
    def sent_bytes(self) -> int:
        """Payloads and headers of the data and control frames sent."""
        ...

    @property
    def received_bytes(self) -> int:
        """The same for the frames taken by recv and recv_control."""
        ...

    def send(self, *buffers: Buffer) -> None:
        """One data frame made of these pieces; they may be reused on return."""
        ...

    def recv(self, size: int) -> memoryview:
        """The next data frame, which must have `size` bytes; writable, and the caller's to keep."""
        ...

    def send_control(self, payload: Buffer) -> None:
        """One control frame."""
        ...

    def recv_control(self) -> bytes:
        """The next control frame, of any size up to the limit."""
        ...

    def set_timeout(self, seconds: float) -> None:
        """From now on bear a silence of so many seconds."""
        ...

    def chain(self, label: str, words: bool = False) -> None:
        """From now on hash data frames, and with `words` control frames, into chains that begin with this label."""
        ...

    def doubt(self) -> None:
        """From now on hash every frame that comes, whatever its sender says that it hashes to."""
        ...

    @property
    def heads(self) -> Heads | None:
        """Of the chains so far; None before `chain`."""
        ...

    @property
    def trails(self) -> dict[str, bytes]:
        """The marks of the chains so far."""
        ...

    def check(self) -> None:
        """Raise how the link ended, if it did, whatever still waits to be taken."""
        ...

    def fail(self, message: str) -> None:
        """Tell the peer why we stop, as well as can be done, and close."""
        ...

    def close(self) -> None:
        """Say goodbye and close; harmless when repeated."""
        ...
