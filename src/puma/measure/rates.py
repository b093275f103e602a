"""How fast a machine computes as a party, and what that makes of a request: rates of processor time, and how parties
share cores.

Processor time grows with the rounds, the bytes sent, the parameters read and the multiply-adds of a request. How rates
are measured (speed.py), and what a network does to the result, this file must not know.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
import torch

import puma
from puma.client.cost import Cost
from puma.engine.lookahead import STEPS
from puma.engine.rehearsing import FEW
from puma.errors import StoreError
from puma.models import architecture
from puma.models.config import Config
from puma.mpc.party import FIRST
from puma.nn.modules import Embedding
from puma.store import folders
from puma.wire.messages import Encode, Generate
from puma.wire.parameters import KEEP_MASKS_BELOW


class Work(msgspec.Struct, frozen=True, array_like=True):
    """What keeps a party busy: rounds, bytes that all send, parameters whose masks are drawn, multiply-adds."""

    rounds: float
    bytes: float
    weights: float
    products: float


class Aside(NamedTuple):
    """Of a request's work what an evaluator may do while it waits for a slow network: draw masks of so many
    parameters, and make a half of the products with so many, of so many multiply-adds, which a rehearsal tells. And of
    how many parameters the dealer draws no masks, because it multiplies those of several steps at once; and how many
    steps there are, behind the last of which nothing is left to draw."""

    drawn: float = 0.0
    told: float = 0.0
    products: float = 0.0
    shared: float = 0.0
    steps: int = 1


NOTHING = Aside()
ROWS = 8  # that a walk over parameters meets where its parts are measured


class Early(msgspec.Struct, frozen=True, array_like=True):
    """What is done in waits, measured where nobody else is about, as shares of a walk over parameters that `ROWS` rows
    meet.

    `drawn`: drawing a mask into memory, and `saved`: what the walk then takes less. `told`: making the products that
    depend on no message, and `spared`: what the walk then takes less besides; `kept`: making of the mask what P1 keeps
    instead of it then.
    """

    drawn: float = 0.0
    saved: float = 0.0
    told: float = 0.0
    spared: float = 0.0
    kept: float = 0.0


class Speed(msgspec.Struct, frozen=True):
    """Processor seconds for each unit of Work, for P0, P1 and P2, by one thread, and the cores shared by all.

    `stretch` is how many seconds pass for one of such work: in lockstep each round waits for the slower party. `gains`
    say how many times as fast a party that has all cores to itself is as one thread among those of other parties, at
    walks over parameters and at all else that it sends.
    """

    parties: tuple[Work, Work, Work]
    stretch: float
    cores: int
    early: Early = Early()
    gains: tuple[float, float] = (1.0, 1.0)

    def seconds(self, work: Work) -> list[float]:
        """Processor seconds of P0, P1, P2."""
        return [sum(_parts(rates, work)) for rates in self.parties]

    def passed(self, work: Work, saved: Sequence[float], threads: int) -> list[float]:
        """Seconds of P0, P1, P2 with so many threads each, without what each has `saved` of walks over parameters."""
        walks, words = (_gain(gain, self.cores, threads) for gain in self.gains)
        found = list[float]()
        for rates, less in zip(self.parties, saved, strict=True):
            rounds, sent, weights, products = _parts(rates, work)
            found.append(self.stretch * (rounds + sent / words + max(0.0, weights + products - less) / walks))
        return found

    def aside(self, work: Work, some: Aside, waits: float) -> list[tuple[float, float]]:
        """Of P0, P1 and P2 the processor seconds that are saved, by waits of so many seconds and by what steps share,
        and those that are spent in waits: a mask that is drawn ahead is written to memory and read again, and a
        rehearsal computes what is sent once more."""
        found, early = [(self.parties[0].weights * some.shared, 0.0)], self.early
        for rank, rates in enumerate(self.parties[1:], FIRST):
            each = rates.weights + ROWS * rates.products
            walk = each * some.drawn
            draws = early.drawn * walk + (early.kept * each * some.told if rank == FIRST else 0.0)
            drawn = min(1.0, waits / draws) if draws else 0.0
            product = rates.weights * some.told + rates.products * some.products
            tells = early.told * product + rates.rounds * work.rounds + rates.bytes * work.bytes
            left = waits if self.cores > 1 else waits - drawn * draws
            told = min(1.0, left / tells) if product else 0.0
            saved = drawn * early.saved * walk + told * early.spared * product
            found.append((saved, drawn * draws + told * tells))
        return found


def _parts(rates: Work, work: Work) -> tuple[float, ...]:
    """Seconds for each kind of work."""
    pairs = zip(msgspec.structs.astuple(rates), msgspec.structs.astuple(work), strict=True)
    return tuple(rate * amount for rate, amount in pairs)


def _gain(gain: float, cores: int, threads: int) -> float:
    """How many times as fast so many threads are as one, if `cores` are `gain` times as fast (Amdahl 1967)."""
    if cores < 2 or threads < 2:
        return 1.0
    serial = min(1.0, max(0.0, (1 / gain - 1 / cores) / (1 - 1 / cores)))
    return 1 / (serial + (1 - serial) / threads)


_speeds = msgspec.json.Decoder(Speed)


SPREAD = 0.2  # of the time that drawing a parameter's mask takes, to make a word of a public one


def work(config: Config, request: Generate | Encode, cost: Cost) -> Work:
    """What a request of this cost gives the parties to do."""
    model = architecture(config).model(config)
    tables = {f"{name}.weight" for name, module in model.modules() if isinstance(module, Embedding)}
    shapes = model.shapes()
    parameters, passes = sum(map(math.prod, shapes.values())), getattr(request, "tokens", 1)
    prompts = len(request.input.lengths)
    tokens = request.input.tokens + prompts * (passes - 1)
    products = 0
    vocabulary = [shape for shape in shapes.values() if len(shape) == 2 and shape[0] == config.vocab_size]
    for name, shape in shapes.items():
        if len(shape) == 2 and shape not in vocabulary and name not in tables:  # of which rows are taken by place
            products += tokens * shape[0] * shape[1]
    for shape in vocabulary[:1]:  # once to choose rows, once for the logits
        products += (tokens + (prompts * passes if isinstance(request, Generate) else 0)) * shape[0] * shape[1]
    drawn = passes * parameters if parameters >= KEEP_MASKS_BELOW else 0
    if config.formats.open:  # one product instead of two, and no mask: numbers become words, which takes a while, too
        products, drawn = products // 2, int(SPREAD * passes * parameters)
    return Work(cost.rounds, cost.total, drawn, products)


def aside(config: Config, request: Generate | Encode, done: Work) -> Aside:
    """What of this work evaluators may do in their waits, and the dealer for several steps at once: nothing of kept or
    of public parameters."""
    passes, prompt = getattr(request, "tokens", 1), request.input.tokens
    if config.formats.open or not done.weights:
        return Aside(steps=passes)
    if not isinstance(request, Generate):
        return Aside(done.weights)
    walks = -(-passes // STEPS) if architecture(config).foresees(config) and not request.fed else passes
    shared = done.weights / passes * (passes - walks)
    if prompt > FEW:
        return Aside(done.weights, shared=shared, steps=passes)
    rows = prompt + len(request.input.lengths) * (passes - 1)
    return Aside(done.weights, done.weights / passes, done.products * prompt / rows, shared, passes)


def known() -> Speed | None:
    """This machine's speed, if it was measured earlier for the same machine and program."""
    with contextlib.suppress(OSError, StoreError, msgspec.MsgspecError):
        return _speeds.decode(path().read_bytes())
    return None


