"""Prompts that are echoed with the probability of each of their tokens, as evaluations score texts, and then continued.

One pass over the prompts gives the logits of every next token, which whoever sees can rebuild the model's head from: so
its owner must allow that. Runs in the session's thread. It must not know HTTP.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from puma.client.cost import Cost, added
from puma.client.sampling import logprobs
from puma.errors import InputError, PolicyError, UsageError
from puma.gateway.answers import LENGTH, Answers, Likely, Piece, Wanted, choosing, likely
from puma.gateway.cluster import Cluster
from puma.models import heads
from puma.models.config import Config
from puma.models.text import MAX_ELEMENTS
from puma.wire.messages import NEXT
from puma.wire.policy import allowed_outputs


def echoed(wanted: Wanted) -> Generator[Piece, None, None]:
    """The prompts alone, of which nothing has to be computed."""
    for index, lead in enumerate(wanted.leads):
        yield Piece(index, lead, LENGTH, new=0)


class Scored:
    """A request for prompts with probabilities, and for answers to them unless `tokens` is 0."""

    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted

    def __call__(self, cluster: Cluster) -> Generator[Piece, None, None]:
        """Its pieces: of each prompt one, then those of the answers."""
        wanted = self._wanted
        how = choosing(cluster, wanted)
        _allow(cluster)
        last, costs = list[Tensor](), list[Cost]()
        for index, logits in enumerate(_logits(cluster, wanted.prompts, costs)):
            last.append(logits[-1])
            yield self._prompt(cluster, index, logits)
        if wanted.tokens == 1 and how.choose is not None:  # the pass has told all that is needed
            answers = Answers(cluster.model, wanted, how)
            chosen = how.choose(torch.stack(last))
            yield from answers.grow({index: [token] for index, token in enumerate(chosen)})
        elif wanted.tokens:
            yield from Answers.alone(wanted)(cluster)
            costs.append(cluster.cost)
        cluster.session.cost = added(costs)

    def _prompt(self, cluster: Cluster, index: int, logits: Tensor) -> Piece:
        """The first token has nothing before it, and so no probability."""
        wanted, model = self._wanted, cluster.model
        ids, lead, places = wanted.prompts[index], wanted.leads[index], wanted.places[index]
        rows = zip(logprobs(logits[:-1]), ids[1:], places[1:], strict=True)
        first = Likely(
            model.spelling.text(ids[0]), model.spelling.bytes_of(ids[0]), None, [], min(places[0], len(lead))
        )
        scores = [
            replace(likely(model, row, token, wanted.alternatives or 0), at=min(place, len(lead)))
            for row, token, place in rows
        ]
        return Piece(index, lead, None if wanted.tokens else LENGTH, [first, *scores], new=0)


def _allow(cluster: Cluster) -> None:
    """PolicyError unless this client may have the logits of every next token."""
    session: Any = cluster.session
    allowed = session.owns or NEXT in allowed_outputs(session.served, session.card, session.reveals)
    if not allowed:
        what = "echo with logprobs needs the logits of every token of the prompt, which the model's owner does not let "
        hint = "leave out echo or logprobs, or let its owner share it with --outputs next-logits --reveal-logits"
        raise PolicyError(f"{what}clients see", hint)


def check_scored(config: Config, ids: Sequence[Sequence[int]]) -> None:
    """UsageError for a model that predicts no next token, InputError for a prompt with more logits than a request may
    give."""
    if not heads(config).scores:
        raise UsageError("this model gives no probabilities of a prompt's own tokens", "leave out echo or logprobs")
    longest, most = max(map(len, ids)), MAX_ELEMENTS // config.vocab_size
    if longest > most:
        what = f"a prompt of {longest} tokens cannot be scored, only one of up to {most} with this vocabulary"
        raise InputError(what, "send a shorter prompt, or leave out echo or logprobs")


def _logits(cluster: Cluster, prompts: Sequence[Sequence[int]], costs: list[Cost]) -> Iterator[Tensor]:
    """Of each prompt the logits of every next token, (tokens, vocabulary) in float64; equal ones in one request are
    asked once. What each request cost is added to `costs`."""
    most, waiting = MAX_ELEMENTS // cluster.model.config.vocab_size, list(prompts)
    while waiting:
        batch = list[Sequence[int]]()
        taken = 0
        for ids in waiting:
            new = 0 if ids in batch else len(ids)
            if batch and sum(map(len, batch)) + new > most:
                break
            batch += [ids] if new else []
            taken += 1
        found = cluster.session.encode(batch, NEXT)
        costs.append(cluster.cost)
        yield from (found[batch.index(ids)] for ids in waiting[:taken])
        waiting = waiting[taken:]
