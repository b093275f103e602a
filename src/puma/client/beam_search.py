"""Beam search, at a client that sees logits: which texts go on, which have ended, and when nothing better can come.

The steps are those of transformers' `generate(num_beams=...)` with `early_stopping=False`. The texts share a tree of
tokens, each of which the parties compute once. This file must not know links or shares.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from puma.client.tokens.rules import Following
from puma.errors import UsageError
from puma.wire.limits import MOST_BEAMS

MOST_PENALTY = 10.0


class Text(NamedTuple):
    """A beginning of an answer: its tokens, the columns where they lie, and the logarithm of its probability."""

    tokens: list[int]
    columns: list[int]
    score: float

    def longer(self, token: int, score: float) -> Text:
        """This text and one more token, with the score of both."""
        return Text([*self.tokens, token], self.columns, score)


class Beams:
    """A search for an answer of up to `tokens` tokens by `count` texts at a time; `ends` are tokens that end a text.

    An ended text is worth its score over its length to the power of `penalty`. Texts go on by the rules that they are
    `following`, and the last token of one that has not ended is the one that is `forced`, if there are any. UsageError
    for a search of one text or of more than MOST_BEAMS, and for a penalty beyond MOST_PENALTY.
    """

    def __init__(
        self, count: int, tokens: int, ends: Sequence[int] = (), penalty: float = 1.0,
        following: Following | None = None, forced: int | None = None,
    ) -> None:  # fmt: skip
        if not 2 <= count <= MOST_BEAMS:
            raise UsageError(f"a search by {count} beams makes no sense", f"choose 2 to {MOST_BEAMS}")
        if not abs(penalty) <= MOST_PENALTY:  # NaN, too
            raise UsageError(f"a length penalty of {penalty:g}", f"choose one within {MOST_PENALTY:g} of 0")
        self.count, self.tokens, self.ends, self.penalty = count, tokens, frozenset(ends), penalty
        self._following, self._forced = following, forced
        self.steps, self.over = 0, False
        self._running = [Text([], [], 0.0)]
        self._ended: list[Text] = []  # best first; their scores are what they are worth

    @property
    def best(self) -> list[int]:
        """The tokens of the best text so far, with the one that ends it."""
        return (self._ended or self._running)[0].tokens

    def choose(self, logits: Tensor) -> list[int]:
        """The next token of each of the `count` texts that go on, from logits of all: (1, V) first, then (count, V)."""
        before = torch.tensor([[text.score] for text in self._running], dtype=logits.dtype)
        scores = before + self._ruled(torch.log_softmax(logits, -1))
        ranked = scores.reshape(-1).topk(min(scores.numel(), max(2, 1 + len(self.ends)) * self.count))
        self.steps += 1
        found = []
        for score, place in zip(ranked.values.tolist(), ranked.indices.tolist(), strict=True):
            parent, token = divmod(place, logits.shape[-1])
            found.append(self._running[parent].longer(token, score))
        over = self.steps == self.tokens
        if not self.over:
            self._end([text for text in found[: self.count] if over or text.tokens[-1] in self.ends])
        alive = [text for text in found if text.tokens[-1] not in self.ends][: self.count]
        self._go_on(alive or found[:1])
        self.over = self.over or over or not self._hopeful()
        return [text.tokens[-1] for text in self._running]

    def _ruled(self, chances: Tensor) -> Tensor:
        """The logarithms of the chances of what comes next, as rules have it."""
        if self._following:
            rows = zip(chances, self._running, strict=True)
            chances = torch.stack([self._following.going_on(row, text.tokens) for row, text in rows])
        if self._forced is not None and self.steps + 1 == self.tokens:
            chances = torch.full_like(chances, -torch.inf)
            chances[:, self._forced] = 0.0
        return chances

    def hidden(self) -> list[int]:
        """Of each text, one row after the other, 1 for every column that is not its own, and 0 for those that are."""
        columns = range(self.count * self.steps)
        return [int(column not in own) for own in (set(text.columns) for text in self._running) for column in columns]

    def _end(self, texts: list[Text]) -> None:
        worth = [text._replace(score=text.score / self.steps**self.penalty) for text in texts]
        self._ended = sorted(self._ended + worth, key=lambda text: -text.score)[: self.count]

    def _go_on(self, texts: list[Text]) -> None:
        """There are always as many: where too few are left, one goes on more than once, without hope."""
        texts = texts + [texts[0]._replace(score=-torch.inf)] * (self.count - len(texts))
        first = self.count * (self.steps - 1)
        self._running = [text._replace(columns=[*text.columns, first + i]) for i, text in enumerate(texts)]

    def _hopeful(self) -> bool:
        """Whether the best text, were it to end here, would be worth more than the worst one that has ended."""
        if len(self._ended) < self.count:
            return True
        return self._running[0].score / self.steps**self.penalty > self._ended[-1].score
