"""The commands: read the options, call the rooms below, print. Each loads what it needs when it runs.

Nothing is computed here; what a number means is said where it is made.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from puma.cli import ui
from puma.cli.beam_search import search
from puma.cli.generation import agreement, asked_one, comparison, generate_all, one_prompt, read, sampling, shown
from puma.cli.options import (
    FITTED,
    HUMAN,
    LIKELIEST,
    NO_DRAFTS,
    UNSPOKEN,
    Chance,
    Count,
    Drafting,
    End,
    Fitting,
    Flag,
    Output,
    Profile,
    Spoken,
)
from puma.cli.where import HERE, Where, folder_of
from puma.errors import UsageError

if TYPE_CHECKING:
    from puma.client.client import Client


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
    lengths: Literal["public", "secret"] = "public",
    drafting: Drafting = NO_DRAFTS,
    spoken: Spoken = UNSPOKEN,
    fitting: Fitting = FITTED,
    where: Where = HERE,
    output: Output = HUMAN,
) -> None:
    """Continue a prompt by a public number of tokens, the likeliest unless asked; they appear as they are decided,
    behind the prompt, or alone where the model reads prompts apart, as one that translates does.

    Parameters
    ----------
    model
        A checkpoint's folder, a GGUF file or a hub name; the embedded model, stories, if left out.
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
    lengths
        secret: the parties learn the next power of two from 16 on, and not how many tokens the prompt has.
    """
    where.check(compare=compare)
    store, draft = folder_of(store, prepared), drafting.draft
    if draft is not None and (beams is not None or prepared):
        what = "a beam search goes on with several texts" if beams is not None else "drafts go on step by step"
        hint = (
            "leave out --draft, or --beams"
            if beams is not None
            else "what is prepared runs in one go: leave out one of both"
        )
        raise UsageError(what, hint)
    if beams is not None:
        if prompts or chance.sampling or store:
            raise UsageError("--beams is for one prompt, without chance or store", "leave out the other options")
        if lengths == "secret":
            raise UsageError("a beam search is for prompts of public length", "leave out --beams, or --lengths")
        penalty = 1.0 if length_penalty is None else length_penalty
        how = (beams, penalty, stop, spoken)
        search(model, prompt, tokens, how, compare, chance, approximation, fitting, where, output)
        return
    if length_penalty is not None:
        raise UsageError("--length-penalty is for a beam search", "add --beams, or leave it out")
    if prompts is not None:
        if prompt is not None:
            raise UsageError("--prompts takes the place of PROMPT", "leave out one of them")
        if stop is not None:
            raise UsageError("--stop is for one prompt", "leave it out, or pass PROMPT")
        made = (store, approximation, lengths, fitting, spoken, draft)
        generate_all(model, read(prompts), tokens, compare, chance, made, output, where)
        return
    source, prompt = one_prompt(model, prompt)
    sampling(chance, compare, where)
    made = (store, approximation, fitting, spoken, draft)
    cluster, ids, loaded = asked_one(where, source, prompt, tokens, made, chance, output)
    clear = cluster.model
    ui.undrawn("" if chance.sampling else clear.rules.undrawn())
    with cluster:
        stream = cluster.stream_ids(ids, tokens, stop, lengths, begin=spoken.begin, draft=draft, **chance.sampling)
        found = _streamed(cluster, ids, stream, output.json)
        cost = cluster.cost
    where.keep(cluster)
    agreed = agreement(clear, ids, found, cluster.session.reveals, spoken.begin) if compare else None
    if output.json:
        seconds = {"load": loaded, "prefill": cost.prefill, "decode": cost.seconds - cost.prefill}
        answer = {"text": clear.decode(found), "token_ids": found, "seconds": seconds, "rounds": cost.rounds}
        ahead = ui.profile(approximation) | (ui.prepared(cost) if store else {}) | ui.drafted(cost)
        ui.answer(
            answer | {"bytes": cost.bytes()} | ahead | ui.doubtful(cluster) | ({"compare": agreed} if agreed else {})
        )
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
            writer.show(shown(cluster.model, ids, found))
        token = next(stream, None)
        if token is None:
            break
        found.append(token)
    if not as_json:
        writer.show(shown(cluster.model, ids, found) + "\n", last=True)
    return found
