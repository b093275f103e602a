"""`puma prepare`: let the parties compute ahead what later requests need no input for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from puma.cli import ui
from puma.cli.options import FITTED, HUMAN, Count, Fitting, Output, Profile
from puma.cli.where import HERE, Where, opened
from puma.config import PARTIES
from puma.errors import UsageError


def prepare(
    model: str | None = None,
    /,
    *,
    prompt: Count,
    tokens: Count | None = None,
    batch: Count = 1,
    count: Count = 1,
    store: Path | None = None,
    approximation: Profile = "spline",
    fitting: Fitting = FITTED,
    where: Where = HERE,
    output: Output = HUMAN,
) -> None:
    """Let the parties compute ahead what requests of one shape need no input for; later requests find it.

    Parameters
    ----------
    model
        A checkpoint's folder, a GGUF file or a hub name; the embedded model, stories, if left out. With --cluster, the
        model's name there.
    prompt
        Length of the prompts in tokens, with those that the tokenizer adds.
    tokens
        New tokens of a causal model (1 if left out); encoders take none.
    batch
        How many prompts of this length each request takes.
    count
        How many requests to prepare; each serves once.
    store
        The folder where parties on this machine keep it, or a cluster's client its part; below /dev/shm if left out.
    approximation
        Which functions the request will be computed with: ours, those of the PUMA paper, or MPCFormer's.
    """
    from puma.local.inventory import default_folder
    from puma.wire.request_shapes import shaped

    where.check()
    if count < 1:
        raise UsageError(f"cannot prepare {count} requests", "pass --count 1 or more")
    folder = store or default_folder()
    with ui.progress(output.json) as progress:
        if where.cluster is not None and model is not None:
            where, model = replace(where, model=where.model or model), None
        cluster, request = opened(
            where, model, lambda clear: shaped(clear.config, prompt, tokens, batch), progress, folder, approximation,
            fitting=fitting,
        )  # fmt: skip
        clear, prepared_requests = cluster.model, []
        with cluster:
            for i in range(count):
                progress("preparing", i, count)
                prepared_requests.append(cluster.prepare(prompt, tokens, batch))
    where.keep(cluster)
    new, sizes = getattr(request, "tokens", 0), prepared_requests[0].sizes
    seconds, sent = sum(t.seconds for t in prepared_requests), sum(t.offline for t in prepared_requests)
    if output.json:
        asked = {"model": clear.name, "prompt": prompt, "tokens": new, "batch": batch, "count": count}
        asked |= {"store": str(folder)}
        ui.answer(asked | {"seconds": seconds, "bytes": sent, "preprocessing": sizes})
        return
    each = f"{seconds / count:.2f} s and {ui.amount(sent / count)} sent for each"
    ui.say(f"{count} prepared for {clear.name}, {prompt} tokens in, {new} out: {each}")
    who = "P0, P1 and P2" if len(sizes) == PARTIES else "P0, P1, P2 and the second dealer"
    ui.say(f"{who} keep " + ", ".join(ui.amount(size) for size in sizes) + " for each until it is used")
    how = f"--store {store}" if store else "--prepared"
    ui.say(f"to use one: puma {'generate' if new else 'encode'} with {how}")
