"""A PEFT folder: adapter_config.json, adapter_model.safetensors, perhaps a tokenizer.

This file must not know what the settings mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from puma.errors import CheckpointError
from puma.models.files import safetensors
from puma.models.files.opening import HUB_FILES, HUB_NAME, download
from puma.models.files.source import PUBLIC, TOKENIZER, Entry, read_json

SETTINGS, WEIGHTS, OLD_WEIGHTS = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
HOLDS = f"an adapter's folder holds {SETTINGS} and {WEIGHTS}, as peft's save_pretrained writes them"
CONVERT = (
    "convert it: python -c \"import torch, safetensors.torch as s; s.save_file(torch.load('adapter_model.bin', "
    "map_location='cpu', weights_only=True), 'adapter_model.safetensors')\" in that folder"
)


@dataclass(frozen=True)
class AdapterFiles:
    """An adapter as its files have it; `public` are a tokenizer and its template, if it brings one."""

    name: str
    raw: dict[str, Any]
    entries: Mapping[str, Entry]
    public: Mapping[str, Callable[[], bytes]]


def opened(source: str | Path) -> AdapterFiles:
    """An adapter's folder, or its name on the hub; CheckpointError if it is none."""
    folder = Path(source).expanduser()
    if not folder.exists() and isinstance(source, str) and HUB_NAME.fullmatch(source):
        folder = download(source, [*HUB_FILES, WEIGHTS])
    if not (folder / SETTINGS).is_file():
        raise CheckpointError(f"{source} is no adapter: it holds no {SETTINGS}", HOLDS)
    if not (folder / WEIGHTS).is_file():
        if (folder / OLD_WEIGHTS).is_file():
            what = f"{source} holds its weights in {OLD_WEIGHTS} only, which could run code when opened"
            raise CheckpointError(what, CONVERT)
        raise CheckpointError(f"{source} is no adapter: it holds no {WEIGHTS}", HOLDS)
    public = {name: (folder / name).read_bytes for name in PUBLIC if (folder / name).is_file()}
    return AdapterFiles(
        name=folder.resolve().name,
        raw=read_json(folder / SETTINGS),
        entries=safetensors.entries([folder / WEIGHTS]),
        public=public if TOKENIZER in public else {},
    )
