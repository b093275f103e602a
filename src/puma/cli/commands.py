"""The commands: read the options, call the rooms below, print. Each loads what it needs when it runs.

Nothing is computed here; what a number means is said where it is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from puma.cli import ui
from puma.cli.prompts import agreement, asked_one, comparison, generate_all, one_prompt, read, sampling
from puma.cli.searching import search
from puma.cli.ui import HUMAN, LIKELIEST, Chance, Count, Flag, Output, Profile
from puma.cli.where import HERE, End, Where, kept, opened, sentences
from puma.errors import UsageError
from puma.version import VERSION

if TYPE_CHECKING:
    from puma.client.client import Client
    from puma.client.model_info import ModelInfo
    from puma.measure.bench import Timed


def generate(
    model: str | None = None,
    prompt: str | None = None,
    /,
    *,
    tokens: Count = 32,
    prompts: Path | None = None,
    compare: Flag = False,
    chance: Chance = LIKELIEST,
    store: Path | None = None,
    prepared: Flag = False,
    approximation: Profile = "spline",
    stop: End | None = None,
    beams: Count | None = None,
    length_penalty: float | None = None,
    where: Where = HERE,
    output: Output = HUMAN,
) -> None:
    """Continue a prompt by a public number of tokens, the likeliest unless asked; they appear as they are decided.

    Parameters
    ----------
    model
        A checkpoint's folder or a hub name; the embedded model if left out.
    prompt
        The text to be continued.
    tokens
        How many tokens to generate.
    prompts
        A text file with a prompt in each line: all go in one request, and are shown when all are done.
    compare
        Run the plain model on the same prompt, too, and say whether it agrees.
    store
        A folder where parties on this machine keep their shares and look for what `puma prepare` has computed ahead;
        of a cluster's client, where its prepared requests for that lie.
    prepared
        Use what `puma prepare` has computed ahead, in the usual place unless --store names one.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    stop
        eos: end earlier where the text ends. The parties then wait after each token, and learn how many there are.
    beams
        Search for the likeliest text by so many at a time; needs logits.
    length_penalty
        Of a beam search: an ended text is worth its score over its length to this power; 1 unless given.
    """
    where.check(compare=compare)
    store = kept(store, prepared)
    if beams is not None:
        if prompts or chance.sampling or store:
            raise UsageError("--beams is for one prompt, without chance or store", "leave out the other options")
        penalty = 1.0 if length_penalty is None else length_penalty
        search(model, prompt, tokens, (beams, penalty, stop), compare, chance, approximation, where, output)
        return
    if length_penalty is not None:
        raise UsageError("--length-penalty is for a beam search", "add --beams, or leave it out")
    if prompts is not None:
        if prompt is not None:
            raise UsageError("--prompts takes the place of PROMPT", "leave out one of them")
        if stop is not None:
            raise UsageError("--stop is for one prompt", "leave it out, or pass PROMPT")
        generate_all(model, read(prompts), tokens, compare, chance, store, approximation, output, where)
        return
    source, prompt = one_prompt(model, prompt)
    sampling(chance, compare, where)
    cluster, ids, loaded = asked_one(where, source, prompt, tokens, store, approximation, chance, output)
    clear = cluster.model
    with cluster:
        found = _streamed(cluster, ids, cluster.continued(ids, tokens, stop, **chance.sampling), output.json)
        cost = cluster.cost
    agreed = agreement(clear, ids, found) if compare else None
    if output.json:
        seconds = {"load": loaded, "prefill": cost.prefill, "decode": cost.seconds - cost.prefill}
        answer = {"text": clear.decode(found), "token_ids": found, "seconds": seconds, "rounds": cost.rounds}
        ahead = ui.profile(approximation) | (ui.prepared(cost) if store else {})
        ui.answer(answer | {"bytes": cost.bytes()} | ahead | ({"compare": agreed} if agreed else {}))
        return
    if agreed:
        ui.say(comparison(agreed, found))
    ui.say(ui.cost_line(cost, len(found)))
    if store and not cost.prepared:
        ui.say(f"nothing was prepared for {len(ids)} tokens in and {tokens} out: see puma prepare --help")
    where.say_local()


def _streamed(cluster: Client, ids: list[int], stream: Iterator[int], as_json: bool) -> list[int]:
    """The tokens, shown as they come."""
    found: list[int] = []
    with ui.progress(as_json) as progress:
        progress("the parties read the prompt", 0, 1)
        found.append(next(stream))
    writer = ui.Typewriter()
    while True:
        if not as_json:
            writer.show(cluster.decode([*ids, *found]))
        token = next(stream, None)
        if token is None:
            break
        found.append(token)
    if not as_json:
        writer.show(cluster.decode([*ids, *found]) + "\n", last=True)
    return found


def encode(
    model: str,
    /,
    *more: str,
    lengths: Literal["public", "secret"] = "public",
    compare: Flag = False,
    store: Path | None = None,
    prepared: Flag = False,
    approximation: Profile = "spline",
    where: Where = HERE,
    output: Output = HUMAN,
) -> None:
    """Embed texts (mean of the token states, normalised), or classify them if the model has a head for that.

    Parameters
    ----------
    model
        An encoder's or a classifier's folder, or a hub name; with --cluster the first text.
    more
        Texts to encode, or the files of images; all go in one request.
    lengths
        secret: the parties learn a common length only, the next power of two, and not how many tokens each text has.
    compare
        Run the plain model, too, and print how far the answers lie apart.
    store
        A folder where parties on this machine keep their shares and look for what `puma prepare` has computed ahead;
        of a cluster's client, where its prepared requests for that lie.
    prepared
        Use what `puma prepare` has computed ahead, in the usual place unless --store names one.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    """
    where.check(compare=compare)
    store = kept(store, prepared)
    source, texts = (model, list(more)) if where.cluster is None else (None, [model, *more])
    if not texts:
        raise UsageError("puma encode needs TEXT", "pass at least one after the model")
    with ui.progress(output.json) as progress:
        cluster, ids = opened(where, source, lambda c: sentences(c, texts), progress, store, approximation)
        with cluster:
            progress("encoding", 0, 1)
            found, cost = cluster.encode(texts, lengths), cluster.cost
        clear = cluster.model
        plain = [clear.encode(tokens) if compare else None for tokens in ids]  # type: ignore[attr-defined]
    results = [_encoded(clear, text, e.values, p) for text, e, p in zip(texts, found, plain)]
    if output.json:
        alone = {key: value for key, value in results[0].items() if key != "text"} if len(texts) == 1 else {}
        spent = {"seconds": cost.seconds, "rounds": cost.rounds, "bytes": cost.bytes()}
        ahead = ui.profile(approximation) | (ui.prepared(cost) if store else {})
        ui.answer({"results": results} | alone | spent | ahead)
        return
    for result in results:
        _show_encoded(result)
    ui.say(ui.cost_line(cost, texts=len(texts)))
    where.say_local()


def _encoded(clear: ModelInfo, text: str, values: Any, plain: Any) -> dict[str, Any]:
    """One text's answer, and how far it lies from the plain model's."""
    key = "logits" if clear.labels else "embedding"
    result: dict[str, Any] = {"text": text, key: values.tolist()} | (
        {"labels": list(clear.labels)} if clear.labels else {}
    )
    if plain is not None:
        from torch import nn

        cosine = float(nn.functional.cosine_similarity(values.flatten(), plain.flatten(), dim=0))
        result["compare"] = {"max_abs_error": float((values - plain).abs().max()), "cosine": cosine}
    return result


def _show_encoded(result: dict[str, Any]) -> None:
    ui.say(result["text"])
    if "logits" in result and isinstance(result["logits"][0], list):  # of each token
        best = [result["labels"][max(range(len(row)), key=row.__getitem__)] for row in result["logits"]]
        ui.say(f"  {' '.join(best)}")
    elif "logits" in result:
        best = max(result["logits"])
        for label, value in zip(result["labels"], result["logits"]):
            ui.say(f"  {label:<16} {value:9.4f}{'  <' if value == best else ''}")
    else:
        first = ", ".join(f"{value:.4f}" for value in result["embedding"][:6])
        ui.say(f"  {len(result['embedding'])} numbers: {first}, ... (--json prints all)")
    if "compare" in result:
        far, cosine = result["compare"]["max_abs_error"], result["compare"]["cosine"]
        ui.say(f"  plain model: largest difference {far:.2g}, cosine {cosine:.6f}")


def bench(
    model: str,
    /,
    *,
    prompt: Count,
    tokens: Count | None = None,
    batch: Count = 1,
    layers: Count | None = None,
    error: Annotated[bool, Parameter(negative="--no-error")] = True,
    prepared: Flag = False,
    approximation: Profile = "spline",
    output: Output = HUMAN,
) -> None:
    """Time one request with three processes on this machine, after loading and a short warm-up request.

    Parameters
    ----------
    model
        A preset (random weights of a published model's shape) or a checkpoint's folder.
    prompt
        Length of the prompt in tokens.
    tokens
        New tokens of a causal model (1 if left out).
    batch
        How many such prompts in the one request.
    layers
        Only so many layers.
    error
        Also compare all hidden states with the plain run.
    prepared
        Then prepare the same request, and time it again.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    """
    from puma.cli.machine import summary
    from puma.measure.bench import configured, measure
    from puma.wire.request_shapes import shaped

    with ui.progress(output.json) as progress:
        name, config, params = configured(model, layers)
        request = shaped(config, prompt, tokens, batch, approximation)
        found = measure(config, params, request, error, progress, prepared)
    cost, new = found.cost, getattr(request, "tokens", 0)
    if output.json:
        asked = {"model": name, "layers": config.layers, "repeated_layers": found.repeated}
        asked |= {"prompt": prompt, "tokens": new, "batch": batch} | ui.profile(approximation)
        spent: dict[str, Any] = {
            "seconds": found.seconds,
            "prefill_seconds": cost.prefill,
            "cpu_seconds": cost.cpu_seconds,
        }
        spent["peak_rss_mib"] = cost.peak_rss_mib
        sent = {"rounds": cost.rounds, "bytes": cost.bytes(), "max_abs_error": found.max_abs_error}
        where = {"machine": summary(), "version": VERSION}
        again = {"prepared": _again(found.prepared)} if found.prepared else {}
        ui.answer(asked | spent | sent | {"breakdown": cost.breakdown} | again | where)
        return
    ui.say(_asked_line(name, config.layers, prompt, new, batch))
    ui.say(f"{summary()}; puma {VERSION}")
    if found.repeated:
        ui.say("all layers have the same random weights, shared once and used in each as if they were its own")
    ui.breakdown(cost.breakdown)
    speed = ui.cost_line(cost, batch * new, 0 if new else batch)
    ui.say(f"{speed}; {cost.cpu_seconds:.2f} CPU seconds")
    ui.say("peak memory of P0, P1, P2: " + ", ".join(f"{mib:.0f} MiB" for mib in cost.peak_rss_mib))
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


def _asked_line(name: str, layers: int, prompt: int, new: int, batch: int) -> str:
    """What was measured or counted."""
    each = f", {batch} times" if batch > 1 else ""
    return f"{name}, {layers} layers, {prompt} tokens in, {new} out{each}"


def cost(
    model: str,
    /,
    *,
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
        A preset or a checkpoint's folder, of which only config.json is read.
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
        machine measures how fast it computes, for a minute.
    again
        Measure this machine again.
    approximation
        Which functions to compute with: ours, those of the PUMA paper, or MPCFormer's.
    """
    from puma.measure.bench import configured
    from puma.measure.forecast import Network, forecast
    from puma.measure.speed import speed, work
    from puma.wire.request_shapes import shaped

    net = Network.parse(network) if network is not None else None
    with ui.progress(output.json) as progress:
        name, config, _ = configured(model, layers, weights=False)
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
    ui.say(_asked_line(name, config.layers, prompt, new, batch))
    ui.breakdown(parts)
    online, offline = ui.amount(found.online), ui.amount(found.offline)
    ui.say(f"{found.rounds:,} rounds, {online} online, {offline} offline, by all parties and the client")
    if predicted:
        ui.say(f"{predicted['seconds']:.2f} s by three machines like this one on {predicted['name']}")
        ui.say(f"{predicted['seconds_here']:.2f} s if all three parties share this machine's cores; assumed:")
        for line in predicted["assumptions"]:
            ui.say(f"  {line}")
