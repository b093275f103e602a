"""Random and awkward words for the kernel tests, each with the same seed every time."""

from __future__ import annotations

import torch
from torch import Tensor

EDGES = [0, 1, -1, 2, 255, 256, (1 << 31) - 1, 1 << 32, (1 << 52) - 1, 1 << 52, (1 << 63) - 1, -(1 << 63)]


def words(*shape: int, seed: int = 0) -> Tensor:
    """Uniform words, with edge cases sprinkled over a quarter of them."""
    generator = torch.Generator().manual_seed(seed + sum((i + 1) * n for i, n in enumerate(shape)))
    x = torch.randint(-(1 << 63), (1 << 63) - 1, shape, generator=generator)
    edges = torch.tensor(EDGES)[torch.randint(0, len(EDGES), shape, generator=generator)]
    return torch.where(torch.rand(shape, generator=generator) < 0.25, edges, x)


def views(*shape: int, seed: int = 0) -> dict[str, Tensor]:
    """The same shape in every way a tensor can lie in memory."""
    *lead, n, m = shape
    return {
        "contiguous": words(*lead, n, m, seed=seed),
        "transposed": words(*lead, m, n, seed=seed).transpose(-1, -2),
        "sliced": words(*lead, n + 2, m + 3, seed=seed)[..., 1 : n + 1, 2 : m + 2],
        "stepped": words(*lead, n, 2 * m, seed=seed)[..., ::2],
        "rows skipped, transposed": words(*lead, 2 * m, n, seed=seed)[..., ::2, :].transpose(-1, -2),
        "expanded": words(*lead, 1, m, seed=seed).expand(*lead, n, m),
        "from another batch order": words(n, *lead, m, seed=seed).movedim(0, -2),
    }
