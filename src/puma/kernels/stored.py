"""A matrix as it lies in a file of somebody's, and the whole numbers of a ring that it stands for.

A number is read, multiplied by its column's factor in float32, if there are factors, and rounded to the nearest word of
so many fraction bits, ties to even: the same word on every machine. It must not know whose file it is, nor shares.
"""

from __future__ import annotations

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
    """Rows of so many `columns`, as `raw` bytes (uint8) of one of KINDS, and float32 factors (columns,) if any."""

    raw: Tensor
    kind: str
    columns: int
    factors: Tensor | None = None

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.raw.numel() // max(1, self.columns * number_bytes(self.kind))

    def part(self, first: int, stop: int) -> Stored:
        """Some of the rows."""
        each = self.columns * number_bytes(self.kind)
        return self._replace(raw=self.raw[first * each : stop * each])

    def chosen(self, rows: Tensor) -> Stored:
        """These rows (n,), which may come twice."""
        each = self.columns * number_bytes(self.kind)
        return self._replace(raw=self.raw.reshape(-1, each)[rows].reshape(-1))


def number_bytes(kind: str) -> int:
    """Bytes of one number."""
    return KINDS[kind][0].itemsize


def numbers(matrix: Stored) -> Tensor:
    """The numbers (rows, columns) in place, if they lie where their type may lie."""
    raw, kind = matrix.raw, KINDS[matrix.kind][0]
    fits = raw.storage_offset() % kind.itemsize == 0 and raw.data_ptr() % kind.itemsize == 0
    return (raw if fits else raw.clone()).view(kind).reshape(-1, matrix.columns)
