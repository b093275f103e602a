"""Encoders: LayerNorm after each half of a layer, and heads for texts, tokens and masked tokens.

The modules have BERT's names, whatever a checkpoint calls them. This file must not know tensors from shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

import puma.nn.modules as nn
from puma.errors import UsageError
from puma.models import bounds as b
from puma.models.architecture import Architecture, Bound, Heads, Inputs, Params, Shapes
from puma.models.architectures.encoder_layers import (
    ATTENTION,
    INNER,
    Convolution,
    Layer,
    Normed,
    convolution_bounds,
    fold_layer,
    layer_bounds,
    normed,
    table_spread,
    unfolded,
)
from puma.models.architectures.relative import Disentangled, Positions
from puma.models.fields import Activated, Activation, Labels, Layers, OptionalSize, Positive, Reading, Rope, Size
from puma.models.folding import fold_activation
from puma.models.formats import Formats, hand_out
from puma.models.pooling import Embed, Pooling
from puma.nn import functional as F
from puma.nn.modules import Value

MAPPING = "bert.embeddings.mapping"
KINDS = ("weight", "bias")
MADE = (  # biases that a norm before makes, whether a checkpoint has some or not
    ("qkv_bias", ATTENTION),
    ("mlp_bias", INNER),
)
FURTHEST = 128  # of distances that have a number of their own


class Encoder(Struct, frozen=True, kw_only=True, tag_field="model_type", tag="encoder"):
    """An encoder whose layers normalise last; the defaults are BERT's.

    `barred` is a token at which the positions of a text would not count on. `embedding_size` (0: hidden_size) is that
    of a table that is `projected` to hidden_size; `groups` are layers with weights of their own, if fewer than layers
    (0: all are). `labels` names the classes of a head for texts, or with `each_token` for tokens; `predicts` is a head
    for masked tokens, whose matrix is the embedding table if `tied`. `pooling` is what makes one vector of a text.

    Positions are learned, if `learned`; or a number for each of so many `distances` is added to scores, or they turn by
    a `rope`, or are `disentangled`. `gated`: the inner layer has a gate. A `convolution` of so many rows of the
    embeddings is added to the first layer's result.
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
    learned: bool = True
    distances: OptionalSize = 0
    rope: Rope | None = None
    disentangled: Disentangled | None = None
    convolution: Annotated[int, Meta(ge=0, le=63)] = 0
    convolved: Activated = "tanh"  # its activation
    qkv_bias: bool = True
    out_bias: bool = True
    gated: bool = False
    mlp_bias: bool = True  # of what is activated, and of its gate
    down_bias: bool = True
    activation: Activation = "gelu"
    eps: Positive = 1e-12
    pooler: bool = True
    pooler_activation: Activated = "tanh"
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
        if self.gated and self.activation == "relu":
            raise ValueError("activation relu has no gated form")
        if self.rope and (self.head_dim % 2 or self.rope.size):
            raise ValueError("the rotary part of a head is not an even whole of it")
        if self.convolution and not self.convolution % 2:
            raise ValueError("a convolution of an even number of rows is not implemented")

    @property
    def head_dim(self) -> int:
        """Columns of one head."""
        return self.hidden_size // self.heads

    @property
    def distinct(self) -> int:
        """Layers with weights of their own."""
        return min(self.groups or self.layers, self.layers)

    @property
    def period(self) -> int:
        """After how many layers they cost the same again, whatever the prompt; 0 where that is not known."""
        return 1


class Embeddings(nn.Module):
    """Words, positions and types, added and normed: token choices to rows (rows, hidden_size)."""

    def __init__(self, c: Encoder) -> None:
        size = c.embedding_size
        self.word_embeddings = nn.Embedding(c.vocab_size, size)
        self.position_embeddings = nn.Embedding(c.context, size) if c.learned else None
        self.token_type_embeddings = nn.Embedding(c.type_vocab_size, size) if c.type_vocab_size else None
        self.LayerNorm = normed(c, 0 if c.projected else size)  # a projection has absorbed its affine
        self.mapping = nn.Linear(size, c.hidden_size, place="stream") if c.projected else None

    def __call__(self, one_hot: Value, at: nn.Layout, types: list[int], *readers: nn.Module) -> Normed:
        with F.component("embedding", one_hot):
            x = self.word_embeddings(one_hot)
            if self.position_embeddings:
                x = x + self.position_embeddings.weight[at.positions]
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
        if c.distances:
            self.encoder.relative_attention_bias = Positions(c.distances, FURTHEST, c.heads)
        self.conv = Convolution(c) if c.convolution else None
        self.pooler: Any = None
        if c.pooler:
            place = nn.place_of(c.pooler_activation)
            self.pooler = nn.Module(dense=nn.Linear(c.hidden_size, c.hidden_size, place=place))

    def __call__(self, one_hot: Value, at: nn.Layout, types: list[int]) -> Value:
        each = self.encoder.layer
        layers = [each[i * self.c.distinct // self.c.layers] for i in range(self.c.layers)]
        embedded = h = self.embeddings(one_hot, at, types, *layers[0].readers)
        bias = self.encoder.relative_attention_bias(at) if self.c.distances else None
        for layer, after in zip(layers, [*layers[1:], None], strict=True):
            readers = after.readers if after else []
            if self.conv and layer is layers[0]:
                h = self.conv(layer(h, at, bias=bias), embedded, at, *readers)
            else:
                h = layer(h, at, *readers, bias=bias)
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
        fold_layer(folded, layer, norm if absorbed else "", config)
        fold_activation(config.activation, folded, f"{layer}intermediate.dense", f"{layer}output.dense")
        norm = "bert.conv.LayerNorm" if config.convolution and i == 0 else f"{layer}output.LayerNorm"
    if config.convolution:
        folded["bert.conv.conv.weight"] = folded["bert.conv.conv.weight"].permute(2, 0, 1).flatten(0, 1)
    return {name: folded[name] for name in Model(config).shapes()}


def plain(config: Encoder) -> Shapes:
    """Names and shapes before folding."""
    norm = {f"bert.embeddings.LayerNorm.{kind}": (config.embedding_size,) for kind in KINDS}
    made = tuple(f"{name}.bias" for setting, names in MADE if not getattr(config, setting) for name in names)
    shapes = {name: shape for name, shape in Model(config).shapes().items() if not name.endswith(made)}
    return norm | unfolded(config, shapes)


def inputs(config: Encoder) -> Inputs:
    """Tokens of perhaps two texts; every one sees all others, so that padding must and can be hidden, but from a
    convolution.
    """
    types, pads = max(1, config.type_vocab_size), "" if config.convolution else "behind"
    return Inputs("tokens", config.vocab_size, config.context, types=types, pads=pads, barred=config.barred)


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
    last = "bert.conv.LayerNorm" if config.convolution and config.layers == 1 else last
    embedded, final = _projection(config, params), _affine(config, params, last)
    added = params.get("bert.encoder.relative_attention_bias.weight")
    between = 0.0 if added is None else table_spread(added)
    layers = sorted({name.partition(".attention.self.")[0] for name in params if ".attention.self." in name})
    for layer in layers:
        reads = [n]
        if config.groups:
            reads = [_affine(config, params, f"{one}.output.LayerNorm") for one in layers] + embedded
        elif embedded and layer.endswith(".0"):
            reads = embedded
        yield from layer_bounds(config, params, layer, reads, between)
    if config.convolution:
        yield from convolution_bounds(config, params, _affine(config, params, "bert.embeddings.LayerNorm"))
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
