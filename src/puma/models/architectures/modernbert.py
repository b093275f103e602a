"""ModernBERT: an encoder that normalises first, with gates, turning positions and windows in most layers.

Attention and MLPs are those of the decoders, and rows see others on both sides. This file must not know tensors from
shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
from msgspec import Meta, Struct

import puma.nn.modules as nn
from puma.errors import UsageError
from puma.models import bounds as b
from puma.models.architecture import Architecture, Bound, Heads, Inputs, Params, Shapes
from puma.models.architectures import decoder
from puma.models.architectures.decoder import MLP, READERS, Attention, Decoder
from puma.models.cache import LayerCache
from puma.models.fields import (
    Activated,
    Activation,
    Labels,
    Layers,
    OptionalSize,
    Positive,
    Reading,
    Rope,
    Size,
    repeating,
)
from puma.models.folding import fold_activation, fold_queries
from puma.models.formats import Formats, hand_out
from puma.models.pooling import Embed, Pooling
from puma.nn import functional as F
from puma.nn.modules import Value
from puma.nn.pooling import pooled

FIRST, LAST = "model.embedding_norm", "model.norm"
QKV = tuple(f"self_attn.{name}_proj" for name in "qkv")


class ModernBert(Struct, frozen=True, kw_only=True, tag_field="model_type", tag="modernbert"):
    """ModernBERT: layers see `window` rows on either side, their own among them, but those in `full`, which see all.

    `labels` names the classes of a head for texts, which reads the first token or with `averaged` the mean of all; with
    `each_token`, of tokens. `predicts` is a head for masked tokens, whose matrix is the embedding table if `tied`.
    """

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    layers: Layers
    heads: Size
    context: Size = 8192
    eps: Positive = 1e-5
    activation: Activation = "gelu"
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    rope: Rope = Rope(theta=160000.0)
    local_rope: Rope = Rope()
    window: OptionalSize = 65
    full: Annotated[tuple[OptionalSize, ...], Meta(max_length=1 << 12)] = ()
    labels: Labels = ()
    each_token: bool = False
    reading: Reading = Reading()
    averaged: bool = False
    predicts: bool = False
    tied: bool = True
    head_bias: bool = False
    head_activation: Activated = "gelu"
    word_bias: bool = True
    pooling: Pooling = Pooling()
    formats: Formats = Formats()

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise ValueError("hidden_size is not a multiple of heads")
        self.block  # noqa: B018  (checks the rest)

    @property
    def head_dim(self) -> int:
        """Columns of one head."""
        return self.hidden_size // self.heads

    @property
    def block(self) -> Decoder:
        """What the layers have in common with those of decoders."""
        return Decoder(
            vocab_size=self.vocab_size, hidden_size=self.hidden_size, intermediate_size=self.intermediate_size,
            layers=self.layers, heads=self.heads, context=self.context, eps=self.eps, norm="layer",
            activation=self.activation, qkv_bias=True, out_bias=self.attention_bias, mlp_bias=True, rope=self.rope,
            local_rope=self.local_rope, window=self.window, full=self.full, headless=True,
        )  # fmt: skip

    @property
    def period(self) -> int:
        """After how many layers they cost the same again, whatever the prompt; 0 where that is not known."""
        return repeating([bool(self.window) and i not in self.full for i in range(self.layers)])


class Layer(nn.Module):
    """A layer; the first one reads the embedding's norm, which others have as their own."""

    def __init__(self, c: ModernBert, block: Decoder, layer: int) -> None:
        self.input_layernorm = nn.Norm("layer", c.eps) if layer else None
        self.post_attention_layernorm = nn.Norm("layer", c.eps)
        self.self_attn, self.mlp = Attention(block, layer), MLP(block)

    @property
    def readers(self) -> list[nn.Module]:
        """What reads the first norm."""
        return [self.self_attn.q_proj, self.self_attn.k_proj, self.self_attn.v_proj]

    def __call__(self, x: Value, at: nn.Layout, n: Value | None = None) -> Value:
        """`n`: the rows as a norm left them, unless there is one here."""
        n = self.input_layernorm(x, *self.readers) if self.input_layernorm else n
        with F.component("attention", n):
            x = x + self.self_attn(n, at, LayerCache())
        n = self.post_attention_layernorm(x, self.mlp.gate_proj, self.mlp.up_proj)
        with F.component("mlp", n):
            return x + self.mlp(n)


