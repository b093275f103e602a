"""Words for tests: the edges of a ring, and random ones."""

from __future__ import annotations

import torch
from torch import Tensor


def edges(bits: int) -> Tensor:
    """Where carries, wraps and signs change, as signed words of a ring."""
    near = [0, 1, 2, 3, -1, -2]
    for power in {max(0, bits - 3), max(0, bits - 2), bits - 1, bits // 2}:
        near += [sign * (1 << power) + step for sign in (1, -1) for step in (-1, 0, 1)]
    return torch.tensor([wrapped(v, 64) for v in near], dtype=torch.int64)


def wrapped(value: int, bits: int) -> int:
    """The signed representative modulo 2^bits."""
    return (value + (1 << (bits - 1))) % (1 << bits) - (1 << (bits - 1))


def uniform(*shape: int, bits: int = 64, seed: int = 0) -> Tensor:
    """Uniform signed words of a ring."""
    generator = torch.Generator().manual_seed(seed)
    low, high = -(1 << 63), (1 << 63) - 1
    return torch.randint(low, high, shape, generator=generator) >> (64 - bits)


def grid(bits: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """A value and two masks: every edge against every edge, then random ones."""
    edge = edges(bits)
    x, l1, l2 = torch.meshgrid(edge, edge, edge[::3], indexing="ij")
    random = [uniform(400, seed=seed + i) for i in range(3)]
    return tuple(torch.cat([g.reshape(-1), r]) for g, r in zip((x, l1, l2), random, strict=True))  # type: ignore[return-value]
