"""T5: an encoder and a decoder that reads it, relative positions, RMSNorm.

The halves of a block are those of the decoders. This file must not know tensors from shares.
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
from puma.models.architectures.crossing import Memory, crossed, entering, watched
from puma.models.architectures.decoder import MLP, Attention, Decoder, halves, norm
from puma.models.architectures.growth import grown
from puma.models.architectures.relative import Positions
from puma.models.cache import Cache, LayerCache
from puma.models.fields import Activation, Labels, Layers, OptionalSize, Positive, Size
from puma.models.formats import Formats, hand_out
from puma.models.pooling import Embed, Pooling
from puma.nn import functional as F
from puma.nn.modules import Value

READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "cross_layernorm": ("cross_attn.q_proj",),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


class T5(Struct, frozen=True, kw_only=True, tag_field="model_type", tag="t5"):
    """T5: `layers` are the decoder's; `buckets` of distances up to `distance`; `start` is what an answer begins with.

    `scaled` multiplies the states before the head by hidden_size ** -0.5. There is no limit to distances; `context` is
    one for prompts and one for answers. `headless`: there is the encoder alone. `pooling` is what makes one vector of
    a text.
    """

    vocab_size: Size
    hidden_size: Size
    head_dim: Size
    intermediate_size: Size
    layers: Layers
    encoder_layers: Layers
    heads: Size
    context: Size = 512
    buckets: Annotated[int, Meta(ge=4, le=1024)] = 32
    distance: Size = 128
    eps: Positive = 1e-6
    activation: Activation = "relu"
    gated: bool = False
    tied: bool = True
    scaled: bool = True
    start: OptionalSize = 0
    headless: bool = False
    pooling: Pooling = Pooling()
    labels: Labels = ()
    formats: Formats = Formats()

    def __post_init__(self) -> None:
        if self.start >= self.vocab_size:
            raise ValueError("decoder_start_token_id lies outside the vocabulary")
        if self.distance <= self.buckets // 2:
            raise ValueError("distance is not larger than half of buckets")
        self.block  # noqa: B018  (checks the rest)

    @property
    def block(self) -> Decoder:
        """What the blocks have in common with those of decoders."""
        return Decoder(
            vocab_size=self.vocab_size, hidden_size=self.hidden_size, intermediate_size=self.intermediate_size,
            layers=1, heads=self.heads, head_dim=self.head_dim, query_scale=1.0, rope=None, eps=self.eps,
            activation=self.activation, gated=self.gated,
        )  # fmt: skip

    @property
    def period(self) -> int:
        """After how many layers they cost the same again, whatever the prompt; 0 where that is not known."""
        return int(self.layers == self.encoder_layers)


class Block(nn.Module):
    """A layer: attention to its own text, in a decoder also to the prompt's, and an MLP."""

    def __init__(self, c: T5, reads: bool) -> None:
        self.input_layernorm, self.post_attention_layernorm = (norm(c.block, affine=False) for _ in range(2))
        self.cross_layernorm = norm(c.block, affine=False) if reads else None
        self.self_attn, self.mlp = Attention(c.block), MLP(c.block)
        self.cross_attn = Attention(c.block) if reads else None

    def __call__(self, x: Value, at: nn.Layout, cache: LayerCache, bias: Value, read: Any = None) -> Value:
        own, cross = self.self_attn, self.cross_attn
        n = self.input_layernorm(x, own.q_proj, own.k_proj, own.v_proj)
        with F.component("attention", n):
            x = x + self.self_attn(n, at, cache, bias)
        if cross and self.cross_layernorm:
            n = self.cross_layernorm(x, cross.q_proj)
            with F.component("attention", n):
                x = x + crossed(cross, n, at, *read)
        n = self.post_attention_layernorm(x, self.mlp.gate_proj, self.mlp.up_proj)
        with F.component("mlp", n):
            return x + self.mlp(n)


class Stack(nn.Module):
    """Layers with the positions that they share, and the last norm."""

    def __init__(self, c: T5, layers: int, reads: bool) -> None:
        self.bias = Positions(c.buckets, c.distance, c.heads, both=not reads)
        self.blocks = [Block(c, reads) for _ in range(layers)]
        self.norm = norm(c.block, affine=True)

    def __call__(self, x: Value, at: nn.Layout, caches: list[LayerCache], memory: Memory | None = None) -> Value:
        bias = self.bias(at)
        for i, (block, cache) in enumerate(zip(self.blocks, caches, strict=True)):
            x = block(x, at, cache, bias, (memory, memory.cross[i]) if memory else None)
        return self.norm(x)


