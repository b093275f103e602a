"""How fast this machine computes as a party: a few rates, measured once by short requests and kept on disk.

Processor time grows with the rounds, the bytes sent, the parameters read and the multiply-adds of a request; the rates
of these four are fitted to requests in which each of them in turn outweighs the others. This file must not know what a
network does to the result.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import torch

import puma
from puma.client.cost import Cost
from puma.client.owner import Progress
from puma.errors import PumaError
from puma.local.cluster import Trio
from puma.measure.bench import RandomParams, ask, random_ids
from puma.models import architecture
from puma.models.config import Bert, Config, Llama
from puma.wire.messages import Encode, Generate, Input
from puma.wire.parameters import KEEP_MASKS_BELOW

ROUNDS = Llama(vocab_size=512, hidden_size=96, intermediate_size=256, layers=3, heads=6)
BYTES = Bert(vocab_size=256, hidden_size=768, intermediate_size=3072, layers=1, heads=12)
WEIGHTS = Llama(vocab_size=256, hidden_size=2560, intermediate_size=5120, layers=1, heads=20)


class Work(msgspec.Struct, frozen=True, array_like=True):
    """What keeps a party busy: rounds, bytes that all send, parameters whose masks are drawn, multiply-adds."""

    rounds: float
    bytes: float
    weights: float
    products: float


class Speed(msgspec.Struct, frozen=True):
    """Processor seconds for each unit of Work, for P0, P1 and P2, and the cores shared by all.

    `stretch` is how many seconds pass for one of such work: in lockstep each round waits for the slower party.
    """

    parties: tuple[Work, Work, Work]
    stretch: float
    cores: int

    def seconds(self, work: Work) -> list[float]:
        """Processor seconds of P0, P1, P2."""
        amounts = msgspec.structs.astuple(work)
        return [
            sum(a * b for a, b in zip(msgspec.structs.astuple(rates), amounts, strict=False)) for rates in self.parties
        ]


_speeds = msgspec.json.Decoder(Speed)


def work(config: Config, request: Generate | Encode, cost: Cost) -> Work:
    """What a request of this cost gives the parties to do."""
    shapes = architecture(config).parameters(config).values()
    parameters, passes = sum(map(torch.Size.numel, map(torch.Size, shapes))), getattr(request, "tokens", 1)
    prompts = len(request.input.lengths)
    tokens = request.input.tokens + prompts * (passes - 1)
    products = 0
    vocabulary = [shape for shape in shapes if len(shape) == 2 and shape[0] == config.vocab_size]
    for shape in shapes:
        if len(shape) == 2 and shape not in vocabulary and shape[0] != config.context:
            products += tokens * shape[0] * shape[1]
    for shape in vocabulary[:1]:  # once to choose rows, once for the logits
        products += (tokens + (prompts * passes if isinstance(request, Generate) else 0)) * shape[0] * shape[1]
    drawn = passes * parameters if parameters >= KEEP_MASKS_BELOW else 0
    return Work(cost.rounds, cost.total, drawn, products)


def known() -> Speed | None:
    """This machine's speed, if it was measured earlier for the same machine and program."""
    with contextlib.suppress(OSError, msgspec.MsgspecError):
        return _speeds.decode(_path().read_bytes())
    return None


def speed(progress: Progress, again: bool = False) -> Speed:
    """This machine's speed: as it is known, or measured now."""
    before = None if again else known()
    if before is not None:
        return before
    path, found = _path(), measure(progress)
    with contextlib.suppress(OSError):  # a machine without a home is measured each time
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(msgspec.json.encode(found))
    return found


def measure(progress: Progress) -> Speed:
    """Run the requests, several times each after one that warms up; takes a minute."""
    asked: list[tuple[Config, Generate | Encode, int]] = [
        (ROUNDS, Generate(Input([4], []), 4), 7),
        (BYTES, Encode(Input([128], []), "hidden"), 5),
        (BYTES, Encode(Input([16], []), "hidden"), 5),
        (WEIGHTS, Encode(Input([1], []), "hidden"), 3),
        (WEIGHTS, Encode(Input([48], []), "hidden"), 3),
    ]
    done: list[tuple[Work, Cost, float]] = []
    with Trio(progress) as trio:
        for i, (config, request, runs) in enumerate(asked):
            progress("measuring this machine, for the first use", i, len(asked))
            if trio.session.config != config:
                trio.share(config, RandomParams(config))
            done.append(_measured(trio, config, request, runs))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    rows = [w for w, _, _ in done]
    rates = [fitted(rows, [cost.cpu_by_party[rank] for _, cost, _ in done]) for rank in range(3)]
    stretches = [seconds / together(cost.cpu_by_party, 0.0, cores) for _, cost, seconds in done]
    return Speed((rates[0], rates[1], rates[2]), max(1.0, statistics.median(stretches)), cores)


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


def together(busy: Sequence[float], idle: float, cores: int, beside: float = 0.0) -> float:
    """Seconds until all three are done, who are busy for so long each, on so many cores.

    The evaluators go in lockstep and wait for `idle` seconds between; the dealer, who runs ahead, and whoever else
    wants these cores for `beside` seconds, take turns with them where cores are too few.
    """
    dealer, *evaluators = busy
    pair = max(max(evaluators) + idle, sum(evaluators) / cores)
    crowd = (sum(evaluators) / pair + 1) / cores
    return max(dealer, pair + (dealer + beside) * max(0.0, crowd - 1))


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


def _path() -> Path:
    """A file for this processor, the cores we may use, and the program as it stands."""
    root = Path(puma.__file__).parent
    state = [f"{p.relative_to(root)} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in sorted(root.rglob("*.py"))]
    with contextlib.suppress(OSError):
        state += [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    state += [str(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else "", torch.__version__]
    name = hashlib.sha256("\n".join(state).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "puma" / f"speed-{name}.json"
