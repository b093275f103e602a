"""What one party gains by threads when it has a machine to itself, and by work that is done in waits: measured in this
process, with nobody else about.

Party 1 walks over parameters, as a step does, and computes the same functions against links to nobody. Its words mean
nothing. A parameter is larger than caches, because masks that are drawn ahead of their use lie in memory meanwhile.
This file must not know what is made of the numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from time import thread_time
from typing import NamedTuple

import torch

from puma import kernels, pool
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
        walk, told = (_least(_product(weights[0], terms(x)), thread_time) for terms in (whole_terms, known_terms))
        both = [_ahead(party, weights, terms(x)) for terms in (whole_terms, online_terms)]
    finally:
        pool.use(before)
    (draws, whole), (_, rest) = both
    return Early(*(max(0.0, seconds / walk) for seconds in (draws, walk - whole, told, whole - rest)))


def gains(cores: int) -> tuple[float, float]:
    """How many times as fast so many threads are as one, at walks over parameters and at all else."""
    before, took = pool.threads(), list[list[float]]()
    try:
        for threads in (1, cores):
            pool.use(threads)
            took.append([_least(_walk()), _least(_function())])
    finally:
        pool.use(before)
    walks, words = (max(1.0, one / many) for one, many in zip(*took, strict=True))
    return walks, words


def _ahead(party: Party, weights: Sequence[Seeded], terms: Sequence[tuple[torch.Tensor, Signs]]) -> _Took:
    """The least seconds of a parameter, of which each comes in turn, as they do in a step; memory is there after the
    first of each."""
    party.foreseen, took = Foreseen(weights), list[_Took]()
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
