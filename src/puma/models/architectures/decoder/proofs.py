"""How large a decoder's numbers can become, for all inputs there are.

It works on folded parameters in the clear, and must not know shares.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from puma.models import bounds as b
from puma.models.architecture import Bound, Params
from puma.models.architectures.decoder.config import Decoder
from puma.models.architectures.decoder.model import heads
from puma.models.architectures.growth import grown
from puma.nn.delta import CHUNK


def bounds(config: Decoder, params: Params) -> Iterator[Bound]:
    """Everything that is limited reads a norm itself, whose affine its matrix has absorbed; without such norms nothing
    is known but of what has norms of its own.
    """
    if config.pre_norms:
        yield from (*halves(config, params), *grown(config, params))
    for name in (name.removesuffix(".q_proj.weight") for name in params if name.endswith(".q_proj.weight")):
        if config.head_norms or config.pre_norms:
            sinks = params.get(f"{name}.sinks")
            more = 0.0 if sinks is None else float(sinks.abs().max())
            yield b.scores(f"{name}.q_proj", _spread(config, params, name) + more)
        for part in () if config.head_norms or not config.pre_norms else ("q_proj", "k_proj"):
            b.factor(f"{name}.{part}", float(b.rows(params, f"{name}.{part}", b.Source(config.hidden_size)).max()))
    norm = "head_norm" if config.rescaled else "model.norm"
    if heads(config).generates and (f"{norm}.weight" in params or config.affine == "none"):
        read = b.Source(config.hidden_size, params.get(f"{norm}.weight"), params.get(f"{norm}.bias"))
        table = params[f"{'model.embed_tokens' if config.tied else 'lm_head'}.weight"]
        yield b.logits("lm_head", table, read, params.get("lm_head.bias"))


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
                clamped = config.activation == "clamped"
                yield (
                    b.activation("clamped", f"{layer}.up_proj", float(up.max()))
                    if clamped
                    else b.gated(f"{layer}.up_proj", float((rows * up).max()))
                )
        if part == "router":
            yield b.scores(name, 2 * float(b.rows(params, name, n).max()))
        if part == "shared_gate":
            yield b.activation("sigmoid", name, float(b.rows(params, name, n).max()))
        if part in ("gate", "z_proj", "b_proj", "a_proj"):
            yield b.activation("sigmoid", name, float(b.rows(params, name, n).max()))
        if part == "qkv_proj":
            yield from _memory(config, params, layer)
        if part == "v_proj" and not layer.endswith(".cross_attn"):
            yield b.value(name, float(b.rows(params, name, n).max()))


def _memory(config: Decoder, params: Params, name: str) -> Iterator[Bound]:
    """What a layer with a memory convolves, and how far it can forget in a chunk."""
    n = b.Source(config.hidden_size)
    mixed = b.rows(params, f"{name}.qkv_proj", n)
    b.factor(f"{name}.qkv_proj", float(mixed.max()))
    yield b.activation("silu", f"{name}.conv", float((params[f"{name}.conv.weight"].abs() * mixed).sum(0).max()))
    most = params[f"{name}.decay.rate"] * (b.rows(params, f"{name}.a_proj", n) + 1)
    b.logarithm(f"{name}.decay", float(most.max()))
    yield b.scores(f"{name}.decay", CHUNK * float(most.max()))


def _spread(config: Decoder, params: Params, attention: str) -> float:
    """How far apart two scores of one row can be; a soft cap takes half as much on either side.

    A norm of all heads together can lie in one of them.
    """
    if config.head_norms:
        q, k = (float(params[f"{attention}.{name}.weight"].abs().max()) for name in ("q_norm", "k_norm"))
        lengths = (config.heads * config.kv_heads) ** 0.5 if config.whole_norms else 1
        return 2 * config.head_dim * lengths * q * k
    layer = re.search(r"layers\.(\d+)\.", attention)
    bound = b.turned_spread if config.turning(int(layer[1]) if layer else 0) else b.spread
    n = b.Source(config.hidden_size)
    return bound(params, f"{attention}.q_proj", f"{attention}.k_proj", config.head_dim, n)
