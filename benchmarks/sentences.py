"""What people who encode and rank texts ask about: sentences and pairs a second, and what each sends, over networks.

Weights are random; the time does not depend on them. A batch goes in as few requests as the memory of one machine with
three parties allows.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any

from torch import Tensor

from benchmarks import netem
from benchmarks.network import ONE_MACHINE, Emulated
from puma.local.cluster import Trio
from puma.measure.bench import configured, random_ids
from puma.measure.estimate import usual
from puma.measure.forecast import NETWORKS
from puma.models.config import Config
from puma.wire.messages import Encode

MODELS = {"minilm-l6": "sentences", "ms-marco-minilm-l6": "pairs"}
BATCHES, TOKENS = (1, 8, 64), (16, 128)
MOST_TOKENS = 2048  # of a request
LONG = 4096  # tokens of a batch that is measured once, as everything is on the slow network
QUICK = ("minilm-l6", 2, 16)

Say = Callable[[str], None]


def sentences(runs: int, quick: bool, say: Say) -> list[dict[str, Any]]:
    """Every case over every network."""
    kernel, found = netem.available(), list[dict[str, Any]]()
    if kernel:
        netem.enter()
    for network in (None,) if quick else (None, "lan", "wan"):
        with ExitStack() as stack:
            if network is None:
                trio = stack.enter_context(Trio())
            else:
                net = NETWORKS[network]
                emulated = stack.enter_context((netem.Shaped if kernel else Emulated)(net))
                trio = stack.enter_context(Trio(route=emulated.route))
            for model in [QUICK[0]] if quick else MODELS:
                _, config, params = configured(model, 1 if quick else None)
                cases = [QUICK[1:]] if quick else [(batch, tokens) for tokens in TOKENS for batch in BATCHES]
                for number, (batch, tokens) in enumerate(cases):
                    say(f"{model}, {batch} of {tokens} tokens over {network or ONE_MACHINE}")
                    times = 1 if network == "wan" or batch * tokens >= LONG else runs
                    asked = {"model": model, "network": network or ONE_MACHINE}
                    found.append(asked | measured(trio, config, None if number else params, batch, tokens, times))
    return found


def measured(
    trio: Trio, config: Config, params: Mapping[str, Tensor] | None, batch: int, tokens: int, runs: int
) -> dict[str, Any]:
    """Median seconds for a batch of texts of so many tokens each, after a first request that does not count, and what
    was sent; with `params` the model is shared before."""
    if params is not None:
        trio.share(config, params)
    each = max(1, min(batch, MOST_TOKENS // tokens))
    sizes = [min(each, batch - start) for start in range(0, batch, each)]
    request = usual(config, tokens, None, each)
    assert isinstance(request, Encode)
    prompts = random_ids(config, [tokens] * batch)
    trio.session.encode(prompts[: sizes[0]], request.output)
    seconds, spent = list[float](), list[float]()
    sent = rounds = 0
    for _ in range(runs):
        started, start = time.perf_counter(), 0
        sent, rounds, cpu = 0, 0, 0.0
        for size in sizes:
            trio.session.encode(prompts[start : start + size], request.output)
            cost = trio.session.cost
            assert cost is not None
            start, sent, rounds, cpu = start + size, sent + cost.total, rounds + cost.rounds, cpu + cost.cpu_seconds
        seconds.append(time.perf_counter() - started)
        spent.append(cpu)
    median = statistics.median(seconds)
    return {
        "batch": batch, "tokens": tokens, "requests": len(sizes), "runs": runs, "seconds": median,
        "all_seconds": seconds, "per_second": batch / median, "bytes_each": sent / batch, "rounds": rounds,
        "cpu_seconds_each": statistics.median(spent) / batch,
    }  # fmt: skip
