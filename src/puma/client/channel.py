"""How an outsider talks to the three parties: one request at a time, the same word from each, every copy compared.

It must not know what is asked, nor where the parties run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from puma import errors, kernels
from puma.errors import PeerLost, ProtocolError, PumaError
from puma.mpc.cost import message_bytes
from puma.wire import messages as msg

R = TypeVar("R")
NO_SEEDS = (b"", b"")


class PartyChannel:
    """One link to each of P0, P1, P2, in this order; an error ends it."""

    def __init__(self, links: Sequence[Any]) -> None:
        self.links = list(links)
        self._requests = 0
        self._unread = 0  # results of the present request
        self._reported = True
        self._paced = False  # whether the parties wait for a Pace
        self._over = False

    @property
    def over(self) -> bool:
        """Whether the session has ended, so that every further request would fail."""
        return self._over

    def ask(
        self, kind: type[R], request: Callable[[list[bytes]], msg.Request], seeds: Sequence[bytes] = NO_SEEDS
    ) -> list[R]:  # fmt: skip
        """Begin a request that is one message to each party and one back, of this kind; the three replies.

        `request` makes the message out of the seeds that a party may have: of two, P0 has both, and P1 and P2 one.
        """
        self._begin()
        self._send(request, list(seeds))
        replies = self._replies(kind)
        self._reported = True
        return replies

    def answers(self, kind: type[R]) -> list[R]:
        """One more message of each party, of this kind, to what it was sent since it was asked."""
        return self._replies(kind)

    @contextmanager
    def sending(self) -> Iterator[Sequence[Any]]:
        """The links, for what follows a message. One that has given up, for want of room perhaps, has said why."""
        with self._talking(sending=True):
            yield self.links

    def _begin(self, results: int = 0) -> None:
        """Read what an abandoned request still sends, so that no answer is taken for another's."""
        if self._over:
            raise ProtocolError("the session has ended", "start a new one; an earlier error may say why")
        if self._paced:
            self._leave()
        while self._unread:
            self._result()
        if not self._reported:
            self._reports()
        self._requests += 1
        self._unread, self._reported = results, False

    def _leave(self) -> None:
        """No more tokens are wanted of a paced request."""
        self._unread, self._paced = 0, False
        with self._talking(sending=True):
            for link in self.links:
                link.send_control(msg.encode(msg.Pace(False)))

    @contextmanager
    def _talking(self, sending: bool = False) -> Iterator[None]:
        """Whatever breaks off a message, an interrupt too, leaves links that no later request can use.

        A party that has given up while we were `sending` has said why before it left.
        """
        try:
            yield
        except PeerLost:
            self._over = True
            if sending:
                self._watch()
            raise
        except BaseException:
            self._over = True
            raise

    def _send(self, request: Callable[[list[bytes]], msg.Request], seeds: list[bytes]) -> None:
        with self._talking(sending=True):
            for link, mine in zip(self.links, (seeds, seeds[:1], seeds[1:]), strict=True):
                link.send_control(msg.encode(request(mine)))

    def _result(self) -> Tensor:
        """Join the next output; (l1, l2), (m, l1) and (m, l2) must agree on every component."""
        with self._talking():
            self._watch()
            (l1, l2), (m, one), (m2, two) = (self._components(link) for link in self.links)
            if not (torch.equal(l1, one) and torch.equal(l2, two) and torch.equal(m, m2)):
                raise ProtocolError(
                    "two parties sent different copies of one component", "one of the parties misbehaves"
                )
        self._unread -= 1
        return kernels.signed(m - l1 - l2, self._bits).double() / 2.0**self._frac

    def _watch(self) -> None:
        """Name a lost party now: the dealer runs far ahead, and its answers would hide for long that it is gone."""
        for link in self.links:
            while link.lost:
                self._reply(link)  # in the end it raises what the party said last, or how it was lost

    def _components(self, link: Any) -> tuple[Tensor, Tensor]:
        reply = self._reply(link)
        if not isinstance(reply, msg.Result):
            raise ProtocolError(
                f"{link.peer} sent a report where a result was expected", "one of the parties misbehaves"
            )
        count = message_bytes(torch.Size(reply.shape).numel(), reply.bits)
        self._bits, self._frac = reply.bits, reply.frac
        parts = kernels.from_wire(link.recv(2 * count)).split(count)
        a, b = (kernels.unpack(part, reply.bits, tuple(reply.shape)) for part in parts)
        return a, b

    def _reports(self) -> list[msg.Report]:
        reports = self._replies(msg.Report)
        self._reported = True
        return reports

    def _replies(self, kind: type[R]) -> list[R]:
        """The next message of each party, which must be of this kind."""
        with self._talking():
            replies = [self._reply(link) for link in self.links]
            for reply in replies:
                if not isinstance(reply, kind):
                    what = f"a party sent a {type(reply).__name__.lower()} instead of a {kind.__name__.lower()}"
                    raise ProtocolError(what, "one of the parties misbehaves")
        return replies  # type: ignore[return-value]

    def _reply(self, link: Any) -> msg.Reply:
        reply = msg.decode_reply(link.recv_control())
        if isinstance(reply, msg.Failed):
            kind = getattr(errors, reply.kind, None)
            if not (isinstance(kind, type) and issubclass(kind, PumaError)):
                kind = ProtocolError
            raise kind(reply.message, reply.hint)
        return reply
