"""Models: which family a checkpoint's name stands for, and which architecture computes it.

The same model runs on torch tensors, on shares and on torch's meta device; it must not know which.
"""

from __future__ import annotations

from puma.errors import UnsupportedModel
from puma.models.architectures import patches, t5, vit
from puma.models.architectures.decoder import DECODER
from puma.models.architectures.encoder import ENCODER
from puma.models.cache import Cache, LayerCache
from puma.models.config import Config
from puma.models.families import bert, gpt, llama
from puma.models.family import Architecture, Family

# The name in "architectures" of config.json.
ARCHITECTURES: dict[str, Family] = (
    llama.families() | gpt.families() | bert.families() | t5.families() | vit.families() | patches.families()
)


def architecture(config: Config) -> Architecture:
    """The architecture that a config belongs to."""
    for candidate in (DECODER, ENCODER, t5.SEQ2SEQ, patches.PATCHES, vit.VIT):
        if isinstance(config, candidate.config):
            return candidate
    raise UnsupportedModel(f"{type(config).__name__} is no model config", "use one of puma.models.config")


__all__ = ["ARCHITECTURES", "Architecture", "Cache", "Config", "Family", "LayerCache", "architecture"]
