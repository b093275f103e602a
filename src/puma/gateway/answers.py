"""From token ids to pieces of text: what a request generates, cut where it ends, and never in the middle of a letter.

Runs in the session's thread. Knows a cluster's session and the model's public side; must not know HTTP.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from puma.client.sampling import Sampler, Sampling, logprobs
from puma.errors import PolicyError

STOP, LENGTH = "stop", "length"


@dataclass(frozen=True)
class Wanted:
    """A generation: prompts as token ids, new tokens of each at most, how they are chosen and what ends them.

    `paced`: the parties wait after each token, so that they can stop early and learn how long the answers are.
    `alternatives`: how many likeliest tokens to name beside each chosen one; None for no probabilities at all.
    """

    prompts: Sequence[Sequence[int]]
    tokens: int
    sampling: Sampling
    paced: bool
    stops: Sequence[str] = ()
    leads: Sequence[str] = ()  # text to give before the answer to each prompt
    alternatives: int | None = None


@dataclass(frozen=True)
class Likely:
    """A chosen token's logarithm of probability, and the likeliest tokens with theirs; text and bytes as decoded."""

    token: str
    logprob: float
    top: list[tuple[str, float]]


@dataclass(frozen=True)
class Piece:
    """More text of one answer, and why it ends if it does."""

    index: int
    text: str
    finish: str | None = None
    likely: Likely | None = None


@dataclass
class Row:
    """One answer as it grows."""

    model: Any
    prompt: Sequence[int]
    stops: Sequence[str]
    most: int
    lead: str = ""
    found: list[int] = field(default_factory=list)
    finish: str | None = None
    _shown: int = 0

    def __post_init__(self) -> None:
        self._before = self.model.decode(self.prompt)

    def add(self, token: int) -> str:
        """What may be shown now that this token has come; sets `finish` where the answer ends."""
        self.found.append(token)
        text = self.text()
        cuts = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if cuts:
            text = text[: min(cuts)]
        if cuts or token in self.model.eos:
            self.finish = STOP
        elif len(self.found) == self.most:
            self.finish = LENGTH
        ready = text if self.finish else text[: len(text) - held_back(text, self.stops)]
        lead, self.lead = self.lead, ""
        new = ready[self._shown :]
        self._shown = max(self._shown, len(ready))
        return lead + new

    def text(self) -> str:
        """All of the answer so far; decoded behind the prompt, because that decides about spaces."""
        whole = self.model.decode([*self.prompt, *self.found])
        return whole[len(self._before) :] if whole.startswith(self._before) else self.model.decode(self.found)


def held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end may still change: part of a letter, or the beginning of a stop string."""
    broken = len(text) - len(text.rstrip("\ufffd"))
    begun = [n for stop in stops for n in range(1, len(stop)) if text.endswith(stop[:n])]
    return max([broken, *begun])


class Noting:
    """A sampler that keeps the probabilities it saw."""

    def __init__(self, model: Any, how: Sampling, alternatives: int) -> None:
        self._model, self._sampler, self._alternatives = model, Sampler(how), alternatives
        self.likely: list[Likely] = []

    def __call__(self, logits: Tensor) -> list[int]:
        chosen = self._sampler(logits)
        self.likely = [self._likely(row, token) for row, token in zip(logprobs(logits), chosen, strict=True)]
        return chosen

    def _likely(self, row: Tensor, token: int) -> Likely:
        values, ids = row.topk(min(self._alternatives, row.numel()))
        top = [(self._model.decode([int(i)]), float(v)) for i, v in zip(ids, values, strict=True)]
        return Likely(self._model.decode([token]), float(row[token]), top)


def answer(cluster: Any, wanted: Wanted) -> Generator[Piece, None, None]:
    """Pieces of all answers as they come; closing the generator stops the parties, if they are paced."""
    session, model = cluster.session, cluster.model
    noting: Noting | None = None
    if wanted.alternatives is None:
        asked = session.asked(wanted.sampling)
    elif session.reveals:
        noting = Noting(model, wanted.sampling, wanted.alternatives)
        asked = {"choose": noting}
    else:
        raise PolicyError("logprobs need logits, which the model's owner does not let clients see", "leave them out")
    leads = wanted.leads or [""] * len(wanted.prompts)
    rows = [Row(model, ids, wanted.stops, wanted.tokens, lead) for ids, lead in zip(wanted.prompts, leads, strict=True)]
    with contextlib.closing(session.generate(wanted.prompts, wanted.tokens, paced=wanted.paced, **asked)) as steps:
        for step in steps:
            for index, (row, token) in enumerate(zip(rows, step, strict=True)):
                if row.finish is None:
                    text = row.add(token)
                    yield Piece(index, text, row.finish, noting.likely[index] if noting else None)
            if wanted.paced and all(row.finish for row in rows):
                break
