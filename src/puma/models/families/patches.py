"""Small models of torch's own nn.MultiheadAttention, which no library names: read by their description in words.

This file must not know of shares or files.
"""

from __future__ import annotations

import re
from typing import Any

from puma.errors import UnsupportedModel
from puma.models.architectures.encoder_layers import ATTENTION
from puma.models.architectures.patches import PATCHES
from puma.models.family import Family, Names

NAME = "PatchEncoder"  # a name of our own
EPS = 1e-5  # torch's, for every norm
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
