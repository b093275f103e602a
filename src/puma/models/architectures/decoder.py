"""Causal decoders: blocks that normalise first, in the variants that a config chooses between.

The modules have LLaMA's names, whatever a checkpoint calls them. This file must not know tensors from shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct
from msgspec.structs import force_setattr

import puma.nn.modules as nn
from puma.errors import UsageError
from puma.models import bounds as b
from puma.models import rope
from puma.models.architecture import Architecture, Bound, Heads, Inputs, Params, Shapes
from puma.models.architectures.growth import grown
from puma.models.cache import Cache, LayerCache
from puma.models.fields import MOST_HEAD, Activation, Labels, Layers, OptionalSize, Positive, Reading, Rope, Size
from puma.models.folding import fold_activation, fold_queries
from puma.models.formats import Formats, hand_out
from puma.models.pooling import Embed, Pooling
from puma.nn import functional as F
from puma.nn.modules import Value
from puma.nn.places import Place

READERS = {  # norm: the matrices that read it, and so take its affine
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
QKV_BIASES = tuple(f"{name}.bias" for name in READERS["input_layernorm"])


class Decoder(Struct, frozen=True, kw_only=True, tag_field="model_type", tag="decoder"):
    """A causal decoder whose blocks normalise first; the defaults are LLaMA's.

    What may be left out as 0 is filled in or switched off: `kv_heads`, `head_dim`; `query_scale` (head_dim ** -0.5),
    `window` (of local attention), `full_every` (every so many layers one without a window) or `full` (these layers),
    `local_rope` (how layers with a window turn, if not as the others), `attention_cap` and `logit_cap` (soft caps),
    `embedding_scale`. `rope` None: positions are learned. `layer_scaled`: scores are divided by the layer's number.
    `labels` names the classes of a classification head, which then takes the place of the logits and reads the last
    token that is not `padding`, or with `each_token` every one; `label_bias`: it has a bias. `headless`: there is
    neither. `pooling` is what makes one vector of a text.
    """

    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    layers: Layers
    heads: Size
    kv_heads: OptionalSize = 0
    head_dim: OptionalSize = 0
    context: Size = 2048
    norm: Literal["rms", "layer"] = "rms"
    eps: Positive = 1e-6
    activation: Activation = "silu"
    gated: bool = True
    parallel: bool = False  # both halves of a block read the same state
    post_norms: bool = False  # norms of what each half of a block adds, too
    head_norms: bool = False  # RMSNorm of each query and key
    qkv_bias: bool = False
    out_bias: bool = False
    mlp_bias: bool = False
    rope: Rope | None = Rope()
    query_scale: Annotated[float, Meta(ge=0)] = 0.0
    window: OptionalSize = 0
    full_every: OptionalSize = 0
    full: Annotated[tuple[OptionalSize, ...], Meta(max_length=1 << 12)] = ()
    local_rope: Rope | None = None
    attention_cap: Annotated[float, Meta(ge=0, le=128)] = 0.0
    logit_cap: Annotated[float, Meta(ge=0, le=128)] = 0.0
    embedding_scale: Annotated[float, Meta(ge=0, le=512)] = 0.0
    layer_scaled: bool = False
    tied: bool = False
    labels: Labels = ()
    each_token: bool = False
    label_bias: bool = False
    reading: Reading = Reading()
    padding: OptionalSize | None = None
    headless: bool = False
    pooling: Pooling = Pooling()
    formats: Formats = Formats()

    def __post_init__(self) -> None:
        force_setattr(self, "kv_heads", self.kv_heads or self.heads)
        force_setattr(self, "head_dim", self.head_dim or self.hidden_size // self.heads)
        force_setattr(self, "query_scale", self.query_scale or self.head_dim**-0.5)
        if self.heads % self.kv_heads:
            raise ValueError("heads is not a multiple of kv_heads")
        if self.head_dim > MOST_HEAD:
            raise ValueError(f"head_dim above {MOST_HEAD} is not implemented")
        if self.head_dim == 0 or (self.rope and self.head_dim % 2):
            raise ValueError("head_dim is not an even number")
        for turning in filter(None, (self.rope, self.local_rope)):
            if turning.size % 2 or turning.size > self.head_dim:
                raise ValueError("the rotary part of head_dim is not an even number within it")
            if turning.scaling == "longrope" and len(turning.factors) != (turning.size or self.head_dim) // 2:
                raise ValueError("longrope has not a factor for each pair")
        if any(0 < cap < 4 for cap in (self.attention_cap, self.logit_cap)):
            raise ValueError("a soft cap below 4 is not implemented")
        if self.activation == "relu" and self.gated:
            raise ValueError("activation relu has no gated form")

    def local(self, layer: int) -> bool:
        """Whether a layer sees its window only."""
        regular = self.full_every and (layer + 1) % self.full_every == 0
        return bool(self.window) and not regular and layer not in self.full

    def turning(self, layer: int) -> Rope | None:
        """How the positions of a layer turn."""
        return self.local_rope or self.rope if self.local(layer) else self.rope

    @property
    def alike(self) -> bool:
        """Whether all layers cost the same, whatever the prompt."""
        return not self.window


class HeadNorm(nn.Module):
    """RMSNorm of each head of a projection."""

    def __init__(self, c: Decoder) -> None:
        self.eps, self.place = c.eps, Place("norm")
        self.weight: Value = nn.Parameter((c.head_dim,))

    def __call__(self, x: Value) -> Value:
        rows, width = x.shape
        heads = x.reshape(rows, -1, self.weight.shape[0])
        self.place.seen(heads)
        with F.component("norm", x):
            n = F.rms_norm(heads, self.eps, self.place.reach, nn.ring_for(self))
            return F.affine(n, self.weight).reshape(rows, width)


class Attention(nn.Module):
    """Causal attention with grouped heads: rows (rows, hidden_size) to the same shape."""

    def __init__(self, c: Decoder, layer: int = 0) -> None:
        self.head_dim, self.cap = c.head_dim, c.attention_cap
        bias = c.qkv_bias or c.norm == "layer"  # that of the norm before it becomes one
        self.q_proj = nn.Linear(c.hidden_size, c.heads * c.head_dim, bias, "scores")
        self.k_proj = nn.Linear(c.hidden_size, c.kv_heads * c.head_dim, bias)
        self.v_proj = nn.Linear(c.hidden_size, c.kv_heads * c.head_dim, bias, "value")
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.hidden_size, c.out_bias, "stream")
        self.limits = nn.Limits.of(self.q_proj, self.v_proj)
        self.q_norm, self.k_norm = (HeadNorm(c), HeadNorm(c)) if c.head_norms else (None, None)
        turning = c.turning(layer)
        self.frequencies = turning and rope.frequencies(turning, c.head_dim, c.context)

    def __call__(self, x: Value, at: nn.Layout, cache: LayerCache, bias: Value | None = None) -> Value:
        q, k = self.q_proj(at.asking(x)), self.k_proj(x)
        if self.q_norm and self.k_norm:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k, v = nn.heads(q, k, self.v_proj(x), self.head_dim, self.limits, at, self._angles(at, x), cached=True)
        k, v = cache.append(at.rows.pad(k), at.rows.pad(v))
        return self.o_proj(nn.attend(q, k, v, at, bias, self.cap, self.limits))

    def _angles(self, at: nn.Layout, x: Value) -> list[Value]:
        if self.frequencies is None:
            return []
        return [nn.rotary_angles(p, self.frequencies, x.device) for p in (at.asking(at.positions), at.positions)]


class MLP(nn.Module):
    """Two matrices around an activation, or three with a gate: rows (rows, hidden_size) to the same shape."""

    def __init__(self, c: Decoder) -> None:
        self.activation = c.activation
        sizes, activated = (c.hidden_size, c.intermediate_size, c.mlp_bias), nn.place_of(c.activation)
        self.gate_proj = nn.Linear(*sizes, activated) if c.gated else None
        self.up_proj = nn.Linear(*sizes, "gated" if c.gated else activated)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, c.mlp_bias, "stream")

    def __call__(self, x: Value) -> Value:
        if self.gate_proj is None:
            return self.down_proj(nn.activate(self.activation, self.up_proj, x, self.down_proj))
        return self.down_proj(nn.gated(self.activation, self.gate_proj, self.up_proj, x))


def norm(c: Decoder, affine: bool, writes: bool = False) -> nn.Norm:
    """The norm that a config chooses; `writes`: what it gives is added to the residual stream."""
    return nn.Norm(c.norm, c.eps, c.hidden_size if affine else 0, bias=c.norm == "layer", writes=writes)


class Block(nn.Module):
    """A layer: attention and MLP, each between a norm and a residual."""

    def __init__(self, c: Decoder, layer: int) -> None:
        self.input_layernorm = norm(c, affine=False)
        self.post_attention_layernorm = None if c.parallel else norm(c, affine=False)
        self.self_attn, self.mlp = Attention(c, layer), MLP(c)
        self.self_attn_norm, self.mlp_norm = (_written(c), _written(c)) if c.post_norms else (_same, _same)

    @property
    def readers(self) -> list[nn.Module | None]:
        """What reads the first norm; where both halves of a block do, only their affines differed."""
        each = self.self_attn
        rest = [self.mlp.gate_proj, self.mlp.up_proj] if self.post_attention_layernorm is None else []
        return [each.q_proj, each.k_proj, each.v_proj, *rest]

    def __call__(self, x: Value, at: nn.Layout, cache: LayerCache) -> Value:
        n = self.input_layernorm(x, *self.readers)
        with F.component("attention", n):
            added, x = self.self_attn(n, at, cache), at.asking(x)
        if self.post_attention_layernorm is None:
            with F.component("mlp", n):
                return x + added + self.mlp(at.asking(n))
        x = x + self.self_attn_norm(added)
        n = self.post_attention_layernorm(x, self.mlp.gate_proj, self.mlp.up_proj)
        with F.component("mlp", n):
            added = self.mlp(n)
        return x + self.mlp_norm(added)


def _written(c: Decoder) -> nn.Norm:
    return norm(c, affine=True, writes=True)


def _same(x: Value) -> Value:
    return x


class Stack(nn.Module):
    """Embedding rows, layers and the last norm; names are the checkpoint's."""

    def __init__(self, c: Decoder) -> None:
        self.c, self.scale = c, round(c.embedding_scale)
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.positions = None if c.rope else nn.Embedding(c.context, c.hidden_size)
        self.layers = [Block(c, i) for i in range(c.layers)]
        self.norm = norm(c, affine=True)

    def __call__(self, one_hot: Value, cache: Cache, ending: bool) -> Value:
        """The states of all rows before the last norm; `ending`: of the last row of each prompt, where the last layer
        does less.
        """
        at = cache.advance(one_hot.shape[0])
        with F.component("embedding", one_hot):
            x = self.embed_tokens(one_hot)
            x = F.times(x, self.scale) if self.scale else x
            x = x + self.positions.weight[at.positions] if self.positions else x
        near = at.within(self.c.window) if self.c.window else at
        for i, (layer, layer_cache) in enumerate(zip(self.layers, cache.layers, strict=True)):
            seen = near if self.c.local(i) else at
            x = layer(x, seen.ending() if ending and i + 1 == self.c.layers else seen, layer_cache)
        return x


