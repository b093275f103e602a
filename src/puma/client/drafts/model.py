"""Drafts by a small public model on the client's own machine, of the same tokenizer as the one that is asked.

Source: speculative decoding (Y. Leviathan et al., "Fast inference from transformers via speculative decoding", ICML
2023; C. Chen et al., arXiv:2302.01318). The model is read as its owner would read it and run in float, in the clear:
whoever drafts may read the text. This file must not know links or shares.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from puma.client.drafts.draft import NOTHING, Draft
from puma.client.drafts.tempo import Tempo
from puma.client.sampling import Sampler, Sampling
from puma.errors import UsageError
from puma.models import Cache, architecture, heads, inputs
from puma.models.checkpoint import Checkpoint, load
from puma.models.config import Config

PATIENCE = 16  # steps without drafts after many that were wrong, at most
HINT = "draft with a smaller model of the same family, or with lookup"


class DraftModel:
    """A causal model that continues texts by itself; `vocabulary` is how many tokens the model that is asked has."""

    def __init__(self, checkpoint: Checkpoint, vocabulary: int) -> None:
        self.name, self.config, self.vocabulary = checkpoint.name, checkpoint.config, vocabulary
        self.model: Any = architecture(self.config).model(self.config, dict(checkpoint.fold()))

    def begin(self, ids: Sequence[int], how: Sampling, tempo: Tempo) -> Continued:
        """For one text."""
        return Continued(self, ids, how, tempo)


def open_model(source: str | Path, config: Config, tokenizer: Any) -> DraftModel:
    """A checkpoint's folder, GGUF file or hub name, for a model of this config and tokenizer; UsageError if it makes no
    tokens that this one could read."""
    checkpoint = load(source)
    name = checkpoint.name
    if not heads(checkpoint.config).generates or inputs(checkpoint.config).apart:
        raise UsageError(f"{name} continues no text, and so makes no drafts", HINT)
    if not architecture(checkpoint.config).cuts(checkpoint.config):
        raise UsageError(f"{name} has a memory of constant size, which takes no drafts back", HINT)
    if tokenizer is None or checkpoint.open_tokenizer().get_vocab() != tokenizer.get_vocab():
        raise UsageError(f"{name} has another tokenizer than the model that is asked", HINT)
    return DraftModel(checkpoint, config.vocab_size)


class Continued:
    """A text, and what the small model has read of it: wrong drafts are cut out of its cache."""

    def __init__(self, source: DraftModel, ids: Sequence[int], how: Sampling, tempo: Tempo) -> None:
        self._source, self._how, self._tempo = source, how, tempo
        self._sampler = Sampler(how, drafts=True)
        self._text, self._read = [*ids], list[int]()  # all of it, and the tokens in the cache
        self._cache = Cache(source.config.layers)
        self._guess: Sequence[int] = ()
        self._right, self._seen = 2.0, 3.0
        self._own = 0.0  # seconds of a drafted token
        self._rest = self._pause = 0

    def propose(self, most: int, deep: int) -> Draft:
        """What the small model would say, as far as it is sure enough for it to be worth a step's time."""
        most = min(most, deep, self._source.config.context - len(self._text))
        if self._rest or most < 1:
            self._rest = max(0, self._rest - 1)
            return NOTHING
        tokens, chances, sure = list[int](), list[Tensor](), list[float]()
        while len(tokens) < most:
            started = time.perf_counter()
            found = self._next(tokens)
            token = self._sampler.drawn(found) if self._drawing else int(found.argmax())
            sure.append(self._sure(float(found[token])))
            self._own = 0.5 * self._own + 0.5 * (time.perf_counter() - started)
            if len(sure) > 1 and self._worth(sure) < len(sure):
                break
            tokens.append(token)
            chances.append(found)
        self._guess = tokens
        if not self._worth(sure):
            self._rest = self._pause = min(PATIENCE, 2 * self._pause + 1)
            return NOTHING
        self._pause = 0
        return Draft(tokens, chances if self._drawing else None)

    def learn(self, tokens: Sequence[int]) -> None:
        """How often guesses were right; the text goes on."""
        for guessed, token in zip(self._guess, tokens, strict=False):
            self._right, self._seen = 0.9 * self._right + (guessed == token), 0.9 * self._seen + 1
            if guessed != token:
                break
        self._guess = ()
        self._text += tokens

    @property
    def _drawing(self) -> bool:
        """Whether the client draws tokens from chances that it knows."""
        return not self._how.greedy

    def _sure(self, chance: float) -> float:
        """How often a guess will be right. One that was drawn may not depend on what was drawn, or such tokens would
        come more often than by chance; of the likeliest what the model says of itself counts, too."""
        trust = self._right / self._seen
        return trust if self._drawing else (trust * chance) ** 0.5

    def _worth(self, sure: Sequence[float]) -> int:
        step = self._tempo.seconds()
        return self._tempo.worth(sure, self._own / step if step else 0.0)

    @torch.no_grad()
    def _next(self, drafted: Sequence[int]) -> Tensor:
        """The chances (vocabulary,) of the token behind the text and these, among those that the other model has."""
        wanted, read = [*self._text, *drafted], self._read
        agreeing = 0
        while agreeing < min(len(read), len(wanted) - 1) and read[agreeing] == wanted[agreeing]:
            agreeing += 1
        new = wanted[agreeing:]
        if not agreeing:
            self._cache = Cache(self._source.config.layers, [len(new)])
        elif agreeing < len(read):
            self._cache.cut([len(read) - agreeing])
        if agreeing and len(new) > 1:
            self._cache.expect([range(len(new) - 1)])
        self._read = wanted
        logits = self._source.model(torch.tensor(new), self._cache).as_subclass(Tensor)[-1].double()
        logits = pad(logits, (0, self._source.vocabulary - len(logits)), value=-torch.inf)
        return self._sampler.chances(logits) if self._drawing else torch.softmax(logits, -1)
