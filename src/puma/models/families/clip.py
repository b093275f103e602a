"""Checkpoints of CLIP, as data: its towers for texts and for images, each a model of its own.

This file must not know of shares or files.
"""

from __future__ import annotations

from typing import Any

from puma.errors import UnsupportedModel
from puma.models.architectures.clip import CLIP_VISION
from puma.models.architectures.decoder import DECODER
from puma.models.families.defaults import DEFAULTS
from puma.models.families.vit import FIELDS as SQUARE
from puma.models.families.vit import side
from puma.models.family import Family, Names, chosen, refuse

Raw = dict[str, Any]
TEXT = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "context": "max_position_embeddings",
    "eps": "layer_norm_eps",
}
PARTS = {
    "self_attn.q_proj": "self_attn.q_proj",
    "self_attn.k_proj": "self_attn.k_proj",
    "self_attn.v_proj": "self_attn.v_proj",
    "self_attn.out_proj": "self_attn.o_proj",
    "layer_norm1": "input_layernorm",
    "layer_norm2": "post_attention_layernorm",
    "mlp.fc1": "mlp.up_proj",
    "mlp.fc2": "mlp.down_proj",
}
OTHER = {
    "text_model.": r"vision_model\..*|visual_projection\..*",
    "vision_model.": r"text_model\..*|text_projection\..*",
}


def names(tower: str, layer: str, more: dict[str, str], projection: str, projected: str) -> Names:
    """The names of a tower, which a whole model's file holds beside those of the other one."""
    found = {f"{tower}{theirs}": ours for theirs, ours in more.items()}
    found |= {f"{tower}encoder.layers.{{}}.{theirs}": layer + ours for theirs, ours in PARTS.items()}
    found |= {projection: projected}
    return Names(found, tower, ignored=rf"{OTHER[tower]}|logit_scale|{projection}\..*")


TEXT_NAMES = names(
    "text_model.",
    "model.layers.{}.",
    {
        "embeddings.token_embedding": "model.embed_tokens",
        "embeddings.position_embedding": "model.positions",
        "final_layer_norm": "model.norm",
    },
    "text_projection",
    "embed.dense.0",
)
IMAGE_NAMES = names(
    "vision_model.",
    "layers.{}.",
    {
        "embeddings.class_embedding": "cls",
        "embeddings.patch_embedding": "patches",
        "embeddings.position_embedding": "positions",
        "pre_layrnorm": "first_norm",  # as the library spells it
        "post_layernorm": "features.norm",
    },
    "visual_projection",
    "features.projection",
)


TOWERS = {"text_model": ("text_config", "CLIPText"), "vision_model": ("vision_config", "CLIPVision")}


def tower(raw: Raw, part: str) -> Raw:
    """The config.json of one tower, in that of the whole; what stands in an older object of its own wins there."""
    if raw.get("model_type") != "clip":
        raise UnsupportedModel(f"config.json describes no model with a {part}", "name a folder of CLIP before it")
    key, kind = TOWERS[part]
    own, older = raw.get(key) or {}, raw.get(f"{key}_dict")
    if not isinstance(own, dict) or not isinstance(older, dict | None):
        refuse(f"sets {key} to no object", "an object only")
    own = own if older is None else own | DEFAULTS[f"clip_{part}"] | older
    size = raw.get("projection_dim")
    return own | {
        "model_type": f"clip_{part}", "architectures": [f"{kind}ModelWithProjection"],
        "projection_dim": 512 if size is None else size,
    }  # fmt: skip


def text(projects: bool) -> Any:
    """The tower for texts: GPT-2's layers, the state of the token that ends a text, perhaps projected."""

    def read(raw: Raw, names: set[str]) -> Raw:
        dense = [{"outputs": raw["projection_dim"], "bias": False}] if projects else []
        end = raw["eos_token_id"]  # 2 in older files, where the library looks for the largest token instead
        ends = (-1 if end == 2 else end) if isinstance(end, int) else None
        return {
            "activation": chosen(raw, "hidden_act", "quick_gelu"), "norm": "layer", "gated": False, "qkv_bias": True,
            "out_bias": True, "mlp_bias": True, "rope": None, "headless": True,
            "pooling": {"modes": ["lasttoken"], "dense": dense, "ends": ends},
        }  # fmt: skip

    return read


def image(projects: bool) -> Any:
    """The tower for images."""

    def read(raw: Raw, names: set[str]) -> Raw:
        square = {name: side(raw, name) for name in ("image_size", "patch_size")}
        found = {"activation": chosen(raw, "hidden_act", "quick_gelu")} | square
        return found | ({"projected": raw["projection_dim"]} if projects else {})

    return read


def families() -> dict[str, Family]:
    """The towers, with their projections and without."""
    square = {ours: theirs for ours, theirs in SQUARE.items() if ours != "qkv_bias"}
    found: dict[str, Family] = {}
    for end, projects in (("Model", False), ("ModelWithProjection", True)):
        found[f"CLIPText{end}"] = Family(
            DECODER, text(projects), TEXT_NAMES, TEXT, model_type="clip_text_model",
            defaults=DEFAULTS["clip_text_model"],
        )  # fmt: skip
        found[f"CLIPVision{end}"] = Family(
            CLIP_VISION, image(projects), IMAGE_NAMES, square, model_type="clip_vision_model",
            defaults=DEFAULTS["clip_vision_model"],
        )  # fmt: skip
    return found
