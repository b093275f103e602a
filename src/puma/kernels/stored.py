"""A matrix as it lies in a file of somebody's, and the whole numbers of a ring that it stands for.

A number is read, multiplied by its column's factor in float32, if there are factors, and rounded to the nearest word of
so many fraction bits, ties to even: the same word on every machine. Of quantised files it is made of a block's integers
and scales, in float32 like the file's own reader. It must not know whose file it is, nor shares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# By kind: how torch calls the numbers, and whether they are words already.
KINDS = {
    "bf16": (torch.bfloat16, False),
    "f16": (torch.float16, False),
    "f32": (torch.float32, False),
    "i32": (torch.int32, True),
    "i64": (torch.int64, True),
}


class Stored(NamedTuple):
    """Rows of so many `columns`, as `raw` bytes (uint8) of one of KINDS or BLOCKS, and float32 factors (columns,) if
    any."""

    raw: Tensor
    kind: str
    columns: int
    factors: Tensor | None = None

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.raw.numel() // max(1, bytes_of(self.kind, self.columns))

    def part(self, first: int, stop: int) -> Stored:
        """Some of the rows."""
        each = bytes_of(self.kind, self.columns)
        return self._replace(raw=self.raw[first * each : stop * each])

    def chosen(self, rows: Tensor) -> Stored:
        """These rows (n,), which may come twice."""
        each = bytes_of(self.kind, self.columns)
        return self._replace(raw=self.raw.reshape(-1, each)[rows].reshape(-1))


def bytes_of(kind: str, count: int) -> int:
    """Bytes of so many numbers; of a kind that lies in blocks, of whole ones."""
    if kind in BLOCKS:
        return count // BLOCKS[kind].numbers * BLOCKS[kind].size
    return count * KINDS[kind][0].itemsize


def fits(kind: str, shape: Sequence[int]) -> bool:
    """Whether there is such a kind, and a tensor of this shape can lie in it."""
    if kind not in BLOCKS:
        return kind in KINDS
    return len(shape) == 2 and shape[-1] > 0 and shape[-1] % BLOCKS[kind].numbers == 0


def numbers(matrix: Stored) -> Tensor:
    """The numbers (rows, columns), in place if they lie where their type may lie; of blocks in float32."""
    if matrix.kind in BLOCKS:
        block = BLOCKS[matrix.kind]
        return block.read(matrix.raw.reshape(-1, block.size)).reshape(-1, matrix.columns)
    raw, kind = matrix.raw, KINDS[matrix.kind][0]
    aligned = raw.storage_offset() % kind.itemsize == 0 and raw.data_ptr() % kind.itemsize == 0
    return (raw if aligned else raw.clone()).view(kind).reshape(-1, matrix.columns)


# -- blocks of GGUF files -------------------------------------------------------------------------------------------
# Source of the layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h


def _half(blocks: Tensor, at: int) -> Tensor:
    return blocks[:, at : at + 2].clone().view(torch.float16).float()  # which may lie at an odd place


def _signed(blocks: Tensor) -> Tensor:
    return blocks.contiguous().view(torch.int8).float()


def _split(blocks: Tensor, groups: int, width: int) -> Tensor:
    """Bytes as parts of `width` bits, low to high, a group's lowest parts first: (blocks, numbers)."""
    shifts = torch.arange(0, 8, width, dtype=torch.uint8).reshape(1, 1, -1, 1)
    parts = blocks.reshape(len(blocks), groups, 1, -1) >> shifts
    return (parts & ((1 << width) - 1)).reshape(len(blocks), -1)


def _q8_0(blocks: Tensor) -> Tensor:
    return _signed(blocks[:, 2:]) * _half(blocks, 0)


def _q4_0(blocks: Tensor) -> Tensor:
    return (_split(blocks[:, 2:], 1, 4).float() - 8) * _half(blocks, 0)


def _q4_1(blocks: Tensor) -> Tensor:
    return _split(blocks[:, 4:], 1, 4).float() * _half(blocks, 0) + _half(blocks, 2)


def _q4_z(blocks: Tensor) -> Tensor:
    """Of no file: GPTQ's and AWQ's integers around a zero of the block's own, with a byte that means nothing."""
    return (_split(blocks[:, 4:], 1, 4).float() - blocks[:, 2:3].float()) * _half(blocks, 0)


def _q4_k(blocks: Tensor) -> Tensor:
    """Eight parts of 32, whose scales and offsets are numbers of six bits in twelve bytes."""
    scale, least, both = blocks[:, 4:16].split(4, 1)
    scales = torch.cat([scale & 63, (both & 15) | ((scale >> 2) & 48)], 1).float() * _half(blocks, 0)
    offsets = torch.cat([least & 63, (both >> 4) | ((least >> 2) & 48)], 1).float() * _half(blocks, 2)
    each = _split(blocks[:, 16:], 4, 4).float().reshape(-1, 8, 32)
    return (each * scales.unsqueeze(-1) - offsets.unsqueeze(-1)).reshape(-1, 256)


def _q6_k(blocks: Tensor) -> Tensor:
    """Sixteen parts of 16; four low bits and two high ones of each number lie apart."""
    whole = (_split(blocks[:, :128], 2, 4) | (_split(blocks[:, 128:192], 2, 2) << 4)).float() - 32
    scales = _signed(blocks[:, 192:208]) * _half(blocks, 208)
    return (whole.reshape(-1, 16, 16) * scales.unsqueeze(-1)).reshape(-1, 256)


class Block(NamedTuple):
    """How many numbers a block holds, in how many bytes, and what they are: (blocks, size) to (blocks, numbers)."""

    numbers: int
    size: int
    read: Callable[[Tensor], Tensor]


BLOCKS = {
    "q8_0": Block(32, 34, _q8_0),
    "q4_0": Block(32, 18, _q4_0),
    "q4_1": Block(32, 20, _q4_1),
    "q4_k": Block(256, 144, _q4_k),
    "q6_k": Block(256, 210, _q6_k),
    "q4_z": Block(32, 20, _q4_z),
}
