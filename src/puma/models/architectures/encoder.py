"""Encoders: LayerNorm after each half of a layer, and heads for texts, tokens and masked tokens.

The modules have BERT's names, whatever a checkpoint calls them. This file must not know tensors from shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import force_setattr

import puma.nn.modules as nn
from puma.errors import UsageError
from puma.models import bounds as b
from puma.models.architecture import Architecture, Bound, Heads, Inputs, Params, Shapes
from puma.models.fields import Activation, Labels, Layers, OptionalSize, Positive, Reading, Size
from puma.models.folding import fold_activation
from puma.models.formats import Formats, hand_out
from puma.models.pooling import Embed, Pooling
from puma.nn import functional as F
from puma.nn.modules import Value

ATTENTION = ("attention.self.query", "attention.self.key", "attention.self.value")
MAPPING = "bert.embeddings.mapping"
KINDS = ("weight", "bias")


class Encoder(Struct, frozen=True, kw_only=True, tag_field="model_type", tag="encoder"):
    """An encoder whose layers normalise last; the defaults are BERT's.

    `barred` is a token at which the positions of a text would not count on. `embedding_size` (0: hidden_size) is that
    of a table that is `projected` to hidden_size; `groups` are layers with weights of their own, if fewer than layers
    (0: all are). `labels` names the classes of a head for texts, or with `each_token` for tokens; `predicts` is a head
    for masked tokens, whose matrix is the embedding table if `tied`. `pooling` is what makes one vector of a text.
    """

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    layers: Layers
    heads: Size
    context: Size = 512
    barred: OptionalSize | None = None
    type_vocab_size: OptionalSize = 2
    embedding_size: OptionalSize = 0
    projected: bool = False
    groups: OptionalSize = 0
    activation: Activation = "gelu"
    eps: Positive = 1e-12
    pooler: bool = True
    pooler_activation: Literal["tanh", "gelu", "relu"] = "tanh"
    labels: Labels = ()
    each_token: bool = False
    reading: Reading = Reading()
    predicts: bool = False
    tied: bool = True
    pooling: Pooling = Pooling()
    formats: Formats = Formats()

    def __post_init__(self) -> None:
        force_setattr(self, "embedding_size", self.embedding_size or self.hidden_size)
        if self.hidden_size % self.heads:
            raise ValueError("hidden_size is not a multiple of heads")
        if self.embedding_size != self.hidden_size and not self.projected:
            raise ValueError("embedding_size is not hidden_size, and nothing projects it")
        if self.labels and not (self.pooler or self.each_token):
            raise ValueError("a classification head needs the pooler")

    @property
    def head_dim(self) -> int:
        """Columns of one head."""
        return self.hidden_size // self.heads

    @property
    def distinct(self) -> int:
        """Layers with weights of their own."""
        return min(self.groups or self.layers, self.layers)

    @property
    def alike(self) -> bool:
        """Whether all layers cost the same, whatever the prompt."""
        return True


class Normed(NamedTuple):
    """A hidden state as a norm left it: matrices that absorbed the affine read n; residuals and others `full`."""

    n: Value
    norm: nn.Norm | None

    @property
    def full(self) -> Value:
        """n with its affine."""
        return self.norm.affine(self.n) if self.norm else self.n


class Attention(nn.Module):
    """Attention without a mask but padding's: rows (rows, hidden_size) to the same shape."""

    def __init__(self, c: Encoder) -> None:
        self.head_dim = c.head_dim
        self.query = nn.Linear(c.hidden_size, c.hidden_size, place="scores")
        self.key = nn.Linear(c.hidden_size, c.hidden_size)
        self.value = nn.Linear(c.hidden_size, c.hidden_size, place="value")
        self.limits = nn.Limits.of(self.query, self.value)

    def __call__(self, x: Value, at: nn.Layout) -> Value:
        q, k, v = nn.heads(self.query(x), self.key(x), self.value(x), self.head_dim, self.limits, at)
        return nn.attend(q, at.rows.pad(k), at.rows.pad(v), at, limits=self.limits)


def _norm(c: Encoder, size: int) -> nn.Norm:
    return nn.Norm("layer", c.eps, size, bias=True, writes=True)


