"""From token ids to pieces of text: what a request generates, cut where it ends, and never in the middle of a letter.

Runs in the session's thread. Knows a cluster's session and the model's public side; must not know HTTP.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from puma.client.batch import Batch
from puma.client.channel import out_of_range
from puma.client.drafts.draft import Source
from puma.client.sampling import Sampler, Sampling, logprobs
from puma.client.tokens.remembered import Remembered
from puma.errors import OutOfRange, PolicyError
from puma.gateway.cluster import Cluster
from puma.models import inputs
from puma.models.reading.spelling import settled
from puma.wire.limits import MOST_DRAFTS

STOP, LENGTH, DOUBTFUL = "stop", "length", "out_of_range"


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
    places: Sequence[Sequence[int]] = ()  # where each prompt's tokens begin in its lead, if they are to be scored
    alternatives: int | None = None
    memory: Remembered | None = None  # of what the parties keep for the same asker
    begun: Sequence[int] = ()  # that all answers begin with

    @property
    def scored(self) -> bool:
        """Whether the prompts' own tokens are to be given with their probabilities."""
        return bool(self.places)


@dataclass(frozen=True)
class Likely:
    """A token with its own text and bytes, its logarithm of probability (None where nothing is before it), the
    likeliest tokens likewise, and where it begins in the text that is returned, in characters."""

    token: str
    bytes: bytes
    logprob: float | None
    top: list[tuple[str, bytes, float]]
    at: int = 0


@dataclass(frozen=True)
class Piece:
    """More text of one answer, why it ends if it does, and of how many `new` tokens."""

    index: int
    text: str
    finish: str | None = None
    likely: Sequence[Likely] = ()
    new: int = 1


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
    doubtful: bool = False  # whether it may be wrong
    at: int = 0  # where the latest token begins in the text that is returned
    _shown: int = 0
    _settled: int = 0  # characters of the answer that are there for good

    def __post_init__(self) -> None:
        self._before, self._lead = self.model.decode(self.prompt), len(self.lead)

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
        if self.finish and self.doubtful:
            self.finish = DOUBTFUL
        ready = text if self.finish else text[: len(text) - held_back(text, self.stops)]
        self.at, self._settled = self._lead + min(self._settled, len(text)), settled(text)
        lead, self.lead = self.lead, ""
        new = ready[self._shown :]
        self._shown = max(self._shown, len(ready))
        return lead + new

    def text(self) -> str:
        """All of the answer so far; decoded behind the prompt, because that decides about spaces."""
        whole = self.model.decode([*self.prompt, *self.found])
        return whole[len(self._before) :] if whole.startswith(self._before) else self.model.decode(self.found)


def held_back(text: str, stops: Sequence[str]) -> int:
    """How many characters at the end may still change: part of a letter, and what before it begins a stop string, whose
    next letter that part may become."""
    whole = text[: settled(text)]
    begun = [n for stop in stops for n in range(1, len(stop)) if whole.endswith(stop[:n])]
    return len(text) - len(whole) + max([0, *begun])


class Noting:
    """A sampler that keeps the probabilities it saw."""

    def __init__(self, model: Any, sampler: Sampler, alternatives: int) -> None:
        self._model, self._sampler, self._alternatives = model, sampler, alternatives
        self.likely: list[Likely] = []  # of the tokens of the latest step, in their order

    def one(self, place: int, logits: Tensor, drafted: int | None = None, draft: Tensor | None = None) -> int:
        """As the sampler's."""
        chosen = self._sampler.one(place, logits, drafted, draft)
        self.likely.append(likely(self._model, logprobs(logits), chosen, self._alternatives))
        return chosen

    def __call__(self, logits: Tensor) -> list[int]:
        chosen = self._sampler(logits)
        rows = zip(logprobs(logits), chosen, strict=True)
        self.likely = [likely(self._model, row, token, self._alternatives) for row, token in rows]
        return chosen

    def keep(self, live: Sequence[int]) -> None:
        """From now on logits come of these prompts only."""
        self._sampler.keep(live)


def likely(model: Any, row: Tensor, token: int, alternatives: int) -> Likely:
    """A token among the logarithms of probability of all, (vocabulary,)."""
    spelling = model.spelling
    values, ids = row.topk(min(alternatives, row.numel()))
    pairs = [(int(i), float(value)) for i, value in zip(ids, values, strict=True)]
    top = [(spelling.text(i), spelling.bytes_of(i), value) for i, value in pairs]
    return Likely(spelling.text(token), spelling.bytes_of(token), float(row[token]), top)


@dataclass(frozen=True)
class Choosing:
    """How the tokens of a request are chosen: by the parties, at a temperature, or here from logits."""

    temperature: float = 0.0
    choose: Sampler | Noting | None = None

    @property
    def reveals(self) -> bool:
        """Whether the parties are asked for logits."""
        return self.choose is not None


