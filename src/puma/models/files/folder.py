"""A Hugging Face folder: config.json, safetensors, tokenizer.json and what may lie beside them.

This file must not know what the settings mean.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from puma.errors import CheckpointError
from puma.models.files import dequantised, generation, relevance, safetensors, sentences, settled
from puma.models.files.source import TOKENIZER, Entry, Source, public_files, read_json
from puma.models.files.words import PIECES
from puma.models.reading.wording import FILE

SHARD = re.compile(r"-\d+-of-\d+\.")

CONVERT = (  # by the class that config.json names: AutoModel would leave the head behind
    "convert it: python -c \"import transformers as t; c = t.AutoConfig.from_pretrained('.'); "
    "getattr(t, c.architectures[0]).from_pretrained('.').save_pretrained('.')\" in that folder"
)


def read(root: Path) -> Source:
    """A folder's checkpoint; weights are looked for when their names are asked for."""
    said, judge = sentences.read(root), relevance.read(root)
    folder = said.body if said else root
    raw, chosen = read_json(folder / "config.json"), said_of_tokens(folder)
    raw = raw if judge is None else judge.settings(raw)
    quantising = dequantised.settings(folder, raw)
    return Source(
        folder=folder,
        raw=raw,
        generation=chosen or {},
        files=travelling(root) | generation.public(raw if chosen is None else chosen),
        tensors=lambda: _entries(folder, quantising, said, judge),
        pooling=said.pooling if said else None,
        bare=bool(said and said.bare),
    )


def travelling(root: Path) -> dict[str, Callable[[], bytes]]:
    """The public files of a folder: a tokenizer, if its files amount to one, and what else clients need of it."""
    said = sentences.read(root)
    folder = said.body if said else root
    config = folder / "config.json"
    model_type = str(read_json(config).get("model_type", "")) if config.is_file() else ""
    files = {name: read for name, read in public_files(folder).items() if name != TOKENIZER}
    files |= tokenizer_in(folder, model_type)
    if said and said.lower and TOKENIZER in files:
        files[TOKENIZER] = partial(sentences.lowered, files[TOKENIZER])
    return files | ({FILE: lambda: said.wording.bytes} if said else {})


def alone(settings: Path, weights: bool) -> Source:
    """A config.json without a checkpoint; CheckpointError if there are to be weights."""
    if weights:
        raise CheckpointError(f"{settings} has no weights", "pass the folder of a checkpoint")
    return Source(settings.parent, read_json(settings), {}, {}, dict)


def said_of_tokens(folder: Path) -> dict[str, Any] | None:
    """generation_config.json, if there is one."""
    path = folder / generation.FILE
    return read_json(path) if path.is_file() else None


def _entries(
    folder: Path, quantising: Any, said: sentences.Sentences | None, judge: relevance.Judge | None
) -> Mapping[str, Entry]:
    """The tensors of the model itself, and of what comes behind it."""
    found = dequantised.entries(quantising, safetensors.entries(weight_files(folder)))
    found = found if judge is None else judge.entries(found)
    return {**found, **said.entries()} if said else found


def tokenizer_in(folder: Path, model_type: str) -> dict[str, Callable[[], bytes]]:
    """The tokenizer that a folder's files amount to, if there are any."""
    if not any((folder / name).is_file() for name in (TOKENIZER, "vocab.txt", "vocab.json", *PIECES)):
        return {}
    return {TOKENIZER: partial(settled.content, folder, model_type)}


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a checkpoint, one or several; of a variant, if there are no others."""
    names = _named(folder, "model.safetensors", "model.safetensors.index.json")
    variants = {
        path.name.removeprefix("model.").removeprefix("safetensors.index.").partition(".")[0]
        for pattern in ("model.*.safetensors", "model.safetensors.index.*.json")
        for path in folder.glob(pattern)
        if not SHARD.search(path.name)
    }
    if not names and len(variants) > 1:
        what = f"{folder} holds several variants: {', '.join(sorted(variants))}"
        raise CheckpointError(what, "keep the files of one of them in the folder")
    for variant in variants if not names else ():
        names = _named(folder, f"model.{variant}.safetensors", f"model.safetensors.index.{variant}.json")
    if not names and any(folder.glob("pytorch_model*.bin*")):
        raise CheckpointError(
            f"{folder} holds its weights in pytorch_model.bin only, which could run code when opened",
            CONVERT,
        )
    if not names:
        raise CheckpointError(f"{folder} holds no model.safetensors", "export the model as safetensors")
    for name in names:
        if Path(name).name != name or not (folder / name).is_file():
            raise CheckpointError(f"{folder} lacks {name}, which its index names", "download the model again")
    return [folder / name for name in names]


def _named(folder: Path, single: str, index: str) -> list[str]:
    """One file, or those that an index names; the index does not count beside the one, as in the library."""
    if (folder / single).is_file():
        return [single]
    if not (folder / index).is_file():
        return []
    files = read_json(folder / index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(name, str) for name in files.values()):
        raise CheckpointError(f"{folder / index} maps no tensors to files", "download the model again")
    return sorted(set(files.values()))
