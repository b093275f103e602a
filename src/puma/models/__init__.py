"""Models: what is computed for a config, written once for torch tensors, for shares and for torch's meta device.

What runs them asks `architecture`, `heads` and `inputs`, and need not know which there are.
"""

from __future__ import annotations

from puma.models.architecture import Architecture, Heads, Inputs
from puma.models.architectures import Config, architecture, heads, in_the_open, inputs, preamble, vectors, with_layers
from puma.models.cache import Cache, LayerCache

__all__ = [
    "Architecture", "Cache", "Config", "Heads", "Inputs", "LayerCache", "architecture", "heads",
    "in_the_open", "inputs", "preamble", "vectors", "with_layers",
]  # fmt: skip
