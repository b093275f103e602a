"""Tensors in safetensors files.

A file is mapped while a tensor of it is read, and no longer: what was read of a mapping stays in memory as long as the
mapping. This file must not know what the tensors are for.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from puma.errors import CheckpointError
from puma.models.files.source import Entry, Unchanged

LENGTH = struct.Struct("<Q")  # of the header, before it


def entries(paths: Sequence[Path]) -> dict[str, Entry]:
    """All tensors of these files, by name."""
    found: dict[str, Entry] = {}
    for path in paths:
        with opened(path) as file:
            unchanged, offsets = Unchanged(path), _offsets(path)
            for name in file.keys():  # noqa: SIM118
                content = file.get_slice(name)
                read = partial(_read, path, unchanged, name)
                shape, dtype = tuple(content.get_shape()), content.get_dtype()
                one = partial(_read_one, path, unchanged, name)
                found[name] = Entry(path, name, shape, dtype, read, offset=offsets.get(name), one=one)
    return found


def _offsets(path: Path) -> dict[str, int]:
    """From which byte of the file on each tensor's numbers lie. Source: the format's description by its authors."""
    with path.open("rb") as file:
        (size,) = LENGTH.unpack(file.read(LENGTH.size))
        header = json.loads(file.read(size))
    return {
        name: LENGTH.size + size + each["data_offsets"][0] for name, each in header.items() if name != "__metadata__"
    }


def _read(path: Path, unchanged: Unchanged, name: str) -> Tensor:
    with opened(path) as file:
        unchanged.check()
        return file.get_tensor(name)


def _read_one(path: Path, unchanged: Unchanged, name: str, index: int) -> Tensor:
    with opened(path) as file:
        unchanged.check()
        return file.get_slice(name)[index : index + 1][0]


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A mapped file; CheckpointError if it cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}", "download the model again") from error
