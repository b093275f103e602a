"""A Hugging Face folder: config.json, safetensors, tokenizer.json and what may lie beside them.

This file must not know what the settings mean.
"""

from __future__ import annotations

from pathlib import Path

from puma.errors import CheckpointError
from puma.models.files import dequantised, safetensors
from puma.models.files.source import Source, public_files, read_json


def read(folder: Path) -> Source:
    """A folder's checkpoint; weights are looked for when their names are asked for."""
    generation, raw = folder / "generation_config.json", read_json(folder / "config.json")
    quantising = dequantised.settings(folder, raw)
    return Source(
        folder=folder,
        raw=raw,
        generation=read_json(generation) if generation.is_file() else {},
        files=public_files(folder),
        tensors=lambda: dequantised.entries(quantising, safetensors.entries(weight_files(folder))),
    )


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, one or several."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        names = sorted(set(read_json(index).get("weight_map", {}).values()))
    elif single.is_file():
        names = [single.name]
    elif any(folder.glob("pytorch_model*.bin*")):
        raise CheckpointError(
            f"{folder} holds its weights in pytorch_model.bin only, which could run code when opened",
            "convert it: AutoModel.from_pretrained(folder).save_pretrained(folder) in transformers",
        )
    else:
        raise CheckpointError(f"{folder} holds no model.safetensors", "export the model as safetensors")
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(f"{folder} lacks {name}, which its index names", "download the model again")
    return [folder / name for name in names]
