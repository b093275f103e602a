"""A tokenizer that a client brings along, in place of what the model's owner sent. It must not know the parties."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from puma.errors import UsageError
from puma.models.files import generation
from puma.models.files.folder import said_of_tokens, travelling
from puma.models.files.source import TOKENIZER
from puma.models.text import open_tokenizer, tokenizer_of


class OwnFiles(NamedTuple):
    """What a client brings in place of the owner's files: of all of them if it is `whole`, else of the tokenizer."""

    tokenizer: Any
    files: dict[str, Callable[[], bytes]]
    whole: bool


def own_files(path: Path) -> OwnFiles:
    """A client's own tokenizer, from its file or folder, and from a folder whatever belongs to it."""
    hint = "name a tokenizer.json, or a folder that holds one"
    if not path.is_dir():
        if not path.is_file():
            raise UsageError(f"there is no tokenizer {path}", hint)
        return OwnFiles(open_tokenizer(path), {}, False)
    files = travelling(path)
    read = files.pop(TOKENIZER, None)
    if read is None:
        raise UsageError(f"there is no tokenizer {path / TOKENIZER}", hint)
    files |= generation.public(said_of_tokens(path) or {})
    return OwnFiles(tokenizer_of(read(), f"the tokenizer in {path}", "download it again"), files, True)
