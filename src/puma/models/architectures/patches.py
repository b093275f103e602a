"""An encoder of an image's patches that normalises last; and its checkpoints, as data.

The layers are those of the encoders of texts; there is no class token, and the mean of all rows is classified. So are
small models of torch's own nn.MultiheadAttention built, which no library names. This file must not know tensors from
shares.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import puma.nn.modules as nn
from puma.errors import UnsupportedModel
from puma.models.architectures.encoder import ATTENTION, Layer, Normed, fold_layer
from puma.models.config import PatchEncoder as Config
from puma.models.family import Architecture, Family, Names, Shapes
from puma.nn import functional as F
from puma.nn.modules import Value

NAME = "PatchEncoder"  # a name of our own
EPS = 1e-5  # torch's, for every norm


class Model(nn.Module):
    """Patches and positions, layers, a norm, the mean of the rows, a matrix."""

    def __init__(self, config: Config, params: Mapping[str, Value] | None = None) -> None:
        self.config = config
        self.patches = nn.Linear(config.vocab_size, config.hidden_size, bias=False)
        self.positions = nn.Embedding(config.context, config.hidden_size)  # with the patches' bias
        self.layers = [Layer(config.layer) for _ in range(config.layers)]
        self.norm = nn.Affine(config.hidden_size)
        self.classifier = nn.Linear(config.hidden_size, len(config.labels))
        self.fill(params)

    def __call__(self, pixels: Value, types: Any = None, lengths: Sequence[int] | None = None) -> Value:
        """The last hidden states (images * patches, hidden_size) of patches (images * patches, vocab_size).

        `types` and `lengths` are those of texts, and of no use here.
        """
        at = nn.Layout([self.config.context] * (pixels.shape[0] // self.config.context), causal=False)
        with F.component("embedding", pixels):
            h = Normed(self.patches(pixels) + self.positions.weight[at.positions], None)
        for layer in self.layers:
            h = layer(h, at)
        with F.component("norm", pixels):
            return self.norm(F.layer_norm(h.full, self.config.eps))

    def classify(self, hidden: Value, lengths: Sequence[int] | None = None) -> Value:
        """The logits (images, labels), read from the mean of each image's rows: its matrix holds the division."""
        with F.component("head", hidden):
            count = hidden.shape[0] // self.config.context
            return self.classifier(nn.Rows([self.config.context] * count).sum(hidden))


def fold(config: Config, plain: Mapping[str, Value]) -> dict[str, Value]:
    """At the owner: norms and 1/sqrt(head_dim) into matrices, the patches' bias into the positions."""
    folded, norm = dict(plain), ""
    for i in range(config.layers):
        fold_layer(folded, f"layers.{i}.", norm, config.head_dim)
        norm = f"layers.{i}.output.LayerNorm"
    folded["positions.weight"] = folded["positions"][0] + folded["patches.bias"]
    folded["classifier.weight"] = folded["classifier.weight"] / config.context
    return {name: folded[name] for name in Model(config).shapes()}


def plain(config: Config) -> Shapes:
    """Names and shapes before folding."""
    shapes = Model(config).shapes()
    del shapes["positions.weight"]
    return shapes | {"positions": (1, config.context, config.hidden_size), "patches.bias": (config.hidden_size,)}


PATCHES = Architecture("image", Config, Model, plain, fold)

# -- checkpoints ----------------------------------------------------------------------------------------------------

THEIRS = "encoder.{}."
OURS = "layers.{}."
NAMES = Names(
    {
        "pos_embed": "positions",
        "patch_embed.proj": "patches",
        THEIRS + "attn.in_proj": tuple(OURS + name for name in ATTENTION),
        THEIRS + "attn.out_proj": OURS + "attention.output.dense",
        THEIRS + "norm1": OURS + "attention.output.LayerNorm",
        THEIRS + "ffn.fc1": OURS + "intermediate.dense",
        THEIRS + "ffn.fc2": OURS + "output.dense",
        THEIRS + "norm2": OURS + "output.LayerNorm",
        "norm": "norm",
        "classifier": "classifier",
    },
    heads=("classifier.",),
)
FIELDS = {"hidden_size": "d_model", "intermediate_size": "d_ff", "patch_size": "patch"}
WORDS = {"layers": re.compile(r"(\d+)[- ]layer"), "heads": re.compile(r"(\d+)[- ]head")}


def described(raw: dict[str, Any]) -> bool:
    """Whether a config.json without names describes such a model in words, under "arch"."""
    arch = raw.get("arch")
    return isinstance(arch, str) and all(word in arch for word in ("post-LN", "nn.MultiheadAttention", "mean-pool"))


def settings(raw: dict[str, Any], names: set[str]) -> dict[str, Any]:
    """Numbers of layers and heads out of "arch"; square grey images of `seq_len` patches, ten classes if unsaid."""
    found = {name: pattern.search(str(raw.get("arch"))) for name, pattern in WORDS.items()}
    length, patch, classes = raw.get("seq_len"), raw.get("patch"), raw.get("num_labels", 10)
    if not all(type(number) is int and number > 0 for number in (length, patch, classes)):
        raise UnsupportedModel("config.json does not say patch and seq_len in whole numbers", "add them")
    if round(length**0.5) ** 2 != length:  # type: ignore[operator]
        raise UnsupportedModel(f"{length} patches make no square image", "only square images are computed")
    if "exact GELU" not in str(raw.get("arch")) or None in found.values():
        hint = "its arch says N-layer, N head, exact GELU"
        raise UnsupportedModel("config.json does not describe a model that is implemented", hint)
    return {
        **{name: int(match[1]) for name, match in found.items() if match},
        "image_size": patch * round(length**0.5),  # type: ignore[operator]
        "channels": 1,
        "eps": EPS,
        "labels": [str(i) for i in range(classes)],
    }


def families() -> dict[str, Family]:
    """Checkpoints without a class of their own."""
    return {NAME: Family(PATCHES, settings, NAMES, FIELDS)}
