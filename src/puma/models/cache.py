"""Keys and values of earlier tokens, so that a new token costs one position and not the whole prefix.

It holds whatever the model appends, tensors or shares, and knows only their length.
"""

from __future__ import annotations

from puma.nn import functional as F
from puma.nn.modules import Value


class LayerCache:
    """Keys (rotated already, where positions rotate) and values of one layer: (heads, length, head_dim)."""

    def __init__(self) -> None:
        self.k: Value = None
        self.v: Value = None

    def append(self, k: Value, v: Value) -> tuple[Value, Value]:
        """Add new positions and return all of them."""
        self.k = k if self.k is None else F.cat([self.k, k], 1)
        self.v = v if self.v is None else F.cat([self.v, v], 1)
        return self.k, self.v


class Cache:
    """One `LayerCache` per layer of a causal model."""

    def __init__(self, layers: int) -> None:
        self.layers = [LayerCache() for _ in range(layers)]

    @property
    def length(self) -> int:
        """How many positions are held."""
        return 0 if self.layers[-1].k is None else int(self.layers[-1].k.shape[1])
