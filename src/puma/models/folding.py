"""Public factors that matrices take up at the owner: of scores, of places that turn, of quick GELU.

It works on a checkpoint's tensors by the decoders' names. This file must not know of shares.
"""

from __future__ import annotations

from typing import Any

import puma.nn.modules as nn
from puma.models import rope
from puma.nn import gates
from puma.nn.modules import Value

TURNED = ("q_proj", "k_proj", "q_norm", "k_norm")


def fold_queries(config: Any, folded: dict[str, Value], layer: int) -> None:
    """What scores are multiplied by goes into queries, or into their norm; turning places go where they are turned."""
    attention, turning = f"model.layers.{layer}.self_attn.", config.turning(layer)
    factor = config.query_scale / (layer + 1 if config.layer_scaled else 1)
    scaled = "q_norm" if config.head_norms else "q_proj"
    nn.rescale(folded, attention + scaled, factor)
    if turning is None:
        return
    for name in (f"{attention}{scaled}.weight", f"{attention}{scaled}.bias"):
        if name in folded:
            folded[name] = rope.stretched(folded[name], turning, config.head_dim)
    if not (turning.size or turning.beside):
        return
    places = rope.order(turning, config.head_dim)
    names = [f"{attention}{part}.{kind}" for part in TURNED for kind in ("weight", "bias")]
    folded |= {name: rope.permuted(folded[name], places) for name in names if name in folded}


def fold_activation(activation: str, folded: dict[str, Value], before: str, behind: str) -> None:
    """x sigmoid(1.702 x) is silu(1.702 x) / 1.702: the matrix before takes one factor, the one behind the other."""
    if activation == "quick_gelu":
        nn.rescale(folded, before, nn.QUICK)
        folded[f"{behind}.weight"] = folded[f"{behind}.weight"] / nn.QUICK
    if activation == "clamped":
        folded[f"{behind}.weight"] = folded[f"{behind}.weight"] * gates.SCALE
