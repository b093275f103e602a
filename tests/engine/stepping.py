"""Three engines in threads, prompts shared to them as a client does it, and a client's words written down before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from puma.engine.engine import Engine, answered
from puma.engine.generation import Turn, run_steps
from puma.engine.request import Request
from puma.mpc.party import Party
from puma.mpc.share import Share
from puma.mpc.watch import FLAG_RING
from puma.reference.plain_model import PlainModel
from puma.wire.input_share import Seeds
from puma.wire.messages import Encode, Generate, Input
from puma.wire.parameters import tensor_specs
from puma.wire.prompt import imagined, receive_input, share_input
from tests.trio import given, given_seeded, joined

Job = Generate | Encode


@dataclass
class Asked:
    """A request and its prompts as the three parties get them."""

    job: Job
    shares: list[Any] = field(default_factory=list)
    vocabulary: int = 0

    def at(self, party: Party) -> Request:
        """The request at one party."""
        tokens = self.job.input.tokens
        if party.dry:
            return Request.of(self.job, imagined(party, tokens, self.vocabulary))
        return Request.of(self.job, receive_input(party, self.shares[party.rank], tokens, self.vocabulary))


def asked(clear: PlainModel, prompts: Sequence[Sequence[int]], make: Callable[[Input], Job]) -> Asked:
    """Prompts under fresh seeds."""
    ids, vocabulary = [token for prompt in prompts for token in prompt], clear.config.vocab_size
    job = make(Input([len(prompt) for prompt in prompts], []))
    return Asked(job, share_input(ids, vocabulary, Seeds.fresh()), vocabulary)


def engine(clear: PlainModel, party: Party, blocks: bool = False) -> Engine:
    """A party's engine; with `blocks` its parameters are drawn at each use, as those of large models are."""
    params: dict[str, Share] = {}
    for spec in tensor_specs(clear.config):
        make = given_seeded if blocks else given
        params[spec.name] = make(party, clear.params[spec.name], spec.bits, spec.frac, spec.name)
    return Engine(party, clear.config, params)


@dataclass
class Said:
    """What a client says after a step: rows that leave, requests that join."""

    leave: Sequence[int] = ()
    join: Sequence[Asked] = ()


def generated(
    clear: PlainModel, party: Party, first: Asked, words: Sequence[Said], blocks: bool = False
) -> list[Share]:
    """The results that a party emits of a generation with these words between its steps, and none later; the flags
    behind each are in a format of their own, one of each of its rows.
    """
    emitted: list[Share] = []
    said = iter(words)

    def word(_: Sequence[Request]) -> Turn:
        now = next(said, Said())
        return Turn(True, now.leave, None, [job.at(party) for job in now.join])

    def emit(share: Share) -> None:
        answered(party, share)
        if share.bits == FLAG_RING:
            assert share.shape == emitted[-1].shape[:1]
        else:
            emitted.append(share)

    run_steps(engine(clear, party, blocks), first.at(party), emit, word=word)
    return emitted


def indices(shares: Sequence[Share]) -> list[int]:
    """The tokens of one result, from the three parties' shares."""
    words = joined(list(shares)) & ((1 << shares[0].bits) - 1)
    assert words.dtype == torch.int64
    return words.tolist()
