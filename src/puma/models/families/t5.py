"""Checkpoints of T5, T5 1.1 and Flan-T5, as data.

This file must not know of shares or files.
"""

from __future__ import annotations

from typing import Any

from puma.models.architectures.t5 import TEXT_TO_TEXT
from puma.models.families.defaults import ALIASES, DEFAULTS
from puma.models.family import ACTIVATIONS, Family, Names, chosen, refuse

STRAY = r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"  # nothing reads it
IGNORED = rf"lm_head\..*|{STRAY}"
COPIES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
PLAIN = {name: kind for name, kind in ACTIVATIONS.items() if kind != "quick_gelu"}

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


def _names(gated: bool, headless: bool) -> Names:
    unused = (".wi",) if gated else (".wi_0", ".wi_1")
    modules = {theirs: ours for theirs, ours in _modules().items() if not theirs.endswith(unused)}
    ignored = IGNORED + (r"|decoder\..*" if headless else "")
    return Names(modules, ignored=ignored, copies=COPIES[:1] if headless else COPIES)


def body(raw: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The encoder, which is all that is asked for states."""
    found = settings(raw, names)
    return found | {"headless": True, "layers": raw["num_layers"]}


def settings(raw: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """T5 and T5 1.1: the latter has gated GELU and a head of its own."""
    kind = raw["feed_forward_proj"]
    if not isinstance(kind, str):
        refuse(f"sets feed_forward_proj to {kind!r}", "a name only")
    derived = "gelu_new" if kind == "gated-gelu" else kind.removeprefix("gated-")
    gated = raw.get("is_gated_act", kind.startswith("gated-"))
    activation = chosen({"feed_forward_proj": raw.get("dense_act_fn", derived)}, "feed_forward_proj", "relu", PLAIN)
    return {
        "activation": activation,
        "gated": gated,
        "layers": raw.get("num_decoder_layers", raw["num_layers"]),
        "tied": raw.get("tie_word_embeddings", True),
        "scaled": raw.get("scale_decoder_outputs", raw.get("tie_word_embeddings", True)),
        "start": raw.get("decoder_start_token_id", raw["pad_token_id"]),
    }


def families() -> dict[str, Family]:
    """T5 with its head, and without; which matrices it has depends on its settings."""
    kinds = {"T5ForConditionalGeneration": settings, "T5EncoderModel": body, "T5Model": body}
    return {
        name: Family(
            TEXT_TO_TEXT, read, _names(False, read is body), FIELDS, model_type="t5", defaults=DEFAULTS["t5"],
            shares=True, variant=lambda config: _names(config.gated, config.headless), aliases=ALIASES["t5"],
        )
        for name, read in kinds.items()
    }  # fmt: skip
