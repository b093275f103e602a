"""ViT: an image's patches as rows of an encoder that normalises first; and its checkpoints, as data.

The blocks are those of the decoders, and every row sees all others. This file must not know tensors from shares.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import puma.nn.modules as nn
from puma.errors import InputError, UsageError
from puma.models.architectures.decoder import READERS, Block, Norm
from puma.models.cache import LayerCache
from puma.models.config import Vit as Config
from puma.models.family import Architecture, Family, Names, Shapes, chosen, labelled
from puma.nn import functional as F
from puma.nn.layout import placed
from puma.nn.modules import Value


class Model(nn.Module):
    """ViTForImageClassification."""

    def __init__(self, config: Config, params: Mapping[str, Value] | None = None) -> None:
        self.config = config
        self.patches = nn.Linear(config.vocab_size, config.hidden_size, bias=False)
        self.positions = nn.Embedding(config.context, config.hidden_size)  # with the class token and the patches' bias
        self.layers = [Block(config.block, i) for i in range(config.layers)]
        self.norm = Norm(config.block, affine=True)
        self.classifier = nn.Linear(config.hidden_size, len(config.labels)) if config.labels else None
        self.fill(params)

    def __call__(self, pixels: Value, types: Any = None, lengths: Sequence[int] | None = None) -> Value:
        """The last hidden states of images' patches (images * patches, vocab_size), and of a row before each.

        That makes (images * context, hidden_size). `types` and `lengths` are those of texts, and of no use here.
        """
        count = pixels.shape[0] // self.config.patches
        at = nn.Layout([self.config.context] * count, causal=False)
        with F.component("embedding", pixels):
            rows = placed(pixels, at.positions.nonzero().squeeze(-1), len(at.positions))
            x = self.patches(rows) + self.positions.weight[at.positions]
        for layer in self.layers:
            x = layer(x, at, LayerCache())
        return self.norm(x)

    def classify(self, hidden: Value, lengths: Sequence[int] | None = None) -> Value:
        """The logits (images, labels), read from the row before each image's patches."""
        if self.classifier is None:
            raise UsageError("the model has no classification head", "use a ViTForImageClassification checkpoint")
        with F.component("head", hidden):
            return self.classifier(hidden[:: self.config.context])


def patches(config: Config, pixels: Tensor) -> Tensor:
    """Pixel values (channels, height, width) as rows (patches, channels * patch * patch)."""
    size, patch = config.image_size, config.patch_size
    if tuple(pixels.shape) != (config.channels, size, size):
        raise InputError(
            f"an image of {list(pixels.shape)} does not fit the model's {[config.channels, size, size]}",
            "resize it first: channels, height, width",
        )
    side = size // patch
    tiles = pixels.reshape(config.channels, side, patch, side, patch).permute(1, 3, 0, 2, 4)
    return tiles.reshape(side * side, -1)


def fold(config: Config, plain: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: norms and 1/sqrt(head_dim) into matrices; class token and the patches' bias into the positions."""
    folded = dict(plain)
    for i in range(config.layers):
        layer = f"layers.{i}."
        nn.absorb_norms(folded, layer, READERS)
        nn.rescale(folded, f"{layer}self_attn.q_proj", config.head_dim**-0.5)
    first = torch.cat([folded["cls"][0], folded["patches.bias"].expand(config.patches, -1)])
    folded["positions.weight"] = folded["positions"][0] + first
    folded["patches.weight"] = folded["patches.weight"].reshape(config.hidden_size, -1)
    return {name: folded[name] for name in Model(config).shapes()}


def plain(config: Config) -> Shapes:
    """Names and shapes before folding."""
    d, patch = config.hidden_size, config.patch_size
    shapes = Model(config).shapes()
    norms = [
        f"layers.{i}.{norm}.{kind}" for i in range(config.layers) for norm in READERS for kind in ("weight", "bias")
    ]
    shapes |= dict.fromkeys(norms, (d,)) | {"cls": (1, 1, d), "positions": (1, config.context, d)}
    shapes |= {"patches.weight": (d, config.channels, patch, patch), "patches.bias": (d,)}
    del shapes["positions.weight"]
    return shapes


VIT = Architecture("image", Config, Model, plain, fold)

# -- checkpoints ----------------------------------------------------------------------------------------------------

FIELDS = {
    "hidden_size": "hidden_size",
    "intermediate_size": "intermediate_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "image_size": "image_size",
    "patch_size": "patch_size",
    "channels": "num_channels",
    "eps": "layer_norm_eps",
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
    heads=("classifier.",),
    ignored=r"vit\.pooler\..*|.*mask_token",
)


def settings(raw: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """ViT with a head for classes."""
    return {"activation": chosen(raw, "hidden_act", "gelu"), "labels": labelled(raw)}


def families() -> dict[str, Family]:
    """ViTForImageClassification."""
    return {"ViTForImageClassification": Family(VIT, settings, NAMES, FIELDS, {"qkv_bias": (True,)})}
