"""A model in the clear, at those who own it: what they check before they share, and what a secure answer is
compared with.

It turns text into token ids and back, and runs the same model on float tensors. It must not know shares,
parties or links.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path

import torch
from torch import Tensor

from puma.errors import UsageError
from puma.models import Cache, architecture, text
from puma.models.checkpoint import Checkpoint, embedded, load
from puma.models.config import Config

Params = Mapping[str, Tensor]


class ClearModel:
    """A checkpoint and its tokenizer; `source` is a folder, a hub name or None for the embedded model."""

    def __init__(self, source: str | Path | None = None) -> None:
        self.checkpoint: Checkpoint = load(embedded() if source is None else source)
        self.config: Config = self.checkpoint.config
        self.name = self.checkpoint.name
        self.tokenizer = text.open_tokenizer(self.checkpoint.tokenizer)

    @cached_property
    def params(self) -> dict[str, Tensor]:
        """What the owner shares."""
        return self.checkpoint.fold()

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes; empty where there is no classification head."""
        return tuple(getattr(self.config, "labels", ()))

    @property
    def causal(self) -> bool:
        """Whether it predicts the next token."""
        return architecture(self.config).family == "causal"

    @property
    def output(self) -> str:
        """What an encoder is asked for: class logits if it can, else the sum of the token states."""
        return "logits" if self.labels else "pooled"

    def prompt_ids(self, prompt: str, tokens: int) -> list[int]:
        """Token ids of a prompt that is to be continued, checked against the context."""
        if architecture(self.config).family != "causal":
            raise UsageError(f"{self.name} does not generate text", "use encode, or a LLaMA or GPT-2 model")
        if tokens < 1:
            raise UsageError(f"cannot generate {tokens} tokens", "ask for at least one")
        ids = text.encode(self.tokenizer, self.config, prompt).ids
        text.check_length(self.config, len(ids), tokens)
        return ids

    def sentence_ids(self, sentence: str) -> text.Tokens:
        """Token ids of a text that is to be encoded, checked against the context."""
        if architecture(self.config).family != "encoder":
            raise UsageError(f"{self.name} is no encoder", "use generate, or a BERT model")
        tokens = text.encode(self.tokenizer, self.config, sentence)
        text.check_length(self.config, len(tokens.ids))
        return tokens

    def decode(self, ids: Sequence[int]) -> str:
        return text.decode(self.tokenizer, ids)

    def generate(self, ids: Sequence[int], tokens: int) -> list[int]:
        """Greedy continuation in float."""
        return list(greedy(self.config, self.params, ids, tokens))

    def encode(self, tokens: text.Tokens) -> Tensor:
        """Class logits or the normalised mean of the token states, in float."""
        model = architecture(self.config).model(self.config, self.params)
        states = model(one_hot(tokens.ids, self.config), tokens.types)
        return self.finished(model.classify(states)[0] if self.labels else states.sum(0)).double()

    def finished(self, values: Tensor) -> Tensor:
        """What `output` becomes at the client: the mean and the norm cost nothing in the clear."""
        return values if self.labels else values / torch.linalg.vector_norm(values)


def one_hot(ids: Sequence[int], config: Config) -> Tensor:
    """One row per token."""
    return torch.nn.functional.one_hot(torch.tensor(list(ids)), config.vocab_size).float()


def greedy(config: Config, params: Params, ids: Sequence[int], tokens: int) -> Iterator[int]:
    """The most likely token, again and again."""
    model, cache = architecture(config).model(config, params), Cache(config.layers)
    feed = list(ids)
    for _ in range(tokens):
        feed = [int(model(one_hot(feed, config), cache).argmax())]
        yield feed[0]


def hidden(config: Config, params: Params, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """The last hidden states (tokens, width) of each prompt."""
    kind, lengths = architecture(config), [len(ids) for ids in prompts]
    model, rows = kind.model(config, params), one_hot([*chain(*prompts)], config)
    if kind.family == "causal":
        return list(model.hidden(rows, Cache(config.layers, lengths)).split(lengths))
    return list(model(rows, None, lengths).split(lengths))
