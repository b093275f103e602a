"""What a request will cost, before anybody runs it: rounds, bytes, and the time they take on a network.

Rounds and bytes follow from the model's public config; seconds also from how fast this machine computes, which
speed.py measures. It must not know weights, links or processes.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

from puma.client.cost import Cost, cost_of
from puma.engine.dry_run import Memory, counted
from puma.errors import UsageError
from puma.measure.rates import NOTHING, Aside, Speed, Work, together
from puma.models.config import Config
from puma.mpc.waits.drawn import SLOW
from puma.wire.inputs import upload_bytes
from puma.wire.messages import Encode, Generate, Report

RATES = {"kbps": 1e3, "mbps": 1e6, "gbps": 1e9}
TIMES = {"us": 1e-6, "ms": 1e-3, "s": 1.0}
HEAD = "head"  # what a step's last rounds are booked under: the next token is sought, and no parameter read
NETWORK_HINT = "choose lan, paper, wan, or a round-trip time and a rate such as 5ms,1Gbps"


def forecast(config: Config, request: Generate | Encode) -> Cost:
    """The cost of a request; seconds are unknown, everything else is exact."""
    return to_first(config, request)[1]


def to_first(config: Config, request: Generate | Encode, memory: Memory | None = None) -> tuple[Cost, Cost]:
    """The cost of a request up to its first token, and all of it; of one that gives no tokens both are the same."""
    upload = upload_bytes(config, request.input)
    first, whole = (
        cost_of([Report(spent, 0.0, 0.0, 0.0, 0.0) for spent in parties], upload)
        for parties in counted(config, request, memory)
    )
    return first, whole


@dataclass(frozen=True)
class Network:
    """A rate in bits a second for each direction between two machines, and a round-trip time in seconds."""

    name: str
    rate: float
    rtt: float

    @classmethod
    def parse(cls, text: str) -> Network:
        """lan, paper, wan, or RTT,RATE in either order."""
        if text.lower() in NETWORKS:
            return NETWORKS[text.lower()]
        first, comma, second = text.partition(",")
        if not comma:
            raise UsageError(f"there is no network {text}", NETWORK_HINT)
        if first.lower().endswith("bps"):
            first, second = second, first
        return cls(text, _amount(second, RATES), _amount(first, TIMES))

    def predict(
        self, cost: Cost, work: Work, speed: Speed, some: Aside = NOTHING, beside: float = 0.0
    ) -> dict[str, Any]:  # fmt: skip
        """Seconds on this network, part by part, and what was assumed.

        `seconds` is for three machines like this one, `seconds_here` for three parties that share this one's cores,
        also with something else that wants them for `beside` seconds, and have such a network between them. `some` of
        the work evaluators may do while they wait for messages.
        """
        dealer, first, _ = cost.per_party
        parts = {
            "latency_seconds": (cost.rounds / 2 + 1) * self.rtt,
            "online_seconds": 8 * first / self.rate,
            "offline_seconds": 8 * dealer / self.rate,
            "upload_seconds": 8 * cost.client / self.rate,
        }
        last = self._last(cost, some)
        waits = parts["latency_seconds"] + parts["online_seconds"] - last if self.rtt / 2 > SLOW else 0.0
        aside = speed.aside(work, some, waits)
        saved, hidden = ([each[i] for each in aside] for i in (0, 1))
        processor = [whole - less + more for whole, less, more in zip(speed.seconds(work), saved, hidden, strict=True)]
        alone, here = (speed.passed(work, saved, threads) for threads in (speed.cores, max(1, speed.cores // 3)))
        idle = sum(parts.values()) - parts["offline_seconds"]
        busy = [seen + speed.stretch * unseen for seen, unseen in zip(here, hidden, strict=True)]
        shared = together(busy, idle, speed.cores, beside, [speed.stretch * unseen for unseen in hidden], last)
        return asdict(self) | parts | {
            "compute_seconds": alone,
            "hidden_seconds": hidden,
            "processor_seconds": processor,
            "seconds": max(alone[0], parts["offline_seconds"], idle + self.rtt + max(alone[1:])),
            "seconds_here": max(here[0], parts["offline_seconds"], shared),
            "assumptions": ASSUMPTIONS,
        }  # fmt: skip

    def _last(self, cost: Cost, some: Aside) -> float:
        """Seconds in which the answer is on its way: from the logits of the last step on, and before, the request."""
        rounds = sum(part["rounds"] for part in cost.breakdown if part["name"] == HEAD) / some.steps
        return (rounds / 2 + 1) * self.rtt


NETWORKS = {
    "lan": Network("lan", 5e9, 0.4e-3),
    "paper": Network("paper", 5e9, 1e-3),  # of PUMA's measurements
    "wan": Network("wan", 400e6, 40e-3),
}
ASSUMPTIONS = [
    "each party computes as fast as this machine does, with all of its cores; its speed was measured once and is kept",
    "the two messages of a round cross: it waits for half a round-trip time and for one of them to be sent",
    "rates hold for each direction between two machines; connections are warm and lose nothing",
    "before a request's first step three daemons agree on it, which takes a round trip more than parties of one client",
    "the dealer runs ahead and sends while it computes: the longer of both matters where it outlasts all the rest",
    "while an evaluator waits for a slow network it draws masks of weights that come next, and multiplies what it can",
]


def _amount(text: str, units: dict[str, float]) -> float:
    """A positive finite number with a unit."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", text.lower())
    if not match or match[2] not in units or not 0 < float(match[1]) < 1e12:
        raise UsageError(f"{text!r} is no positive amount of {', '.join(units)}", NETWORK_HINT)
    return float(match[1]) * units[match[2]]
