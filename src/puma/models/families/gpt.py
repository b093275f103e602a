"""Checkpoints of decoders with LayerNorm: GPT-2, GPT-NeoX and Pythia, OPT, as data.

This file must not know of shares or files.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from puma.models.architectures.decoder import DECODER
from puma.models.families.defaults import ALIASES, DEFAULTS
from puma.models.families.llama import ATTENTION, LAYER, ON_TOKENS, TASKS, settings, with_head
from puma.models.families.rotary import turned
from puma.models.family import Choices, Family, Names, chosen, refuse

Raw = dict[str, Any]
CAUSAL = {"GPT2": "GPT2LMHeadModel"}
PLAIN = {"norm": "layer", "gated": False, "qkv_bias": True, "out_bias": True, "mlp_bias": True}
INNER = ("o_proj", "input_layernorm", "post_attention_layernorm", "up_proj", "down_proj")
HEADS = {"score": "score", "lm_head": "lm_head"}
GPT2_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "n_embd",
    "layers": "n_layer",
    "heads": "n_head",
    "context": "n_positions",
    "eps": "layer_norm_epsilon",
    "tied": "tie_word_embeddings",
}
NEOX_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "context": "max_position_embeddings",
    "eps": "layer_norm_eps",
    "tied": "tie_word_embeddings",
}
OPT_FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "ffn_dim",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "context": "max_position_embeddings",
    "tied": "tie_word_embeddings",
}


def modules(outside: tuple[str, str, str], layer: str, attention: tuple[str, ...], rest: tuple[str, ...]) -> dict:
    """Embedding, positions and last norm; a layer's matrices q, k, v, or one that holds them; and the rest of INNER."""
    ours = ("model.embed_tokens", "model.positions", "model.norm")
    found: dict[str, Any] = {theirs: name for theirs, name in zip(outside, ours, strict=True) if theirs}
    if len(attention) == 1:
        found[layer + attention[0]] = ATTENTION
    else:
        found |= {layer + theirs: name for theirs, name in zip(attention, ATTENTION, strict=True)}
    places = {"o_proj": "self_attn.o_proj", "up_proj": "mlp.up_proj", "down_proj": "mlp.down_proj"}
    return found | {layer + t: LAYER + places.get(name, name) for t, name in zip(rest, INNER, strict=True)}


H = "transformer.h.{}."
GPT2_NAMES = Names(
    modules(
        ("transformer.wte", "transformer.wpe", "transformer.ln_f"),
        H,
        ("attn.c_attn",),
        ("attn.c_proj", "ln_1", "ln_2", "mlp.c_fc", "mlp.c_proj"),
    )
    | HEADS,
    prefix="transformer.",
    ignored=r"lm_head\..*",
    transposed=frozenset(H + name for name in ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")),
)
NEOX_NAMES = Names(
    modules(
        ("gpt_neox.embed_in", "", "gpt_neox.final_layer_norm"),
        "gpt_neox.layers.{}.",
        ("attention.query_key_value",),
        ("attention.dense", "input_layernorm", "post_attention_layernorm", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    )
    | {"score": "score", "embed_out": "lm_head"},
    prefix="gpt_neox.",
    renamed={r"^lm_head\.": "embed_out."},
    ignored=r"embed_out\..*",
    interleaved=frozenset({"gpt_neox.layers.{}.attention.query_key_value"}),
)
OPT_NAMES = Names(
    modules(
        ("model.decoder.embed_tokens", "model.decoder.embed_positions", "model.decoder.final_layer_norm"),
        "model.decoder.layers.{}.",
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
        ("self_attn.out_proj", "self_attn_layer_norm", "final_layer_norm", "fc1", "fc2"),
    )
    | HEADS,
    prefix="model.",
    ignored=r"lm_head\..*",
    skip={"model.decoder.embed_positions": 2},
)


def gpt2(raw: Raw) -> Raw:
    """GPT-2: learned positions; `n_inner` is four times the width unless set."""
    width = raw["n_embd"]
    if isinstance(width, int) and isinstance(raw["n_head"], int) and raw["n_head"] and width % raw["n_head"]:
        refuse(f"sets n_head to {raw['n_head']}", "an n_embd that is a multiple of n_head only")
    found = {"intermediate_size": raw.get("n_inner", 4 * width if isinstance(width, int) else width), "rope": None}
    found |= {"activation": chosen(raw, "activation_function", "gelu_new")}
    found |= {"query_scale": 1.0} if not raw["scale_attn_weights"] else {}
    return PLAIN | found | {"layer_scaled": raw["scale_attn_by_inverse_layer_idx"]}


def neox(raw: Raw) -> Raw:
    """GPT-NeoX and Pythia: both halves read one state, and a quarter of each head turns."""
    old = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}  # no other name counts
    raw = {name: raw[name] for name in raw if name not in old} | {
        new: raw[theirs] for new, theirs in old.items() if theirs in raw
    }
    biases = {"qkv_bias": raw["attention_bias"], "out_bias": raw["attention_bias"]}
    found = {"parallel": raw["use_parallel_residual"], "activation": chosen(raw, "hidden_act", "gelu")}
    return PLAIN | turned(raw, part=0.25, partial=True) | biases | found


def opt(raw: Raw) -> Raw:
    """OPT: learned positions that count from 2, ReLU; the 350M model, which normalises last, is refused."""
    if raw.get("word_embed_proj_dim", raw["hidden_size"]) != raw["hidden_size"]:
        refuse("sets word_embed_proj_dim", "word_embed_proj_dim = hidden_size only")
    return PLAIN | {"eps": 1e-5, "rope": None, "activation": chosen(raw, "activation_function", "relu")}


GPT2_ONLY: Choices = {"add_cross_attention": (False,), "scale_attn_weights": (True, False)}
OPT_ONLY: Choices = {
    "do_layer_norm_before": (True,),
    "enable_bias": (True,),
    "layer_norm_elementwise_affine": (True,),
    "_remove_final_layer_norm": (False,),
}


def families() -> dict[str, Family]:
    """Every architecture that config.json may name."""
    kinds: dict[str, tuple[str, Callable[[Raw], Raw], Names, dict[str, str], Choices]] = {
        "GPT2": ("gpt2", gpt2, GPT2_NAMES, GPT2_FIELDS, GPT2_ONLY),
        "GPTNeoX": ("gpt_neox", neox, NEOX_NAMES, NEOX_FIELDS, {}),
        "OPT": ("opt", opt, OPT_NAMES, OPT_FIELDS, OPT_ONLY),
    }
    found: dict[str, Family] = {}
    for kind, (name, read, names, fields, supported) in kinds.items():
        for task in (*TASKS, *ON_TOKENS[kind == "OPT" :]):
            called = {"Model": f"{kind}Model", "CausalLM": CAUSAL.get(kind, f"{kind}ForCausalLM")}
            found[called.get(task, f"{kind}For{task}")] = Family(
                DECODER, settings(read, task), with_head(names, task, "classifier"), fields, supported, model_type=name,
                defaults=DEFAULTS[name], aliases=ALIASES.get(name, {}),
            )  # fmt: skip
    return found
