"""A folder of sentence-transformers: what its modules.json says comes behind the model's last states.

Only what is said is judged here, and nothing of it computed. This file must not know configs.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from puma.errors import CheckpointError, UnsupportedModel

MODULES = "modules.json"
MODES = {  # of a pooling's configuration, and which of our ways gives the same vector once it has length one
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean",
}
HINT = "use a model that pools by its first token or by the mean, and then at most normalises"


def pooling(folder: Path) -> str:
    """How the states of a text's tokens become one vector, "cls" or "mean"; "" where the folder does not say.

    UnsupportedModel for any other way, and for modules behind it that change the vector.
    """
    if not (folder / MODULES).is_file():
        return ""
    found = ""
    for module in _json(folder / MODULES, list):
        kind, path = _kind(module)
        if kind == "Pooling":
            found = _mode(_json(folder / path / "config.json", dict))
        elif kind not in ("Transformer", "Normalize"):
            raise UnsupportedModel(f"{folder / MODULES} names a module {kind}, which is not implemented", HINT)
    return found


def places(folder: Path) -> list[str]:
    """The folders inside a model's that its modules lie in; none where it has no modules.json."""
    if not (folder / MODULES).is_file():
        return []
    return [path for _, path in map(_kind, _json(folder / MODULES, list)) if path]


def _kind(module: Any) -> tuple[str, str]:
    """The last part of its class, and the folder inside the model's where it lies."""
    kind, path = (module.get(key) for key in ("type", "path")) if isinstance(module, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(path, str) or Path(path).is_absolute() or ".." in Path(path).parts:
        raise CheckpointError(f"{MODULES} has a module without a type or a folder", "download the model again")
    return kind.rpartition(".")[2], path


def _mode(settings: dict[str, Any]) -> str:
    """The one that is set; several at once give a vector that is as many times wider."""
    named = settings.get("pooling_mode")  # how newer versions write it
    modes = [named] if isinstance(named, str) else [key for key, on in settings.items() if _is_mode(key) and on is True]
    keys = [mode if _is_mode(mode) else _long(mode) for mode in modes]
    if len(keys) != 1 or keys[0] not in MODES:
        what = " and ".join(key.removeprefix("pooling_mode_") for key in keys) or "nothing"
        raise UnsupportedModel(f"the model pools by {what}, which is not implemented", HINT)
    if settings.get("include_prompt") is False:
        raise UnsupportedModel("the model leaves its prompt out of the pooling, which is not implemented", HINT)
    return MODES[keys[0]]


def _is_mode(key: str) -> bool:
    return key.startswith("pooling_mode_")


def _long(mode: str) -> str:
    """A mode's name as older versions write it."""
    return f"pooling_mode_{'cls_token' if mode == 'cls' else f'{mode}_tokens'}"


def _json(path: Path, kind: type) -> Any:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "download the model again") from error
    if not isinstance(found, kind):
        raise CheckpointError(f"{path} holds something else than it should", "download the model again")
    return found
