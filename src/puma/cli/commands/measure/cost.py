"""`puma cost`: what a model needs of three machines and a network, and what that costs, without running it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from puma.cli import ui
from puma.cli.options import HUMAN, Count, Flag, Output, Profile

if TYPE_CHECKING:
    from puma.measure.estimate import Estimate, Prices

NETWORKS = ("lan", "wan")  # unless one is named


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without looking for garbage: loading torch and counting make hardly any, and take a sixth less time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_uncollected()
def cost(
    model: str,
    /,
    *,
    adapter: str | None = None,
    prompt: Count | None = None,
    tokens: Count | None = None,
    batch: Count = 1,
    layers: Count | None = None,
    network: str | None = None,
    plan: str = "lean",
    rounds: Flag = False,
    price_gb: float = 0.0,
    price_hour: float = 0.0,
    again: Flag = False,
    open_weights: Flag = False,
    approximation: Profile = "spline",
    output: Output = HUMAN,
) -> None:
    """Disk, memory, seconds, traffic and price of a request, from the model's shape: nothing is run, no weights are
    read. Rounds and bytes are exact.

    Parameters
    ----------
    model
        A preset, a config.json, stories, or a checkpoint's folder or GGUF file, of which only the settings are read.
    adapter
        A LoRA adapter of it, which may bring another head or more tokens: a folder as peft writes it, or a hub name.
    prompt
        Length of the prompt in tokens; a model of images has none.
    tokens
        New tokens of a causal model (1 if left out).
    batch
        How many such prompts in the one request.
    layers
        Only so many layers.
    network
        lan, paper, wan, or a measured round-trip time and rate such as 5ms,1Gbps; lan and wan if left out.
    plan
        Which functions take fewer rounds and more words: lean none, quick what sends little more, auto what takes least
        time on each network, or their names with commas between.
    rounds
        Show instead the rounds of a layer in the middle, one after the other, and what waits for them; of a
        generation of several tokens those of the last one's step.
    price_gb
        What a gigabyte of traffic costs, in any currency.
    price_hour
        What an hour of one of the three machines costs.
    again
        Measure how fast this machine computes, which takes a minute and is kept, and go by that.
    open_weights
        The weights are no secret: what that saves.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    """
    from puma.engine.dry_run import Memory
    from puma.engine.planner import Link, cheapest, with_plan
    from puma.engine.planner import prices as priced
    from puma.measure.estimate import REFERENCE, Estimate, Prices, usual
    from puma.measure.forecast import Network
    from puma.measure.named import config_of
    from puma.measure.rates import known
    from puma.models import in_the_open
    from puma.models.inspection import mixture
    from puma.nn.variants import named, quick_of, title

    nets = [Network.parse(name) for name in ([network] if network is not None else NETWORKS)]
    prices = Prices.of(price_gb, price_hour)
    measured = _measured(output) if again else known()
    name, config = config_of(model, layers, adapter)
    config = in_the_open(config, open_weights)
    request = usual(config, prompt, tokens, batch, approximation)
    if rounds:
        _rounds(name, config, with_plan(request, quick_of(plan)), output)
        return
    quick, memory = named(plan), Memory(approximation)
    options = priced(config, request, memory) if quick is None else {}
    plans = [cheapest(options, Link(net.rtt, net.rate)) if quick is None else quick for net in nets]
    by_plan = {one: Estimate.of(config, with_plan(request, one), memory) for one in dict.fromkeys(plans)}
    found, seconds = by_plan[plans[0]], list[dict[str, Any]]()
    for one, net in zip(plans, nets, strict=True):
        on = by_plan[one].on(net, measured or REFERENCE)
        own = {"plan": title(one), "plan_rounds": by_plan[one].whole.rounds, "plan_bytes": by_plan[one].whole.total}
        seconds.append(on | own | {"thousand": by_plan[one].thousand(on["seconds"], prices)})
    asked = {"model": name, "prompt": found.prompt, "tokens": found.tokens, "batch": batch, "layers": config.layers}
    asked |= {"weights": "open"} if open_weights else {}
    if output.json:
        ui.answer(asked | ui.profile(approximation) | _told(found, seconds, measured is not None))
        return
    ui.say(ui.asked_line(name, config.layers, found.prompt, found.tokens, batch))
    if experts := mixture(config):
        ui.say(experts)
    _show(found, seconds, prices, measured is not None)


def _rounds(name: str, config: Any, request: Any, output: Output) -> None:
    from puma.measure.rounds import layer, total

    steps = layer(config, request)
    if output.json:
        ui.answer({"model": name, "rounds": total(steps), "steps": [step._asdict() for step in steps]})
        return
    ui.say(f"{name}: {total(steps)} rounds a layer")
    for step in steps:
        ui.say(f"{step.rounds:4}  {step.component:12}{step.protocols}")


def _measured(output: Output) -> Any:
    from puma.measure.speed import speed

    ui.note("measuring how fast this machine computes: once for this machine and version, about a minute")
    with ui.progress(output.json) as progress:
        return speed(progress, again=True)


def _told(found: Estimate, seconds: list[dict[str, Any]], measured: bool) -> dict[str, Any]:
    whole, first = found.whole, found.first
    return {
        "rounds": whole.rounds, "bytes": whole.bytes(),
        "first": {"rounds": first.rounds, "bytes": first.bytes()},
        "further": {"rounds": found.further_rounds, "bytes": found.further_bytes} if found.further else None,
        "disk": [machine.disk for machine in found.machines],
        "memory": [machine.memory for machine in found.machines],
        "networks": seconds,
        "measured": measured,
        "breakdown": whole.breakdown,
    }  # fmt: skip


def _show(found: Estimate, seconds: list[dict[str, Any]], prices: Prices, measured: bool) -> None:
    """The owner's questions one after the other, then who spends it."""
    disk, memory = (", ".join(ui.amount(m) for m in of) for of in zip(*found.machines, strict=True))
    ui.say(f"disk of P0, P1, P2: {disk}; memory, about: {memory}")
    whole = found.whole
    total = f"{ui.traffic(whole.total)} ({ui.traffic(whole.online)} online) in {whole.rounds:,} rounds"
    if found.further:
        first = f"{ui.traffic(found.first.total)} and {found.first.rounds:,} rounds to the first token"
        then = f"{ui.traffic(found.further_bytes)} and {found.further_rounds:,.0f} rounds for each further one"
        ui.say(f"traffic: {first}, {then}; in all {total}")
    else:
        ui.say(f"traffic: {total}")
    for each in seconds:
        _show_network(found, each, prices)
    by = "this machine" if measured else "a core of the machine in docs/benchmarks.md (--again measures this one)"
    ui.say(f"seconds are estimates, for three machines as fast as {by}")
    ui.breakdown(whole.breakdown)


def _show_network(found: Estimate, each: dict[str, Any], prices: Prices) -> None:
    to_first = f"{ui.seconds(each['first_seconds'])} to the first token, " if found.further else ""
    further = f"{ui.seconds(each['further_seconds'])} for each further one, " if found.further else ""
    name = f"{each['name']} ({1e3 * each['rtt']:g} ms, {each['rate'] / 1e9:g} Gbps)"
    plan = "" if each["plan"] == "lean" else f"; plan {each['plan']}, {each['plan_rounds']:,} rounds"
    ui.say(f"{name}: {to_first}{further}{ui.seconds(each['seconds'])} in all{plan}")
    thousand = each["thousand"]
    sent = ui.traffic(1e9 * thousand["gigabytes"])
    line = f"  a thousand such: {sent}, {thousand['machine_hours']:,.1f} hours of a machine"
    if prices.gb or prices.hour:
        line += f"; {thousand['traffic_price']:,.2f} + {thousand['machine_price']:,.2f} = {thousand['price']:,.2f}"
    ui.say(line)
