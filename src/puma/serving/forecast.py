"""What a request will cost, before anybody runs it: rounds, bytes, and the time they take on a network.

Everything follows from the model's public config. It must not know weights, links or processes.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from puma.errors import UsageError
from puma.models import architecture
from puma.models.config import Config
from puma.models.text import check_batch
from puma.serving.client import Cost, cost_of
from puma.serving.engine import dry_run
from puma.serving.messages import Encode, Generate, Input, Report
from puma.serving.prompt import upload_bytes

RATES = {"kbps": 1e3, "mbps": 1e6, "gbps": 1e9}
TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
NETWORK_HINT = "choose lan, wan, or a rate and a round-trip time such as 1Gbps,5ms"


def job(config: Config, prompt: int, tokens: int | None, batch: int = 1) -> Generate | Encode:
    """The request that is measured: new tokens of a causal model, hidden states of an encoder; `batch` prompts."""
    if batch < 1:
        raise UsageError(f"a batch of {batch} prompts makes no sense", "pass --batch 1 or more")
    if prompt < 1:
        raise UsageError(f"a prompt of {prompt} tokens makes no sense", "pass --prompt 1 or more")
    if architecture(config).family == "encoder":
        if tokens is not None:
            raise UsageError("an encoder generates no tokens", "leave out --tokens")
        check_batch(config, [prompt] * batch)
        return Encode(Input([prompt] * batch, []), "hidden")
    tokens = 1 if tokens is None else tokens
    if tokens < 1:
        raise UsageError(f"cannot generate {tokens} tokens", "pass --tokens 1 or more")
    check_batch(config, [prompt] * batch, tokens)
    return Generate(Input([prompt] * batch, []), tokens)


def forecast(config: Config, request: Generate | Encode) -> Cost:
    """The cost of a request; seconds are unknown, everything else is exact."""
    reports = [Report(spent, 0.0, 0.0, 0.0, 0.0) for spent in dry_run(config, request)]
    return cost_of(reports, upload_bytes(request.input.tokens, config.vocab_size))


@dataclass(frozen=True)
class Network:
    """A rate in bits a second for each machine and direction, and a round-trip time in seconds."""

    name: str
    rate: float
    rtt: float

    @classmethod
    def parse(cls, text: str) -> Network:
        """lan, wan, or RATE,RTT."""
        if text.lower() in NETWORKS:
            return NETWORKS[text.lower()]
        rate, comma, rtt = text.partition(",")
        if not comma:
            raise UsageError(f"there is no network {text}", NETWORK_HINT)
        return cls(text, _amount(rate, RATES), _amount(rtt, TIMES))

    def predict(self, cost: Cost) -> dict[str, Any]:
        """Seconds on this network, part by part, and what was assumed."""
        dealer, first, _ = cost.per_party
        parts = {
            "latency_seconds": cost.rounds * self.rtt,
            "online_seconds": 8 * first / self.rate,
            "offline_seconds": 8 * dealer / self.rate,
            "upload_seconds": 8 * cost.client / self.rate,
        }
        return asdict(self) | parts | {"seconds": sum(parts.values()), "assumptions": ASSUMPTIONS}


NETWORKS = {"lan": Network("lan", 5e9, 0.2e-3), "wan": Network("wan", 100e6, 40e-3)}
ASSUMPTIONS = [
    "network time only: computation comes on top, or hides part of it",
    "every round waits for one round-trip time; the two messages of a round cross, so half of it can do",
    "rates hold for each machine in each direction; the evaluators send to each other at the same time",
    "the dealer's corrections share the second evaluator's link, nothing is sent ahead of the request",
]


def _amount(text: str, units: dict[str, float]) -> float:
    """A positive finite number with a unit."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text.lower())
    if not match or match[2] not in units or not 0 < float(match[1]) < 1e12:
        raise UsageError(f"{text!r} is no positive amount of {', '.join(units)}", NETWORK_HINT)
    return float(match[1]) * units[match[2]]
