"""A step of an evaluator on a slow network, with a rehearsal of it beside: while a message is awaited, the same text
runs on zeros and tells which masks come to be multiplied with which parameters, and those products are made.

It is done for short prompts, whose products take about as long as the waits. Words are the same as without, nobody else
is told, and either evaluator may do without. This file must not know links, nor who asks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from puma.engine.engine import Engine, ranked
from puma.engine.request import Request, whole
from puma.models import Cache
from puma.mpc.party import Party
from puma.mpc.retrieval import Choice
from puma.mpc.seeded import Seeded
from puma.mpc.share import Share
from puma.mpc.waits.rehearsed import Paced, Rehearsal
from puma.wire.messages import Generate

FEW = 64  # tokens: with more, products take so much longer than waits that little is gained


def step(engine: Engine, requests: Sequence[Request]) -> None:
    """`engine.step`; see there."""
    foreseen = engine.foreseen
    text = None if foreseen is None else _text(engine, requests)
    if foreseen is None or text is None:
        engine.step(requests)
        return
    with foreseen.beside(Rehearsal(text, engine.party.device)):
        engine.step(requests)


def _text(engine: Engine, requests: Sequence[Request]) -> Callable[[Rehearsal], object] | None:
    """What a rehearsal of this step runs, under the streams of the present stage; None where there is none of it."""
    party, given = engine.party, [request.given for request in requests]
    params = {name: share for name, share in engine.named.items() if isinstance(share, Seeded) and not share.keep}
    chosen = [choice for choice in given if isinstance(choice, Choice)]
    short = sum(request.width for request in requests) <= FEW
    if party.precomputed is not None or len(chosen) < len(requests) or len(params) < len(engine.named) or not short:
        return None
    if not all(_new(request) for request in requests):
        return None
    keys, lengths = party.pairs, [n for request in requests for n in request.job.input.lengths]
    approximation, quick = party.approximation, requests[0].job.input.quick
    all_ranked = all(ranked(request) for request in requests)

    @torch.inference_mode()
    def text(rehearsal: Rehearsal) -> None:
        second = Party(party.rank, {peer: Paced(rehearsal) for peer in party.links}, keys, party.lane, party.device)
        second.approximation, second.quick, second.precomputed = approximation, quick, rehearsal
        again = Engine(second, engine.config, {name: share.of(second) for name, share in params.items()})
        read = whole([_of(second, choice) for choice in chosen])
        again.logits(read, Cache(engine.config.layers, lengths), lengths, all_ranked)

    return text


def _new(request: Request) -> bool:
    """Whether it is a generation of which the next step reads the whole prompt, from its beginning."""
    return isinstance(request.job, Generate) and request.cache is None and not request.partly and request.beams == 1


def _of(party: Party, choice: Choice) -> Choice:
    """The same at another party of this rank."""
    signs = choice.signs
    return Choice(party, choice.bits, Share(party, *signs.components, signs.bits, signs.frac), choice.size)
