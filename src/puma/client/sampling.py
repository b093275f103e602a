"""How the next token is chosen: the likeliest, or at random; by the client from revealed logits, or by the parties.

Where the model's owner lets clients see logits, they sample here and everything common is possible. Where not, the
parties add noise that none of them knows before they compare, which takes a temperature and nothing else. This file
must not know links or models.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from puma.client import arguments
from puma.client.tokens.rules import Following
from puma.crypto.prg import PairKey, Stream, fresh_secret
from puma.errors import PolicyError, UsageError
from puma.nn.sampling import LEAST_TEMPERATURE, MOST_TEMPERATURE


@dataclass(frozen=True)
class Sampling:
    """What a request asks for: temperature (0 for the likeliest token), the k likeliest tokens only (0 for all), the
    likeliest that together have probability `top_p`, and a seed for numbers that can be had again."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.temperature and not LEAST_TEMPERATURE <= self.temperature <= MOST_TEMPERATURE:
            between = f"from {LEAST_TEMPERATURE} to {MOST_TEMPERATURE:g}"
            raise UsageError(f"cannot sample at temperature {self.temperature:g}", f"choose one {between}, or 0")
        if self.top_k < 0:
            raise UsageError(f"cannot choose among the {self.top_k} likeliest tokens", "ask for at least one")
        if not 0 < self.top_p <= 1:
            raise UsageError(f"a top_p of {self.top_p:g}", "choose one above 0 and up to 1")

    @classmethod
    def of(
        cls, temperature: float | None = None, top_k: int | None = None, top_p: float | None = None,
        seed: int | None = None, **unknown: Any,
    ) -> Sampling:  # fmt: skip
        """From options that may be missing: who names any of them but the temperature wants samples at 1."""
        for name in unknown:
            raise UsageError(f"there is no way of sampling called {name}", "name temperature, top_k, top_p or seed")
        temperature = None if temperature is None else arguments.number(temperature, "temperature")
        top_k = None if top_k is None else arguments.count(top_k, "top_k")
        top_p = None if top_p is None else arguments.number(top_p, "top_p")
        seed = None if seed is None else arguments.count(seed, "seed")
        if temperature is None:
            temperature = 0.0 if top_k is None and top_p is None and seed is None else 1.0
        return cls(temperature, top_k or 0, 1.0 if top_p is None else top_p, seed)

    @property
    def greedy(self) -> bool:
        """Whether the most probable token is taken each time."""
        return self.temperature == 0

    def need_logits(self) -> None:
        """PolicyError for what only a client who sees logits can do."""
        named = {"top_k": self.top_k > 0, "top_p": self.top_p < 1, "seed": self.seed is not None}
        for name in [name for name, given in named.items() if given]:
            raise PolicyError(
                f"{name} needs logits, which the model's owner does not let clients see",
                f"leave out {name} and sample by temperature alone, or let the owner share with reveal_logits",
            )


class Sampler:
    """Chooses tokens from logits, as the client, by numbers of its own; fresh ones unless there is a seed.

    `following` are the model's rules for prompts that this sampler alone continues.
    """

    def __init__(self, how: Sampling, following: Following | None = None, drafts: bool = False) -> None:
        """`drafts`: what it draws is verified by another one, with numbers of its own."""
        self.how = how
        self._stream, self._following = _stream(how.seed, "drafts" if drafts else "sampling"), following

    def __call__(self, logits: Tensor) -> list[int]:
        """The next token of each prompt, from logits (prompts, vocabulary)."""
        if self._following is None:
            return [self._one(row) for row in logits]
        chosen = [self._one(row) for row in self._following.ruled(logits)]
        self._following.add(chosen)
        return chosen

    def one(self, place: int, logits: Tensor, drafted: int | None = None, draft: Tensor | None = None) -> int:
        """The next token of the prompt with this number at the beginning, from its logits (vocabulary,).

        It is `drafted` as often as can be, if that was drawn from the chances `draft` (vocabulary,), and each token
        comes by the chance that it has without: a draft is taken with the chance p / q, and else a token is drawn from
        what p has more than q. Without `draft`, as where nothing was drawn, the token is chosen as ever. Source: Y.
        Leviathan et al., "Fast inference from transformers via speculative decoding", ICML 2023.
        """
        if self._following is not None:
            logits = self._following.ruled_one(place, logits)
        if drafted is None or draft is None or self.how.greedy:
            token = self._one(logits)
        else:
            token = self._verified(self.chances(logits), drafted, draft)
        if self._following is not None:
            self._following.add_one(place, token)
        return token

    def _verified(self, chances: Tensor, drafted: int, draft: Tensor) -> int:
        if self._uniform() * float(draft[drafted]) < float(chances[drafted]):
            return drafted
        rest = (chances - draft).clamp(min=0)
        return self.drawn(rest if float(rest.sum()) > 0 else chances)

    def chances(self, logits: Tensor) -> Tensor:
        """Of each token the chance (vocabulary,) with which it is chosen by these logits; they add up to 1."""
        order = logits.argsort(descending=True, stable=True)
        found = kept(torch.softmax(logits[order] / self.how.temperature, -1), self.how.top_k, self.how.top_p)
        return torch.zeros_like(found).index_copy(0, order, found / found.sum())

    def drawn(self, chances: Tensor) -> int:
        """A token by these chances, up to a common factor."""
        place = int((chances.cumsum(-1) <= self._uniform() * float(chances.sum())).sum())
        return min(place, int(chances.nonzero()[-1]))

    def keep(self, live: Sequence[int]) -> None:
        """From now on logits come of these prompts only, by their numbers at the beginning."""
        if self._following is not None:
            self._following.keep(live)

    def _one(self, logits: Tensor) -> int:
        if self.how.greedy:
            return int(logits.argmax())
        order = logits.argsort(descending=True, stable=True)
        chances = kept(torch.softmax(logits[order] / self.how.temperature, -1), self.how.top_k, self.how.top_p)
        place = int((chances.cumsum(-1) <= self._uniform() * float(chances.sum())).sum())
        return int(order[min(place, int((chances > 0).sum()) - 1)])

    def _uniform(self) -> float:
        """A number from 0 up to 1, of 53 random bits."""
        return (int(self._stream.words(1)) & ((1 << 53) - 1)) / (1 << 53)


def kept(chances: Tensor, top_k: int, top_p: float) -> Tensor:
    """Sorted chances with zeros for those that are not among the first k, or come after a sum of top_p."""
    result = chances.clone()
    if top_k:
        result[top_k:] = 0
    before = result.cumsum(-1) - result
    result[before >= top_p * float(result.sum())] = 0
    return result


def logprobs(logits: Tensor) -> Tensor:
    """Natural logarithms of the model's own probabilities, at temperature 1."""
    return torch.log_softmax(logits, -1)


def _stream(seed: int | None, what: str) -> Stream:
    secret = fresh_secret() if seed is None else hashlib.sha256(f"puma/1|{what}|{seed}".encode()).digest()
    return PairKey(secret).stream("sampling")
