"""From what a user names, a folder, a file or a name on the hub, to a checkpoint's source.

This file must not know what is in the files.
"""

from __future__ import annotations

import re
from pathlib import Path

from puma.errors import CheckpointError
from puma.models.files import folder as folders
from puma.models.files import safetensors
from puma.models.files.gguf import file as gguf
from puma.models.files.sentences import MODULES, places
from puma.models.files.source import Entry, Source

SETTINGS = ".json"
HUB_FILES, HUB_WEIGHTS = ["*.json", "*.txt", "*.model", "*.spm", "*.jinja"], "*.safetensors"
LEFT = ["*/*", "consolidated*"]  # copies in other forms: for onnx and others in folders, and Mistral's own names
TEMPLATES = "additional_chat_templates/*.jinja"
MATRICES = ("sparse_linear", "colbert_linear")  # each in a file of its own beside an encoder, of whose tokens it is
PARTS = ("text_model", "vision_model", *MATRICES)  # that lie in one folder and are models of their own
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
HUB_FILE = re.compile(r"([A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)/((?:[A-Za-z0-9][\w.-]*/)*[\w.-]+\.gguf)")


def parted(source: str | Path) -> tuple[str | Path, str]:
    """A model, and which part of it is meant as one of its own, where the source ends with its name and no such folder
    is there.
    """
    path = Path(source).expanduser()
    if path.name not in PARTS or path.exists():
        return source, ""
    return str(source).rstrip("/").removesuffix(path.name).rstrip("/") or ".", path.name


def beside(folder: Path, part: str) -> dict[str, Entry]:
    """The tensors of a matrix that has a file of its own, as a head's for tokens."""
    if part not in MATRICES:
        return {}
    path = folder / f"{part}.safetensors"
    if not path.is_file():
        hint = (
            f'convert it in that folder: python -c "import torch, safetensors.torch as s; s.save_file(torch.load('
            f"'{part}.pt', weights_only=True), '{part}.safetensors')\""
        )
        raise CheckpointError(f"{folder} holds no {path.name}; a {part}.pt could run code when opened", hint)
    return {f"classifier.{name}": entry for name, entry in safetensors.entries([path]).items()}


def opened(source: str | Path, weights: bool) -> Source:
    """What the user names, opened; a client, who needs no weights, downloads none."""
    path = locate(source, weights)
    if path.suffix == SETTINGS:
        return folders.alone(path, weights)
    if path.is_file():
        return gguf.read(path)
    inside = None if any(path.glob("*.safetensors")) else gguf.only(path)
    return folders.read(path) if inside is None else gguf.read(inside)


def locate(source: str | Path, weights: bool) -> Path:
    """The folder of a checkpoint, or its GGUF file; what is there first, then the hub."""
    path = Path(source).expanduser()
    named = path.suffix == gguf.SUFFIX
    if path.is_file() and path.suffix == SETTINGS:
        return path
    if not path.exists() and isinstance(source, str):
        if file := HUB_FILE.fullmatch(source):
            path = fetched(file[1], [part.as_posix() for part in gguf.parts(Path(file[2]))], []) / file[2]
        elif HUB_NAME.fullmatch(source) and not named:
            path = download(source, [*HUB_FILES, *([HUB_WEIGHTS] if weights else [])])
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
    if path.suffix == SETTINGS:
        return path.resolve().parent.name if path.name == "config.json" else path.stem
    part = gguf.SPLIT.fullmatch(path.name)
    return part[1] if part else path.name.removesuffix(gguf.SUFFIX)


def download(name: str, patterns: list[str]) -> Path:
    """A model's folder on the hub, as far as it is needed: these of its own files, chat templates that have names, and
    the modules that modules.json places in folders of their own, with their weights if weights are wanted.
    """
    folder = fetched(name, patterns)
    inner = [TEMPLATES]
    for path in places(folder):
        inner += [f"{path}/{pattern}" for pattern in patterns]
    fetched(name, inner, [])
    if HUB_WEIGHTS in patterns and not any(folder.rglob(HUB_WEIGHTS)):
        _check_weights(name)
    return folder


def fetched(name: str, patterns: list[str], left: list[str] = LEFT) -> Path:
    """Files of a repository on the hub, or in its cache; none that is to be `left` there."""
    import huggingface_hub  # noqa: PLC0415  # heavy, and only a name on the hub needs it
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError  # noqa: PLC0415

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, ignore_patterns=left))
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


def _check_weights(name: str) -> None:
    """CheckpointError that says in which other form the hub has a model's weights, if it can be asked."""
    import huggingface_hub  # noqa: PLC0415

    try:
        files = sorted(huggingface_hub.list_repo_files(name))
    except Exception:  # whoever opens the folder says that they are missing
        return
    if models := [file for file in files if file.endswith(gguf.SUFFIX)]:
        hint = f"name one of its files, such as {name}/{models[0]}"
        raise CheckpointError(f"{name} holds its weights in GGUF files on the hub", hint)
    if any(Path(file).name.startswith("pytorch_model") for file in files):
        what = f"{name} holds its weights in pytorch_model.bin only, which could run code when opened"
        raise CheckpointError(what, f"`hf download {name} --local-dir folder`, then {folders.CONVERT}")