class Model(nn.Module):
    """T5ForConditionalGeneration."""

    def __init__(self, config: T5, params: Mapping[str, Value] | None = None) -> None:
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.hidden_size)
        self.encoder = Stack(config, config.encoder_layers, reads=False)
        self.decoder = None if config.headless else Stack(config, config.layers, reads=True)
        head = nn.Head(config.hidden_size, 0 if config.tied else config.vocab_size)
        self.lm_head = None if config.headless else head
        self.embed = Embed(config.pooling, config.hidden_size)
        hand_out(self, config.formats)
        self.fill(params)

    def __call__(self, one_hot: Value, cache: Cache | None = None, ranked: bool = False) -> Value:
        """The logits (prompts, vocab_size) of the first token that answers the prompts' one_hot (tokens, vocab_size),
        then, with the same cache, of the one after an answer's token.
        """
        if self.decoder is None or self.lm_head is None:
            raise UsageError("the model has no decoder, and so no logits of tokens", "use it for its states")
        cache = cache or Cache(self.config.layers)
        x, at, memory = entering(
            one_hot, cache, self._first, self._embedded, lambda prompts, begun: self._read(prompts, cache, begun)
        )
        with watched(x, at):
            h = self.decoder(x, at, memory.own.layers, memory)
        with F.component("head", h):
            return self.lm_head(at.ending().asking(h), self.shared)

    def hidden(self, one_hot: Value, cache: Cache | None = None) -> Value:
        """The encoder's last states (tokens, hidden_size)."""
        return self._read(one_hot, cache or Cache(self.config.layers)).states

    def states(self, one_hot: Value, lengths: Sequence[int], types: Sequence[int] = (), padding: Any = None) -> Value:
        """The same of several prompts of these lengths; `types` and `padding` are for other architectures."""
        return self.hidden(one_hot, Cache(self.config.layers, lengths))

    def _read(self, one_hot: Value, cache: Cache, begun: int = 1) -> Memory:
        rows = cache.advance(one_hot.shape[0]).rows
        at = nn.Layout(rows.lengths, causal=False)
        states = self.encoder(self._embedded(one_hot), at, [LayerCache() for _ in self.encoder.blocks])
        return Memory.of(states, rows, self.config.layers, begun)

    def _first(self, prompts: int) -> Value:
        """The rows that so many answers begin with."""
        return self.shared.weight[torch.full((prompts,), self.config.start)]

    def _embedded(self, one_hot: Value) -> Value:
        with F.component("embedding", one_hot):
            return self.shared(one_hot)


def fold(config: T5, plain: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: fold norms into the matrices, and the tied head's scale into the last norm."""
    folded = dict(plain)
    for block in _blocks(config):
        nn.absorb_norms(folded, block, READERS)
    if config.scaled and not config.headless:
        nn.rescale(folded, "decoder.norm", config.hidden_size**-0.5)
    return {name: folded[name] for name in Model(config).shapes()}


def plain(config: T5) -> Shapes:
    """Names and shapes before folding."""
    norms = [f"{block}{norm}.weight" for block in _blocks(config) for norm in READERS]
    norms = [name for name in norms if not (name.startswith("encoder.") and "cross_" in name)]
    return Model(config).shapes() | dict.fromkeys(norms, (config.hidden_size,))


def _blocks(config: T5) -> list[str]:
    counts = {"encoder": config.encoder_layers, "decoder": 0 if config.headless else config.layers}
    return [f"{stack}.blocks.{i}." for stack, count in counts.items() for i in range(count)]


def inputs(config: T5) -> Inputs:
    """Tokens; the answer begins anew."""
    return Inputs("tokens", config.vocab_size, config.context, apart=True, begins=(config.start,))


def heads(config: T5) -> Heads:
    """Text, unless there is the encoder alone; a prompt's own tokens are not predicted."""
    return Heads(generates=not config.headless, pooling=config.pooling)


def bounds(config: T5, params: Params) -> Iterator[Bound]:
    """Scores have a number of their head and distance added; what the decoder reads of the encoder has an affine."""
    yield from (*halves(config.block, params), *grown(config.block, params))
    n, read = b.Source(config.hidden_size), b.Source(config.hidden_size, params["encoder.norm.weight"])
    for name in (name.removesuffix(".q_proj.weight") for name in params if name.endswith(".q_proj.weight")):
        table, across = params[f"{name.partition('.')[0]}.bias.weight"], name.endswith(".cross_attn")
        keys = read if across else n
        for part, source in (("q_proj", n), ("k_proj", keys)):
            b.factor(f"{name}.{part}", float(b.rows(params, f"{name}.{part}", source).max()))
        spread = b.spread(params, f"{name}.q_proj", f"{name}.k_proj", config.head_dim, n, keys)
        spread += 0.0 if across else float((table.max(0).values - table.min(0).values).max())
        yield b.scores(f"{name}.q_proj", spread)
        if across:
            yield b.added(
                f"{name}.o_proj", b.attended(params, f"{name}.v_proj", f"{name}.o_proj", config.head_dim, read)
            )
            yield b.value(f"{name}.v_proj", float(b.rows(params, f"{name}.v_proj", read).max()))
    yield b.tables(params, ["shared.weight"])
    if not config.headless:
        last = b.Source(config.hidden_size, params["decoder.norm.weight"])
        yield b.logits("lm_head", params["shared.weight" if config.tied else "lm_head.weight"], last)


TEXT_TO_TEXT = Architecture(
    "causal", T5, Model, plain, fold, inputs, heads, bounds, stacks=("layers", "encoder_layers"), table="shared.weight"
)