def choosing(cluster: Cluster, wanted: Wanted) -> Choosing:
    """How it can be done in this session; PolicyError if it cannot."""
    session = cluster.session
    following = cluster.model.following(wanted.prompts, session.reveals, wanted.begun)
    if wanted.alternatives is None:
        return Choosing(**session.choosing(wanted.sampling, following))
    if not session.reveals:
        raise PolicyError("logprobs need logits, which the model's owner does not let clients see", "leave them out")
    return Choosing(choose=Noting(cluster.model, Sampler(wanted.sampling, following), wanted.alternatives))


class Answers:
    """The answers to one request as they grow, a token of each at a time."""

    def __init__(self, model: Any, wanted: Wanted, how: Choosing) -> None:
        leads = wanted.leads or [""] * len(wanted.prompts)
        prompts = zip(wanted.prompts, leads, strict=True)
        apart = inputs(model.config).apart  # what it has read says nothing about spaces then
        self._rows = [
            Row(model, ids if lead or not apart else (), wanted.stops, wanted.tokens, lead) for ids, lead in prompts
        ]
        if wanted.scored:  # then the leads have been given
            for row in self._rows:
                row.lead = ""
        self._choose = how.choose
        self._noting = how.choose if isinstance(how.choose, Noting) else None

    @property
    def ended(self) -> list[int]:
        """Which of them have come to their end."""
        return [index for index, row in enumerate(self._rows) if row.finish]

    def keep(self, live: Sequence[int]) -> None:
        """From now on tokens come of these only."""
        if self._choose is not None:
            self._choose.keep(live)

    def doubt(self, which: Collection[int]) -> None:
        """These may be wrong from now on, and whoever asked takes them all the same."""
        for index in which:
            self._rows[index].doubtful = True

    def given_up(self, which: Iterable[int]) -> Iterator[Piece]:
        """The end of those that may be wrong from here on."""
        for index in which:
            row = self._rows[index]
            if row.finish is None:
                row.finish = DOUBTFUL
                yield Piece(index, "", DOUBTFUL)

    def grow(self, tokens: Mapping[int, Sequence[int]]) -> Iterator[Piece]:
        """What may be shown now that these have come, of each answer by its number; those that have ended stay so."""
        noted = self._noting.likely if self._noting else []
        if self._noting:
            self._noting.likely = []
        each = ((index, token) for index, new in tokens.items() for token in new)
        for place, (index, token) in enumerate(each):
            row = self._rows[index]
            if row.finish is None:
                text = row.add(token)
                yield Piece(index, text, row.finish, [replace(noted[place], at=row.at)] if noted else [])

    def leaving(
        self, cluster: Cluster, wanted: Wanted, how: Choosing, draft: Source | None
    ) -> Generator[Piece, None, None]:
        """Pieces of several answers, of which the parties compute no more once they have ended, one by one; or of one
        with drafts."""
        session = cluster.session
        with Batch(session, how.reveals, cluster.model.max_tokens, MOST_DRAFTS if draft else 0) as batch:
            asked = wanted.prompts, wanted.tokens, how.temperature, how.choose
            rows = batch.add(*asked, draft=draft, how=wanted.sampling, begun=wanted.begun)
            while not batch.empty:
                found = batch.step()[rows]
                if rows.flagged and session.out_of_range == "refuse":
                    yield from self.given_up(sorted(rows.flagged))
                    raise out_of_range(sorted(rows.flagged), len(wanted.prompts))
                self.doubt(rows.flagged)
                yield from self.grow(found)
                batch.drop(rows, self.ended)
                self.keep(rows.live)

    @classmethod
    def alone(cls, wanted: Wanted, draft: Source | None = None) -> Callable[[Cluster], Generator[Piece, None, None]]:
        """Pieces of all answers to a request; closing the generator stops them, if they are paced."""

        def run(cluster: Cluster) -> Generator[Piece, None, None]:
            how, source = choosing(cluster, wanted), None if wanted.begun else draft
            answers = cls(cluster.model, wanted, how)
            if cluster.session.out_of_range == "warn":
                cluster.session.out_of_range = "note"  # the asker hears of it, and not who reads this program's output
            alone = len(wanted.prompts) == 1 or cluster.session.audited  # no canary is left by some of its prompts
            if wanted.paced and (source is not None or not alone):
                yield from answers.leaving(cluster, wanted, how, source)
                return
            steps = cluster.session.continued(
                wanted.prompts, wanted.tokens, paced=wanted.paced, choose=how.choose, temperature=how.temperature,
                memory=wanted.memory, begun=[wanted.begun] * len(wanted.prompts) if wanted.begun else (),
            )  # fmt: skip
            try:
                with contextlib.closing(steps):
                    for step in steps:
                        answers.doubt(cluster.session.doubtful)
                        yield from answers.grow({index: [token] for index, token in enumerate(step)})
                        if wanted.paced and len(answers.ended) == len(wanted.prompts):
                            break
            except OutOfRange as error:
                yield from answers.given_up(error.prompts)
                raise

        return run
