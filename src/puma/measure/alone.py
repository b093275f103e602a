"""What one party gains by having a machine to itself, and by work that is done in waits: measured in this process, with
nobody else about.

Party 1 walks over parameters, as a step does, and computes the same functions against links to nobody. Its words mean
nothing. A parameter is larger than caches, because masks that are drawn ahead of their use lie in memory meanwhile.
This file must not know what is made of the numbers.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from time import thread_time
from typing import NamedTuple

import torch

from puma import kernels, pool
from puma.client.cost import PARTIES
from puma.crypto.prg import PairKey, fresh_secret
from puma.measure.rates import ROWS, Early
from puma.mpc.fixed import ACTIVATION, RING, WEIGHT
from puma.mpc.party import DEALER, FIRST, SECOND, Party
from puma.mpc.seeded import Seeded, Signs, known_terms, online_terms, product_part, rest_bytes, whole_terms
from puma.mpc.share import Share
from puma.mpc.waits.drawn import LATE, Foreseen
from puma.net import Link
from puma.net.null import NullLink
from puma.nn import functional as F

SHAPE = 4096, 2048  # a parameter's
NUMBERS = 1 << 17  # that a function takes
TIMES = 3  # of which the least counts
BEGUN = 60.0  # seconds in which others have begun


class _Quiet(NullLink):
    """Of whom nothing ever comes."""

    quiet = True


class _Took(NamedTuple):
    """Seconds of a wait in which a mask was drawn, and of the walk that then came."""

    drawn: float
    walked: float


def early() -> Early:
    """What drawing masks and making products ahead takes and saves, by one thread, in its own seconds."""
    before = pool.threads()
    pool.use(1)
    try:
        party = Party(FIRST, {}, {})
        weights, x = [_weight(party, name) for name in ("one", "other")], _numbers(party, (ROWS, SHAPE[1]))
        walk, told = (_in_turn(weights, terms(x)) for terms in (whole_terms, known_terms))
        (draws, whole), (keeps, rest) = (
            _ahead(party, weights, terms(x), less) for terms, less in ((whole_terms, False), (online_terms, True))
        )
    finally:
        pool.use(before)
    return Early(*(max(0.0, seconds / walk) for seconds in (draws, walk - whole, told, whole - rest, keeps - draws)))


def gains(cores: int) -> tuple[float, float]:
    """How many times as fast a party is with all cores to itself as by one thread while others compute beside it, at
    walks over parameters and at all else.

    Rates are measured where three parties share a machine: two threads on one core, or on one memory, each take more
    processor time than one alone.
    """
    before = pool.threads()
    try:
        pool.use(1)
        among = [_beside(work, min(cores, PARTIES) - 1) for work in (_walk, _function)]
        pool.use(cores)
        own = [_least(work()) for work in (_walk, _function)]
    finally:
        pool.use(before)
    walks, words = (max(1.0, one / all_cores) for one, all_cores in zip(among, own, strict=True))
    return walks, words


def _beside(make: Callable[[], Callable[[], object]], others: int) -> float:
    """Own seconds of what is made, while so many other threads do the same over and over."""
    over, begun = threading.Event(), threading.Semaphore(0)

    def another() -> None:
        work = make()
        work()
        begun.release()
        while not over.is_set():
            work()

    threads = [threading.Thread(target=another, daemon=True) for _ in range(others)]
    for thread in threads:
        thread.start()
    try:
        work = make()
        for _ in threads:
            begun.acquire(timeout=BEGUN)
        return _least(work, thread_time)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _in_turn(weights: Sequence[Seeded], terms: Sequence[tuple[torch.Tensor, Signs]]) -> float:
    """Own seconds of a parameter, of which each comes in turn, as they do in a step: one alone may stay in a cache."""
    walks = [_product(weight, terms) for weight in weights]
    return _least(lambda: [walk() for walk in walks], thread_time) / len(weights)


def _ahead(party: Party, weights: Sequence[Seeded], terms: Sequence[tuple[torch.Tensor, Signs]], less: bool) -> _Took:
    """The least seconds of a parameter, of which each comes in turn; memory is there after the first of each. `less`:
    what P1 keeps beside a rehearsal."""
    party.foreseen, took = Foreseen(weights), list[_Took]()
    party.foreseen.less = less
    for _ in range(LATE):
        party.foreseen.waited(1.0)
    for i in range(len(weights) * (TIMES + 1)):
        began, walk = thread_time(), _product(weights[i % len(weights)], terms)
        party.foreseen.meanwhile(_Quiet())
        drawn = thread_time()
        walk()
        took.append(_Took(drawn - began, thread_time() - drawn))
    party.foreseen = None
    return _Took(*map(min, zip(*took[len(weights) :], strict=True)))


def _walk() -> Callable[[], object]:
    party = Party(FIRST, {}, {})
    return _product(_weight(party, "one"), whole_terms(_numbers(party, (ROWS, SHAPE[1]))))


def _weight(party: Party, name: str) -> Seeded:
    """A parameter whose bytes lie in memory: of zeros the system keeps one page, which would stay in the cache."""
    packed = torch.full((rest_bytes(SHAPE, RING),), 1, dtype=torch.uint8)
    return Seeded(party, packed, [PairKey(fresh_secret()).stream(f"weight {name}")], SHAPE, RING, WEIGHT)


def _product(weight: Seeded, terms: Sequence[tuple[torch.Tensor, Signs]]) -> Callable[[], object]:
    return lambda: product_part(weight, kernels.linear_packed, terms, SHAPE[0])


def _function() -> Callable[[], object]:
    links: dict[int, Link] = {DEALER: NullLink(), SECOND: NullLink()}
    party = Party(FIRST, links, {peer: PairKey(fresh_secret()) for peer in links})
    return lambda: F.gelu(_numbers(party, (NUMBERS,)))


def _numbers(party: Party, shape: tuple[int, ...]) -> Share:
    """Any at all."""
    a, b = (PairKey(fresh_secret()).stream("numbers").words(shape) for _ in range(2))
    return Share(party, a, b, RING, ACTIVATION)


def _least(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds, after a first time that does not count."""
    took = list[float]()
    for _ in range(TIMES + 1):
        began = clock()
        work()
        took.append(clock() - began)
    return min(took[1:])
