"""A folder of sentence-transformers' CrossEncoder: what it says, besides config.json, of how logits become scores.

Names and precedence are those of the library (sentence-transformers 6, cross_encoder/model). This file must not know
what the settings mean.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from puma.models.files.source import read_json

SETTINGS = "config_sentence_transformers.json"


def named(folder: Path, raw: dict[str, Any]) -> dict[str, Any]:
    """A decoded config.json with the function that the file beside it names, which counts before its own."""
    found = read_json(folder / SETTINGS) if (folder / SETTINGS).is_file() else {}
    if found.get("model_type") != "CrossEncoder" or not isinstance(found.get("activation_fn"), str):
        return raw
    return raw | {"sentence_transformers": {"activation_fn": found["activation_fn"]}}
