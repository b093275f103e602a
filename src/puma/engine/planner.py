"""Which functions of a request are computed in fewer rounds and more words: what a dry run says of each, priced on the
network that the evaluators have between them.

The choice is public and part of the request. It depends on shapes, formats and the network alone. This file must not
know who asks, nor how a choice is carried out.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import astuple, dataclass

import torch
from msgspec import structs

from puma import kernels
from puma.engine.dry_run import Memory, counted, dry_run
from puma.models import architecture, with_layers
from puma.models.config import Config
from puma.mpc.party import DEALER, FIRST, SECOND, Party
from puma.nn.variants import VARIANTS
from puma.wire.beside.network import Surveyed
from puma.wire.messages import Encode, Generate, Spent

PINGS, BULK = 4, 1 << 20  # round trips of which the least counts, and bytes each way that tell the rate
LAYERS = 4  # of a deeper model so many are priced
FASTEST = 1e11  # bits a second: beyond, a rate is what the clock makes of it
ROUND, BYTE = 9e-4, 1.6e-9  # seconds of processor time that a round costs an evaluator, and a byte that any party sends


@dataclass(frozen=True)
class Link:
    """Between the evaluators: seconds of a round trip, and bits a second each way."""

    rtt: float
    rate: float

    def seconds(self, spent: Spending) -> float:
        """What of a request's time depends on its plan. The two messages of a round cross; the dealer runs ahead, and
        matters where its corrections take longer than all else."""
        online = spent.rounds * (self.rtt / 2 + ROUND) + 8 * spent.online / self.rate + BYTE * spent.total
        return max(online, 8 * spent.dealt / self.rate + BYTE * spent.total)


@dataclass(frozen=True)
class Spending:
    """Rounds, bytes that an evaluator sends and that the dealer sends, and all of them."""

    rounds: int
    online: int
    dealt: int
    total: int


def spending(config: Config, request: Generate | Encode, quick: tuple[str, ...]) -> Spending:
    """What a request costs by a plan."""
    return _summed(dry_run(config, with_plan(request, quick)))


def _summed(spent: list[list[Spent]]) -> Spending:
    sizes = [sum(s.online + s.offline for s in party) for party in spent]
    return Spending(sum(s.rounds for s in spent[1]), sizes[1], sizes[0], sum(sizes))


def with_plan(request: Generate | Encode, quick: tuple[str, ...]) -> Generate | Encode:
    """The same request by another plan."""
    return structs.replace(request, input=structs.replace(request.input, quick=quick))


def planned(config: Config, request: Generate | Encode, link: Link) -> tuple[str, ...]:
    """The plan that takes least time on this link: each function by itself, since what they save adds up."""
    return cheapest(prices(config, request), link)


def prices(config: Config, request: Generate | Encode, memory: Memory | None = None) -> dict[str, Spending]:
    """About what a request costs with each function alone quick, by its name; with none of them, by none.

    Of a deep model a few layers count, and of a long generation the prompt and one token more: an evaluator should not
    compute longer on which functions are quick than the answer takes.
    """
    if architecture(config).layers(config) > LAYERS:
        config = with_layers(config, LAYERS)
    memory = memory or Memory(request.input.approximation)
    return {name: _about(config, with_plan(request, (name,) if name else ()), memory) for name in ("", *VARIANTS)}


def _about(config: Config, request: Generate | Encode, memory: Memory) -> Spending:
    """With as many further tokens as are asked for, all like the first of them."""
    if not isinstance(request, Generate) or request.tokens < 2:
        return _summed(counted(config, request, memory).whole)
    found = counted(config, structs.replace(request, tokens=2), memory)
    one, two = (astuple(_summed(spent)) for spent in found)
    return Spending(*(a + (request.tokens - 1) * (b - a) for a, b in zip(one, two, strict=True)))


def cheapest(found: Mapping[str, Spending], link: Link) -> tuple[str, ...]:
    """The same of what has been priced already."""
    lean = link.seconds(found[""])
    return tuple(name for name, spent in found.items() if link.seconds(spent) < lean)


def surveyed(party: Party, config: Config, request: Generate | Encode) -> Surveyed:
    """What a party says of the link between the evaluators; P1 also names the plan."""
    link = measured(party)
    if link is None:
        return Surveyed((), 0.0, 0.0)
    return Surveyed(planned(config, request, link) if party.rank == FIRST else (), link.rtt, link.rate)


def measured(party: Party) -> Link | None:
    """The link between the evaluators, by a few round trips and a bulk each way; None at the dealer. Without
    one for this session they are on one machine.

    Both send zeros, at the same points of what they agreed on, so nothing depends on a secret.
    """
    if party.rank == DEALER:
        return None
    link = party.links.get(SECOND if party.rank == FIRST else FIRST)
    if link is None:
        return Link(0.0, FASTEST)

    def swap(size: int) -> float:
        started = time.perf_counter()
        link.send(kernels.to_wire(torch.zeros(size, dtype=torch.uint8)))
        link.recv(size)
        return time.perf_counter() - started

    def ping() -> float:
        started = time.perf_counter()
        for mine in (party.rank == FIRST, party.rank == SECOND):
            if mine:
                link.send(kernels.to_wire(torch.zeros(1, dtype=torch.uint8)))
            else:
                link.recv(1)
        return time.perf_counter() - started

    swap(1)
    rtt = min(ping() for _ in range(PINGS))
    bulk = swap(BULK)
    return Link(rtt, min(FASTEST, 8 * BULK / max(bulk - rtt / 2, 1e-9)))
