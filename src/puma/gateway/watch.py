"""What each party is sent by this client for one request, and what that request cost: for who asked it.

A watch is found by the request's id, which is long and random, so that only who asked finds it. Shown are bytes on
their way: they are masked, and say nothing to whoever has them alone. Seeds travel in control frames, of which only
the size is noted. This file must not know HTTP, nor what the bytes mean.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast

from puma.gateway.cluster import Cluster
from puma.gateway.refusals import Refused
from puma.net import Link

SHOWN = 48  # bytes of a party's data that are shown
KEPT = 1024  # watches, the oldest of which are forgotten; more than any queue holds
WAITING, RUNNING, DONE, STOPPED, FAILED = "waiting", "running", "done", "stopped", "failed"
ID = re.compile(r"[A-Za-z0-9_-]{32,64}")  # at least 128 bits, if an asker draws hexadecimal digits
ID_HEADER = "x-client-request-id"
ROLES = (
    "dealer: masks only, and seeds of random numbers",
    "evaluator: masked values and one mask",
    "evaluator: masked values and the other mask",
)


@dataclass
class Sent:
    """What went to one party, and came from it: counts of bytes, and the first bytes of data."""

    sample: bytes = b""
    data: int = 0
    control: int = 0
    received: int = 0


@dataclass(eq=False)
class Watch:
    """One request, from its place in the queue to its cost; `cached` tokens of its prompt the parties held already."""

    id: str
    state: str = WAITING
    cached: int = 0
    parties: list[Sent] = field(default_factory=lambda: [Sent() for _ in ROLES])
    cost: Any = None
    _began: float = 0.0
    _seconds: float | None = None

    def begin(self) -> None:
        """The parties are about to be asked."""
        self._began, self.state = time.monotonic(), RUNNING

    def end(self, state: str) -> None:
        """No more comes; who has failed once stays failed."""
        if self.state in (WAITING, RUNNING):
            self._seconds = self.seconds
            self.state = state

    @property
    def seconds(self) -> float:
        """Since the parties were first asked."""
        if self._seconds is not None or not self._began:
            return self._seconds or 0.0
        return time.monotonic() - self._began

    def report(self, ahead: int = 0) -> dict[str, Any]:
        """As JSON. `cost` is null until the parties have told theirs; `ahead` requests are served before this one."""
        parties = [
            {"name": f"P{rank}", "role": role, "data": sent.data, "control": sent.control,
             "received": sent.received, "sample": sent.sample.hex()}
            for rank, (role, sent) in enumerate(zip(ROLES, self.parties, strict=True))
        ]  # fmt: skip
        return {
            "id": self.id, "state": self.state, "ahead": ahead, "cached": self.cached, "seconds": self.seconds,
            "parties": parties, "cost": None if self.cost is None else _spent(self.cost),
        }  # fmt: skip


class Tap:
    """A link to one party that notes what goes through it, for the request on its way."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.into: Sent | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def send(self, *buffers: Any) -> None:
        """One data frame, noted and sent."""
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            if (sent := self.into) is not None:
                sent.data += len(view)
                sent.sample += bytes(view[: SHOWN - len(sent.sample)])
        self._link.send(*buffers)

    def send_control(self, payload: Any) -> None:
        """One control frame, noted and sent."""
        if self.into is not None:
            self.into.control += len(payload)
        self._link.send_control(payload)

    def recv(self, size: int) -> memoryview:
        """The next data frame of `size` bytes, noted."""
        if self.into is not None:
            self.into.received += size
        return self._link.recv(size)


class Watches:
    """Of the latest requests, by id."""

    def __init__(self) -> None:
        self._watches: dict[str, Watch] = {}

    def begin(self, chosen: str | None = None) -> Watch:
        """Of a new request, under the id that its asker chose, or a fresh one."""
        if chosen is not None and not ID.fullmatch(chosen):
            raise Refused(f"{ID_HEADER} must be 32 to 64 letters, digits, - or _, drawn at random", ID_HEADER)
        if chosen in self._watches:
            raise Refused(f"this {ID_HEADER} has been used: draw a new one for each request", ID_HEADER)
        watch = Watch(chosen or f"req-{uuid.uuid4().hex}")
        self._watches[watch.id] = watch
        while len(self._watches) > KEPT:
            del self._watches[next(iter(self._watches))]
        return watch

    def forget(self, watch: Watch) -> None:
        """The request was not taken."""
        self._watches.pop(watch.id, None)

    def of(self, identity: str) -> Watch:
        """Raises Refused if there is none, or none any more."""
        if identity not in self._watches:
            raise Refused("no request of this id is remembered here", None, "request_not_found", 404)
        return self._watches[identity]


def tapped(cluster: Cluster) -> Cluster:
    """The cluster, with taps on its session's links."""
    links = cluster.session.links
    links[:] = [link if isinstance(link, Tap) else cast(Link, Tap(link)) for link in links]
    return cluster


@contextmanager
def noting(session: Any, watch: Watch) -> Iterator[None]:
    """While this request goes to the parties: what is sent, and in the end the cost, is noted for it."""
    before, taps = session.cost, [link for link in session.links if isinstance(link, Tap)]
    watch.begin()
    for rank, tap in enumerate(taps):
        tap.into = watch.parties[rank]
    try:
        yield
    finally:
        for tap in taps:
            tap.into = None
        if session.cost is not before:
            watch.cost = session.cost


def _spent(cost: Any) -> dict[str, Any]:
    numbers = {"seconds": cost.seconds, "prefill": cost.prefill, "rounds": cost.rounds, "bytes": cost.bytes()}
    drafts = {} if cost.drafts is None else {"drafts": cost.drafts.told()}
    return numbers | drafts | {"breakdown": cost.breakdown}
