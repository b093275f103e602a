"""T5: an encoder and a decoder that reads it, relative positions, RMSNorm; and its checkpoints, as data.

The halves of a block are those of the decoders. This file must not know tensors from shares.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch

import puma.nn.modules as nn
from puma.models.architectures.decoder import MLP, Attention, Norm
from puma.models.cache import Cache, LayerCache
from puma.models.config import T5 as Config
from puma.models.family import Architecture, Family, Names, Shapes, chosen
from puma.nn import functional as F
from puma.nn.modules import Value

READERS = {
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "cross_layernorm": ("cross_attn.q_proj",),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


class Memory(NamedTuple):
    """What the decoder reads of the prompts: states (rows, hidden_size), which only the first pass reads, how they lie,
    and keys and values of both."""

    states: Value
    rows: nn.Rows
    own: Cache
    cross: list[LayerCache]

    def joined(self, other: Memory) -> Memory:
        """With the prompts of another below."""
        self.own.join(other.own)
        cross = [_crossing(F.cat([a.k, b.k], 0), F.cat([a.v, b.v], 0)) for a, b in zip(self.cross, other.cross)]
        return Memory(None, nn.Rows([*self.rows.lengths, *other.rows.lengths]), self.own, cross)

    def kept(self, prompts: torch.Tensor) -> Memory:
        """With these prompts alone."""
        self.own.keep(prompts.tolist())
        starts, lengths = self.rows.starts, self.rows.lengths
        rows = torch.cat([torch.arange(lengths[i]) + starts[i] for i in prompts.tolist()])
        cross = [_crossing(c.k[rows], c.v[rows]) for c in self.cross]
        return Memory(None, nn.Rows([lengths[i] for i in prompts.tolist()]), self.own, cross)


def _crossing(k: Value, v: Value) -> LayerCache:
    cache = LayerCache()
    cache.k, cache.v = k, v
    return cache


class Positions(nn.Module):
    """A number for each head and each bucket of distances, which is added to scores."""

    def __init__(self, c: Config, both: bool) -> None:
        self.c, self.both = c, both
        self.weight: Value = nn.Parameter((c.buckets, c.heads))

    def __call__(self, at: nn.Layout) -> Value:
        """(prompts, heads, queries, columns)."""
        chosen = self.weight[buckets(at.distances, self.c.buckets, self.c.distance, self.both)]
        return chosen.transpose(2, 3).transpose(1, 2)


def buckets(distances: torch.Tensor, count: int, furthest: int, both: bool) -> torch.Tensor:
    """The bucket of each distance from a query to a key: exact ones for near keys, wider and wider ones for far ones.

    Half of them are for keys after the query, if `both` sides are seen.
    """
    first, ahead = torch.zeros_like(distances), -distances
    if both:
        count //= 2
        first, ahead = count * (distances > 0).long(), distances.abs()
    ahead = ahead.clamp(min=0)
    exact = count // 2
    share = (ahead.clamp(min=1).float() / exact).log() / math.log(furthest / exact)
    far = (exact + (share * (count - exact)).long()).clamp(max=count - 1)
    return first + torch.where(ahead < exact, ahead, far)


class Block(nn.Module):
    def __init__(self, c: Config, reads: bool) -> None:
        self.normalised = Norm(c.block, affine=False)
        self.self_attn, self.mlp = Attention(c.block), MLP(c.block)
        self.cross_attn = Attention(c.block) if reads else None

    def __call__(self, x: Value, at: nn.Layout, cache: LayerCache, bias: Value, read: Any = None) -> Value:
        n = self.normalised(x)
        with F.component("attention", n):
            x = x + self.self_attn(n, at, cache, bias)
        if self.cross_attn:
            n = self.normalised(x)
            with F.component("attention", n):
                x = x + crossed(self.cross_attn, n, at, *read)
        n = self.normalised(x)
        with F.component("mlp", n):
            return x + self.mlp(n)


def crossed(attention: Attention, x: Value, at: nn.Layout, memory: Memory, cache: LayerCache) -> Value:
    """Attention of x to the prompts, whose keys and values are computed once."""
    if cache.k is None:
        cache.k, cache.v = attention.k_proj(memory.states), attention.v_proj(memory.states)
    q, k, v = F.heads(attention.q_proj(x), cache.k, cache.v, attention.head_dim)
    cache.k, cache.v = (t.reshape(t.shape[0], -1) for t in (k, v))
    return attention.o_proj(nn.attend(q, memory.rows.pad(k), memory.rows.pad(v), at.across(memory.rows)))


class Stack(nn.Module):
    def __init__(self, c: Config, layers: int, reads: bool) -> None:
        self.bias = Positions(c, both=not reads)
        self.blocks = [Block(c, reads) for _ in range(layers)]
        self.norm = Norm(c.block, affine=True)

    def __call__(self, x: Value, at: nn.Layout, caches: list[LayerCache], memory: Memory | None = None) -> Value:
        bias = self.bias(at)
        for i, (block, cache) in enumerate(zip(self.blocks, caches, strict=True)):
            x = block(x, at, cache, bias, (memory, memory.cross[i]) if memory else None)
        return self.norm(x)


class Model(nn.Module):
    """T5ForConditionalGeneration."""

    def __init__(self, config: Config, params: Mapping[str, Value] | None = None) -> None:
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.hidden_size)
        self.encoder = Stack(config, config.encoder_layers, reads=False)
        self.decoder = Stack(config, config.layers, reads=True)
        self.lm_head = None if config.tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.fill(params)

    def __call__(self, one_hot: Value, cache: Cache | None = None, ranked: bool = False) -> Value:
        """The logits (prompts, vocab_size) of the first token that answers the prompts' one_hot (tokens, vocab_size),
        then, with the same cache, of the one after an answer's token.
        """
        cache = cache or Cache(self.config.layers)
        if cache.memory is None:
            cache.memory = self._read(one_hot, cache)
            starts = torch.full((cache.prompts,), self.config.start)
            x = self.shared.weight[starts]
        else:
            x = self._embedded(one_hot)
        memory = cache.memory
        assert isinstance(memory, Memory)
        h = self.decoder(x, memory.own.advance(x.shape[0]), memory.own.layers, memory)
        with F.component("head", h):
            return F.linear(h, (self.lm_head or self.shared).weight)

    def hidden(self, one_hot: Value, cache: Cache | None = None) -> Value:
        """The encoder's last states (tokens, hidden_size)."""
        return self._read(one_hot, cache or Cache(self.config.layers)).states

    def _read(self, one_hot: Value, cache: Cache) -> Memory:
        rows = cache.advance(one_hot.shape[0]).rows
        at = nn.Layout(rows.lengths, causal=False)
        states = self.encoder(self._embedded(one_hot), at, [LayerCache() for _ in self.encoder.blocks])
        own, count = Cache(self.config.layers, [1] * len(rows.lengths)), self.config.layers
        return Memory(states, rows, own, [LayerCache() for _ in range(count)])

    def _embedded(self, one_hot: Value) -> Value:
        with F.component("embedding", one_hot):
            return self.shared(one_hot)


