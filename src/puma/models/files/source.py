"""What every form of checkpoint gives, whatever its files are: raw settings, public files, tensors that are not read.

This file must not know any form.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, float32

from puma.errors import CheckpointError, TensorError
from puma.models.pooling import Pooling

TOKENIZER, SETTINGS, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
SPECIALS = "special_tokens_map.json"  # of older checkpoints
PUBLIC = (TOKENIZER, SETTINGS, SPECIALS, TEMPLATE)  # that travel with a model to its clients
MORE_TEMPLATES = "chat_templates."  # and the name: so what lies in additional_chat_templates/ is called on its way
ORIGINAL = "use the original checkpoint, in fp32, fp16 or bf16"  # the hint for what cannot be read


class Blocks(NamedTuple):
    """How the rows of a matrix lie in their file: numbers of a `kind` of kernels.stored, from byte `offset` on, and
    which of them each row is, (rows,), if they lie in another order."""

    kind: str
    offset: int
    order: Tensor | None = None


class Rebuilt(NamedTuple):
    """How the rows of a matrix can be written down with a file's own integers: numbers of a `kind` of kernels.stored,
    as bytes (rows, any), if they `fit` it."""

    kind: str
    fit: Callable[[], bool]
    rows: Callable[[], Tensor]


@dataclass(frozen=True)
class Entry:
    """A tensor in a file: `read` gives it anew each time, in numbers that safetensors call `dtype`.

    CheckpointError from `read` if the file is not what it was when the entry was made. A form that computes its numbers
    out of several stored tensors, such as a quantised one, makes an entry of their entries. A `linear` one is (out, in)
    even in families that store their matrices (in, out). Where its numbers lie in the file as they are, in order,
    `offset` says from which byte on, and `one` reads what lies at one index of the first dimension alone; where they
    are made of `blocks` by a kernel, these do; where such blocks would have to be made first, `rebuilt` does.
    """

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], Tensor] = field(repr=False)
    linear: bool = False
    offset: int | None = None
    one: Callable[[int], Tensor] | None = field(default=None, repr=False, compare=False)
    blocks: Blocks | None = field(default=None, repr=False, compare=False)
    rebuilt: Rebuilt | None = field(default=None, repr=False, compare=False)

    def remade(self, read: Callable[[], Tensor], **changed: Any) -> Entry:
        """Another one, whose numbers lie nowhere as they are unless what is `changed` says so."""
        return replace(self, read=read, **({"offset": None, "one": None, "blocks": None, "rebuilt": None} | changed))

    def turned(self) -> Entry:
        """The same transposed."""
        return self.remade(lambda: self.read().T.contiguous(), shape=self.shape[::-1], linear=False)

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.name} in {self.file.name}"


@dataclass(frozen=True)
class Source:
    """A checkpoint as its files have it; nothing of it is judged yet.

    `raw` is a decoded config.json and `generation` a decoded generation_config.json, or what says the same in another
    form. `files` are the PUBLIC ones that there are. `tensors` reads names, shapes and kinds, by the files' names.
    `folder` is where they lie. `pooling` is how states become a text's vector, if anything says that; the model is
    `bare` where its own head is left aside then.
    """

    folder: Path
    raw: dict[str, Any]
    generation: dict[str, Any]
    files: Mapping[str, Callable[[], bytes]]
    tensors: Callable[[], Mapping[str, Entry]]
    pooling: Pooling | None = None
    bare: bool = False


class Unchanged:
    """A file that has to stay what it is now: what was proven about its numbers would not hold otherwise."""

    def __init__(self, path: Path) -> None:
        self._path, self._stamp = path, _stamp(path)

    def check(self) -> None:
        """CheckpointError if it is another by now; OSError if it is gone."""
        if _stamp(self._path) != self._stamp:
            raise CheckpointError(f"{self._path} has been changed meanwhile", "run the command again")


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes with a file's content: which file it is, its size, when it was written."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


class Stored(Mapping[str, Tensor]):
    """Entries as tensors: read, in float32, and found to be finite each time that they are looked up."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self._entries = entries

    @property
    def files(self) -> tuple[Path, ...]:
        """Where they are."""
        return tuple(sorted({entry.file for entry in self._entries.values()}))

    def entry(self, name: str) -> Entry:
        """One of them, not read."""
        return self._entries[name]

    def __getitem__(self, name: str) -> Tensor:
        entry = self._entries[name]
        return finite(entry.where, entry.read().to(float32))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


def finite(where: str, tensor: Tensor) -> Tensor:
    """The tensor, if all of its numbers are finite."""
    if tensor.numel() and not all(math.isfinite(end) for end in tensor.aminmax()):  # without a copy of its size
        raise TensorError(f"{where} holds NaN or infinite numbers", "the checkpoint is damaged")
    return tensor


def public_files(folder: Path) -> dict[str, Callable[[], bytes]]:
    """What of a folder travels with a model to its clients: the PUBLIC files, and chat templates that have names."""
    found = {name: folder / name for name in PUBLIC} | {
        f"{MORE_TEMPLATES}{path.name}": path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))
    }
    return {name: path.read_bytes for name, path in found.items() if path.is_file()}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object in a file."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "download the model again") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object", "download the model again")
    return content
