"""Checkpoints of DeBERTa v2 and v3, as data: BERT whose scores see contents and positions apart.

This file must not know of shares or files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from puma.models.architectures.encoder import ENCODER
from puma.models.families.bert import (
    BIAS,
    CLASSES,
    DENSE,
    LAYER,
    NORM,
    ON_TOKENS,
    POOLED,
    POOLER,
    SIZES,
    SUPPORTED,
    Dialect,
    Settings,
    bert,
)  # fmt: skip
from puma.models.families.defaults import DEFAULTS
from puma.models.family import ACTIVATIONS, Family, Names, chosen, refuse

Raw = dict[str, Any]
TYPES = {"c2p": "keys", "p2c": "queries"}
UNFOLDED = {name: kind for name, kind in ACTIVATIONS.items() if kind != "quick_gelu"} | {"tanh": "tanh"}
OWN = {
    "deberta.encoder.rel_embeddings": "bert.encoder.rel_embeddings",
    "deberta.encoder.LayerNorm": "bert.encoder.LayerNorm",
    "deberta.encoder.conv.conv": "bert.conv.conv",
    "deberta.encoder.conv.LayerNorm": "bert.conv.LayerNorm",
} | {
    f"deberta.encoder.layer.{{}}.attention.self.{name}": f"{LAYER}attention.self.{name}"
    for name in ("pos_key_proj", "pos_query_proj")
}
# The head for masked tokens by the two names that it has had; what it computes is the same.
RENAMED = {
    r"^lm_predictions\.lm_head\.(dense|LayerNorm)\.": r"cls.predictions.transform.\1.",
    r"^lm_predictions\.lm_head\.bias": "cls.predictions.bias",
}
DIALECT = Dialect(
    "deberta.",
    "encoder.layer.{}",
    (
        "attention.self.query_proj", "attention.self.key_proj", "attention.self.value_proj", "attention.output.dense",
        "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
    ),
    {
        "Model": {},
        "SequenceClassification": {"pooler.dense": POOLER} | CLASSES,
        "MultipleChoice": {"pooler.dense": POOLER} | CLASSES,
        "MaskedLM": {name: name for name in (DENSE, NORM, BIAS, f"{BIAS}.decoder")},
    }
    | ON_TOKENS,
    r".*position_embeddings.*|mask_predictions\..*|cls\..*|(?:deberta\.)?pooler\..*",
    OWN,
    twice=("cls.predictions",),
)  # fmt: skip


def names(task: str) -> Names:
    """The dialect's, with those that a head had earlier."""
    return replace(DIALECT.names(task), renamed=RENAMED)


def deberta(task: str) -> Settings:
    """DeBERTa: a classification head's pooler has an activation of its own; the first layer may have a convolution."""

    def settings(raw: Raw, names: set[str]) -> Raw:
        found = bert(task)(raw, names) | {"pooler": task in POOLED}
        if task in POOLED:
            found["pooler_activation"] = chosen(raw, "pooler_hidden_act", "gelu", UNFOLDED)
        if task == "MaskedLM" and not raw["legacy"]:
            found["tied"] = True
        _check(raw)
        return found | {"learned": raw["position_biased_input"]} | _apart(raw) | _convolved(raw)

    return settings


def _check(raw: Raw) -> None:
    """Refuse sizes that differ from hidden_size's; the library's classes do not compute with most of them."""
    size, heads = raw["hidden_size"], raw["num_attention_heads"]
    usual = {"embedding_size": size, "pooler_hidden_size": size}
    if isinstance(size, int) and isinstance(heads, int) and heads:
        usual["attention_head_size"] = size // heads
    for name, value in usual.items():
        if raw.get(name, value) != value:
            refuse(f"sets {name} to {raw[name]!r}", f"{name} = {value} only here")


def _apart(raw: Raw) -> Raw:
    """The positions' part of scores."""
    named = raw.get("pos_att_type") or []
    kinds = [kind.strip() for kind in named.lower().split("|")] if isinstance(named, str) else named
    if not isinstance(kinds, list) or any(kind not in TYPES for kind in kinds):
        refuse(f"sets pos_att_type to {named!r}", f"{' and '.join(TYPES)} only")
    if bool(kinds) != bool(raw["relative_attention"]):
        refuse("sets one of relative_attention and pos_att_type", "both or none of them only")
    if not kinds:
        return {}
    buckets, furthest = raw.get("position_buckets", -1), raw["max_relative_positions"]
    if not all(isinstance(number, int) for number in (buckets, furthest)):
        refuse("sets positions to no whole numbers", "whole numbers only")
    furthest = raw["max_position_embeddings"] if furthest < 1 else furthest
    found = {"span": buckets, "furthest": furthest} if buckets > 0 else {"span": furthest}
    found |= {ours: theirs in kinds for theirs, ours in TYPES.items()}
    normed = [part.strip() for part in str(raw.get("norm_rel_ebd", "none")).lower().split("|")]
    return {"disentangled": found | {"shared": bool(raw.get("share_att_key", False)), "normed": "layer_norm" in normed}}


def _convolved(raw: Raw) -> Raw:
    """The convolution beside the first layer, if there is one."""
    width = raw.get("conv_kernel_size", 0)
    if not isinstance(width, int) or width < 1:
        return {}
    if raw.get("conv_groups", 1) != 1:
        refuse(f"sets conv_groups to {raw['conv_groups']!r}", "conv_groups = 1 only")
    return {"convolution": width, "convolved": chosen(raw, "conv_act", "tanh", UNFOLDED)}


def families() -> dict[str, Family]:
    """Every architecture that config.json may name."""
    return {
        f"DebertaV2{task}" if task == "Model" else f"DebertaV2For{task}": Family(
            ENCODER, deberta(task), names(task), SIZES, SUPPORTED, model_type="deberta-v2",
            defaults=DEFAULTS["deberta-v2"],
        )
        for task in DIALECT.heads
    }  # fmt: skip