class Output(nn.Module):
    """The end of either half of a layer: a matrix, and the norm of its sum with the residual."""

    def __init__(self, c: Encoder, inputs: int) -> None:
        self.dense = nn.Linear(inputs, c.hidden_size, place="stream")
        self.LayerNorm = _norm(c, c.hidden_size)

    def norm(self, x: Value, *readers: nn.Module) -> Normed:
        """Rows that these read."""
        return Normed(self.LayerNorm.normalised(x, *readers), self.LayerNorm)


class Layer(nn.Module):
    """One layer; where several share its weights, what comes in is not always a norm's, and nothing is absorbed."""

    def __init__(self, c: Encoder) -> None:
        self.activation, self.absorbed = c.activation, not c.groups
        self.attention: Any = nn.Module(self=Attention(c), output=Output(c, c.hidden_size))
        self.intermediate: Any = nn.Module(
            dense=nn.Linear(c.hidden_size, c.intermediate_size, place=nn.place_of(c.activation))
        )
        self.output = Output(c, c.intermediate_size)

    @property
    def readers(self) -> list[nn.Module]:
        """What reads the norm before this layer."""
        own = self.attention.self
        return [own.query, own.key, own.value] if self.absorbed else []

    def __call__(self, h: Normed, at: nn.Layout, *readers: nn.Module) -> Normed:
        """The rows that come out are for these readers."""
        with F.component("attention", h.n):
            full = h.full
            x = self.attention.output.dense(self.attention.self(h.n if self.absorbed else full, at)) + full
        h = self.attention.output.norm(x, self.intermediate.dense)
        with F.component("mlp", h.n):
            x = nn.activate(self.activation, self.intermediate.dense, h.n, self.output.dense)
            x = self.output.dense(x) + h.full
        return self.output.norm(x, *readers)


class Embeddings(nn.Module):
    """Words, positions and types, added and normed: token choices to rows (rows, hidden_size)."""

    def __init__(self, c: Encoder) -> None:
        size = c.embedding_size
        self.word_embeddings = nn.Embedding(c.vocab_size, size)
        self.position_embeddings = nn.Embedding(c.context, size)
        self.token_type_embeddings = nn.Embedding(c.type_vocab_size, size) if c.type_vocab_size else None
        self.LayerNorm = _norm(c, 0 if c.projected else size)  # a projection has absorbed its affine
        self.mapping = nn.Linear(size, c.hidden_size, place="stream") if c.projected else None

    def __call__(self, one_hot: Value, at: nn.Layout, types: list[int], *readers: nn.Module) -> Normed:
        with F.component("embedding", one_hot):
            x = self.word_embeddings(one_hot) + self.position_embeddings.weight[at.positions]
            if self.token_type_embeddings:
                x = x + self.token_type_embeddings.weight[types]
        n = self.LayerNorm.normalised(x, *([self.mapping] if self.mapping else readers))
        return Normed(self.mapping(n), None) if self.mapping else Normed(n, self.LayerNorm)


