"""A causal language model or classifier of decoder blocks: embedding, layers, heads, and what it reads.

This file must not know tensors from shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import puma.nn.modules as nn
from puma.errors import UsageError
from puma.models.architecture import Heads, Inputs
from puma.models.architectures.decoder.blocks import Attention, Block, norm
from puma.models.architectures.decoder.config import Decoder
from puma.models.cache import Cache, Recurrent
from puma.models.formats import hand_out
from puma.models.pooling import Embed
from puma.nn import functional as F
from puma.nn.modules import Value


class Stack(nn.Module):
    """Embedding rows, layers and the last norm; names are the checkpoint's."""

    def __init__(self, c: Decoder) -> None:
        self.c, self.scale = c, c.embedding_factor
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.positions = None if c.rope else nn.Embedding(c.context, c.hidden_size)
        self.layers = [Block(c, i) for i in range(c.layers)]
        self.norm = norm(c, affine=True)

    def __call__(self, one_hot: Value, cache: Cache, ending: bool) -> Value:
        """The states of all rows before the last norm; `ending`: of the last row of each prompt, where the last layer
        does less.
        """
        if not cache.length:
            self._prepare(cache)
        at = _both_sides(cache.advance(one_hot.shape[0])) if self.c.both else cache.advance(one_hot.shape[0])
        if self.c.delta and at.branched:
            raise UsageError("a memory cannot branch", "ask for one text of each prompt")
        with F.component("embedding", one_hot):
            x = self.embed_tokens(one_hot)
            x = F.times(x, self.scale) if self.scale else x
            x = x + self.positions.weight[at.positions] if self.positions else x
        near = at.within(self.c.window, self.c.both) if self.c.window else at
        for i, (layer, layer_cache) in enumerate(zip(self.layers, cache.layers, strict=True)):
            seen = near if self.c.local(i) else at
            x = layer(x, seen.ending() if ending and i + 1 == self.c.layers else seen, layer_cache)
        return x

    def _prepare(self, cache: Cache) -> None:
        """What layers with a memory hold."""
        cache.layers = [Recurrent() if self.c.recurrent(i) else each for i, each in enumerate(cache.layers)]


class Model(nn.Module):
    """A causal language model, or a classifier of texts if the config names labels."""

    def __init__(self, config: Decoder, params: Mapping[str, Value] | None = None) -> None:
        self.config, size = config, config.hidden_size
        self.model = Stack(config)
        self.head_norm = norm(config, affine=True) if config.rescaled else None
        silent = config.labels or config.headless
        self.lm_head = None if silent else nn.Head(size, 0 if config.tied else config.vocab_size, config.head_bias)
        self.score = nn.Linear(size, len(config.labels), bias=config.label_bias) if config.labels else None
        self.embed = Embed(config.pooling, size)
        hand_out(self, config.formats)
        self.fill(params)

    def __call__(self, one_hot: Value, cache: Cache | None = None, ranked: bool = False) -> Value:
        """The logits (prompts, vocab_size) of the tokens that follow the prompts' one_hot (tokens, vocab_size).

        `ranked`: only their order matters, which a soft cap does not change.
        """
        return self._logits(self.model(one_hot, cache or Cache(self.config.layers), ending=True), ranked)

    def every(self, one_hot: Value, cache: Cache | None = None) -> Value:
        """The logits (tokens, vocab_size) of every token's next one."""
        return self._logits(self.model(one_hot, cache or Cache(self.config.layers), ending=False), ranked=False)

    def _logits(self, h: Value, ranked: bool) -> Value:
        if self.lm_head is None:
            raise UsageError("the model has no logits of tokens", "use it to classify or for its states")
        h = (self.head_norm or self.model.norm)(h)
        with F.component("head", h):
            logits = self.lm_head(h, self.model.embed_tokens)
            return logits if ranked or not self.config.logit_cap else F.softcap(logits, self.config.logit_cap)

    def preamble(self) -> Cache:
        """What a prompt goes on from that begins with the preamble: its keys and values, read from the parameters."""
        cache = Cache(self.config.layers)
        for layer, mine in zip(self.model.layers, cache.layers, strict=True):
            attention = layer.self_attn
            assert isinstance(attention, Attention) and attention.preamble_keys and attention.preamble_values
            mine.k, mine.v = attention.preamble_keys.columns(), attention.preamble_values.columns()
        cache.held = cache.held.new_ones(1, len(self.config.preamble))
        return cache

    def hidden(self, one_hot: Value, cache: Cache | None = None) -> Value:
        """The last hidden states (tokens, hidden_size)."""
        return self.model.norm(self.model(one_hot, cache or Cache(self.config.layers), ending=False))

    def states(self, one_hot: Value, lengths: Sequence[int], types: Sequence[int] = (), padding: Any = None) -> Value:
        """The same of several prompts of these lengths; `padding` (tokens,) is 1 for those that others may not see, and
        `types` are for other architectures."""
        cache = Cache(self.config.layers, lengths)
        if padding is not None:
            cache.hide(padding)
        return self.hidden(one_hot, cache)

    def classify(self, hidden: Value, lengths: Sequence[int] | None = None) -> Value:
        """The logits (texts, labels) of the classification head, which reads the last token; (tokens, labels) of one
        for tokens."""
        if self.score is None:
            raise UsageError("the model has no classification head", "use a ForSequenceClassification checkpoint")
        with F.component("head", hidden):
            read = hidden if self.config.each_token else hidden[nn.Rows(lengths or hidden.shape[:1]).ends]
            return self.score(read)


def _both_sides(at: nn.Layout) -> nn.Layout:
    """The same rows, none of them earlier ones, which see all of their prompt."""
    result = nn.Layout(at.rows.lengths, causal=False)
    result.hidden = at.hidden
    return result


def inputs(config: Decoder) -> Inputs:
    """Tokens, of which an answer's follow the prompt's. Rotary positions tell distances alone, so that a prompt may
    begin at any of them, behind padding; learned ones do not. What sees both sides could see padding behind texts.
    """
    if config.both:
        return Inputs("tokens", config.vocab_size, config.context, pads="behind")
    pads = "front" if config.rope and not (config.labels or config.headless or config.delta) else ""
    end, ends = config.padding if config.labels and not config.each_token else None, config.pooling.ends
    return Inputs("tokens", config.vocab_size, config.context, pads=pads, padding=end, ends=ends)


def heads(config: Decoder) -> Heads:
    """Text, unless labels have taken the place of logits, or nothing has."""
    texts, capped = not (config.labels or config.headless), config.logit_cap > 0
    return Heads(texts, texts, config.labels, config.each_token, config.reading, False, config.pooling, capped)
