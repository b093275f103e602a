"""An encoder and a decoder that answers what it has read, or tells its class; and what they read.

This file must not know tensors from shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

import puma.nn.modules as nn
from puma.errors import UsageError
from puma.models.architecture import Heads, Inputs
from puma.models.architectures.crossing import Memory, entering, watched
from puma.models.architectures.seq2seq.blocks import Readers, Stack
from puma.models.architectures.seq2seq.config import Seq2Seq
from puma.models.architectures.seq2seq.stem import Stem
from puma.models.cache import Cache, LayerCache
from puma.models.formats import hand_out
from puma.models.pooling import Embed
from puma.nn import functional as F
from puma.nn.layout import placed
from puma.nn.modules import Value


class Classifier(nn.Module):
    """The head for classes."""

    def __init__(self, c: Seq2Seq) -> None:
        self.dense = nn.Linear(c.hidden_size, c.hidden_size, place="activation")
        self.out_proj = nn.Linear(c.hidden_size, len(c.labels))

    def __call__(self, x: Value) -> Value:
        return self.out_proj(nn.activate("tanh", self.dense, x, self.out_proj))


class Model(nn.Module):
    """BART, mBART, Marian and their like, with the head that the config names."""

    def __init__(self, config: Seq2Seq, params: Mapping[str, Value] | None = None) -> None:
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.hidden_size)
        self.stem = Stem(config) if config.sound else None
        self.encoder = Stack(config, reads=False)
        self.decoder = None if config.headless else Stack(config, reads=True)
        self.lm_head = (
            nn.Head(config.hidden_size, 0 if config.tied else config.vocab_size) if config.generates else None
        )
        biased = config.generates and config.head_bias
        self.words: Any = nn.Module(bias=nn.Parameter((config.vocab_size,))) if biased else None
        self.classifier = Classifier(config) if config.labels else None
        self.embed = Embed(config.pooling, config.hidden_size)
        hand_out(self, config.formats)
        self.fill(params)

    def __call__(self, one_hot: Value, cache: Cache | None = None, ranked: bool = False) -> Value:
        """The logits (prompts, vocab_size) of the first token that answers the prompts' one_hot (tokens, vocab_size),
        then, with the same cache, of the one after an answer's token.
        """
        if self.decoder is None or self.lm_head is None:
            raise UsageError("the model answers nothing", "use it for its states or classes")
        cache = cache or Cache(self.config.layers)
        x, at, memory = entering(
            one_hot, cache, self._first, self._embedded, lambda prompts, begun: self._read(prompts, cache, begun)
        )
        with watched(x, at):
            h = self.decoder(x, at, memory.own.layers, [], memory).full
        with F.component("head", h):
            return self.lm_head(at.ending().asking(h), self.shared, self.words.bias if self.words else None)

    def hidden(self, one_hot: Value, cache: Cache | None = None) -> Value:
        """The encoder's last states (tokens, hidden_size)."""
        rows = self._lying(one_hot, cache or Cache(self.config.layers))
        return self._encoded(self._entered(one_hot, rows), rows)

    def states(self, one_hot: Value, lengths: Sequence[int], types: Sequence[int] = (), padding: Any = None) -> Value:
        """The same of several prompts of these lengths; of a classifier the decoder's last states, which has read each
        prompt, too, moved by one token. `types` and `padding` are for other architectures."""
        rows = nn.Rows(lengths)
        x = self._entered(one_hot, rows)
        if self.decoder is None or not self.config.labels:
            return self._encoded(x, rows)
        memory = self._remembered(x, rows, 1)
        first = self._rows(torch.tensor([self.config.starts[0]] * len(rows.lengths)))
        x = rows.moved(x, -1) + placed(first, rows.starts, sum(rows.lengths))
        return self.decoder(x, nn.Layout(rows.lengths), memory.own.layers, [], memory).full

    def classify(self, hidden: Value, lengths: Sequence[int] | None = None) -> Value:
        """The logits (texts, labels) of the classification head, which reads the last token's state."""
        if self.classifier is None:
            raise UsageError("the model has no classification head", "use a checkpoint with one, named in config.json")
        with F.component("head", hidden):
            return self.classifier(hidden[nn.Rows(lengths or hidden.shape[:1]).ends])

    def _lying(self, prompts: Value, cache: Cache) -> nn.Rows:
        """How the rows of new prompts lie: of what is heard the convolutions leave half."""
        return cache.advance(prompts.shape[0] // 2 if self.stem else prompts.shape[0]).rows

    def _entered(self, prompts: Value, rows: nn.Rows) -> Value:
        """Prompts as the encoder's first layer takes them, but for positions."""
        return self._embedded(prompts) if self.stem is None else self.stem(prompts, rows)

    def _first(self, prompts: int) -> Value:
        """The rows that so many answers begin with in any case."""
        return self._rows(torch.tensor([*self.config.starts] * prompts))

    def _read(self, prompts: Value, cache: Cache, begun: int) -> Memory:
        """What the decoder reads of new prompts; answers begin with so many tokens."""
        rows = self._lying(prompts, cache)
        return self._remembered(self._entered(prompts, rows), rows, begun)

    def _remembered(self, x: Value, rows: nn.Rows, begun: int) -> Memory:
        """What the decoder reads of prompts whose words have these rows; answers begin with so many tokens."""
        assert self.decoder
        cross = [each.cross_attn for each in self.decoder.layers]
        readers = [reader for each in cross if each for reader in (each.k_proj, each.v_proj)]
        return Memory.of(self._encoded(x, rows, readers), rows, self.config.layers, begun)

    def _encoded(self, x: Value, rows: nn.Rows, readers: Readers = ()) -> Value:
        """The encoder's last states: as they are, or as these readers have absorbed the norm before."""
        at = nn.Layout(rows.lengths, causal=False)
        at.turns = self.config.turns
        found = self.encoder(x, at, [LayerCache() for _ in self.encoder.layers], readers)
        return found.n if readers else found.full

    def _embedded(self, one_hot: Value) -> Value:
        with F.component("embedding", one_hot):
            return self._scaled(self.shared(one_hot))

    def _rows(self, tokens: torch.Tensor) -> Value:
        """Rows of tokens that everybody knows."""
        return self._scaled(self.shared.weight[tokens])

    def _scaled(self, x: Value) -> Value:
        factor = self.config.embedding_factor
        return F.times(x, factor) if factor > 1 else x


def inputs(config: Seq2Seq) -> Inputs:
    """Tokens, or windows of sound; the answer begins anew."""
    if config.sound:
        return Inputs(
            "audio", config.sound.bands, config.context, rows=2 * config.context, apart=True, answers=config.answers,
            begins=config.starts, begun=3 if config.sound.spoken else 1, spoken=config.sound.spoken,
        )  # fmt: skip
    return Inputs(
        "tokens", config.vocab_size, config.context, apart=True, answers=config.answers, begins=config.starts,
        barred=config.padding,
    )  # fmt: skip


def heads(config: Seq2Seq) -> Heads:
    """Text, classes, or the encoder's states alone; a prompt's own tokens are not predicted."""
    return Heads(
        generates=config.generates, labels=config.labels, reading=config.reading, pooling=config.pooling,
        barred=config.barred, barred_first=config.barred_first,
    )  # fmt: skip
