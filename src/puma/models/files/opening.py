"""From what a user names, a folder, a file or a name on the hub, to a checkpoint's source.

This file must not know what is in the files.
"""

from __future__ import annotations

import re
from pathlib import Path

from puma.errors import CheckpointError, UnsupportedModel
from puma.models.files import folder as folders
from puma.models.files.source import ORIGINAL, Source

HUB_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")


def opened(source: str | Path, weights: bool) -> Source:
    """What the user names, opened; a client, who needs no weights, downloads none."""
    return folders.read(locate(source, weights))


def locate(source: str | Path, weights: bool) -> Path:
    """The folder of a checkpoint; folders first, then the hub."""
    folder = Path(source).expanduser()
    if not folder.exists() and isinstance(source, str) and HUB_NAME.fullmatch(source):
        folder = download(source, weights)
    if any([folder] if folder.suffix == ".gguf" else folder.glob("*.gguf")) and not (folder / "config.json").is_file():
        raise UnsupportedModel(f"{source} is quantised (GGUF)", ORIGINAL)
    if not folder.exists():
        raise CheckpointError(f"there is no folder {source}", "pass a checkpoint's folder or a hub name")
    if not (folder / "config.json").is_file():
        hint = "a checkpoint's folder holds config.json, model.safetensors and tokenizer.json"
        raise CheckpointError(f"{source} is no checkpoint: it holds no config.json", hint)
    return folder


def download(name: str, weights: bool) -> Path:
    """Fetch a model's files from the hub, or find them in its cache."""
    import huggingface_hub  # noqa: PLC0415  # heavy, and only a name on the hub needs it
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError  # noqa: PLC0415

    patterns = [*HUB_FILES, "*.safetensors"] if weights else HUB_FILES
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))
    except (RepositoryNotFoundError, GatedRepoError) as error:
        raise CheckpointError(
            f"there is no folder {name}, and the hub gives no access to a model of that name",
            "check the spelling; for a gated or private model, log in with `hf auth login`",
        ) from error
    except Exception as error:  # the hub's client raises what its many transports raise
        raise CheckpointError(
            f"there is no folder {name}, and the hub cannot be reached ({type(error).__name__})",
            "download the model where there is a network, and pass its folder",
        ) from error
