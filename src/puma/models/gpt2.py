"""GPT-2: learned positions, LayerNorm before each half of a layer; must not know tensors from shares."""

from __future__ import annotations

from collections.abc import Mapping

import puma.nn.modules as nn
from puma.models.cache import Cache, LayerCache
from puma.models.config import Gpt2 as Config
from puma.nn import functional as F
from puma.nn.modules import Value

READERS = {"ln_1": ("attn.q", "attn.k", "attn.v"), "ln_2": ("mlp.c_fc",)}  # norm: the matrices that read it


class Attention(nn.Module):
    def __init__(self, c: Config) -> None:
        self.head_dim = c.head_dim
        self.q = nn.Linear(c.width, c.width)
        self.k = nn.Linear(c.width, c.width)
        self.v = nn.Linear(c.width, c.width)
        self.c_proj = nn.Linear(c.width, c.width)

    def __call__(self, x: Value, at: nn.Layout, cache: LayerCache) -> Value:
        q, k, v = F.heads(self.q(at.asking(x)), self.k(x), self.v(x), self.head_dim)
        k, v = cache.append(at.rows.pad(k), at.rows.pad(v))
        return self.c_proj(nn.attend(q, k, v, at))


class MLP(nn.Module):
    def __init__(self, c: Config) -> None:
        self.approximate = "none" if c.activation == "gelu" else "tanh"
        self.c_fc = nn.Linear(c.width, c.inner)
        self.c_proj = nn.Linear(c.inner, c.width)

    def __call__(self, x: Value) -> Value:
        return self.c_proj(F.gelu(self.c_fc(x), self.approximate))


class Block(nn.Module):
    def __init__(self, c: Config) -> None:
        self.eps = c.eps
        self.attn = Attention(c)
        self.mlp = MLP(c)

    def __call__(self, x: Value, at: nn.Layout, cache: LayerCache) -> Value:
        with F.component("norm", x):
            n = F.layer_norm(x, self.eps)
        with F.component("attention", n):
            x = at.asking(x) + self.attn(n, at, cache)
        with F.component("norm", x):
            n = F.layer_norm(x, self.eps)
        with F.component("mlp", n):
            return x + self.mlp(n)


class Decoder(nn.Module):
    def __init__(self, c: Config) -> None:
        self.c = c
        self.wte = nn.Embedding(c.vocab_size, c.width)
        self.wpe = nn.Embedding(c.context, c.width)
        self.h = [Block(c) for _ in range(c.layers)]
        self.ln_f = nn.Affine(c.width)

    def __call__(self, one_hot: Value, cache: Cache, ending: bool) -> Value:
        """The states of all rows; `ending`: of the last row of each prompt, for which the last layer does less."""
        at = cache.advance(one_hot.shape[0])
        with F.component("embedding", one_hot):
            x = self.wte(one_hot) + self.wpe.weight[at.positions]
        for layer, layer_cache in zip(self.h, cache.layers, strict=True):
            at = at.ending() if ending and layer is self.h[-1] else at
            x = layer(x, at, layer_cache)
        return x

    def final(self, x: Value) -> Value:
        with F.component("norm", x):
            return self.ln_f(F.layer_norm(x, self.c.eps))


class Model(nn.Module):
    """GPT2LMHeadModel."""

    def __init__(self, config: Config, params: Mapping[str, Value] | None = None) -> None:
        self.config = config
        self.transformer = Decoder(config)
        self.lm_head = None if config.tied else nn.Linear(config.width, config.vocab_size, bias=False)
        self.fill(params)

    def __call__(self, one_hot: Value, cache: Cache | None = None) -> Value:
        """The logits (prompts, vocab_size) of the tokens that follow the prompts' one_hot (tokens, vocab_size)."""
        h = self.transformer.final(self.transformer(one_hot, cache or Cache(self.config.layers), ending=True))
        return self.logits(h)

    def logits(self, h: Value) -> Value:
        """The logits (rows, vocab_size) of the tokens that follow rows of last hidden states."""
        with F.component("head", h):
            return F.linear(h, (self.lm_head or self.transformer.wte).weight)

    def hidden(self, one_hot: Value, cache: Cache | None = None) -> Value:
        """The last hidden states (tokens, width)."""
        return self.transformer.final(self.transformer(one_hot, cache or Cache(self.config.layers), ending=False))


def fold(config: Config, state: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: matrices to (out, in), q, k, v split, norms and 1/sqrt(head_dim) folded in."""
    folded = dict(state)
    for i in range(config.layers):
        layer = f"transformer.h.{i}."
        for name in matrices(config):
            folded[f"{layer}{name}.weight"] = folded[f"{layer}{name}.weight"].T.contiguous()
        for kind in ("weight", "bias"):
            parts = folded[f"{layer}attn.c_attn.{kind}"].chunk(3)
            folded |= {f"{layer}attn.{name}.{kind}": part for name, part in zip("qkv", parts, strict=True)}
        for norm, readers in READERS.items():
            nn.absorb(folded, layer + norm, [layer + reader for reader in readers])
        nn.rescale(folded, f"{layer}attn.q", config.head_dim**-0.5)
    return {name: folded[name] for name in Model(config).shapes()}


def matrices(config: Config) -> dict[str, tuple[int, int]]:
    """Names and shapes, (in, out), of a layer's matrices in a checkpoint."""
    d, f = config.width, config.inner
    return {"attn.c_attn": (d, 3 * d), "attn.c_proj": (d, d), "mlp.c_fc": (d, f), "mlp.c_proj": (f, d)}


def tensors(config: Config) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what a checkpoint must hold."""
    shapes = {name: shape for name, shape in Model(config).shapes().items() if ".h." not in name}
    for i in range(config.layers):
        layer = f"transformer.h.{i}."
        for name, shape in matrices(config).items():
            shapes |= {f"{layer}{name}.weight": shape, f"{layer}{name}.bias": shape[1:]}
        for norm in READERS:
            shapes |= {f"{layer}{norm}.weight": (config.width,), f"{layer}{norm}.bias": (config.width,)}
    return shapes
