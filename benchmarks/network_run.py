"""Whole requests over emulated networks, beside what `puma cost --network` predicts for them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from benchmarks import netem
from benchmarks.network import ONE_MACHINE, Emulated
from puma.engine.planner import Link, cheapest, prices
from puma.local.cluster import Trio
from puma.measure.bench import ask, configured, random_ids
from puma.measure.forecast import NETWORKS, forecast
from puma.measure.rates import Speed, aside, work
from puma.models.config import Config
from puma.nn.variants import quick_of, title
from puma.reference.plain_model import PlainModel
from puma.wire.request_shapes import shaped

STORIES = "stories"  # the model in the package
CASES: list[tuple[str, int, int | None]] = [("bert-base", 128, None), ("gpt2", 32, 1), (STORIES, 4, 20)]
QUICK = (STORIES, 4, 2)
FAR, LAYERS = ("llama-7b", 8, 1), 4  # a large model over the slowest network, and how many layers of it are measured


def far(speed: Speed, kernel: bool, quick: bool) -> list[dict[str, Any]]:
    """A few layers of LLaMA-7B by the plan that the network asks for, and what they say of all on three machines."""
    case, layers, network = (QUICK, 1, "lan") if quick else (FAR, LAYERS, "wan")
    config, net = model(case[0])[0], NETWORKS[network]
    chosen = cheapest(prices(config, shaped(config, *case[1:])), Link(net.rtt, net.rate))
    found = measure(case, network, 1, speed, kernel, title(chosen), layers if case is FAR else None)
    request = shaped(config, *case[1:], quick=chosen)
    cost = forecast(config, request)
    done = work(config, request, cost)
    whole = net.predict(cost, done, speed, aside(config, request, done))
    parts = ("latency", "online", "offline")
    told = {f"whole_{name}": whole[f"{name}_seconds"] for name in parts} | {"whole": whole["seconds"]}
    told |= {"whole_rounds": cost.rounds, "whole_compute": whole["compute_seconds"], "plan": title(chosen)}
    told |= {"whole_hidden": whole["hidden_seconds"]}
    how = f", {found['layers']} layers by the plan for it; all {config.layers} predicted for three machines: "
    return [found | told | {"how": f"{how}{whole['seconds']:.1f} s"}]


def model(name: str, layers: int | None = None) -> tuple[Config, Mapping[str, Tensor]]:
    """A preset with random weights, perhaps of so many layers, or the embedded model."""
    if name == STORIES:
        clear = PlainModel(None)
        return clear.config, clear.params
    _, config, params = configured(name, layers)
    return config, params


def measure(
    case: tuple[str, int, int | None], network: str | None, runs: int, speed: Speed, kernel: bool = False,
    plan: str = "lean", layers: int | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Median seconds of a request over a network (None: one machine), and the prediction if there is one.

    `plan` and `layers` are as for `puma bench`.
    `kernel`: this process has entered a namespace in which the kernel makes the network.
    """
    name, prompt, tokens = case
    config, params = model(name, layers)
    asked: dict[str, Any] = {"model": name, "prompt": prompt, "tokens": tokens, "network": network or ONE_MACHINE}
    asked |= {"layers": config.layers}
    if network is None:
        with Trio() as trio:
            return asked | _timed(trio, config, params, prompt, tokens, runs)
    net = NETWORKS[network]
    with (netem.Shaped if kernel else Emulated)(net) as emulated, Trio(route=emulated.route) as trio:
        trio.session.variants = plan
        trio.share(config, params, alias=getattr(params, "alias", {}))
        before = emulated.stats()
        found = _timed(trio, config, None, prompt, tokens, runs)
        after = emulated.stats()
    request = shaped(config, prompt, tokens, quick=quick_of(plan))
    cost = forecast(config, request)
    relayed = (after["cpu_seconds"] - before["cpu_seconds"]) / (runs + 1)
    done = work(config, request, cost)
    predicted = net.predict(cost, done, speed, aside(config, request, done), relayed)
    relay = {"relay_cpu_seconds": relayed, "late": after["late"], "by": "netem" if kernel else "relay"}
    asked |= {"rate": net.rate, "rtt": net.rtt}
    told = {"predicted": predicted["seconds_here"], "predicted_cpu": predicted["processor_seconds"]}
    return asked | found | relay | told | {"on_three_machines": predicted["seconds"]}


def _timed(
    trio: Trio, config: Config, params: Mapping[str, Tensor] | None, prompt: int, tokens: int | None, runs: int
) -> dict[str, Any]:
    """Median over the runs after one that does not count."""
    if params is not None:
        trio.share(config, params)
    prompts, done = random_ids(config, [prompt]), list[tuple[float, list[float]]]()
    for _ in range(runs + 1):
        started = time.perf_counter()
        ask(trio.session, prompts, tokens)
        seconds, cost = time.perf_counter() - started, trio.session.cost
        assert cost is not None
        done.append((seconds, cost.cpu_by_party))
    assert trio.session.cost is not None
    found = done[1:]
    return {
        "seconds": statistics.median(seconds for seconds, _ in found),
        "all_seconds": [seconds for seconds, _ in found],
        "cpu_seconds": statistics.median(sum(cpu) for _, cpu in found),
        "cpu_by_party": [statistics.median(each) for each in zip(*(cpu for _, cpu in found), strict=True)],
        "rounds": trio.session.cost.rounds,
    }
