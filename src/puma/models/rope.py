"""Rotary positions: the frequencies of a head's pairs, scaled for longer contexts as linear, llama3 or yarn do it.

A pair is a place in the first half of a head and the same place in the second. This file must not know of shares.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from puma.models.family import refuse
from puma.models.fields import Rope


def frequencies(rope: Rope, head_dim: int, context: int) -> Tensor:
    """Radians a position for each pair (head_dim / 2,); zero for pairs that do not turn."""
    size = rope.size or head_dim
    turning = rope.theta ** -(torch.arange(0, size, 2, dtype=torch.float32) / size)
    if rope.scaling == "linear":
        turning = turning / rope.factor
    elif rope.scaling == "llama3":
        turning = _llama3(turning, rope, rope.original or context)
    elif rope.scaling == "yarn":
        turning = _yarn(turning, rope, size, rope.original or context)
    return torch.cat([turning, turning.new_zeros((head_dim - size) // 2)])


def _llama3(turning: Tensor, rope: Rope, original: int) -> Tensor:
    """Slow pairs are slowed down by `factor`, fast ones are left alone, those between in between."""
    turns = original * turning / (2 * math.pi)  # within the original context
    share = ((turns - rope.low) / (rope.high - rope.low)).clamp(0, 1)
    return turning * ((1 - share) / rope.factor + share)


def _yarn(turning: Tensor, rope: Rope, size: int, original: int) -> Tensor:
    """The same with a ramp over the number of the pair."""

    def pair(turns: float) -> float:
        """Which pair turns so often within the original context."""
        return size * math.log(original / (turns * 2 * math.pi)) / (2 * math.log(rope.theta))

    low, high = pair(rope.fast), pair(rope.slow)
    if rope.whole:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, size - 1)
    slowed = ((torch.arange(len(turning)) - low) / max(high - low, 1e-3)).clamp(0, 1)
    return turning * (slowed / rope.factor + 1 - slowed)


def attention_factor(rope: Rope) -> float:
    """What multiplies cosines and sines of queries and of keys."""
    if rope.scaling != "yarn" or rope.factor <= 1:
        return 1.0
    return rope.attention or 0.1 * math.log(rope.factor) + 1


def order(rope: Rope, head_dim: int) -> Tensor:
    """Which place of a checkpoint's head comes where: its turning pairs lie in the first `size` places."""
    size, rest = rope.size or head_dim, torch.arange(rope.size or head_dim, head_dim)
    halves = torch.arange(size).chunk(2), rest.tensor_split(2)
    return torch.cat([halves[0][0], halves[1][0], halves[0][1], halves[1][1]])


def settings(raw: dict[str, Any], head_dim: int) -> dict[str, Any]:
    """The fields of a Rope in config.json, where they come nested under two names, or flat; others are refused."""
    nested = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    kind = nested.get("rope_type", nested.get("type", "default"))
    part = nested.get("partial_rotary_factor", raw.get("partial_rotary_factor", raw.get("rotary_pct", 1.0)))
    found: dict[str, Any] = {"theta": nested.get("rope_theta", raw.get("rope_theta", raw.get("rotary_emb_base", 1e4)))}
    found["size"] = 0 if part == 1 else int(head_dim * part)
    if kind not in ("default", "linear", "llama3", "yarn"):
        refuse(f"sets rope_type to {kind!r}", "rope_type = default or linear or llama3 or yarn only")
    if kind == "default":
        return found
    for name in ("mscale", "mscale_all_dim"):
        if nested.get(name):
            refuse(f"sets {name}", "yarn without it only")
    names = {
        "factor": "factor",
        "original_max_position_embeddings": "original",
        "low_freq_factor": "low",
        "high_freq_factor": "high",
        "beta_fast": "fast",
        "beta_slow": "slow",
        "truncate": "whole",
        "attention_factor": "attention",
    }
    scaled = {ours: nested[theirs] for theirs, ours in names.items() if nested.get(theirs) is not None}
    return found | scaled | {"scaling": kind}


def permuted(weight: Tensor, order: Tensor) -> Tensor:
    """Rows of each head in another order; weight (heads * size, ...), order (size,)."""
    return weight.reshape(-1, len(order), *weight.shape[1:])[:, order].reshape(weight.shape)
