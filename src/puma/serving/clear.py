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

from puma.models import Cache, architecture, text
from puma.models.checkpoint import Checkpoint, embedded, load
from puma.models.config import Config
from puma.serving.public import PublicModel

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")  # that travel with a model
Params = Mapping[str, Tensor]


class ClearModel(PublicModel):
    """A checkpoint and its tokenizer; `source` is a folder, a hub name or None for the embedded model."""

    def __init__(self, source: str | Path | None = None) -> None:
        self.checkpoint: Checkpoint = load(embedded() if source is None else source)
        found = self.checkpoint
        super().__init__(found.name, found.config, text.open_tokenizer(found.tokenizer), found.eos)
        for file in found.folder.iterdir():
            if file.name in FILES:
                self.files[file.name] = file.read_bytes

    @cached_property
    def params(self) -> dict[str, Tensor]:
        """What the owner shares."""
        return self.checkpoint.fold()

    def generate(self, ids: Sequence[int], tokens: int) -> list[int]:
        """Greedy continuation in float."""
        return list(greedy(self.config, self.params, ids, tokens))

    def encode(self, tokens: text.Tokens) -> Tensor:
        """Class logits or the normalised mean of the token states, in float."""
        model = architecture(self.config).model(self.config, self.params)
        states = model(one_hot(tokens.ids, self.config), tokens.types)
        return self.finished(model.classify(states)[0] if self.labels else states.sum(0)).double()


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
