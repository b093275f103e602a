"""What the commands that need no weights are asked about: a preset, a checkpoint, or a config.json alone.

It must not know what is done with a config.
"""

from __future__ import annotations

from pathlib import Path

from puma.errors import UsageError
from puma.models import stories, with_layers
from puma.models.config import Config
from puma.models.presets import PRESETS


def config_of(source: str, layers: int | None = None, adapter: str | None = None) -> tuple[str, Config]:
    """Name and config, perhaps of the first layers only; UsageError for what names no model."""
    if layers is not None and layers < 1:
        raise UsageError(f"a model of {layers} layers makes no sense", "pass --layers 1 or more")
    if source in PRESETS:
        if adapter is not None:
            raise UsageError(
                f"the preset {source} has random weights, and takes no adapter", "pass a checkpoint's folder"
            )
        return source, with_layers(PRESETS[source], layers) if layers else PRESETS[source]
    if not names_a_checkpoint(source):
        raise UsageError(
            f"there is no preset {source}",
            f"choose one of {', '.join(PRESETS)}, or pass a checkpoint's folder, its config.json, or {stories.NAME}",
        )
    from puma.models.checkpoint import load  # noqa: PLC0415  # with its tokenizers, which no preset needs

    checkpoint = load(source, weights=False, adapter=adapter)
    full = checkpoint.config.layers
    if layers is not None and layers > full:
        raise UsageError(f"{checkpoint.name} has {full} layers, not {layers}", "ask for fewer")
    return checkpoint.name, with_layers(checkpoint.config, layers) if layers else checkpoint.config


def names_a_checkpoint(source: str) -> bool:
    """A path, a hub name with its owner, or the embedded model; another word that is no folder is a mistyped preset."""
    return "/" in source or source == stories.NAME or Path(source).exists()


def bare(source: str) -> bool:
    """Whether this is a config.json alone, so that there are no weights."""
    return source.endswith(".json") and Path(source).is_file()