def fold(config: Config, plain: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: fold norms into the matrices, and the tied head's scale into the last norm."""
    folded = dict(plain)
    for block in _blocks(config):
        nn.absorb_norms(folded, block, READERS)
    if config.scaled:
        nn.rescale(folded, "decoder.norm", config.hidden_size**-0.5)
    return {name: folded[name] for name in Model(config).shapes()}


def plain(config: Config) -> Shapes:
    """Names and shapes before folding."""
    norms = [f"{block}{norm}.weight" for block in _blocks(config) for norm in READERS]
    norms = [name for name in norms if not (name.startswith("encoder.") and "cross_" in name)]
    return Model(config).shapes() | dict.fromkeys(norms, (config.hidden_size,))


def _blocks(config: Config) -> list[str]:
    counts = {"encoder": config.encoder_layers, "decoder": config.layers}
    return [f"{stack}.blocks.{i}." for stack, count in counts.items() for i in range(count)]


SEQ2SEQ = Architecture("causal", Config, Model, plain, fold)

# -- checkpoints ----------------------------------------------------------------------------------------------------

FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "d_model",
    "head_dim": "d_kv",
    "intermediate_size": "d_ff",
    "encoder_layers": "num_layers",
    "heads": "num_heads",
    "buckets": "relative_attention_num_buckets",
    "distance": "relative_attention_max_distance",
    "eps": "layer_norm_epsilon",
    "context": "n_positions",
}


def _modules() -> dict[str, str]:
    found = {name: name for name in ("shared", "lm_head")}
    for stack, last in (("encoder", 1), ("decoder", 2)):
        theirs, ours = f"{stack}.block.{{}}.layer.", f"{stack}.blocks.{{}}."
        found[f"{stack}.final_layer_norm"] = f"{stack}.norm"
        found[f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias"] = f"{stack}.bias"
        found |= {f"{theirs}0.SelfAttention.{x}": f"{ours}self_attn.{x}_proj" for x in "qkvo"}
        found |= {f"{theirs}1.EncDecAttention.{x}": f"{ours}cross_attn.{x}_proj" for x in "qkvo" if last == 2}
        norms = {0: "input_layernorm", last: "post_attention_layernorm"} | ({1: "cross_layernorm"} if last == 2 else {})
        found |= {f"{theirs}{i}.layer_norm": ours + norm for i, norm in norms.items()}
        matrices = {"wi": "up_proj", "wi_0": "gate_proj", "wi_1": "up_proj", "wo": "down_proj"}
        found |= {f"{theirs}{last}.DenseReluDense.{x}": f"{ours}mlp.{name}" for x, name in matrices.items()}
    return found


def _names(gated: bool) -> Names:
    unused = (".wi",) if gated else (".wi_0", ".wi_1")
    modules = {theirs: ours for theirs, ours in _modules().items() if not theirs.endswith(unused)}
    return Names(modules, heads=(), ignored=r"lm_head\..*|(en|de)coder\.embed_tokens\..*")


def settings(raw: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """T5 and T5 1.1: the latter has gated GELU and a head of its own."""
    kind = raw.get("feed_forward_proj", "relu")
    activation = chosen({"feed_forward_proj": kind.removeprefix("gated-")}, "feed_forward_proj", "relu")
    activation = "gelu_tanh" if kind == "gated-gelu" else activation
    tied = raw.get("tie_word_embeddings", True)
    return {
        "activation": activation,
        "gated": kind.startswith("gated-"),
        "layers": raw.get("num_decoder_layers", raw.get("num_layers")),
        "tied": tied,
        "scaled": raw.get("scale_decoder_outputs", tied),
        "start": raw.get("decoder_start_token_id", raw.get("pad_token_id", 0)),
    }


def families() -> dict[str, Family]:
    """T5ForConditionalGeneration; which matrices it has depends on its settings."""
    return {
        "T5ForConditionalGeneration": Family(
            SEQ2SEQ, settings, _names(False), FIELDS, variant=lambda config: _names(config.gated)
        )
    }
