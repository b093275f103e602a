"""A decoder's tensors as a checkpoint has them, and what becomes of them at the owner before they are shared.

It must not know tensors from those that are not read yet.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain

import torch

import puma.nn.modules as nn
from puma.models.architecture import Shapes
from puma.models.architectures.decoder.config import Decoder
from puma.models.architectures.decoder.model import Model
from puma.models.folding import fold_activation, fold_queries
from puma.nn.modules import Value

READERS = {  # norm: the matrices that read it, and so take its affine
    "input_layernorm": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "post_attention_layernorm": ("mlp.gate_proj", "mlp.up_proj"),
}
MIXED = {"post_attention_layernorm": (*READERS["post_attention_layernorm"], "mlp.router", "mlp.shared_gate")}
REMEMBERING = tuple(f"self_attn.{name}_proj" for name in ("qkv", "z", "b", "a"))
QKV_BIASES = tuple(f"{name}.bias" for name in READERS["input_layernorm"])
MLP_BIASES = tuple(f"{name}.bias" for name in READERS["post_attention_layernorm"])
WRITERS = ("self_attn.o_proj", "mlp.down_proj")


def readers(config: Decoder) -> Mapping[str, tuple[str, ...]]:
    """Which matrices read which norm of a block."""
    if not config.pre_norms:
        return {}
    if config.shared_norm:
        return {"input_layernorm": tuple(chain(*READERS.values()))}
    gated = {"input_layernorm": (*READERS["input_layernorm"], "self_attn.gate", *REMEMBERING)}
    return READERS | (MIXED if config.experts else {}) | (gated if config.delta or config.output_gate else {})


def plain(config: Decoder) -> Shapes:
    """Names and shapes before folding."""
    kinds = {"none": (), "weight": ("weight",)}.get(config.affine, ("weight", "bias")[: 1 + config.norm_bias])
    norms = [
        f"model.layers.{i}.{norm}.{kind}" for i in range(config.layers) for norm in readers(config) for kind in kinds
    ]
    made = ["head_norm.", *(() if config.qkv_bias else QKV_BIASES), *(() if config.mlp_bias else MLP_BIASES)]
    shapes = {name: shape for name, shape in Model(config).shapes().items() if not any(part in name for part in made)}
    shapes |= dict.fromkeys(norms, (config.hidden_size,))
    for mlp in (f"model.layers.{i}.mlp" for i in range(config.layers) if config.mixed(i)):
        for part in PARTS:
            del shapes[f"{mlp}.{part}.weight"]
            for name, size in experts(config, mlp):
                shape = (config.hidden_size, size)
                shapes[f"{name}.{part}.weight"] = shape if part == "down_proj" else shape[::-1]
                if config.mlp_bias:
                    shapes[f"{name}.{part}.bias"] = (config.hidden_size if part == "down_proj" else size,)
        for name in ("gate_proj.bias", "up_proj.bias", "biases.weight"):
            shapes.pop(f"{mlp}.{name}", None)
    if config.delta:
        for attention in (f"model.layers.{i}.self_attn" for i in range(config.layers) if config.recurrent(i)):
            taps, size = shapes[f"{attention}.conv.weight"]
            shapes[f"{attention}.conv.weight"] = (size, 1, taps)
            shapes[f"{attention}.rate_log"] = shapes.pop(f"{attention}.decay.rate")
            shapes[f"{attention}.shift"] = shapes.pop(f"{attention}.a_proj.bias")
            shapes[f"{attention}.scale.weight"] = (config.delta.value_size,)
            shapes[f"{attention}.out_proj.weight"] = shapes.pop(f"{attention}.o_proj.weight")
    return shapes


def _fold_experts(config: Decoder, folded: dict[str, Value], mlp: str) -> None:
    """All experts of a layer side by side."""
    for part in PARTS:
        last, names = part == "down_proj", [f"{name}.{part}" for name, _ in experts(config, mlp)]
        folded[f"{mlp}.{part}.weight"] = torch.cat([folded.pop(f"{name}.weight") for name in names], 1 if last else 0)
        if config.mlp_bias:
            biases = [folded.pop(f"{name}.bias") for name in names]
            name = f"{mlp}.biases.weight" if last else f"{mlp}.{part}.bias"
            folded[name] = torch.stack(biases, 1) if last else torch.cat(biases)


def _fold_memory(config: Decoder, folded: dict[str, Value], attention: str) -> None:
    """Rates out of their logarithms, and the norm of what is read into the matrix behind it."""
    assert config.delta
    folded[f"{attention}.conv.weight"] = folded[f"{attention}.conv.weight"][:, 0].T
    folded[f"{attention}.decay.rate"] = folded.pop(f"{attention}.rate_log").exp()
    folded[f"{attention}.a_proj.bias"] = folded.pop(f"{attention}.shift")
    scale = folded.pop(f"{attention}.scale.weight").repeat(config.delta.value_heads)
    folded[f"{attention}.o_proj.weight"] = folded.pop(f"{attention}.out_proj.weight") * scale


PARTS = ("gate_proj", "up_proj", "down_proj")


def experts(config: Decoder, mlp: str) -> list[tuple[str, int]]:
    """The experts of a layer's mixture before they lie side by side, and how large they are inside."""
    found = [(f"{mlp}.experts.{e}", config.expert_size) for e in range(config.experts)]
    return found + ([(f"{mlp}.shared", config.shared_size)] if config.shared_size else [])


def fold(config: Decoder, plain: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: fold norms and all public factors into the matrices; turning pairs to where they are turned."""
    folded = dict(plain)
    for i in range(config.layers):
        layer = f"model.layers.{i}."
        if config.mixed(i):
            _fold_experts(config, folded, f"{layer}mlp")
        if config.recurrent(i):
            _fold_memory(config, folded, f"{layer}self_attn")
        nn.absorb_norms(folded, layer, readers(config))
        if not config.recurrent(i):
            fold_queries(config, folded, i)
        activated = f"{layer}mlp.{'gate' if config.gated else 'up'}_proj"
        fold_activation(config.activation, folded, activated, f"{layer}mlp.down_proj")
        if config.residual_scale != 1:
            for name in WRITERS:
                nn.rescale(folded, layer + name, config.residual_scale)
    _fold_ends(config, folded)
    return {name: folded[name] for name in Model(config).shapes()}


def _fold_ends(config: Decoder, folded: dict[str, Value]) -> None:
    """The scales of embedding and logits. The run multiplies by a whole number; what is left goes into the table."""
    rest = config.embedding_scale / config.embedding_factor if config.embedding_scale else 1.0
    nn.rescale(folded, "model.embed_tokens", rest)
    if config.rescaled:
        norms = [f"model.norm.{kind}" for kind in ("weight", "bias")]
        folded |= {name.replace("model.norm", "head_norm"): folded[name] for name in norms if name in folded}
        nn.rescale(folded, "head_norm", config.logit_scale / rest)
        nn.rescale(folded, "lm_head", config.logit_scale)  # the bias, if there is one
    elif not config.tied:
        nn.rescale(folded, "lm_head", config.logit_scale)
