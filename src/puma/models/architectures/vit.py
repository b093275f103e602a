"""ViT: an image's patches as rows of an encoder that normalises first.

The blocks are those of the decoders, and every row sees all others. This file must not know tensors from shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import torch
from msgspec import Meta, Struct

import puma.nn.modules as nn
from puma.errors import UsageError
from puma.models.architecture import Architecture, Bound, Heads, Inputs, Params, Shapes
from puma.models.architectures import decoder
from puma.models.architectures.decoder import READERS, Block, Decoder, norm
from puma.models.cache import LayerCache
from puma.models.fields import Activation, Labels, Layers, Positive, Size
from puma.models.folding import fold_activation
from puma.models.formats import Formats, hand_out
from puma.models.pooling import Embed, Pooling
from puma.nn import functional as F
from puma.nn.layout import placed
from puma.nn.modules import Value


class Vit(Struct, frozen=True, kw_only=True, tag_field="model_type", tag="vit"):
    """ViT for square images of `channels`; `labels` names the classes."""

    hidden_size: Size
    intermediate_size: Size
    layers: Layers
    heads: Size
    image_size: Annotated[int, Meta(ge=1, le=4096)] = 224
    patch_size: Annotated[int, Meta(ge=1, le=256)] = 16
    channels: Annotated[int, Meta(ge=1, le=16)] = 3
    activation: Activation = "gelu"
    eps: Positive = 1e-12
    qkv_bias: bool = True
    labels: Labels = ()
    formats: Formats = Formats()

    def __post_init__(self) -> None:
        if self.hidden_size % self.heads:
            raise ValueError("hidden_size is not a multiple of heads")
        if self.image_size % self.patch_size:
            raise ValueError("image_size is not a multiple of patch_size")

    @property
    def head_dim(self) -> int:
        """Columns of one head."""
        return self.hidden_size // self.heads

    @property
    def patches(self) -> int:
        """Rows of pixels that an image makes."""
        return (self.image_size // self.patch_size) ** 2

    @property
    def context(self) -> int:
        """Rows of an image: its patches, and one before them."""
        return self.patches + 1

    @property
    def vocab_size(self) -> int:
        """Numbers in a row of the input, where other models have their vocabulary: the pixels of a patch."""
        return self.channels * self.patch_size**2

    @property
    def block(self) -> Decoder:
        """What the blocks have in common with those of decoders."""
        return Decoder(
            vocab_size=self.vocab_size, hidden_size=self.hidden_size, intermediate_size=self.intermediate_size,
            layers=1, heads=self.heads, rope=None, eps=self.eps, norm="layer", gated=False,
            activation=self.activation, qkv_bias=self.qkv_bias, out_bias=True, mlp_bias=True,
        )  # fmt: skip

    @property
    def period(self) -> int:
        """After how many layers they cost the same again, whatever the prompt; 0 where that is not known."""
        return 1


class Model(nn.Module):
    """ViTForImageClassification."""

    def __init__(self, config: Vit, params: Mapping[str, Value] | None = None) -> None:
        self.config = config
        self.patches = nn.Linear(config.vocab_size, config.hidden_size, bias=False, place="stream")
        self.positions = nn.Embedding(config.context, config.hidden_size)  # with the class token and the patches' bias
        self.layers = [Block(config.block, i) for i in range(config.layers)]
        self.norm = norm(config.block, affine=True)
        self.classifier = nn.Linear(config.hidden_size, len(config.labels)) if config.labels else None
        self.embed = Embed(Pooling(), config.hidden_size)
        hand_out(self, config.formats)
        self.fill(params)

    def __call__(self, pixels: Value) -> Value:
        """The last hidden states of images' patches (images * patches, vocab_size), and of a row before each.

        That makes (images * context, hidden_size).
        """
        count = pixels.shape[0] // self.config.patches
        at = nn.Layout([self.config.context] * count, causal=False)
        with F.component("embedding", pixels):
            rows = placed(pixels, at.positions.nonzero().squeeze(-1), len(at.positions))
            x = self.patches(rows) + self.positions.weight[at.positions]
        for layer in self.layers:
            x = layer(x, at, LayerCache())
        return self.norm(x)

    def states(self, pixels: Value, lengths: Sequence[int], types: Sequence[int] = (), padding: Any = None) -> Value:
        """The same; all images are of one size, and what else texts have is for other architectures."""
        return self(pixels)

    def classify(self, hidden: Value, lengths: Sequence[int] | None = None) -> Value:
        """The logits (images, labels), read from the row before each image's patches."""
        if self.classifier is None:
            raise UsageError("the model has no classification head", "use a ViTForImageClassification checkpoint")
        with F.component("head", hidden):
            return self.classifier(hidden[:: self.config.context])


def folded_layers(config: Any, plain: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: each layer's norms and 1/sqrt(head_dim) into its matrices; all else as it is."""
    folded = dict(plain)
    for i in range(config.layers):
        layer = f"layers.{i}."
        nn.absorb_norms(folded, layer, READERS)
        nn.rescale(folded, f"{layer}self_attn.q_proj", config.head_dim**-0.5)
        fold_activation(config.activation, folded, f"{layer}mlp.up_proj", f"{layer}mlp.down_proj")
    return folded


def fold(config: Vit, plain: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: norms and 1/sqrt(head_dim) into matrices; class token and the patches' bias into the positions."""
    folded = folded_layers(config, plain)
    first = torch.cat([folded["cls"][0], folded["patches.bias"].expand(config.patches, -1)])
    folded["positions.weight"] = folded["positions"][0] + first
    folded["patches.weight"] = folded["patches.weight"].reshape(config.hidden_size, -1)
    return {name: folded[name] for name in Model(config).shapes()}


def plain(config: Vit) -> Shapes:
    """Names and shapes before folding."""
    d, patch = config.hidden_size, config.patch_size
    shapes = Model(config).shapes()
    norms = [
        f"layers.{i}.{norm}.{kind}" for i in range(config.layers) for norm in READERS for kind in ("weight", "bias")
    ]
    shapes |= dict.fromkeys(norms, (d,)) | {"cls": (1, 1, d), "positions": (1, config.context, d)}
    shapes |= {"patches.weight": (d, config.channels, patch, patch), "patches.bias": (d,)}
    made = () if config.qkv_bias else decoder.QKV_BIASES
    return {name: shape for name, shape in shapes.items() if name != "positions.weight" and not name.endswith(made)}


def inputs(config: Vit) -> Inputs:
    """The pixels of an image's patches."""
    return Inputs("pixels", config.vocab_size, config.context, rows=config.patches)


def heads(config: Vit) -> Heads:
    """Classes of images."""
    return Heads(labels=config.labels)


def bounds(config: Vit, params: Params) -> Iterator[Bound]:
    """Those of the decoders, whose blocks these are."""
    return decoder.bounds(config.block, params)


VIT = Architecture("image", Vit, Model, plain, fold, inputs, heads, bounds)
