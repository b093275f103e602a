"""Entries of a quantised checkpoint as if it were none: matrices by their ordinary names, made of parts when read.

How each way of quantising stores a matrix, `models/quantised` knows; this file must not.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from puma.models import quantised
from puma.models.files.source import Entry, Rebuilt, read_json
from puma.models.quantised.packed import NIBBLES

OLD_SETTINGS = "quantize_config.json"  # where AutoGPTQ wrote them before transformers had a place


def settings(folder: Path, raw: dict[str, Any]) -> dict[str, Any]:
    """What a folder says of quantising; {} if nothing. UnsupportedModel if it is a way that is not implemented."""
    old = folder / OLD_SETTINGS
    if not (raw.get("quantization_config") or raw.get("compression_config")) and old.is_file():
        return quantised.settings_in({"quantization_config": {"quant_method": "gptq"} | read_json(old)})
    return quantised.settings_in(raw)


def entries(found: quantised.Settings, stored: Mapping[str, Entry]) -> Mapping[str, Entry]:
    """The entries that the settings describe, without those of parts. TensorError if parts are missing or unfit."""
    if not found:
        return stored
    headers = {name: quantised.Header(entry.shape, entry.dtype) for name, entry in stored.items()}
    tensors, spent = quantised.find(found, headers, lambda name: stored[name].read())
    made = {name: entry for name, entry in stored.items() if name not in spent}
    for name, packed in tensors.items():
        parts = [stored[part] for part in packed.parts]
        read, own = partial(_read, packed, parts), _rebuilt(packed, parts)
        made[name] = Entry(parts[0].file, name, packed.shape, "F32", read, linear=True, rebuilt=own)
    return made


def _read(packed: quantised.Packed, parts: list[Entry]) -> Tensor:
    return packed.decode(*(part.read() for part in parts))


def _rebuilt(packed: quantised.Packed, parts: list[Entry]) -> Rebuilt | None:
    own = packed.nibbles
    if own is None:
        return None
    return Rebuilt(
        NIBBLES,
        lambda: own.fits(*(parts[i].read() for i in own.small)),
        lambda: own.rows(*(part.read() for part in parts)),
    )
