"""`puma bench`: time one request with three processes on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from puma.cli import ui
from puma.cli.options import FITTED, HUMAN, Count, Fitting, Flag, Output, Profile
from puma.version import VERSION

if TYPE_CHECKING:
    from puma.measure.bench import Timed


def bench(
    model: str,
    /,
    *,
    adapter: str | None = None,
    prompt: Count | None = None,
    tokens: Count | None = None,
    batch: Count = 1,
    layers: Count | None = None,
    error: Annotated[bool, Parameter(negative="--no-error")] = True,
    prepared: Flag = False,
    threads: Count | None = None,
    approximation: Profile = "spline",
    plan: str = "lean",
    open_weights: Flag = False,
    fitted: Annotated[bool | None, Parameter(negative="--no-fitted")] = None,
    fitting: Fitting = FITTED,
    output: Output = HUMAN,
) -> None:
    """Time one request with three processes on this machine, after loading and a short warm-up request.

    Parameters
    ----------
    model
        A preset (random weights of a published model's shape), a checkpoint's folder, or stories, the embedded model.
    adapter
        A LoRA adapter to merge into a checkpoint: a folder as peft writes it, or a name on the hub.
    prompt
        Length of the prompt in tokens; images and windows of sound have one length.
    tokens
        New tokens of a causal model (1 if left out).
    batch
        How many such prompts, images or windows in the one request.
    layers
        Only so many layers.
    error
        Also compare all hidden states with the plain run.
    prepared
        Then prepare the same request, and time it again.
    threads
        Threads of each of the three parties; a third of this machine's cores unless given.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    plan
        Which functions take fewer rounds and more words: lean none, quick what sends little more, or their names with
        commas between.
    open_weights
        The weights are no secret: the parties read them where they lie, random ones in two bytes a number.
    fitted
        Use number formats that follow the model: as a rule so for a checkpoint, and not for a preset, whose random
        weights have no numbers worth following.
    """
    from puma.cli.machine import summary
    from puma.measure.bench import RandomParams, configured, measure
    from puma.measure.bench import fitted as with_plan
    from puma.measure.estimate import measured
    from puma.nn.variants import quick_of

    with ui.progress(output.json) as progress:
        name, config, params = configured(model, layers, adapter=adapter, halves=open_weights)
        request = measured(config, prompt, tokens, batch, approximation, quick_of(plan))
        if fitted or (fitted is None and not isinstance(params, RandomParams)):
            config = with_plan(model, config, params, fitting.settings(approximation), progress, adapter)
        found = measure(config, params, request, error, progress, prepared, open_weights, threads)
    cost, new, length = found.cost, getattr(request, "tokens", 0), request.input.lengths[0]
    if output.json:
        asked = {"model": name, "layers": config.layers, "repeated_layers": found.repeated}
        asked |= {"prompt": length, "tokens": new, "batch": batch} | ui.profile(approximation)
        asked["plan"] = plan
        asked |= {"weights": "open"} if open_weights else {}
        spent: dict[str, Any] = {
            "seconds": found.seconds,
            "prefill_seconds": cost.prefill,
            "cpu_seconds": cost.cpu_seconds,
        }
        spent["peak_rss_mib"] = cost.peak_rss_mib
        sent = {"rounds": cost.rounds, "bytes": cost.bytes(), "max_abs_error": found.max_abs_error}
        sent["plain_seconds"] = found.plain_seconds
        where = {"machine": summary(), "version": VERSION}
        again = {"prepared": _again(found.prepared)} if found.prepared else {}
        ui.answer(asked | spent | sent | {"breakdown": cost.breakdown} | again | where)
        return
    ui.say(ui.asked_line(name, config.layers, length, new, batch))
    ui.say(f"{summary()}; puma {VERSION}")
    if found.repeated:
        ui.say("all layers have the same random weights, shared once and used in each as if they were its own")
    ui.breakdown(cost.breakdown)
    speed = ui.cost_line(cost, batch * new, 0 if new else batch)
    ui.say(f"{speed}; {cost.cpu_seconds:.2f} CPU seconds")
    ui.say("peak memory of P0, P1, P2: " + ", ".join(f"{mib:.0f} MiB" for mib in cost.peak_rss_mib))
    if found.plain_seconds is not None:
        times = found.seconds / found.plain_seconds
        ui.say(
            f"the plain model takes {found.plain_seconds:.3g} s on this machine: this took {times:,.0f} times as long"
        )
    if found.max_abs_error is not None:
        ui.say(f"largest error of a hidden state: {found.max_abs_error:.2g}")
    if found.prepared:
        ui.say(f"again: {ui.cost_line(found.prepared.cost, batch * new, 0 if new else batch)}")
        sizes = _again(found.prepared)["preprocessing"]
        ui.say("preprocessing of P0, P1, P2: " + ", ".join(ui.amount(size) for size in sizes))


def _again(prepared: Timed) -> dict[str, Any]:
    """A request that had been prepared, and what that had taken."""
    cost, prepared_request = prepared.cost, prepared.cost.prepared
    assert prepared_request is not None
    spent = {"seconds": prepared.seconds, "cpu_seconds": cost.cpu_seconds, "rounds": cost.rounds}
    return spent | {"bytes": cost.bytes(), "ahead": ui.prepared(cost)["ahead"], "preprocessing": prepared_request.sizes}
