"""Two dealers as one: a link to P0 beside a link to a second dealer, who computes the same and must say the same.

Everything that P0 sends is compared with what the second dealer sends before it is used: all of it, or, of corrections,
a digest of each frame. What both are told is the same. So P0 can change nothing alone, and neither can the other. This
file must not know what a dealer computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from puma.errors import ProtocolError, StoreError
from puma.net import Buffer, Link
from puma.net.chain import Heads, frame_digest
from puma.net.endpoint import flat
from puma.wire import canaries
from puma.wire import messages as msg

HINT = "one of the two dealers misbehaves, or its machine errs: no answer can be trusted before you know which"
DIGEST_BYTES = 32
PARTIES = 3


class Twin:
    """The link to P0, in every way; what comes over it has come from both. ProtocolError where they differ.

    `digests`: of data frames the second dealer sends 32 bytes each.
    """

    def __init__(self, first: Link, second: Link, digests: bool = False) -> None:
        self._first, self._second, self._digests = first, second, digests
        self.name, self.peer = first.name, first.peer
        self.beside = b""  # what the second one said last, in control frames

    @property
    def timeout(self) -> float:
        """How long a silence, in seconds, is borne."""
        return self._first.timeout

    @property
    def lost(self) -> bool:
        """Whether one of them can say nothing more."""
        return self._first.lost or self._second.lost

    @property
    def quiet(self) -> bool:
        """Whether one of them has sent nothing that waits here."""
        return self._first.quiet or self._second.quiet

    @property
    def sent_bytes(self) -> int:
        """To both."""
        return self._first.sent_bytes + self._second.sent_bytes

    @property
    def received_bytes(self) -> int:
        """From both."""
        return self._first.received_bytes + self._second.received_bytes

    @property
    def heads(self) -> Heads | None:
        """Of P0's link."""
        return self._first.heads

    @property
    def trails(self) -> dict[str, bytes]:
        """Of P0's link."""
        return self._first.trails

    def chain(self, label: str, words: bool = False) -> None:
        """Of P0's link."""
        self._first.chain(label, words)

    def doubt(self) -> None:
        """Of P0's link: what comes over the other is no part of a chain."""
        self._first.doubt()

    def send(self, *buffers: Buffer) -> None:
        """One data frame, to both."""
        self._first.send(*buffers)
        self._second.send(*buffers)

    def recv(self, size: int) -> memoryview:
        """The next data frame of both, before anybody has used it."""
        payload = self._first.recv(size)
        if self._digests:
            same = bytes(self._second.recv(DIGEST_BYTES)) == frame_digest([payload])
        else:
            same = self._second.recv(size) == payload
        if not same:
            raise self._differ("words")
        return payload

    def send_control(self, payload: Buffer) -> None:
        """One control frame, to both."""
        self._first.send_control(payload)
        self._second.send_control(payload)

    def recv_control(self) -> bytes:
        """The next control frame of both."""
        # Who is lost says why at once; P0 might have nothing to say meanwhile.
        early = self._second.recv_control() if self._second.lost else None
        if early is not None and isinstance(_decoded(early), msg.Failed):
            return self._alike(b"", early)  # and nobody may be left whom P0 could wait for
        first = self._first.recv_control()
        if isinstance(_decoded(first), msg.Failed):
            return first  # whatever the second one says, which may have nothing to say
        self.beside = second = self._second.recv_control() if early is None else early
        return first if first == second else self._alike(first, second)

    def set_timeout(self, seconds: float) -> None:
        """From now on bear a silence of so many seconds."""
        self._first.set_timeout(seconds)
        self._second.set_timeout(seconds)

    def check(self) -> None:
        """Raise how one of them ended, if one did."""
        self._first.check()
        self._second.check()

    def fail(self, message: str) -> None:
        """Tell both why we stop, and close."""
        self._first.fail(message)
        self._second.fail(message)

    def close(self) -> None:
        """Say goodbye to both, and close."""
        self._first.close()
        self._second.close()

    def _alike(self, first: bytes, second: bytes) -> bytes:
        """What stands for both where they may differ: costs, errors, and what each has of a model."""
        one, other = (_decoded(payload) for payload in (first, second))
        if isinstance(other, msg.Failed) and not isinstance(one, msg.Failed):
            return msg.encode(msgspec.structs.replace(other, message=f"the second dealer: {other.message}"))
        for each, payload in ((one, first), (other, second)):
            if isinstance(each, msg.Failed) or (isinstance(each, msg.Taken) and each.problem):
                return payload
        if (isinstance(one, msg.Report) and isinstance(other, msg.Report)) or _pledged_alike(one, other):
            return first
        if isinstance(one, msg.Holds) and isinstance(other, msg.Holds):
            return self._holds(one, other)
        if isinstance(one, msg.Listing) and isinstance(other, msg.Listing):
            known = [(each.card, each.sharing) for each in other.models]
            return msg.encode(msg.Listing([each for each in one.models if (each.card, each.sharing) in known]))
        if isinstance(one, msg.Held) and isinstance(other, msg.Held):
            raise StoreError("the two dealers hold different parts of this model", "delete it, and share it again")
        raise self._differ("messages")

    def _holds(self, one: msg.Holds, other: msg.Holds) -> bytes:
        if one.sharing != other.sharing and not (one.problem or other.problem):
            raise StoreError("the two dealers do not hold one sharing of this model", "delete it, and share it again")
        return msg.encode(msg.Holds(one.sharing, one.tested and other.tested, one.problem or other.problem))

    def _differ(self, what: str) -> ProtocolError:
        return ProtocolError(f"{self.peer} and the second dealer sent different {what}", HINT)


class Digested:
    """The second dealer's link to P2: of each data frame that P0 would send there goes a digest."""

    digest_bytes = DIGEST_BYTES  # that leave in place of a frame, whatever its size

    def __init__(self, link: Link) -> None:
        self._link = link

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def send(self, *buffers: Buffer) -> None:
        """Safe: a digest tells less than the frame, which P2 gets from P0."""
        self._link.send(frame_digest([flat(buffer) for buffer in buffers]))


def _pledged_alike(one: object, other: object) -> bool:
    """Whether both pledge, or disclose, the same secrets of one session; each signs for itself, of its own links."""
    if isinstance(one, canaries.Committed) and isinstance(other, canaries.Committed):
        return canaries.pledge_of(one.pledge.payload) == canaries.pledge_of(other.pledge.payload)
    if isinstance(one, canaries.Disclosed) and isinstance(other, canaries.Disclosed):
        found = (canaries.disclosure_of(each.disclosure.payload) for each in (one, other))
        first, second = (msgspec.structs.replace(each, trails={}) for each in found)
        return first == second
    return False


def _decoded(payload: bytes) -> object:
    """A message to a party or from one; None for what is neither."""
    for decode in (msg.decode_reply, msg.decode_request):
        try:
            return decode(payload)
        except ProtocolError:
            continue
    return None


def reported(links: Sequence[object]) -> list[msg.Report]:
    """The latest report of a second dealer, where there is one, if it is what it said last: what it cost."""
    said = [_decoded(link.beside) for link in links if isinstance(link, Twin)]
    return [each for each in said if isinstance(each, msg.Report)]


def three(links: Sequence[Link]) -> list[Link]:
    """Links to P0, P1, P2 and perhaps a second dealer, as those to three parties."""
    if len(links) == PARTIES:
        return [*links]
    dealer, *evaluators, second = links
    return [Twin(dealer, second), *evaluators]
