"""What each party is sent by this client, and what a request cost: for the page that shows it.

Shown are the bytes on their way, of the last request only: they are masked, and say nothing to whoever has them alone.
Seeds travel in control frames, of which only the size is noted. This file must not know HTTP, nor what the bytes mean.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from puma.gateway.worker import Cluster, Run

SHOWN = 48  # bytes of a party's data that are shown
ROLES = (
    "dealer: masks only, and seeds of random numbers",
    "evaluator: masked values and one mask",
    "evaluator: masked values and the other mask",
)


class Tap:
    """A link to one party that notes what goes through it."""

    def __init__(self, link: Any) -> None:
        self._link = link
        self.begin()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    def begin(self) -> None:
        """A new request."""
        self.sample, self.data, self.control, self.received = b"", 0, 0, 0

    def send(self, *buffers: Any) -> None:
        for buffer in buffers:
            view = memoryview(buffer).cast("B")
            self.data += len(view)
            self.sample += bytes(view[: SHOWN - len(self.sample)])
        self._link.send(*buffers)

    def send_control(self, payload: Any) -> None:
        self.control += len(payload)
        self._link.send_control(payload)

    def recv(self, size: int) -> memoryview:
        self.received += size
        return self._link.recv(size)


class Watch:
    """Looks over a session's links, and keeps the cost of the last request."""

    def __init__(self) -> None:
        self._taps: list[Tap] = []
        self._cost: Any = None
        self._running = False

    def over(self, cluster: Cluster) -> Cluster:
        """The cluster, its session's links tapped."""
        self._taps = [Tap(link) for link in cluster.session.links]
        cluster.session.links[:] = self._taps
        return cluster

    def during(self, run: Run) -> Run:
        """The same job, watched."""

        def watched(cluster: Any) -> Generator[Any, None, None]:
            for tap in self._taps:
                tap.begin()
            self._cost, self._running, before = None, True, cluster.session.cost
            try:
                yield from run(cluster)
            finally:
                self._running = False
                if cluster.session.cost is not before:
                    self._cost = cluster.session.cost

        return watched

    def report(self) -> dict[str, Any]:
        """As JSON; cost is null while a request runs, and if it failed."""
        parties = [
            {
                "name": f"P{rank}", "role": role, "data": tap.data, "control": tap.control,
                "received": tap.received, "sample": tap.sample.hex(),
            }
            for rank, (role, tap) in enumerate(zip(ROLES, self._taps, strict=False))
        ]  # fmt: skip
        return {
            "running": self._running,
            "parties": parties,
            "cost": None if self._cost is None else _spent(self._cost),
        }


def _spent(cost: Any) -> dict[str, Any]:
    numbers = {"seconds": cost.seconds, "prefill": cost.prefill, "rounds": cost.rounds, "bytes": cost.bytes()}
    return numbers | {"breakdown": cost.breakdown}
