"""Checkpoints of ModernBERT, as data.

This file must not know of shares or files.
"""

from __future__ import annotations

from typing import Any

from puma.models.architectures.modernbert import MODERNBERT
from puma.models.families.defaults import DEFAULTS
from puma.models.families.rotary import scaled
from puma.models.family import ACTIVATIONS, GATES, Family, Names, chosen, headed, refuse

Raw = dict[str, Any]
FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "context": "max_position_embeddings",
    "eps": "norm_eps",
    "norm_bias": "norm_bias",
    "attention_bias": "attention_bias",
    "mlp_bias": "mlp_bias",
    "head_bias": "classifier_bias",
    "word_bias": "decoder_bias",
    "tied": "tie_word_embeddings",
}
WINDOWED, FULL = "sliding_attention", "full_attention"
THETAS = {FULL: "global_rope_theta", WINDOWED: "local_rope_theta"}
OLDER = {"global_rope_theta": 160000.0, "local_rope_theta": 10000.0}  # now nested
MOST_LAYERS = 1 << 12
UNFOLDED = {name: kind for name, kind in ACTIVATIONS.items() if kind != "quick_gelu"} | {"tanh": "tanh"}
LAYER = "model.layers.{}."
ATTENTION = tuple(f"{LAYER}self_attn.{name}_proj" for name in "qkv")
BODY: dict[str, str | tuple[str, ...]] = {
    "model.embeddings.tok_embeddings": "model.embed_tokens",
    "model.embeddings.norm": "model.embedding_norm",
    "model.final_norm": "model.norm",
    f"{LAYER}attn_norm": f"{LAYER}input_layernorm",
    f"{LAYER}mlp_norm": f"{LAYER}post_attention_layernorm",
    f"{LAYER}attn.Wqkv": ATTENTION,
    f"{LAYER}attn.Wo": f"{LAYER}self_attn.o_proj",
    f"{LAYER}mlp.Wi": (f"{LAYER}mlp.gate_proj", f"{LAYER}mlp.up_proj"),
    f"{LAYER}mlp.Wo": f"{LAYER}mlp.down_proj",
}
HEAD = {"head.dense": "head.dense", "head.norm": "head.norm"}
CLASSES = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MultipleChoice")
HEADS: dict[str, dict[str, str]] = {
    "Model": {},
    "MaskedLM": HEAD | {"decoder": "decoder", "decoder.weight": "decoder.head.weight"},
} | dict.fromkeys(CLASSES, HEAD | {"classifier": "classifier"})
IGNORED = r"head\..*|classifier\..*|decoder\..*"


def settings(task: str) -> Any:
    """ModernBERT with the head of this task."""

    def read(raw: Raw, names: set[str]) -> Raw:
        found = {"activation": chosen(raw, "hidden_activation", "gelu", GATES)} | _windows(raw) | _turned(raw)
        if task == "Model":
            return found
        found["head_activation"] = chosen(raw, "classifier_activation", "gelu", UNFOLDED)
        if task == "MaskedLM":
            return found | {"predicts": True}
        pools = raw["classifier_pooling"]
        if pools not in ("cls", "mean"):
            refuse(f"sets classifier_pooling to {pools!r}", "classifier_pooling = cls or mean only")
        return found | headed(task, raw) | {"averaged": pools == "mean"}

    return read


def _windows(raw: Raw) -> Raw:
    """Layers that see all, and how far others see: half of local_attention on either side."""
    layers, kinds, every = raw["num_hidden_layers"], raw.get("layer_types"), raw.get("global_attn_every_n_layers", 3)
    if not isinstance(layers, int) or layers > MOST_LAYERS:  # refused later, as a field
        return {}
    if not isinstance(every, int) or every < 1:
        refuse(f"sets global_attn_every_n_layers to {every!r}", "whole numbers from 1 on")
    if kinds is None:
        kinds = [WINDOWED if i % every else FULL for i in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in THETAS for kind in kinds):
        refuse("does not name the kind of each layer in layer_types", f"layers of {FULL} and {WINDOWED} only")
    size = raw["local_attention"]
    if not isinstance(size, int) or size < 0:
        refuse(f"sets local_attention to {size!r}", "whole numbers only")
    return {"window": size // 2 + 1, "full": tuple(i for i, kind in enumerate(kinds) if kind == FULL)}


def _turned(raw: Raw) -> Raw:
    """How layers of either kind turn: nested by kind, or what an older config.json says flat."""
    nested, flat = raw.get("rope_parameters") or {}, raw.get("rope_scaling") or {}
    if not isinstance(nested, dict) or not isinstance(flat, dict):
        refuse("sets rope_parameters to no object", "an object only")
    found, usual = {}, raw[THETAS[FULL]]  # of windows, too, where theirs is null (transformers 4.48, which read these)
    for ours, kind in (("rope", FULL), ("local_rope", WINDOWED)):
        own = nested.get(kind) or {"rope_type": "default"}  # which wins over what a flat one calls "type"
        said = {key: value for key, value in (own | flat).items() if value is not None}
        found[ours] = scaled({"rope_theta": raw.get(THETAS[kind], usual)} | said, raw)
    if "longrope" in (rope.get("scaling") for rope in found.values()):
        refuse("sets rope_type to 'longrope'", "it in families without windows only")
    return found


def families() -> dict[str, Family]:
    """Every architecture that config.json may name."""
    return {
        f"ModernBert{task}" if task == "Model" else f"ModernBertFor{task}": Family(
            MODERNBERT, settings(task), Names(BODY | head, "model.", ignored=IGNORED), FIELDS, model_type="modernbert",
            defaults=DEFAULTS["modernbert"], older=OLDER,
        )
        for task, head in HEADS.items()
    }  # fmt: skip
