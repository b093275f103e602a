"""From what a user names, a folder, a file or a name on the hub, to a checkpoint's source.

This file must not know what is in the files.
"""

from __future__ import annotations

import re
from pathlib import Path

from puma.errors import CheckpointError
from puma.models.files import folder as folders
from puma.models.files.gguf import file as gguf
from puma.models.files.sentences import MODULES
from puma.models.files.source import Source

HUB_FILES = ["*.json", "*.txt", "*.model", "*.jinja"]
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
HUB_FILE = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/([\w.-]+\.gguf)")


def opened(source: str | Path, weights: bool) -> Source:
    """What the user names, opened; a client, who needs no weights, downloads none."""
    path = locate(source, weights)
    if path.is_file():
        return gguf.read(path)
    inside = None if any(path.glob("*.safetensors")) else gguf.only(path)
    return folders.read(path) if inside is None else gguf.read(inside)


def locate(source: str | Path, weights: bool) -> Path:
    """The folder of a checkpoint, or its GGUF file; what is there first, then the hub."""
    path = Path(source).expanduser()
    named = path.suffix == gguf.SUFFIX
    if not path.exists() and isinstance(source, str):
        if file := HUB_FILE.fullmatch(source):
            path = download(file[1], [part.name for part in gguf.parts(Path(file[2]))]) / file[2]
        elif HUB_NAME.fullmatch(source) and not named:
            path = download(source, [*HUB_FILES, *(["*.safetensors"] if weights else [])])
    if not path.exists():
        what = f"there is no {'file' if named else 'folder'} {source}"
        raise CheckpointError(what, "pass a checkpoint's folder, a GGUF file or a hub name")
    if path.is_file() and not named:
        raise CheckpointError(f"{source} is no checkpoint", "pass its folder, or a file whose name ends in .gguf")
    described = any((path / name).is_file() for name in ("config.json", MODULES))
    if path.is_dir() and not described and not any(path.glob(f"*{gguf.SUFFIX}")):
        hint = (
            "a checkpoint's folder holds config.json, model.safetensors and tokenizer.json, or one GGUF file; "
            "of several on the hub name one, as owner/name/file.gguf"
        )
        raise CheckpointError(f"{source} is no checkpoint: it holds no config.json", hint)
    return path


def called(path: Path) -> str:
    """What a model on disk is called: its folder's name, or its file's without what says that it is one, or a part."""
    if not path.is_file():
        return path.resolve().name
    part = gguf.SPLIT.fullmatch(path.name)
    return part[1] if part else path.name.removesuffix(gguf.SUFFIX)


def download(name: str, patterns: list[str]) -> Path:
    """Fetch these of a model's files from the hub, or find them in its cache."""
    import huggingface_hub  # noqa: PLC0415  # heavy, and only a name on the hub needs it
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError  # noqa: PLC0415

    try:
        folder = Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, ignore_patterns=["*/*"]))
        if (folder / MODULES).is_file():  # which names folders of the folder
            huggingface_hub.snapshot_download(name, allow_patterns=["*_Pooling/config.json"], ignore_patterns=[])
        return folder
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
