"""`puma cost`: rounds and bytes of a request, and its seconds on a network, without running it."""

from __future__ import annotations

from puma.cli import ui
from puma.cli.options import HUMAN, Count, Flag, Output, Profile


def cost(
    model: str,
    /,
    *,
    adapter: str | None = None,
    prompt: Count,
    tokens: Count | None = None,
    batch: Count = 1,
    layers: Count | None = None,
    network: str | None = None,
    again: Flag = False,
    approximation: Profile = "spline",
    output: Output = HUMAN,
) -> None:
    """Rounds and bytes of a request, exactly, from the model's shape: the model is not run, no weights are read.

    Parameters
    ----------
    model
        A preset, or a checkpoint's folder or GGUF file, of which only the settings are read.
    adapter
        A LoRA adapter of it, which may bring another head or more tokens: a folder as peft writes it, or a hub name.
    prompt
        Length of the prompt in tokens.
    tokens
        New tokens of a causal model (1 if left out).
    batch
        How many such prompts in the one request.
    layers
        Only so many layers.
    network
        lan, paper, wan, or a round-trip time and a rate such as 5ms,1Gbps: predict the seconds. The first time on a
        machine measures how fast it computes, for a minute, and says so.
    again
        Measure this machine again.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    """
    from puma.measure.bench import configured
    from puma.measure.forecast import Network, forecast
    from puma.measure.speed import known, speed, work
    from puma.wire.request_shapes import shaped

    net = Network.parse(network) if network is not None else None
    if net and (again or known() is None):
        ui.note("measuring how fast this machine computes: once for this machine and version, about a minute")
    with ui.progress(output.json) as progress:
        name, config, _ = configured(model, layers, False, adapter)
        request = shaped(config, prompt, tokens, batch, approximation)
        progress("counting", 0, 1)
        found = forecast(config, request)
        todo = work(config, request, found)
        predicted = net.predict(found, todo, speed(progress, again)) if net else None
    new = getattr(request, "tokens", 0)
    parts = [{key: part[key] for key in ("name", "rounds", "bytes")} for part in found.breakdown]
    if output.json:
        asked = {"model": name, "layers": config.layers, "prompt": prompt, "tokens": new, "batch": batch}
        asked |= ui.profile(approximation)
        sent = {"rounds": found.rounds, "bytes": found.bytes(), "breakdown": parts}
        ui.answer(asked | sent | ({"network": predicted} if predicted else {}))
        return
    ui.say(ui.asked_line(name, config.layers, prompt, new, batch))
    ui.breakdown(parts)
    online, offline = ui.amount(found.online), ui.amount(found.offline)
    ui.say(f"{found.rounds:,} rounds, {online} online, {offline} offline, by all parties and the client")
    if predicted:
        ui.say(f"{predicted['seconds']:.2f} s by three machines like this one on {predicted['name']}")
        ui.say(f"{predicted['seconds_here']:.2f} s if all three parties share this machine's cores; assumed:")
        for line in predicted["assumptions"]:
            ui.say(f"  {line}")
