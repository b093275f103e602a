"""What one party gains by threads when it has a machine to itself, and how long a parameter's mask takes: measured in
this process, with nobody else about.

Party 1 walks over a parameter, and computes the same functions against links to nobody. Its words mean nothing. This
file must not know what is made of the numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from puma import kernels, pool
from puma.crypto.prg import PairKey, fresh_secret
from puma.mpc.fixed import ACTIVATION, RING, WEIGHT
from puma.mpc.party import DEALER, FIRST, SECOND, Party
from puma.mpc.seeded import BLOCK_BYTES, Seeded, product_part, rest_bytes, whole_terms
from puma.mpc.share import Share
from puma.net import Link
from puma.net.null import NullLink
from puma.nn import functional as F

SHAPE, ROWS = (4096, 2048), 8  # a parameter's, and how many rows meet it
NUMBERS = 1 << 17  # that a function takes
DRAWN = 64 << 20  # bytes
TIMES = 3  # of which the least counts


def drawing() -> float:
    """Seconds that the mask of one parameter takes a thread, drawn block by block."""
    reader, buffer = PairKey(fresh_secret()).stream("measured").reader(0), torch.empty(BLOCK_BYTES, dtype=torch.uint8)

    def draw() -> None:
        for _ in range(DRAWN // BLOCK_BYTES):
            reader.into(buffer)

    return _least(draw) * rest_bytes((1,), RING) / DRAWN


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


def _walk() -> Callable[[], object]:
    party = Party(FIRST, {}, {})
    stream = PairKey(fresh_secret()).stream("weight measured")
    packed = torch.zeros(rest_bytes(SHAPE, RING), dtype=torch.uint8)
    weight = Seeded(party, packed, [stream], SHAPE, RING, WEIGHT)
    x = _numbers(party, (ROWS, SHAPE[1]))
    return lambda: product_part(weight, kernels.linear_packed, whole_terms(x), SHAPE[0])


def _function() -> Callable[[], object]:
    links: dict[int, Link] = {DEALER: NullLink(), SECOND: NullLink()}
    party = Party(FIRST, links, {peer: PairKey(fresh_secret()) for peer in links})
    return lambda: F.gelu(_numbers(party, (NUMBERS,)))


def _numbers(party: Party, shape: tuple[int, ...]) -> Share:
    """Any at all."""
    a, b = (PairKey(fresh_secret()).stream("numbers").words(shape) for _ in range(2))
    return Share(party, a, b, RING, ACTIVATION)


def _least(work: Callable[[], object]) -> float:
    """Seconds, after a first time that does not count."""
    took = list[float]()
    for _ in range(TIMES + 1):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return min(took[1:])
