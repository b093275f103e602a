"""Measuring how fast this machine computes as a party, once, by short requests; what is found is kept on disk.

The rates are fitted to requests in which each of them in turn outweighs the others. This file must not know what a
network does to the result.
"""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Sequence

import msgspec
import torch

from puma import pool
from puma.client.cost import Cost
from puma.client.owner import Progress
from puma.errors import PumaError, StoreError
from puma.local.cluster import Trio
from puma.measure import rates
from puma.measure.alone import early, gains
from puma.measure.bench import RandomParams, ask, random_ids
from puma.measure.rates import Speed, Work, together, work
from puma.models.config import Bert, Config, Llama
from puma.wire.messages import Encode, Generate, Input

ROUNDS = Llama(vocab_size=512, hidden_size=96, intermediate_size=256, layers=3, heads=6)
BYTES = Bert(vocab_size=256, hidden_size=768, intermediate_size=3072, layers=1, heads=12)
WEIGHTS = Llama(vocab_size=256, hidden_size=2560, intermediate_size=5120, layers=1, heads=20)


def speed(progress: Progress, again: bool = False) -> Speed:
    """This machine's speed: as it is known, or measured now."""
    before = None if again else rates.known()
    if before is not None:
        return before
    found = measure(progress)
    with contextlib.suppress(OSError, StoreError):  # the latter for a user without a home: measured each time
        path = rates.path()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(found))
    return found


def measure(progress: Progress) -> Speed:
    """Run the requests, several times each after one that warms up, each party with one thread; takes a minute."""
    asked: list[tuple[Config, Generate | Encode, int]] = [
        (ROUNDS, Generate(Input([4], []), 4), 7),
        (BYTES, Encode(Input([128], []), "hidden"), 5),
        (BYTES, Encode(Input([16], []), "hidden"), 5),
        (WEIGHTS, Encode(Input([1], []), "hidden"), 3),
        (WEIGHTS, Encode(Input([48], []), "hidden"), 3),
    ]
    done: list[tuple[Work, Cost, float]] = []
    with Trio(progress, threads=1) as trio:
        for i, (config, request, runs) in enumerate(asked):
            progress("measuring this machine, for the first use", i, len(asked))
            if trio.session.config != config:
                trio.share(config, RandomParams(config))
            done.append(_measured(trio, config, request, runs))
    cores = pool.cores()
    rows = [w for w, _, _ in done]
    found = [fitted(rows, [cost.cpu_by_party[rank] for _, cost, _ in done]) for rank in range(3)]
    stretches = [seconds / together(cost.cpu_by_party, 0.0, cores) for _, cost, seconds in done]
    stretch = max(1.0, statistics.median(stretches))
    return Speed((found[0], found[1], found[2]), stretch, cores, early(), gains(cores))


def _measured(trio: Trio, config: Config, request: Generate | Encode, runs: int) -> tuple[Work, Cost, float]:
    """Work, and cost and seconds of the run whose processor time is the median one."""
    prompts, done = random_ids(config, request.input.lengths), []
    for _ in range(runs + 1):
        started = time.perf_counter()
        ask(trio.session, prompts, getattr(request, "tokens", None))
        seconds, cost = time.perf_counter() - started, trio.session.cost
        assert cost is not None
        done.append((seconds, cost))
    seconds, cost = sorted(done[1:], key=lambda one: one[1].cpu_seconds)[runs // 2]
    return work(config, request, cost), cost, seconds


def fitted(rows: Sequence[Work], seconds: Sequence[float]) -> Work:
    """Rates, none negative, whose products with the rows come closest to the seconds, relatively."""
    table = torch.tensor([msgspec.structs.astuple(row) for row in rows], dtype=torch.float64)
    target = torch.tensor(seconds, dtype=torch.float64).clamp(min=1e-6)
    table = table / target[:, None]
    best, least = torch.zeros(4, dtype=torch.float64), float("inf")
    for columns in itertools.chain.from_iterable(itertools.combinations(range(4), n) for n in range(1, 5)):
        chosen = table[:, columns]
        scale = chosen.norm(dim=0).clamp(min=1e-30)
        rates = torch.linalg.lstsq(chosen / scale, torch.ones(len(rows), 1, dtype=torch.float64)).solution[:, 0] / scale
        miss = float((chosen @ rates - 1).norm())
        if bool((rates >= 0).all()) and miss < least - 1e-9:
            best, least = torch.zeros(4, dtype=torch.float64), miss
            best[list(columns)] = rates
    if least == float("inf"):
        raise PumaError("this machine's speed cannot be measured", "try again when it is less busy")
    return Work(*best.tolist())
