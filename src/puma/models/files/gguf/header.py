"""What stands at the beginning of a GGUF file: fields of all kinds, and where each tensor lies.

This file must not know what a field means. Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy

from puma.errors import CheckpointError, UnsupportedModel

MAGIC = b"GGUF"
VERSIONS = (2, 3)
STRING, ARRAY = 8, 9
SCALARS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")
MOST_DIMENSIONS, MOST_SIZE = 4, 1 << 32


@dataclass(frozen=True)
class Place:
    """A tensor in a file: its shape as torch has it, ggml's number of its kind, its first byte."""

    file: Path
    name: str
    shape: tuple[int, ...]
    kind: int
    offset: int


@dataclass(frozen=True)
class Header:
    """Fields and tensors of a model, whose files may be several."""

    path: Path
    fields: Mapping[str, Any]
    places: Mapping[str, Place]


def read(path: Path) -> Header:
    """The header of a model that this file holds, or a part of; the other parts lie beside it."""
    lacking = next((part.name for part in files(path) if not part.is_file()), None)
    if lacking:
        raise CheckpointError(f"{path.parent} lacks {lacking}, a part of the model", "download all parts")
    parts = [_read(part) for part in files(path)]
    first, count = parts[0], int(parts[0].fields.get("split.count", 1))
    if count not in (1, len(parts)):
        raise CheckpointError(
            f"{path} is one of {count} parts, and its name does not say which",
            "name them as they came, such as model-00001-of-00002.gguf",
        )
    places: dict[str, Place] = {}
    for part in parts:
        double = next((name for name in part.places if name in places), None)
        if double:
            raise CheckpointError(f"{part.path} holds {double}, which another part holds, too", "download them again")
        places |= part.places
    return Header(path, first.fields, places)


def files(path: Path) -> list[Path]:
    """All parts of the model of which this file is one, in their order."""
    named = SPLIT.fullmatch(path.name)
    count = int(named[3]) if named else 0
    if not named or not count:
        return [path]
    return [path.with_name(f"{named[1]}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]


def _read(path: Path) -> Header:
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(path, content).header()
    except (OSError, ValueError, struct.error) as error:  # ValueError: an empty file, a text that is no UTF-8
        raise CheckpointError(f"{path} cannot be read: {error}", "download the model again") from error


class _Reader:
    """A walk through the bytes of a file."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path, self._content, self._at = path, content, 0

    def header(self) -> Header:
        """All of it."""
        self._check_version()
        tensors, fields = self._number("<u8"), self._number("<u8")
        found: dict[str, Any] = {}
        for _ in range(fields):
            name = self._string()
            found[name] = self._value(self._number("<u4"))
        read = [self._tensor() for _ in range(tensors)]
        align = int(found.get("general.alignment", 32))
        if align < 1:
            self._broken("it says that tensors lie at multiples of 0")
        start = -(-self._at // align) * align
        places = {name: Place(self._path, name, shape, kind, start + at) for name, shape, kind, at in read}
        return Header(self._path, found, places)

    def _check_version(self) -> None:
        if self._bytes(4) != MAGIC:
            self._broken("it does not begin as GGUF files do")
        version = self._number("<u4")
        if version >> 16 and not version & 0xFFFF:
            raise UnsupportedModel(f"{self._path} is made for big-endian machines", "convert it without --bigendian")
        if version not in VERSIONS:
            raise UnsupportedModel(
                f"{self._path} is of version {version} of GGUF", "puma reads 2 and 3; convert it with a newer llama.cpp"
            )

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self._string(), self._number("<u4")
        if dimensions > MOST_DIMENSIONS:
            self._broken(f"{name} has {dimensions} dimensions")
        shape = tuple(self._number("<u8") for _ in range(dimensions))
        if any(size > MOST_SIZE for size in shape):
            self._broken(f"{name} is larger than any tensor")
        return name, shape[::-1], self._number("<u4"), self._number("<u8")

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._string()
        if kind != ARRAY:
            return self._array(kind, 1)[0]
        inner, count = self._number("<u4"), self._number("<u8")
        if inner == STRING:
            if count > len(self._content):
                self._broken("a list is longer than the file")
            return [self._string() for _ in range(count)]
        return self._array(inner, count)

    def _array(self, kind: int, count: int) -> Sequence[Any]:
        if kind not in SCALARS:
            self._broken(f"a field is of kind {kind}, which GGUF has not")
        dtype = numpy.dtype(SCALARS[kind])
        found = numpy.frombuffer(self._bytes(count * dtype.itemsize), dtype)
        # A float32 as the shortest decimal number that it is nearest to: 1e-05, as config.json had it.
        return [float(str(x)) for x in found] if SCALARS[kind] == "<f4" else found.tolist()

    def _number(self, kind: str) -> int:
        return int.from_bytes(self._bytes(int(kind[2])), "little")

    def _string(self) -> str:
        return self._bytes(self._number("<u8")).decode("utf-8")

    def _bytes(self, count: int) -> bytes:
        found = self._content[self._at : self._at + count]
        if len(found) != count:
            self._broken("it ends early")
        self._at += count
        return found

    def _broken(self, why: str) -> NoReturn:
        raise CheckpointError(f"{self._path} cannot be read: {why}", "download the model again")