def together(
    busy: Sequence[float], idle: float, cores: int, beside: float = 0.0, hidden: Sequence[float] = (0.0, 0.0, 0.0),
    last: float = 0.0,
) -> float:  # fmt: skip
    """Seconds until all three are done, who are busy for so long each, on so many cores.

    The evaluators go in lockstep and wait for `idle` seconds between, for `hidden` ones of which each is busy all
    the same; the dealer, who runs ahead, and whoever else wants these cores for `beside` seconds, take turns with them
    where cores are too few. No core does more than one of them at a time, and in the `last` of the idle seconds nothing
    is left to do.
    """
    dealer, *evaluators = busy
    seen = [seconds - aside for seconds, aside in zip(evaluators, hidden[1:], strict=True)]
    first = max(max(seen) + idle - last, sum(evaluators) / cores)  # until nobody has anything to do
    crowd = (sum(evaluators) / first + 1) / cores if first else 0.0
    pair = first + (dealer + beside) * max(0.0, crowd - 1)
    return last + max(dealer, pair, (sum(busy) + beside) / cores)


def path() -> Path:
    """A file for this processor, the cores we may use, and the program as it stands."""
    root = Path(puma.__file__).parent
    state = [f"{p.relative_to(root)} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in sorted(root.rglob("*.py"))]
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        state += [line for line in lines if line.startswith("model name")]
    state += [str(sorted(os.sched_getaffinity(0))) if hasattr(os, "sched_getaffinity") else "", torch.__version__]
    name = hashlib.sha256("\n".join(state).encode()).hexdigest()[:16]
    return folders.of_user("XDG_CACHE_HOME", ".cache") / "puma" / f"speed-{name}.json"
