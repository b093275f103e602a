"""CLIP's tower for images: a ViT that normalises its rows first, and whose first row is projected beside texts.

The tower for texts is a decoder without a head. This file must not know tensors from shares.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

import puma.nn.modules as nn
from puma.models import bounds as b
from puma.models.architecture import Architecture, Bound, Heads, Inputs, Params, Shapes
from puma.models.architectures import decoder, vit
from puma.models.architectures.decoder import READERS, Block
from puma.models.architectures.vit import Vit
from puma.models.cache import LayerCache
from puma.models.fields import OptionalSize
from puma.models.formats import hand_out
from puma.models.pooling import Dense, Pooling
from puma.nn import functional as F
from puma.nn.layout import placed
from puma.nn.modules import Value

KINDS = ("weight", "bias")


class ClipVision(Vit, frozen=True, kw_only=True, tag="clip_vision"):
    """CLIP's tower for images; a vector of an image has `projected` numbers, or hidden_size if that is 0."""

    projected: OptionalSize = 0


class Features(nn.Module):
    """An image's vector: its first row, normed and perhaps projected."""

    def __init__(self, c: ClipVision) -> None:
        self.norm = nn.Norm("layer", c.eps, 0 if c.projected else c.hidden_size, bias=True)
        self.projection = nn.Linear(c.hidden_size, c.projected) if c.projected else None

    def __call__(self, x: Value) -> Value:
        n = self.norm(x, self.projection)
        return self.projection(n) if self.projection else n


class Model(nn.Module):
    """CLIPVisionModel, perhaps with its projection."""

    def __init__(self, config: ClipVision, params: Mapping[str, Value] | None = None) -> None:
        self.config, block = config, config.block
        self.patches = nn.Linear(config.vocab_size, config.hidden_size, bias=False, place="stream")
        self.positions = nn.Embedding(config.context, config.hidden_size)  # with the class token
        self.first_norm = nn.Norm("layer", config.eps, config.hidden_size, bias=True, writes=True)
        self.first_norm.answers = config.layers == 0
        self.layers = [Block(block, i) for i in range(config.layers)]
        self.features = Features(config)
        hand_out(self, config.formats)
        self.fill(params)

    def __call__(self, pixels: Value) -> Value:
        """The last hidden states of images' patches (images * patches, vocab_size), and of a row before each.

        That makes (images * context, hidden_size).
        """
        at = nn.Layout([self.config.context] * (pixels.shape[0] // self.config.patches), causal=False)
        with F.component("embedding", pixels):
            rows = placed(pixels, at.positions.nonzero().squeeze(-1), len(at.positions))
            x = self.patches(rows) + self.positions.weight[at.positions]
        x = self.first_norm(x)
        for layer in self.layers:
            x = layer(x, at, LayerCache())
        return x

    def states(self, pixels: Value, lengths: Sequence[int], types: Sequence[int] = (), padding: Any = None) -> Value:
        """The same; all images are of one size, and what else texts have is for other architectures."""
        return self(pixels)

    def embed(self, hidden: Value, lengths: Sequence[int], skip: int = 0, padding: Any = None) -> Value:
        """The vectors (images, projected)."""
        with F.component("head", hidden):
            return self.features(hidden[:: self.config.context])


def fold(config: ClipVision, plain: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: norms and 1/sqrt(head_dim) into matrices; the class token into the positions."""
    folded = vit.folded_layers(config, plain)
    if config.projected:
        nn.absorb(folded, "features.norm", ["features.projection"])
    table, patches = folded["positions.weight"], folded["patches.weight"]
    folded["positions.weight"] = torch.cat([table[:1] + folded["cls"], table[1:]])
    folded["patches.weight"] = patches.reshape(config.hidden_size, -1)
    return {name: folded[name] for name in Model(config).shapes()}


def plain(config: ClipVision) -> Shapes:
    """Names and shapes before folding."""
    d, patch = config.hidden_size, config.patch_size
    shapes = Model(config).shapes()
    shapes.pop("features.projection.bias", None)
    norms = [f"layers.{i}.{norm}" for i in range(config.layers) for norm in READERS] + ["features.norm"]
    shapes |= {f"{norm}.{kind}": (d,) for norm in norms for kind in KINDS}
    return shapes | {"cls": (d,), "patches.weight": (d, config.channels, patch, patch)}


def inputs(config: ClipVision) -> Inputs:
    """The pixels of an image's patches."""
    return vit.inputs(config)


def heads(config: ClipVision) -> Heads:
    """A vector of each image."""
    dense = (Dense(outputs=config.projected, bias=False),) if config.projected else ()
    return Heads(pooling=Pooling(modes=("cls",), dense=dense))


def bounds(config: ClipVision, params: Params) -> Iterator[Bound]:
    """Those of the decoders, whose blocks these are, and of the norm that the stream begins with."""
    yield from decoder.bounds(config.block, params)
    first = b.Source(config.hidden_size, params["first_norm.weight"], params["first_norm.bias"])
    yield b.added("first_norm", first.largest())


CLIP_VISION = Architecture("image", ClipVision, Model, plain, fold, inputs, heads, bounds)
