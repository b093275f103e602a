"""BERT: LayerNorm after each half of a layer, pooler and classifier; must not know tensors from shares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import puma.nn.modules as nn
from puma.errors import UsageError
from puma.models.config import Bert as Config
from puma.nn import functional as F
from puma.nn.modules import Value


class Normed(NamedTuple):
    """A hidden state as a norm left it: matrices, having absorbed the affine, read n; residuals `full`."""

    n: Value
    affine: nn.Affine

    @property
    def full(self) -> Value:
        return self.affine(self.n)


class Attention(nn.Module):
    def __init__(self, c: Config) -> None:
        self.head_dim = c.head_dim
        self.query = nn.Linear(c.hidden_size, c.hidden_size)
        self.key = nn.Linear(c.hidden_size, c.hidden_size)
        self.value = nn.Linear(c.hidden_size, c.hidden_size)

    def __call__(self, x: Value, at: nn.Layout) -> Value:
        q, k, v = nn.split_heads([self.query(x), self.key(x), self.value(x)], self.head_dim)
        return nn.attend(q, at.rows.pad(k), at.rows.pad(v), at)


class Output(nn.Module):
    """The end of either half of a layer: a matrix, and the norm of its sum with the residual."""

    def __init__(self, c: Config, inputs: int) -> None:
        self.eps = c.eps
        self.dense = nn.Linear(inputs, c.hidden_size)
        self.LayerNorm = nn.Affine(c.hidden_size)

    def norm(self, x: Value) -> Normed:
        with F.component("norm", x):
            return Normed(F.layer_norm(x, self.eps), self.LayerNorm)


class Layer(nn.Module):
    def __init__(self, c: Config) -> None:
        self.approximate = "none" if c.activation == "gelu" else "tanh"
        self.attention: Any = nn.Module(self=Attention(c), output=Output(c, c.hidden_size))
        self.intermediate: Any = nn.Module(dense=nn.Linear(c.hidden_size, c.intermediate_size))
        self.output = Output(c, c.intermediate_size)

    def __call__(self, h: Normed, at: nn.Layout) -> Normed:
        with F.component("attention", h.n):
            x = self.attention.output.dense(self.attention.self(h.n, at)) + h.full
        h = self.attention.output.norm(x)
        with F.component("mlp", h.n):
            x = self.output.dense(F.gelu(self.intermediate.dense(h.n), self.approximate)) + h.full
        return self.output.norm(x)


class Embeddings(nn.Module):
    def __init__(self, c: Config) -> None:
        self.eps = c.eps
        self.word_embeddings = nn.Embedding(c.vocab_size, c.hidden_size)
        self.position_embeddings = nn.Embedding(c.context, c.hidden_size)
        self.token_type_embeddings = nn.Embedding(c.type_vocab_size, c.hidden_size)
        self.LayerNorm = nn.Affine(c.hidden_size)

    def __call__(self, one_hot: Value, at: nn.Layout, types: list[int]) -> Normed:
        with F.component("embedding", one_hot):
            x = self.word_embeddings(one_hot) + self.position_embeddings.weight[at.positions]
            x = x + self.token_type_embeddings.weight[types]
        with F.component("norm", x):
            return Normed(F.layer_norm(x, self.eps), self.LayerNorm)


class Encoder(nn.Module):
    def __init__(self, c: Config) -> None:
        self.embeddings = Embeddings(c)
        self.encoder: Any = nn.Module(layer=[Layer(c) for _ in range(c.layers)])
        self.pooler: Any = nn.Module(dense=nn.Linear(c.hidden_size, c.hidden_size)) if c.pooler else None

    def __call__(self, one_hot: Value, at: nn.Layout, types: list[int]) -> Value:
        h = self.embeddings(one_hot, at, types)
        for layer in self.encoder.layer:
            h = layer(h, at)
        return h.full


class Model(nn.Module):
    """BertModel, and BertForSequenceClassification where the config names labels."""

    def __init__(self, config: Config, params: Mapping[str, Value] | None = None) -> None:
        self.config = config
        self.bert = Encoder(config)
        self.classifier = nn.Linear(config.hidden_size, len(config.labels)) if config.labels else None
        self.fill(params)

    def __call__(
        self, one_hot: Value, types: Sequence[int] | None = None, lengths: Sequence[int] | None = None
    ) -> Value:
        """The last hidden states (tokens, hidden_size) of texts of these lengths, of a single one if left out.

        types: public token types, 0 unless given.
        """
        at = nn.Layout(lengths or one_hot.shape[:1], causal=False)
        return self.bert(one_hot, at, list(types or [0] * one_hot.shape[0]))

    def pool(self, hidden: Value, lengths: Sequence[int] | None = None) -> Value:
        """The pooled first token of each text (texts, hidden_size)."""
        if self.bert.pooler is None:
            raise UsageError("the model has no pooler", "use its hidden states")
        with F.component("head", hidden):
            first = hidden[nn.Rows(lengths or hidden.shape[:1]).starts]
            return F.tanh(self.bert.pooler.dense(first))

    def classify(self, hidden: Value, lengths: Sequence[int] | None = None) -> Value:
        """The logits (texts, labels) of the classification head."""
        if self.classifier is None:
            raise UsageError("the model has no classification head", "use a BertForSequenceClassification checkpoint")
        pooled = self.pool(hidden, lengths)
        with F.component("head", pooled):
            return self.classifier(pooled)


def fold(config: Config, state: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: fold norms and 1/sqrt(head_dim) into the matrices; residuals still need the norms."""
    folded = dict(state)
    norm = "bert.embeddings.LayerNorm"
    for i in range(config.layers):
        layer = f"bert.encoder.layer.{i}."
        nn.absorb(folded, norm, [f"{layer}attention.self.{name}" for name in ("query", "key", "value")])
        nn.rescale(folded, f"{layer}attention.self.query", config.head_dim**-0.5)
        nn.absorb(folded, f"{layer}attention.output.LayerNorm", [f"{layer}intermediate.dense"])
        norm = f"{layer}output.LayerNorm"
    return {name: folded[name] for name in Model(config).shapes()}


def tensors(config: Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what a checkpoint must hold."""
    return Model(config).shapes()
