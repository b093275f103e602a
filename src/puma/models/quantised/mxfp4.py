"""MXFP4: numbers of four bits, two in a byte, and a power of two for each 32 of them, as gpt-oss stores its experts.

Source: OCP Microscaling Formats 1.0, section 5.3.3 (E2M1 elements, E8M0 scales); as transformers 5.23 reads it, one
tensor for all experts of a layer (integrations/mxfp4.py). This file must not know of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from puma.errors import TensorError
from puma.models.quantised.packed import DAMAGED, Headers, Packed, Read, Settings, named

BLOCKS, SCALES = "_blocks", "_scales"
VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # and the same, negative
BLOCK, BIAS = 32, 127
IGNORED = r"$^"
excepted = partial(named, ("modules_to_not_convert",))


def find(settings: Settings, headers: Headers, read: Read) -> Iterator[tuple[str, Packed]]:
    """The tensors (experts, in, out) that are quantised; they are stored (experts, out, in / 32, 16)."""
    for name, header in headers.items():
        if name.endswith(BLOCKS) and header.kind == "U8":
            tensor = name.removesuffix(BLOCKS)
            scales = headers.get(tensor + SCALES)
            if scales is None:
                raise TensorError(f"{tensor}{SCALES} is missing", DAMAGED)
            if len(header.shape) != 4 or header.shape[3] != BLOCK // 2 or scales.shape != header.shape[:3]:
                shapes = f"{list(header.shape)} with scales of {list(scales.shape)}"
                raise TensorError(f"{name} has shape {shapes}, expected blocks of {BLOCK} numbers", DAMAGED)
            experts, out, groups, _ = header.shape
            packed = Packed((experts, groups * BLOCK, out), (name, tensor + SCALES), decode, whole=True)
            yield tensor, packed


def decode(blocks: Tensor, scales: Tensor) -> Tensor:
    """The numbers times their powers of two; float32 (experts, in, out)."""
    values = torch.tensor([*VALUES, *(-value for value in VALUES)])
    pairs = torch.stack([blocks & 15, blocks >> 4], -1).long()
    numbers = torch.ldexp(values[pairs].flatten(-2), (scales.int() - BIAS).unsqueeze(-1))
    return numbers.flatten(-2).transpose(1, 2).contiguous()
