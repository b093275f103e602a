"""A GGUF file, or a model of several, as the source of a checkpoint.

This file must not know of families.
"""

from __future__ import annotations

from pathlib import Path

from puma.errors import CheckpointError, UnsupportedModel
from puma.models.files import generation
from puma.models.files.gguf import settings, tokens
from puma.models.files.gguf.dialects import DIALECTS, GATED_T5, Dialect
from puma.models.files.gguf.header import SPLIT, Header
from puma.models.files.gguf.header import files as parts
from puma.models.files.gguf.header import read as read_header
from puma.models.files.gguf.numbers import entry
from puma.models.files.source import Entry, Source, Unchanged

__all__ = ["SPLIT", "SUFFIX", "only", "parts", "read"]
SUFFIX = ".gguf"
CLASSIFIER = "BertForSequenceClassification"


def read(path: Path) -> Source:
    """The checkpoint in a file; UnsupportedModel for an architecture or a setting that is not implemented."""
    header = read_header(path)
    dialect = _dialect(header)
    found = settings.Settings(header)
    architecture = CLASSIFIER if dialect.architecture == "BertModel" and found.has("cls.output.weight") else None
    raw = settings.config(found, architecture or dialect.architecture)
    pooling = None if architecture else settings.pooling(found)
    return Source(
        folder=path.parent,
        raw=raw | tokens.special_ids(header.fields),
        generation={},
        files=tokens.files(header.fields) | generation.public(settings.sampling(header.fields)),
        tensors=lambda: _entries(header, dialect, *settings.heads(found)),
        pooling=pooling,
        bare=pooling is not None,
    )


def only(folder: Path) -> Path | None:
    """The one model in GGUF files of a folder, None if there is none; CheckpointError if there are several.

    Files of what looks at images or of adapters lie beside models, and are none.
    """
    paths = [path for path in sorted(folder.glob(f"*{SUFFIX}")) if not path.name.lower().startswith("mmproj")]
    firsts = [path for path in paths if not (part := SPLIT.fullmatch(path.name)) or int(part[2]) == 1]
    if len(firsts) > 1:
        names = ", ".join(path.name for path in firsts)
        raise CheckpointError(f"{folder} holds {len(firsts)} models ({names})", f"name one, such as {firsts[0]}")
    return (firsts or paths or [None])[0]


def _dialect(header: Header) -> Dialect:
    """How the file names its tensors."""
    name, kind = header.fields.get("general.architecture"), header.fields.get("general.type", "model")
    if kind != "model":
        what = f"{header.path} holds no model, its type is {kind}"
        raise UnsupportedModel(what, "name the file of the model that it belongs to")
    if name == "t5" and "enc.blk.0.ffn_gate.weight" in header.places:
        return GATED_T5
    if name not in DIALECTS:
        what = f"{header.path} is of the architecture {name}"
        raise UnsupportedModel(what, f"puma reads {', '.join(DIALECTS)} from GGUF files")
    return DIALECTS[name]


def _entries(header: Header, dialect: Dialect, heads: int, kv_heads: int) -> dict[str, Entry]:
    """All tensors that a checkpoint of this kind may hold, by its names."""
    unchanged = {path: Unchanged(path) for path in {place.file for place in header.places.values()}}
    found: dict[str, Entry] = {}
    for name, place in header.places.items():
        ours = dialect.named(name)
        if ours is not None:
            found[ours] = entry(place, unchanged[place.file], ours, dialect.change(name, heads, kv_heads))
    return found
