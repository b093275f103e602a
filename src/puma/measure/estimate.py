"""What a model needs of three machines and of a network, and a thousand requests in money, before anybody runs it.

Rounds, traffic and disk are exact; memory and seconds are estimates that say what they assume. It must not know
weights, nor how any of this is shown.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec

from puma.client.cost import Cost
from puma.engine.dry_run import Memory
from puma.errors import UsageError
from puma.measure.forecast import Network, to_first
from puma.measure.rates import Early, Speed, Work, aside, work
from puma.models import architecture, heads, inputs
from puma.models.config import Config
from puma.store.models import layout
from puma.wire.messages import Encode, Generate
from puma.wire.parameters import KEEP_MASKS_BELOW, offered_specs
from puma.wire.request_shapes import shaped

# Of a core of the machine whose measurements docs/benchmarks.md has, until this one is measured.
DEALER, EVALUATOR = Work(1.3e-4, 1.55e-9, 1.38e-9, 3e-11), Work(2.4e-4, 1.5e-9, 1.06e-9, 6e-11)
REFERENCE = Speed((DEALER, EVALUATOR, EVALUATOR), 1.12, 2, Early(0.53, 0.29, 0.33, 0.31, 0.33), (1.45, 1.0))
PROGRAM = 420 << 20  # bytes of a party that holds no model: interpreter, torch, compiled kernels
WORKING = (512, 1024, 2048)  # bytes of P0, P1 and P2 for each number of the largest tensor, as measured
KEPT = 16  # bytes a word that is held in both components
HALVES = 2  # bytes of a public parameter in most files, which are mapped where they lie
REQUESTS = 1000


class Machine(NamedTuple):
    """Bytes that a party needs."""

    disk: int
    memory: int


@dataclass(frozen=True)
class Prices:
    """Of a gigabyte (10^9 bytes) that leaves a machine, and of an hour of one of the three machines."""

    gb: float = 0.0
    hour: float = 0.0

    @classmethod
    def of(cls, gb: float, hour: float) -> Prices:
        """UsageError for what is no price."""
        if not (0 <= gb < math.inf and 0 <= hour < math.inf):
            raise UsageError("a price is a number from 0 on", "pass --price-gb 0.08 or --price-hour 1.20, for example")
        return cls(gb, hour)


@dataclass(frozen=True)
class Estimate:
    """A request of a model: all of it, and up to its first token; of an encoder both are the same."""

    config: Config
    request: Generate | Encode
    whole: Cost
    first: Cost

    @classmethod
    def of(cls, config: Config, request: Generate | Encode, memory: Memory | None = None) -> Estimate:
        """Count it, by what is remembered of others by other plans."""
        first, whole = to_first(config, request, memory)
        return cls(config, request, whole, first)

    @property
    def prompt(self) -> int:
        """Tokens of each prompt, or rows of each image."""
        return self.request.input.lengths[0]

    @property
    def tokens(self) -> int:
        """How many are asked for; 0 of an encoder."""
        return getattr(self.request, "tokens", 0)

    @property
    def further_rounds(self) -> float:
        """Of each token after the first, in the mean."""
        return (self.whole.rounds - self.first.rounds) / max(1, self.further)

    @property
    def further_bytes(self) -> float:
        """Of each token after the first, in the mean."""
        return (self.whole.total - self.first.total) / max(1, self.further)

    @property
    def further(self) -> int:
        """How many tokens follow the first."""
        return getattr(self.request, "tokens", 1) - 1

    @property
    def machines(self) -> tuple[Machine, Machine, Machine]:
        """What P0, P1 and P2 need while this request runs; on one machine they share the memory of public weights."""
        disk, lengths = layout(offered_specs(self.config))[1], self.request.input.lengths
        parameters = sum(math.prod(spec.shape) for spec in offered_specs(self.config))
        small = parameters < KEEP_MASKS_BELOW
        held = [KEPT * parameters] * 3 if small else [0, disk, disk]
        if self.config.formats.open:
            disk = HALVES * parameters
            held = [0, disk, disk]
        cached = _cached(self.config, self.request)
        largest = architecture(self.config).largest(self.config, max(lengths), sum(lengths))
        memory = [PROGRAM + model + cached + each * largest for model, each in zip(held, WORKING, strict=True)]
        return Machine(0, memory[0]), Machine(disk, memory[1]), Machine(disk, memory[2])

    def on(self, network: Network, speed: Speed) -> dict[str, Any]:
        """Seconds on a network; see `Network.predict`. `first_seconds` are those to the first token, and
        `further_seconds` those of each that follows."""
        whole, first = (
            self._on(network, speed, cost, request)
            for cost, request in ((self.whole, self.request), (self.first, _to_first(self.request)))
        )
        further = (whole["seconds"] - first["seconds"]) / self.further if self.further else 0.0
        return whole | {"first_seconds": first["seconds"], "further_seconds": further}

    def _on(self, network: Network, speed: Speed, cost: Cost, request: Generate | Encode) -> dict[str, Any]:
        done = work(self.config, request, cost)
        return network.predict(cost, done, speed, aside(self.config, request, done))

    def thousand(self, seconds: float, prices: Prices) -> dict[str, Any]:
        """What a thousand such requests take, one after the other, at so many seconds each."""
        gigabytes, hours = REQUESTS * self.whole.total / 1e9, REQUESTS * 3 * seconds / 3600
        traffic, machines = gigabytes * prices.gb, hours * prices.hour
        return {
            "requests": REQUESTS, "gigabytes": gigabytes, "machine_hours": hours, "traffic_price": traffic,
            "machine_price": machines, "price": traffic + machines,
        }  # fmt: skip


def usual(
    config: Config, prompt: int | None, tokens: int | None, batch: int = 1, approximation: str = "spline",
    quick: tuple[str, ...] = (),
) -> Generate | Encode:  # fmt: skip
    """What a model is mostly asked: new tokens, the logits of its classes, one vector of each text, or states of all
    tokens. UsageError for sizes that make no sense."""
    request, answers = measured(config, prompt, tokens, batch, approximation, quick), heads(config)
    if isinstance(request, Generate):
        return request
    return Encode(request.input, "logits" if answers.labels else "pooled" if answers.pooling.modes else "hidden")


def measured(
    config: Config, prompt: int | None, tokens: int | None, batch: int = 1, approximation: str = "spline",
    quick: tuple[str, ...] = (),
) -> Generate | Encode:  # fmt: skip
    """The same, but of what encodes always the states of all tokens."""
    if inputs(config).rows and prompt is not None:
        sound = "sound comes in windows of one length" if heads(config).generates else "an image has no tokens"
        raise UsageError(sound, "leave out --prompt, or pass --batch for several")
    return shaped(config, prompt, tokens, batch, approximation, quick)


def _to_first(request: Generate | Encode) -> Generate | Encode:
    """The same up to its first token."""
    return msgspec.structs.replace(request, tokens=1) if getattr(request, "tokens", 1) > 1 else request


def _cached(config: Config, request: Generate | Encode) -> int:
    """Bytes of keys and values that a party holds of a generation."""
    if not isinstance(request, Generate):
        return 0
    rows = sum(request.input.lengths) + len(request.input.lengths) * request.tokens
    return KEPT * rows * architecture(config).kept(config)