class Model(nn.Module):
    """A causal language model, or a classifier of texts if the config names labels."""

    def __init__(self, config: Decoder, params: Mapping[str, Value] | None = None) -> None:
        self.config, size = config, config.hidden_size
        self.model = Stack(config)
        self.head_norm = norm(config, affine=True) if _rescaled(config) else None
        silent = config.labels or config.headless
        self.lm_head = None if silent else nn.Head(size, 0 if config.tied else config.vocab_size)
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

    def hidden(self, one_hot: Value, cache: Cache | None = None) -> Value:
        """The last hidden states (tokens, hidden_size)."""
        return self.model.norm(self.model(one_hot, cache or Cache(self.config.layers), ending=False))

    def states(self, one_hot: Value, lengths: Sequence[int], types: Sequence[int] = (), padding: Any = None) -> Value:
        """The same of several prompts of these lengths; `types` and `padding` are for other architectures."""
        return self.hidden(one_hot, Cache(self.config.layers, lengths))

    def classify(self, hidden: Value, lengths: Sequence[int] | None = None) -> Value:
        """The logits (texts, labels) of the classification head, which reads the last token; (tokens, labels) of one
        for tokens."""
        if self.score is None:
            raise UsageError("the model has no classification head", "use a ForSequenceClassification checkpoint")
        with F.component("head", hidden):
            read = hidden if self.config.each_token else hidden[nn.Rows(lengths or hidden.shape[:1]).ends]
            return self.score(read)


