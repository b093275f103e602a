"""Checkpoints of gated decoders: LLaMA, Mistral, Qwen 2 and 3, Phi-3, Gemma 2 and 3, as data.

This file must not know of shares or files.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from puma.models import rope
from puma.models.architectures.decoder import DECODER
from puma.models.family import GELUS, Family, Names, chosen, labelled, refuse

Raw = dict[str, Any]
Settings = Callable[[Raw, set[str]], Raw]
FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "context": "max_position_embeddings",
    "eps": "rms_norm_eps",
    "tied": "tie_word_embeddings",
    "mlp_bias": "mlp_bias",
}
SILU = {"hidden_act": ("silu", "swish")}
LAYER = "model.layers.{}."
ATTENTION = tuple(f"{LAYER}self_attn.{name}_proj" for name in "qkv")
UNFUSED = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "self_attn.q_norm",
    "self_attn.k_norm", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj", "input_layernorm",
)  # fmt: skip
OUTSIDE = {name: name for name in ("model.embed_tokens", "model.norm", "lm_head", "score")}
NAMES = Names(
    OUTSIDE | {LAYER + name: LAYER + name for name in (*UNFUSED, "post_attention_layernorm")},
    prefix="model.",
    ignored=r"lm_head\..*",
)
PHI3_NAMES = replace(
    NAMES,
    modules=dict(NAMES.modules)
    | {name: () for name in (*ATTENTION, f"{LAYER}mlp.gate_proj", f"{LAYER}mlp.up_proj")}
    | {
        f"{LAYER}self_attn.qkv_proj": ATTENTION,
        f"{LAYER}mlp.gate_up_proj": (f"{LAYER}mlp.gate_proj", f"{LAYER}mlp.up_proj"),
    },
)
GEMMA_NAMES = replace(
    NAMES,
    modules=OUTSIDE
    | {LAYER + name: LAYER + name for name in UNFUSED}
    | {
        f"{LAYER}post_attention_layernorm": f"{LAYER}self_attn_norm",
        f"{LAYER}pre_feedforward_layernorm": f"{LAYER}post_attention_layernorm",
        f"{LAYER}post_feedforward_layernorm": f"{LAYER}mlp_norm",
    },
    offset=True,
)


def _head_dim(raw: Raw) -> int:
    """The size of a head; a config that lacks its parts is refused for them later."""
    sizes = raw.get("hidden_size"), raw.get("num_attention_heads")
    if raw.get("head_dim") or not all(isinstance(size, int) and size > 0 for size in sizes):
        return raw.get("head_dim") or 2
    return raw["hidden_size"] // raw["num_attention_heads"]


def turned(raw: Raw) -> Raw:
    """Rotary positions."""
    return {"rope": rope.settings(raw, _head_dim(raw))}


def llama(raw: Raw) -> Raw:
    """LLaMA 1, 2 and 3."""
    bias = raw.get("attention_bias", False)
    return turned(raw) | {"qkv_bias": bias, "out_bias": bias}


def mistral(raw: Raw) -> Raw:
    """Mistral: every layer sees a window."""
    return turned(raw) | {"window": raw.get("sliding_window", 0)}


def qwen2(raw: Raw) -> Raw:
    """Qwen 2: biases of queries, keys and values."""
    return turned(raw) | {"qkv_bias": True}


def qwen3(raw: Raw) -> Raw:
    """Qwen 3: queries and keys are normalised."""
    return llama(raw) | {"head_norms": True, "head_dim": raw.get("head_dim", 128)}


def phi3(raw: Raw) -> Raw:
    """Phi-3: fused matrices, and perhaps a window."""
    if raw.get("partial_rotary_factor", 1) != 1:
        refuse("sets partial_rotary_factor", "partial_rotary_factor = 1 only")
    return turned(raw) | {"window": raw.get("sliding_window", 0), "eps": raw.get("rms_norm_eps", 1e-5)}


def gemma2(raw: Raw) -> Raw:
    """Gemma 2: norms around both halves, soft caps, a window in every other layer."""
    return turned(raw) | _gemma(raw, 2) | {
        "attention_cap": raw.get("attn_logit_softcapping", 0.0),
        "logit_cap": raw.get("final_logit_softcapping", 0.0),
    }  # fmt: skip


def gemma3(raw: Raw) -> Raw:
    """Gemma 3: as Gemma 2 with normalised queries and keys for caps; layers with a window turn faster."""
    every = raw.get("sliding_window_pattern", raw.get("_sliding_window_pattern", 6))
    nested = raw.get("rope_parameters", {})
    if "full_attention" in nested:
        near = nested.get("sliding_attention", {})
        if near.get("rope_type", "default") != "default":
            refuse("scales the rotary positions of layers with a window", "rope_type = default only for them")
        turning, theta = (
            rope.settings({"rope_parameters": nested["full_attention"]}, _head_dim(raw)),
            near["rope_theta"],
        )
    else:
        turning, theta = rope.settings({"rope_theta": 1e6} | raw, _head_dim(raw)), raw.get("rope_local_base_freq", 1e4)
    caps = {
        "attention_cap": raw.get("attn_logit_softcapping", 0.0),
        "logit_cap": raw.get("final_logit_softcapping", 0.0),
    }
    return _gemma(raw, every) | caps | {"rope": turning, "local_theta": theta, "head_norms": True}


def _gemma(raw: Raw, every: int) -> Raw:
    bias = raw.get("attention_bias", False)
    return {
        "activation": chosen(raw, "hidden_activation", "gelu_pytorch_tanh", GELUS),
        "post_norms": True,
        "qkv_bias": bias,
        "out_bias": bias,
        "head_dim": raw.get("head_dim", 256),
        "query_scale": raw.get("query_pre_attn_scalar", 256) ** -0.5,
        "embedding_scale": raw.get("hidden_size", 0) ** 0.5,
        "window": raw.get("sliding_window", 4096),
        "full_every": every,
        "tied": raw.get("tie_word_embeddings", True),
    }


def _windows(raw: Raw, settings: Raw) -> None:
    """Refuse a pattern of windows that the settings do not say."""
    kinds, every = raw.get("layer_types"), settings.get("full_every", 0)
    if not kinds:
        return
    local = bool(settings.get("window"))
    for i, kind in enumerate(kinds):
        full = not local or (every and (i + 1) % every == 0)
        if kind != ("full_attention" if full else "sliding_attention"):
            refuse(f"makes layer {i} one of {kind}", "the usual pattern of windows only")


def settings(kind: Callable[[Raw], Raw], classifies: bool) -> Settings:
    """The settings of a kind of decoder, with a classification head or without."""

    def read(raw: Raw, names: set[str]) -> Raw:
        found = kind(raw)
        _windows(raw, found)
        return found | ({"labels": labelled(raw)} if classifies else {})

    return read


def families() -> dict[str, Family]:
    """Every architecture that config.json may name."""
    still = SILU | {"use_sliding_window": (False,)}
    causal = {"use_bidirectional_attention": (False,)}
    kinds: dict[str, tuple[Callable[[Raw], Raw], Names, dict[str, tuple[Any, ...]]]] = {
        "Llama": (llama, NAMES, SILU | {"partial_rotary_factor": (1,)}),
        "Mistral": (mistral, NAMES, SILU),
        "Qwen2": (qwen2, NAMES, still),
        "Qwen3": (qwen3, NAMES, still),
        "Phi3": (phi3, PHI3_NAMES, SILU),
        "Gemma2": (gemma2, GEMMA_NAMES, causal),
        "Gemma3": (gemma3, GEMMA_NAMES, causal),
    }
    found: dict[str, Family] = {}
    for kind, (read, names, supported) in kinds.items():
        for task in ("CausalLM", "SequenceClassification"):
            reader = settings(read, task != "CausalLM")
            found[f"{kind}For{task}"] = Family(DECODER, reader, names, FIELDS, supported)
    found["Gemma3TextForSequenceClassification"] = found.pop("Gemma3ForSequenceClassification")
    return found
