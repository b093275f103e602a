"""Tensors of a GGUF file as float32, dequantised by the package `gguf` in blocks of rows.

This file must not know what a tensor is for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy
import torch
from torch import Tensor

from puma.errors import CheckpointError, TensorError, UnsupportedModel
from puma.models.files.gguf.header import Place
from puma.models.files.source import Blocks, Entry, Unchanged

Change = Callable[[Tensor], Tensor]
BLOCK_BYTES = 1 << 20  # dequantised at a time; what is made on the way takes some times as much
DOUBLE = 28  # ggml's number of float64, which the package leaves as it is
LAID = {0: "f32", 1: "f16", 30: "bf16", 2: "q4_0", 3: "q4_1", 8: "q8_0", 12: "q4_k", 14: "q6_k"}  # by ggml's number


def entry(place: Place, unchanged: Unchanged, name: str, change: Change | None = None) -> Entry:
    """A tensor to be read, under another name and perhaps changed; what cannot be dequantised is refused at once."""
    _check_whole(place)
    try:
        shape = place.shape if change is None else tuple(change(torch.empty(place.shape, device="meta")).shape)
    except RuntimeError as error:  # torch's, for what cannot be reshaped into heads
        what = f"{place.name} in {place.file.name} has shape {list(place.shape)}, which is no whole number of heads"
        raise TensorError(what, "the file is damaged") from error
    read = partial(_read, place, unchanged, change)
    return Entry(place.file, name, shape, "F32", read, blocks=_blocks(place, change))


def _blocks(place: Place, change: Change | None) -> Blocks | None:
    """How a matrix lies in the file, if a kernel reads such numbers and no more than the order of rows is changed."""
    kind = LAID.get(place.kind)
    if kind is None or len(place.shape) != 2 or change is None:
        return Blocks(kind, place.offset) if kind and len(place.shape) == 2 else None
    rows = torch.arange(place.shape[0])
    order = change(rows.unsqueeze(1))
    moved = order.shape == (len(rows), 1) and torch.equal(order[:, 0].sort().values, rows)
    return Blocks(kind, place.offset, order[:, 0]) if moved else None


def _read(place: Place, unchanged: Unchanged, change: Change | None) -> Tensor:
    try:
        unchanged.check()
        found = numbers(place)
    except OSError as error:
        raise CheckpointError(f"{place.file} cannot be read: {error}", "download the model again") from error
    return found if change is None else change(found).contiguous()


def numbers(place: Place) -> Tensor:
    """A tensor's numbers as they are stored, in float32."""
    _check_whole(place)
    size, of = _block(place.kind)
    width = place.shape[-1] if place.shape else 1
    row, found = width // of * size, torch.empty(place.shape, dtype=torch.float32)
    if not found.numel():
        return found
    rows = found.numel() // width
    out, step = found.reshape(rows, width).numpy(), max(BLOCK_BYTES // row, 1)
    with place.file.open("rb") as file:
        file.seek(place.offset)
        for start in range(0, rows, step):
            count = min(step, rows - start)
            block = file.read(count * row)
            if len(block) != count * row:
                raise CheckpointError(f"{place.file} ends before {place.name} does", "download the model again")
            out[start : start + count] = _dequantised(block, place.kind).reshape(count, width)
    return found


def _check_whole(place: Place) -> None:
    """CheckpointError unless the file holds all of a tensor; before anything of its size is made."""
    if place.offset + stored_bytes(place) > place.file.stat().st_size:
        raise CheckpointError(f"{place.file} ends before {place.name} does", "download the model again")


def stored_bytes(place: Place) -> int:
    """How many bytes a tensor takes in its file."""
    size, of = _block(place.kind)
    if place.shape and place.shape[-1] % of:
        raise TensorError(
            f"{place.name} in {place.file.name} has rows of {place.shape[-1]}, no multiple of its blocks of {of}",
            "the file is damaged",
        )
    return math.prod(place.shape) // of * size


def kind_name(kind: int) -> str:
    """What ggml calls a kind of numbers."""
    import gguf  # noqa: PLC0415  # heavy, and only a GGUF file needs it

    try:
        return gguf.GGMLQuantizationType(kind).name
    except ValueError:
        return f"kind {kind}"


@cache
def _block(kind: int) -> tuple[int, int]:
    """Bytes of a block, and how many numbers it holds; UnsupportedModel for what the package cannot dequantise."""
    import gguf  # noqa: PLC0415

    try:
        of, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
        _dequantised(bytes(size), kind)
    except (ValueError, KeyError, NotImplementedError) as error:
        raise UnsupportedModel(
            f"a tensor of the file holds {kind_name(kind)} numbers, which the package gguf cannot dequantise",
            "take a file of another kind, such as Q4_K_M or Q8_0, or a newer gguf",
        ) from error
    return size, of


def _dequantised(block: bytes, kind: int) -> Any:
    """Blocks as floats, all in one row: the package takes rows one by one, and long ones are quicker."""
    import gguf  # noqa: PLC0415

    row = numpy.frombuffer(block, numpy.uint8).reshape(1, -1)
    if kind == DOUBLE:
        return row.view(numpy.float64)
    with numpy.errstate(all="ignore"):  # what is not finite is found by whoever reads the tensor
        return gguf.quants.dequantize(row, gguf.GGMLQuantizationType(kind))
