"""Checkpoints of ViT, as data.

This file must not know of shares or files.
"""

from __future__ import annotations

from typing import Any

from puma.models.architectures.vit import VIT
from puma.models.families.defaults import DEFAULTS
from puma.models.family import Family, Names, chosen, labelled

FIELDS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "channels": "num_channels",
    "eps": "layer_norm_eps",
    "qkv_bias": "qkv_bias",
}
THEIRS = "vit.encoder.layer.{}."
PARTS = {
    "attention.attention.query": "self_attn.q_proj",
    "attention.attention.key": "self_attn.k_proj",
    "attention.attention.value": "self_attn.v_proj",
    "attention.output.dense": "self_attn.o_proj",
    "intermediate.dense": "mlp.up_proj",
    "output.dense": "mlp.down_proj",
    "layernorm_before": "input_layernorm",
    "layernorm_after": "post_attention_layernorm",
}
NAMES = Names(
    {
        "vit.embeddings.cls_token": "cls",
        "vit.embeddings.position_embeddings": "positions",
        "vit.embeddings.patch_embeddings.projection": "patches",
        "vit.layernorm": "norm",
        "classifier": "classifier",
    }
    | {THEIRS + theirs: f"layers.{{}}.{ours}" for theirs, ours in PARTS.items()},
    prefix="vit.",
    ignored=r"vit\.pooler\..*|.*mask_token",
)


def settings(raw: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """ViT with a head for classes."""
    return body(raw, names) | {"labels": labelled(raw)}


def body(raw: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """The layers alone."""
    square = {name: side(raw, name) for name in ("image_size", "patch_size")}
    return {"activation": chosen(raw, "hidden_act", "gelu")} | square


def side(raw: dict[str, Any], name: str) -> Any:
    """The side of a square, which may be written as its height and width."""
    size = raw[name]
    if isinstance(size, list) and len(size) == 2 and size[0] == size[1]:
        return size[0]
    return size


def families() -> dict[str, Family]:
    """ViTForImageClassification, and ViTModel without a head."""
    kinds = {"ViTForImageClassification": settings, "ViTModel": body}
    return {
        name: Family(VIT, read, NAMES, FIELDS, model_type="vit", defaults=DEFAULTS["vit"])
        for name, read in kinds.items()
    }