class Stack(nn.Module):
    """The layers, one after the other."""

    def __init__(self, c: Encoder) -> None:
        self.c = c
        self.embeddings = Embeddings(c)
        self.encoder: Any = nn.Module(layer=[Layer(c) for _ in range(c.distinct)])
        self.encoder.layer[-1].output.LayerNorm.answers = True
        self.pooler: Any = None
        if c.pooler:
            place = nn.place_of(c.pooler_activation)
            self.pooler = nn.Module(dense=nn.Linear(c.hidden_size, c.hidden_size, place=place))

    def __call__(self, one_hot: Value, at: nn.Layout, types: list[int]) -> Value:
        each = self.encoder.layer
        layers = [each[i * self.c.distinct // self.c.layers] for i in range(self.c.layers)]
        h = self.embeddings(one_hot, at, types, *layers[0].readers)
        for layer, after in zip(layers, [*layers[1:], None], strict=True):
            h = layer(h, at, *(after.readers if after else []))
        return h.full


class Predictions(nn.Module):
    """The head for masked tokens."""

    def __init__(self, c: Encoder) -> None:
        self.activation = c.activation
        transform = nn.Linear(c.hidden_size, c.embedding_size, place=nn.place_of(c.activation))
        last = nn.Norm("layer", c.eps, c.embedding_size, bias=True)
        self.transform: Any = nn.Module(dense=transform, LayerNorm=last)
        self.decoder = nn.Head(c.embedding_size, 0 if c.tied else c.vocab_size)
        self.bias: Value = nn.Parameter((c.vocab_size,))

    def __call__(self, x: Value, table: nn.Embedding) -> Value:
        x = nn.activate(self.activation, self.transform.dense, x)
        return self.decoder(self.transform.LayerNorm(x), table, self.bias)


class Model(nn.Module):
    """An encoder with the heads that its config names."""

    def __init__(self, config: Encoder, params: Mapping[str, Value] | None = None) -> None:
        self.config = config
        self.bert = Stack(config)
        self.classifier = nn.Linear(config.hidden_size, len(config.labels)) if config.labels else None
        self.cls: Any = nn.Module(predictions=Predictions(config)) if config.predicts else None
        self.embed = Embed(config.pooling, config.hidden_size)
        hand_out(self, config.formats)
        self.fill(params)

    def __call__(
        self,
        one_hot: Value,
        types: Sequence[int] | None = None,
        lengths: Sequence[int] | None = None,
        padding: Value | None = None,
    ) -> Value:
        """The last hidden states (tokens, hidden_size) of texts of these lengths, of a single one if left out.

        types: public token types, 0 unless given. padding: (tokens,), 1 for tokens that no other one may see, 0 for
        others; if it is secret, so are the lengths of the texts.
        """
        at = nn.Layout(lengths or one_hot.shape[:1], causal=False)
        if padding is not None:
            at.hidden = at.rows.pad(padding.reshape(padding.shape[0], 1, 1)).transpose(2, 3)
        return self.bert(one_hot, at, list(types or [0] * one_hot.shape[0]))

    def states(self, one_hot: Value, lengths: Sequence[int], types: Sequence[int] = (), padding: Any = None) -> Value:
        """The same, in the order of arguments that all architectures have."""
        return self(one_hot, types, lengths, padding)

    def pool(self, hidden: Value, lengths: Sequence[int] | None = None) -> Value:
        """The pooled first token of each text (texts, hidden_size)."""
        if self.bert.pooler is None:
            raise UsageError("the model has no pooler", "use its hidden states")
        with F.component("head", hidden):
            first = hidden[nn.Rows(lengths or hidden.shape[:1]).starts]
            return nn.activate(self.config.pooler_activation, self.bert.pooler.dense, first)

    def classify(self, hidden: Value, lengths: Sequence[int] | None = None) -> Value:
        """The logits (texts, labels) of the classification head; (tokens, labels) of one for tokens."""
        if self.classifier is None:
            raise UsageError("the model has no classification head", "use a checkpoint with one, named in config.json")
        pooled = hidden if self.config.each_token else self.pool(hidden, lengths)
        with F.component("head", pooled):
            return self.classifier(pooled)

    def predict(self, hidden: Value, rows: Sequence[int]) -> Value:
        """The logits (rows, vocab_size) of the tokens that stood where these rows are masked."""
        if self.cls is None:
            raise UsageError("the model has no head for masked tokens", "use a ForMaskedLM checkpoint")
        with F.component("head", hidden):
            return self.cls.predictions(hidden[list(rows)], self.bert.embeddings.word_embeddings)


def fold(config: Encoder, plain: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: fold norms and 1/sqrt(head_dim) into the matrices; residuals still need the norms."""
    folded, norm = dict(plain), "bert.embeddings.LayerNorm"
    if config.projected:
        nn.absorb(folded, norm, [MAPPING])
    for i in range(config.distinct):
        layer = f"bert.encoder.layer.{i}."
        absorbed = not config.groups and not (config.projected and i == 0)
        fold_layer(folded, layer, norm if absorbed else "", config.head_dim)
        fold_activation(config.activation, folded, f"{layer}intermediate.dense", f"{layer}output.dense")
        norm = f"{layer}output.LayerNorm"
    return {name: folded[name] for name in Model(config).shapes()}


def fold_layer(folded: dict[str, Value], layer: str, norm: str, head_dim: int) -> None:
    """Fold one layer, and into what it reads first the norm before it, if that is named."""
    if norm:
        nn.absorb(folded, norm, [layer + name for name in ATTENTION])
    nn.rescale(folded, layer + ATTENTION[0], head_dim**-0.5)
    nn.absorb(folded, f"{layer}attention.output.LayerNorm", [f"{layer}intermediate.dense"])


def plain(config: Encoder) -> Shapes:
    """Names and shapes before folding."""
    norm = {f"bert.embeddings.LayerNorm.{kind}": (config.embedding_size,) for kind in ("weight", "bias")}
    return norm | Model(config).shapes()


def inputs(config: Encoder) -> Inputs:
    """Tokens of perhaps two texts; every one sees all others, so that padding must and can be hidden."""
    types = max(1, config.type_vocab_size)
    return Inputs("tokens", config.vocab_size, config.context, types=types, pads="behind", barred=config.barred)


def heads(config: Encoder) -> Heads:
    """Those that the config names."""
    return Heads(
        labels=config.labels, each_token=config.each_token, reading=config.reading, predicts=config.predicts,
        pooling=config.pooling, place="cls.predictions.decoder",
    )  # fmt: skip


# -- bounds ---------------------------------------------------------------------------------------------------------


def bounds(config: Encoder, params: Params) -> Iterator[Bound]:
    """A layer reads the norm before it; the first one perhaps a projection; one that is shared, all of these."""
    n, last = b.Source(config.hidden_size), f"bert.encoder.layer.{config.distinct - 1}.output.LayerNorm"
    embedded, final = _projection(config, params), _affine(config, params, last)
    layers = sorted({name.partition(".attention.self.")[0] for name in params if ".attention.self." in name})
    for layer in layers:
        reads = [n]
        if config.groups:
            reads = [_affine(config, params, f"{one}.output.LayerNorm") for one in layers] + embedded
        elif embedded and layer.endswith(".0"):
            reads = embedded
        yield from layer_bounds(config, params, layer, reads)
    activated = {"bert.pooler.dense": config.pooler_activation, "cls.predictions.transform.dense": config.activation}
    for name, activation in activated.items():
        if f"{name}.weight" in params:
            yield b.activation(activation, name, float(b.rows(params, name, final).max()))
    yield b.tables(params, [f"bert.embeddings.{part}_embeddings.weight" for part in ("word", "position", "token_type")])
    if config.predicts:
        name = "cls.predictions"
        table = "bert.embeddings.word_embeddings" if config.tied else f"{name}.decoder"
        read = b.Source(config.embedding_size, *(params[f"{name}.transform.LayerNorm.{kind}"] for kind in KINDS))
        yield b.logits(f"{name}.decoder", params[f"{table}.weight"], read, params[f"{name}.bias"])


def layer_bounds(config: Encoder, params: Params, layer: str, reads: list[b.Source]) -> Iterator[Bound]:
    """One layer, which reads one of these."""
    names = [layer + "." + part for part in ATTENTION]
    yield b.scores(names[0], max(b.spread(params, names[0], names[1], config.head_dim, source) for source in reads))
    yield b.value(names[2], max(float(b.rows(params, names[2], source).max()) for source in reads))
    dense, n = f"{layer}.intermediate.dense", b.Source(config.hidden_size)
    yield b.activation(config.activation, dense, float(b.rows(params, dense, n).max()))
    rest, output = _residual(config, params, reads), f"{layer}.attention.output.dense"
    for source in reads:
        yield b.added(output, b.attended(params, names[2], output, config.head_dim, source), rest)
    yield b.added(f"{layer}.output.dense", b.activated(params, [dense], f"{layer}.output.dense", n), rest)


def _residual(config: Encoder, params: Params, reads: list[b.Source]) -> float:
    """The largest number that a half of a layer is added to: what some norm gives, or what the first layer reads."""
    norms = [name.removesuffix(".weight") for name in params if name.endswith("LayerNorm.weight")]
    given = [_affine(config, params, norm) for norm in norms if len(params[f"{norm}.weight"]) == config.hidden_size]
    return max(float(source.largest().max()) for source in [*given, *reads])


def _affine(config: Encoder, params: Params, norm: str) -> b.Source:
    return b.Source(config.hidden_size, params[f"{norm}.weight"], params[f"{norm}.bias"])


def _projection(config: Encoder, params: Params) -> list[b.Source]:
    """What the first layer reads, where a projection lies between it and the norm."""
    if not config.projected:
        return []
    return [b.Source(config.embedding_size, params[f"{MAPPING}.weight"], params[f"{MAPPING}.bias"])]


ENCODER = Architecture(
    "encoder", Encoder, Model, plain, fold, inputs, heads, bounds, table="bert.embeddings.word_embeddings.weight"
)