def fold(config: Decoder, plain: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: fold norms and all public factors into the matrices; turning pairs to where they are turned."""
    folded = dict(plain)
    for i in range(config.layers):
        layer = f"model.layers.{i}."
        nn.absorb_norms(folded, layer, READERS)
        fold_queries(config, folded, i)
        activated = f"{layer}mlp.{'gate' if config.gated else 'up'}_proj"
        fold_activation(config.activation, folded, activated, f"{layer}mlp.down_proj")
    if config.embedding_scale:
        _scale_embedding(config, folded)
    return {name: folded[name] for name in Model(config).shapes()}


def _rescaled(config: Decoder) -> bool:
    """Whether the table of a tied head holds a part of the embedding's scale, which the head must take out again."""
    return bool(config.embedding_scale % 1) and config.tied and not config.labels and not config.headless


def _scale_embedding(config: Decoder, folded: dict[str, Value]) -> None:
    """The run multiplies by a whole number; what is left goes into the table."""
    rest = config.embedding_scale / round(config.embedding_scale)
    nn.rescale(folded, "model.embed_tokens", rest)
    if _rescaled(config):
        folded |= {
            f"head_norm.{kind}": folded[f"model.norm.{kind}"]
            for kind in ("weight", "bias")
            if f"model.norm.{kind}" in folded
        }
        nn.rescale(folded, "head_norm", 1 / rest)


def plain(config: Decoder) -> Shapes:
    """Names and shapes before folding."""
    kinds = ("weight", "bias") if config.norm == "layer" else ("weight",)
    norms = [f"model.layers.{i}.{norm}.{kind}" for i in range(config.layers) for norm in READERS for kind in kinds]
    made = ("head_norm.",) if config.qkv_bias else ("head_norm.", *QKV_BIASES)
    shapes = {name: shape for name, shape in Model(config).shapes().items() if not any(part in name for part in made)}
    return shapes | dict.fromkeys(norms, (config.hidden_size,))


def inputs(config: Decoder) -> Inputs:
    """Tokens, of which an answer's follow the prompt's. Rotary positions tell distances alone, so that a prompt may
    begin at any of them, behind padding; learned ones do not."""
    pads = bool(config.rope) and not (config.labels or config.headless)
    end = config.padding if config.labels and not config.each_token else None
    return Inputs("tokens", config.vocab_size, config.context, pads="front" if pads else "", padding=end)


def heads(config: Decoder) -> Heads:
    """Text, unless labels have taken the place of logits, or nothing has."""
    texts, capped = not (config.labels or config.headless), config.logit_cap > 0
    return Heads(texts, texts, config.labels, config.each_token, config.reading, False, config.pooling, capped)


# -- bounds ---------------------------------------------------------------------------------------------------------


def bounds(config: Decoder, params: Params) -> Iterator[Bound]:
    """Everything that is limited reads a norm itself, whose affine its matrix has absorbed."""
    yield from (*halves(config, params), *grown(config, params))
    for name in (name.removesuffix(".q_proj.weight") for name in params if name.endswith(".q_proj.weight")):
        yield b.scores(f"{name}.q_proj", _spread(config, params, name))
        for part in () if config.head_norms else ("q_proj", "k_proj"):
            b.factor(f"{name}.{part}", float(b.rows(params, f"{name}.{part}", b.Source(config.hidden_size)).max()))
    norm = "head_norm" if _rescaled(config) else "model.norm"
    if heads(config).generates and f"{norm}.weight" in params:
        read = b.Source(config.hidden_size, params[f"{norm}.weight"], params.get(f"{norm}.bias"))
        yield b.logits("lm_head", params[f"{'model.embed_tokens' if config.tied else 'lm_head'}.weight"], read)


def halves(config: Decoder, params: Params) -> Iterator[Bound]:
    """Values and what is activated, wherever they read a norm itself."""
    n = b.Source(config.hidden_size)
    for name in (n.removesuffix(".weight") for n in params if n.endswith(".weight")):
        layer, _, part = name.rpartition(".")
        if part == "gate_proj" or (part == "up_proj" and not config.gated):
            rows = b.rows(params, name, n)
            yield b.activation(config.activation, name, float(rows.max()))
            if part == "gate_proj":
                up = b.rows(params, f"{layer}.up_proj", n)
                b.factor(f"{layer}.up_proj", float(up.max()))
                yield b.gated(f"{layer}.up_proj", float((rows * up).max()))
        if part == "v_proj" and not layer.endswith(".cross_attn"):
            yield b.value(name, float(b.rows(params, name, n).max()))


def _spread(config: Decoder, params: Params, attention: str) -> float:
    """How far apart two scores of one row can be; a soft cap takes half as much on either side."""
    if config.head_norms:
        q, k = (float(params[f"{attention}.{name}.weight"].abs().max()) for name in ("q_norm", "k_norm"))
        return 2 * config.head_dim * q * k
    bound = b.turned_spread if config.rope else b.spread
    return bound(params, f"{attention}.q_proj", f"{attention}.k_proj", config.head_dim, b.Source(config.hidden_size))


DECODER = Architecture(
    "causal", Decoder, Model, plain, fold, inputs, heads, bounds, table="model.embed_tokens.weight", foreseen=True
)
