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
from typing import Any

import torch
from torch import Tensor

from puma.client.beam_search import Beams
from puma.client.model_info import SETTINGS, TEMPLATE, ModelInfo
from puma.models import Cache, architecture, images, text
from puma.models.architectures import vit
from puma.models.checkpoint import Checkpoint, embedded, load
from puma.models.config import Config, Vit
from puma.models.ranges import check_hiding
from puma.reference.float_session import Plain

FILES = ("tokenizer.json", SETTINGS, TEMPLATE)  # that travel with a model
Params = Mapping[str, Tensor]


class PlainModel(ModelInfo):
    """A checkpoint and its tokenizer; `source` is a folder, a hub name or None for the embedded model."""

    def __init__(self, source: str | Path | None = None) -> None:
        self.checkpoint: Checkpoint = load(embedded() if source is None else source)
        found = self.checkpoint
        tokenizer = None if isinstance(found.config, Vit) else text.open_tokenizer(found.tokenizer)
        super().__init__(found.name, found.config, tokenizer, found.eos)
        self.bos = found.bos
        for file in found.folder.iterdir():
            if file.name in FILES:
                self.files[file.name] = file.read_bytes

    @cached_property
    def params(self) -> Params:
        """What the owner shares: each is read and folded when it is looked up."""
        return self.checkpoint.fold()

    @cached_property
    def plain(self) -> Params:
        """The same, all of it in memory, for the plain model."""
        return dict(self.params)

    @property
    def causal(self) -> bool:
        """Whether it predicts the next token."""
        return architecture(self.config).family == "causal" and not self.labels

    def check_hiding(self, hint: str) -> None:
        check_hiding(self.config, self.params, hint)

    def sentence_ids(self, sentence: str) -> text.Tokens:
        """Token ids of a text that is to be encoded, checked against the context; of an image's file, its patches."""
        if isinstance(self.config, Vit):
            return self.image_patches(images.read(sentence, self.checkpoint.folder))
        return super().sentence_ids(sentence)

    def image_patches(self, image: Any) -> text.Tokens:
        """The patches of an image, as pixel values or as bytes (height, width[, channels])."""
        if not isinstance(image, Tensor):
            image = images.prepared(image, self.checkpoint.folder, "this")
        return text.Tokens(vit.patches(self.config, image), [])  # type: ignore[arg-type]

    def generate(self, ids: Sequence[int], tokens: int) -> list[int]:
        """Greedy continuation in float."""
        return list(greedy(self.config, self.plain, ids, tokens))

    def search(self, ids: Sequence[int], beams: Beams) -> list[int]:
        """What a beam search finds in float."""
        Plain(self.config, self.plain).search(ids, beams)
        return beams.best

    def encode(self, tokens: text.Tokens) -> Tensor:
        """Class logits or the normalised mean of the token states, in float."""
        model = architecture(self.config).model(self.config, self.plain)
        (states,) = hidden(self.config, self.plain, [tokens.ids], tokens.types)
        if not self.labels:
            return self.finished(states.sum(0)).double()
        logits = model.classify(states).double()
        return logits if getattr(self.config, "each_token", False) else logits[0]

    def fill(self, tokens: text.Tokens, top: int = 1) -> list[list[int]]:
        """The most likely tokens at each masked place, in float."""
        model = architecture(self.config).model(self.config, self.plain)
        (states,) = hidden(self.config, self.plain, [tokens.ids], tokens.types)
        return model.predict(states, self.masked_places(tokens)).topk(top).indices.tolist()


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


def hidden(
    config: Config, params: Params, prompts: Sequence[Sequence[int]], types: Sequence[int] | None = None
) -> list[Tensor]:
    """The last hidden states (tokens, width) of each prompt."""
    kind, lengths = architecture(config), [len(ids) for ids in prompts]
    model = kind.model(config, params)
    if isinstance(config, Vit):
        return list(model(torch.cat(list(prompts))).split(config.context))  # type: ignore[arg-type]
    rows = one_hot([*chain(*prompts)], config)
    if kind.family == "causal":
        return list(model.hidden(rows, Cache(config.layers, lengths)).split(lengths))
    return list(model(rows, types, lengths).split(lengths))
