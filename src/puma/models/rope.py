"""Rotary positions: the frequencies of a head's pairs, perhaps scaled for longer contexts.

A pair is a place in the first half of a head and the same place in the second; scalings go by their usual names,
linear, llama3, yarn and longrope. This file must not know of shares, nor how config.json says any of this.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from puma.models.fields import Rope


def frequencies(rope: Rope, head_dim: int, context: int) -> Tensor:
    """Radians a position for each pair (head_dim / 2,); zero for pairs that do not turn."""
    size = rope.size or head_dim
    # Rounded from float64: in float32 a power's last place depends on the processor, and parties must agree on it.
    turning = (rope.theta ** -(torch.arange(0, size, 2, dtype=torch.float64) / size)).to(torch.float32)
    if rope.scaling == "linear":
        turning = turning / rope.factor
    elif rope.scaling == "llama3":
        turning = _llama3(turning, rope, rope.original or context)
    elif rope.scaling == "yarn":
        turning = _yarn(turning, rope, size, rope.original or context)
    elif rope.scaling == "longrope":
        turning = turning / torch.tensor(rope.factors)
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
    slowed = ((torch.arange(len(turning)) - low) / (high - low or 1e-3)).clamp(0, 1)
    return turning * (slowed / rope.factor + 1 - slowed)


def attention_factor(rope: Rope) -> float:
    """What multiplies cosines and sines of queries and of keys."""
    if rope.attention:
        return rope.attention
    return 0.1 * math.log(rope.factor) + 1 if rope.scaling == "yarn" and rope.factor > 1 else 1.0


def stretched(weight: Tensor, rope: Rope, head_dim: int) -> Tensor:
    """Rows of queries (heads * head_dim, ...) as the checkpoint has them, times what multiplies the cosines and sines
    of both queries and keys; places that do not turn are left alone.
    """
    factor = attention_factor(rope) ** 2
    if factor == 1:
        return weight
    places = torch.ones(head_dim)
    places[: rope.size or head_dim] = factor
    rest = weight.shape[1:]
    return (weight.reshape(-1, head_dim, *rest) * places.reshape(-1, *[1] * len(rest))).reshape(weight.shape)


def order(rope: Rope, head_dim: int) -> Tensor:
    """Which place of a checkpoint's head comes where: its turning pairs lie in the first `size` places."""
    size, rest = rope.size or head_dim, torch.arange(rope.size or head_dim, head_dim)
    turning = (torch.arange(0, size, 2), torch.arange(1, size, 2)) if rope.beside else torch.arange(size).chunk(2)
    halves = turning, rest.tensor_split(2)
    return torch.cat([halves[0][0], halves[1][0], halves[0][1], halves[1][1]])


def permuted(weight: Tensor, order: Tensor) -> Tensor:
    """Rows of each head in another order; weight (heads * size, ...), order (size,)."""
    return weight.reshape(-1, len(order), *weight.shape[1:])[:, order].reshape(weight.shape)
