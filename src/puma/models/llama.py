"""LLaMA: grouped-query attention, rotary positions, RMSNorm, SwiGLU; must not know tensors from shares."""

from __future__ import annotations

from collections.abc import Mapping

import puma.nn.modules as nn
from puma.models.cache import Cache, LayerCache
from puma.models.config import Llama as Config
from puma.nn import functional as F
from puma.nn.modules import Value

READERS = {  # norm: the matrices that read it, and so take its scale
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}


class Attention(nn.Module):
    def __init__(self, c: Config) -> None:
        self.head_dim, self.rope_theta = c.head_dim, c.rope_theta
        self.q_proj = nn.Linear(c.hidden_size, c.heads * c.head_dim, c.attention_bias)
        self.k_proj = nn.Linear(c.hidden_size, c.kv_heads * c.head_dim, c.attention_bias)
        self.v_proj = nn.Linear(c.hidden_size, c.kv_heads * c.head_dim, c.attention_bias)
        self.o_proj = nn.Linear(c.heads * c.head_dim, c.hidden_size, c.attention_bias)

    def __call__(self, x: Value, at: nn.Layout, cache: LayerCache) -> Value:
        places = at.asking(at.positions), at.positions
        angles = [nn.rotary_angles(p, self.head_dim, self.rope_theta, x.device) for p in places]
        q, k, v = F.heads(self.q_proj(at.asking(x)), self.k_proj(x), self.v_proj(x), self.head_dim, angles)
        k, v = cache.append(at.rows.pad(k), at.rows.pad(v))
        return self.o_proj(nn.attend(q, k, v, at))


class MLP(nn.Module):
    def __init__(self, c: Config) -> None:
        self.gate_proj = nn.Linear(c.hidden_size, c.intermediate_size, c.mlp_bias)
        self.up_proj = nn.Linear(c.hidden_size, c.intermediate_size, c.mlp_bias)
        self.down_proj = nn.Linear(c.intermediate_size, c.hidden_size, c.mlp_bias)

    def __call__(self, x: Value) -> Value:
        return self.down_proj(F.silu_gated(self.gate_proj(x), self.up_proj(x)))


class Block(nn.Module):
    def __init__(self, c: Config) -> None:
        self.eps = c.eps
        self.self_attn = Attention(c)
        self.mlp = MLP(c)

    def __call__(self, x: Value, at: nn.Layout, cache: LayerCache) -> Value:
        with F.component("norm", x):
            n = F.rms_norm(x, self.eps)
        with F.component("attention", n):
            x = at.asking(x) + self.self_attn(n, at, cache)
        with F.component("norm", x):
            n = F.rms_norm(x, self.eps)
        with F.component("mlp", n):
            return x + self.mlp(n)


class Decoder(nn.Module):
    def __init__(self, c: Config) -> None:
        self.c = c
        self.embed_tokens = nn.Embedding(c.vocab_size, c.hidden_size)
        self.layers = [Block(c) for _ in range(c.layers)]
        self.norm = nn.Affine(c.hidden_size, bias=False)

    def __call__(self, one_hot: Value, cache: Cache, ending: bool) -> Value:
        """The states of all rows; `ending`: of the last row of each prompt, for which the last layer does less."""
        at = cache.advance(one_hot.shape[0])
        with F.component("embedding", one_hot):
            x = self.embed_tokens(one_hot)
        for layer, layer_cache in zip(self.layers, cache.layers, strict=True):
            at = at.ending() if ending and layer is self.layers[-1] else at
            x = layer(x, at, layer_cache)
        return x

    def final(self, x: Value) -> Value:
        with F.component("norm", x):
            return self.norm(F.rms_norm(x, self.c.eps))


class Model(nn.Module):
    """LlamaForCausalLM."""

    def __init__(self, config: Config, params: Mapping[str, Value] | None = None) -> None:
        self.config = config
        self.model = Decoder(config)
        self.lm_head = None if config.tied else nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.fill(params)

    def __call__(self, one_hot: Value, cache: Cache | None = None) -> Value:
        """The logits (prompts, vocab_size) of the tokens that follow the prompts' one_hot (tokens, vocab_size)."""
        h = self.model.final(self.model(one_hot, cache or Cache(self.config.layers), ending=True))
        return self.logits(h)

    def logits(self, h: Value) -> Value:
        """The logits (rows, vocab_size) of the tokens that follow rows of last hidden states."""
        with F.component("head", h):
            return F.linear(h, (self.lm_head or self.model.embed_tokens).weight)

    def hidden(self, one_hot: Value, cache: Cache | None = None) -> Value:
        """The last hidden states (tokens, hidden_size)."""
        return self.model.final(self.model(one_hot, cache or Cache(self.config.layers), ending=False))


def fold(config: Config, state: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: fold the scales of norms and 1/sqrt(head_dim) into the matrices."""
    folded = dict(state)
    for i in range(config.layers):
        layer = f"model.layers.{i}."
        for norm, readers in READERS.items():
            nn.absorb(folded, layer + norm, [layer + reader for reader in readers])
        nn.rescale(folded, f"{layer}self_attn.q_proj", config.head_dim**-0.5)
    return {name: folded[name] for name in Model(config).shapes()}


def tensors(config: Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what a checkpoint must hold."""
    norms = [f"model.layers.{i}.{norm}.weight" for i in range(config.layers) for norm in READERS]
    return Model(config).shapes() | dict.fromkeys(norms, (config.hidden_size,))