class Stack(nn.Module):
    """Embedding rows, layers and the last norm."""

    def __init__(self, c: ModernBert) -> None:
        self.c, block = c, c.block
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.embedding_norm = nn.Norm("layer", c.eps, c.hidden_size, bias=c.norm_bias, writes=True)
        self.layers = [Layer(c, block, i) for i in range(c.layers)]
        self.local = tuple(block.local(i) for i in range(c.layers))
        self.norm = nn.Norm("layer", c.eps, c.hidden_size, bias=c.norm_bias)

    def __call__(self, one_hot: Value, at: nn.Layout) -> Value:
        with F.component("embedding", one_hot):
            x = self.embed_tokens(one_hot)
        n = self.embedding_norm.normalised(x, *self.layers[0].readers)
        x = self.embedding_norm.affine(n)
        near = at.within(self.c.window, both=True) if self.c.window else at
        for layer, local in zip(self.layers, self.local, strict=True):
            x = layer(x, near if local else at, n)
        return self.norm(x)


class Head(nn.Module):
    """A matrix, an activation and a norm, before classes or words: rows (rows, hidden_size) to the same shape."""

    def __init__(self, c: ModernBert) -> None:
        self.activation = c.head_activation
        self.dense = nn.Linear(c.hidden_size, c.hidden_size, c.head_bias, nn.place_of(c.head_activation))
        self.norm = nn.Norm("layer", c.eps, c.hidden_size, bias=c.norm_bias)

    def __call__(self, x: Value) -> Value:
        return self.norm(nn.activate(self.activation, self.dense, x))


class Words(nn.Module):
    """What gives the logits of masked tokens."""

    def __init__(self, c: ModernBert) -> None:
        self.head = nn.Head(c.hidden_size, 0 if c.tied else c.vocab_size)
        self.bias: Value = nn.Parameter((c.vocab_size,)) if c.word_bias else None

    def __call__(self, x: Value, table: nn.Embedding) -> Value:
        return self.head(x, table, self.bias)


class Model(nn.Module):
    """ModernBERT with the heads that its config names."""

    def __init__(self, config: ModernBert, params: Mapping[str, Value] | None = None) -> None:
        self.config = config
        self.model = Stack(config)
        self.head = Head(config) if config.labels or config.predicts else None
        self.classifier = nn.Linear(config.hidden_size, len(config.labels)) if config.labels else None
        self.decoder = Words(config) if config.predicts else None
        self.embed = Embed(config.pooling, config.hidden_size)
        hand_out(self, config.formats)
        self.fill(params)

    def __call__(
        self, one_hot: Value, types: Sequence[int] | None = None, lengths: Sequence[int] | None = None,
        padding: Value | None = None,
    ) -> Value:  # fmt: skip
        """The last hidden states (tokens, hidden_size), as for BERT; there are no token types."""
        at = nn.Layout(lengths or one_hot.shape[:1], causal=False)
        if padding is not None:
            at.hidden = at.rows.pad(padding.reshape(padding.shape[0], 1, 1)).transpose(2, 3)
        return self.model(one_hot, at)

    def states(self, one_hot: Value, lengths: Sequence[int], types: Sequence[int] = (), padding: Any = None) -> Value:
        """The same, in the order of arguments that all architectures have."""
        return self(one_hot, types, lengths, padding)

    def classify(self, hidden: Value, lengths: Sequence[int] | None = None) -> Value:
        """The logits (texts, labels) of the classification head; (tokens, labels) of one for tokens."""
        if self.classifier is None or self.head is None:
            raise UsageError("the model has no classification head", "use a checkpoint with one, named in config.json")
        with F.component("head", hidden):
            if not self.config.each_token:
                hidden = pooled(hidden, ["mean" if self.config.averaged else "cls"], lengths or hidden.shape[:1])
            return self.classifier(self.head(hidden))

    def predict(self, hidden: Value, rows: Sequence[int]) -> Value:
        """The logits (rows, vocab_size) of the tokens that stood where these rows are masked."""
        if self.decoder is None or self.head is None:
            raise UsageError("the model has no head for masked tokens", "use a ForMaskedLM checkpoint")
        with F.component("head", hidden):
            return self.decoder(self.head(hidden[list(rows)]), self.model.embed_tokens)


