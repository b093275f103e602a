"""An encoder of an image's patches that normalises last.

The layers are those of the encoders of texts; there is no class token, and the mean of all rows is classified. So are
small models of torch's own nn.MultiheadAttention built, which no library names. This file must not know tensors from
shares.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

import puma.nn.modules as nn
from puma.models import bounds as b
from puma.models.architecture import Architecture, Bound, Heads, Inputs, Params, Shapes
from puma.models.architectures.encoder import Encoder
from puma.models.architectures.encoder_layers import Layer, Normed, fold_layer, layer_bounds
from puma.models.architectures.vit import Vit
from puma.models.formats import hand_out
from puma.models.pooling import Embed, Pooling
from puma.nn import functional as F
from puma.nn.modules import Value

PIXEL = 4.0  # of a normalised pixel: images from bytes reach 3


class PatchEncoder(Vit, frozen=True, kw_only=True, tag="patches"):
    """An encoder of patches alone that normalises last, as torch's nn.MultiheadAttention is mostly used."""

    @property
    def context(self) -> int:
        """Rows of an image: its patches."""
        return self.patches

    @property
    def layer(self) -> Encoder:
        """What the layers have in common with those of encoders of texts."""
        return Encoder(
            vocab_size=self.vocab_size, hidden_size=self.hidden_size, intermediate_size=self.intermediate_size,
            layers=self.layers, heads=self.heads, eps=self.eps, activation=self.activation,
        )  # fmt: skip


class Model(nn.Module):
    """Patches and positions, layers, a norm, the mean of the rows, a matrix."""

    def __init__(self, config: PatchEncoder, params: Mapping[str, Value] | None = None) -> None:
        self.config = config
        self.patches = nn.Linear(config.vocab_size, config.hidden_size, bias=False, place="stream")
        self.positions = nn.Embedding(config.context, config.hidden_size)  # with the patches' bias
        self.layers = [Layer(config.layer) for _ in range(config.layers)]
        self.norm = nn.Norm("layer", config.eps, config.hidden_size, bias=True)
        self.classifier = nn.Linear(config.hidden_size, len(config.labels))
        self.embed = Embed(Pooling(), config.hidden_size)
        hand_out(self, config.formats)
        self.fill(params)

    def __call__(self, pixels: Value) -> Value:
        """The last hidden states (images * patches, hidden_size) of patches (images * patches, vocab_size)."""
        at = nn.Layout([self.config.context] * (pixels.shape[0] // self.config.context), causal=False)
        with F.component("embedding", pixels):
            h = Normed(self.patches(pixels) + self.positions.weight[at.positions], None)
        for layer, after in zip(self.layers, [*self.layers[1:], None], strict=True):
            h = layer(h, at, *(after.readers if after else []))
        return self.norm(h.full)

    def states(self, pixels: Value, lengths: Sequence[int], types: Sequence[int] = (), padding: Any = None) -> Value:
        """The same; all images are of one size, and what else texts have is for other architectures."""
        return self(pixels)

    def classify(self, hidden: Value, lengths: Sequence[int] | None = None) -> Value:
        """The logits (images, labels), read from the mean of each image's rows: its matrix holds the division."""
        with F.component("head", hidden):
            count = hidden.shape[0] // self.config.context
            return self.classifier(nn.Rows([self.config.context] * count).sum(hidden))


def fold(config: PatchEncoder, plain: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: norms and 1/sqrt(head_dim) into matrices, the patches' bias into the positions."""
    folded, norm = dict(plain), ""
    for i in range(config.layers):
        fold_layer(folded, f"layers.{i}.", norm, config.layer)
        norm = f"layers.{i}.output.LayerNorm"
    folded["positions.weight"] = folded["positions"][0] + folded["patches.bias"]
    folded["classifier.weight"] = folded["classifier.weight"] / config.context
    return {name: folded[name] for name in Model(config).shapes()}


def plain(config: PatchEncoder) -> Shapes:
    """Names and shapes before folding."""
    shapes = Model(config).shapes()
    del shapes["positions.weight"]
    return shapes | {"positions": (1, config.context, config.hidden_size), "patches.bias": (config.hidden_size,)}


def inputs(config: PatchEncoder) -> Inputs:
    """The pixels of an image's patches."""
    return Inputs("pixels", config.vocab_size, config.context, rows=config.patches)


def heads(config: PatchEncoder) -> Heads:
    """Classes of images."""
    return Heads(labels=config.labels)


def bounds(config: PatchEncoder, params: Params) -> Iterator[Bound]:
    """The first layer reads W p + (row k of positions): with p / PIXEL and sqrt(context) e_k in one vector, which is
    not longer than a norm's output."""
    root = math.sqrt(config.context)
    table = params["positions.weight"].T / root
    matrix = torch.cat([PIXEL * params["patches.weight"], table], 1)
    first = b.Source(matrix.shape[1], matrix)
    for i in range(config.layers):
        reads = first if i == 0 else b.Source(config.hidden_size)
        yield from layer_bounds(config.layer, params, f"layers.{i}", [reads])


PATCHES = Architecture("image", PatchEncoder, Model, plain, fold, inputs, heads, bounds)
