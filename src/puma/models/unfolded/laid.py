"""Each parameter of a model that is open to everybody: of which numbers its words are made, and where these lie.

A matrix stays in its file where folding did no more to it than a factor for each column, be it quantised or not; if its
rows lie there in another order, or its integers turned (GPTQ, AWQ), they are written down in their own numbers. All
else is written down in two bytes a number where these hold it exactly, and otherwise as the words themselves. This file
must not know who reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from puma.errors import RangeError
from puma.models.deferred import Folded
from puma.models.files.source import Blocks, Entry
from puma.models.unfolded.traced import Traced, traced
from puma.mpc.public import KINDS, bytes_of, fits, mapped

MAPPED = {"F32": "f32", "F16": "f16", "BF16": "bf16"}
WIDE = 24  # fraction bits beyond which a word has no room in four bytes
FEW = 1 << 16  # numbers of a matrix that are looked at before all of them


@dataclass(frozen=True)
class Laid:
    """A parameter of this shape: numbers of a `kind` of kernels.stored, which lie in a `file` from a byte on or are
    `made`; and a factor for each column, if any."""

    name: str
    shape: tuple[int, ...]
    kind: str
    file: Path | None = None
    offset: int = 0
    made: Callable[[], Tensor] | None = None
    factors: Tensor | None = None

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return bytes_of(self.kind, torch.Size(self.shape).numel())

    def raw(self) -> Tensor:
        """Its numbers as bytes (uint8), in memory of their own or mapped for as long as they are held."""
        if self.made is not None:
            return self.made().contiguous().reshape(-1).view(torch.uint8)
        assert self.file is not None
        return mapped(self.file, self.offset, self.size)


def laid(
    params: Mapping[str, Tensor], frac: Callable[[str], int], names: Iterable[str] | None = None
) -> list[Laid]:  # fmt: skip
    """All parameters, or those of these names, in order."""
    return [_laid(params, name, frac(name)) for name in (params if names is None else names)]


def _laid(params: Mapping[str, Tensor], name: str, frac: int) -> Laid:
    found = _in_file(params, name)
    if found is not None:
        return found
    value: Any = params.unread(name) if isinstance(params, Folded) else params[name]
    shape = tuple(value.shape)
    kind = _exactly(params[name]) if len(shape) == 2 and frac < WIDE else ""
    if kind:
        return Laid(name, shape, kind, made=lambda: params[name].to(KINDS[kind][0]))
    kind = "i32" if frac < WIDE else "i64"
    return Laid(name, shape, kind, made=lambda: _words(params[name], name, frac).to(KINDS[kind][0]))


def _in_file(params: Mapping[str, Tensor], name: str) -> Laid | None:
    """The parameter as rows of a file's matrix and factors."""
    if not isinstance(params, Folded) or params.entry is None:
        return None
    found = traced(params.unread(name))
    if found is None:
        return None
    lies: Entry = params.entry(found.name)
    blocks, shape = _blocks(lies), (found.stop - found.first, found.columns)
    own = lies.rebuilt
    if own is not None and fits(own.kind, shape) and own.fit():
        return Laid(name, shape, own.kind, made=lambda: own.rows()[found.first : found.stop], factors=found.multiplied)
    if blocks is None or not fits(blocks.kind, shape):
        return None
    if blocks.order is not None:
        made = partial(_ordered, lies, blocks, blocks.order, found)
        return Laid(name, shape, blocks.kind, made=made, factors=found.multiplied)
    offset = blocks.offset + found.first * bytes_of(blocks.kind, found.columns)
    return Laid(name, shape, blocks.kind, lies.file, offset, factors=found.multiplied)


def _blocks(lies: Entry) -> Blocks | None:
    """How an entry's numbers lie in its file, if they do so as they are."""
    if lies.blocks is not None or lies.offset is None or lies.dtype not in MAPPED:
        return lies.blocks
    return Blocks(MAPPED[lies.dtype], lies.offset)


def _ordered(lies: Entry, blocks: Blocks, order: Tensor, found: Traced) -> Tensor:
    """Rows of a file's matrix, as bytes, in another order than there."""
    each = bytes_of(blocks.kind, found.columns)
    return mapped(lies.file, blocks.offset, len(order) * each).reshape(-1, each)[order[found.first : found.stop]]


def _exactly(matrix: Tensor) -> str:
    """The kind of two bytes that holds all of these numbers as they are; nothing if none does."""
    few = matrix.reshape(-1)[:FEW]
    for kind in ("bf16", "f16"):
        dtype = KINDS[kind][0]
        if torch.equal(few.to(dtype).float(), few) and torch.equal(matrix.to(dtype).float(), matrix):
            return kind
    return ""


def _words(value: Tensor, name: str, frac: int) -> Tensor:
    """Words with so many fraction bits."""
    words = torch.round(value.to(torch.float64) * 2.0**frac).to(torch.int64)
    if frac < WIDE and words.numel() and int(words.abs().max()) >= 1 << 31:
        raise RangeError(f"{name} has a weight beyond {2 ** (31 - frac)}", "fixed point cannot hold it")
    return words