def fold(config: ModernBert, plain: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: fold norms and all public factors into the matrices; what has no bias gets one of zeros."""
    folded, block, shapes = dict(plain), config.block, Model(config).shapes()
    nn.absorb(folded, FIRST, [f"model.layers.0.{name}" for name in QKV])
    for i in range(config.layers):
        layer = f"model.layers.{i}."
        nn.absorb_norms(folded, layer, READERS)
        for name in (name for name in shapes if name.startswith(layer) and name.endswith(".bias")):
            folded.setdefault(name, torch.zeros(shapes[name]))
        fold_queries(block, folded, i)
        fold_activation(config.activation, folded, f"{layer}mlp.gate_proj", f"{layer}mlp.down_proj")
    return {name: folded[name] for name in shapes}


def plain(config: ModernBert) -> Shapes:
    """Names and shapes before folding."""
    biased = {"self_attn.": config.attention_bias, "mlp.": config.mlp_bias}
    made = tuple(part for part, there in biased.items() if not there)
    shapes = {
        name: shape
        for name, shape in Model(config).shapes().items()
        if not (name.endswith(".bias") and ".layers." in name and any(f".{part}" in name for part in made))
    }
    for i in range(config.layers):
        for norm in list(READERS)[i == 0 :]:
            for kind in ("weight", "bias")[: 1 + config.norm_bias]:
                shapes[f"model.layers.{i}.{norm}.{kind}"] = (config.hidden_size,)
    return shapes


def inputs(config: ModernBert) -> Inputs:
    """Tokens, every one of which sees others on both sides; a mean over a secret number of them is not implemented."""
    averaged = config.averaged and bool(config.labels) and not config.each_token
    return Inputs("tokens", config.vocab_size, config.context, pads="" if averaged else "behind")


def heads(config: ModernBert) -> Heads:
    """Those that the config names."""
    return Heads(
        labels=config.labels, each_token=config.each_token, reading=config.reading, predicts=config.predicts,
        pooling=config.pooling, place="decoder.head",
    )  # fmt: skip


def bounds(config: ModernBert, params: Params) -> Iterator[Bound]:
    """Those of the decoders, whose attention and MLPs these are, of the norm that the stream begins with, and of the
    heads."""
    yield from decoder.bounds(config.block, params)
    yield b.added(FIRST, _affine(config, params, FIRST).largest())
    if "head.dense.weight" in params:
        read = _affine(config, params, LAST)
        yield b.activation(config.head_activation, "head.dense", float(b.rows(params, "head.dense", read).max()))
    if config.predicts:
        table = params["model.embed_tokens.weight" if config.tied else "decoder.head.weight"]
        yield b.logits("decoder.head", table, _affine(config, params, "head.norm"), params.get("decoder.bias"))


def _affine(config: ModernBert, params: Params, norm: str) -> b.Source:
    return b.Source(config.hidden_size, params[f"{norm}.weight"], params.get(f"{norm}.bias"))


MODERNBERT = Architecture(
    "encoder", ModernBert, Model, plain, fold, inputs, heads, bounds, table="model.embed_tokens.weight"
)
