"""What two parties swap in a round: pieces of words or bytes behind each other in one buffer, written and read at once.

On the host nothing is copied on the way. It must not know what the words are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType

import numpy as np
import torch
from torch import Tensor

from puma.kernels import plain
from puma.kernels.host import Buffer, from_wire, to_wire

Part = tuple[Tensor, int]  # words of so many bits, as `pack` writes them; or bytes as they are (uint8)
_NOTHING = np.empty(0, np.uint8)


def sizes(pieces: Sequence[Part]) -> list[int]:
    """How many bytes each piece takes."""
    return [x.numel() if x.dtype is torch.uint8 else (x.numel() * bits + 7) // 8 for x, bits in pieces]


def write(pieces: Sequence[Part]) -> memoryview:
    """All of them, in order."""
    lengths, at = sizes(pieces), 0
    out = np.empty(sum(lengths), np.uint8)
    for (x, bits), length in zip(pieces, lengths, strict=True):
        place = out[at : at + length]
        at += length
        if x.dtype is torch.uint8:
            place[:] = x.reshape(-1).cpu().numpy()
        elif x.is_cpu:
            _cpu().pack_into(x, bits, place)
        else:
            place[:] = np.frombuffer(to_wire(plain.pack(x, bits)), np.uint8)
    return out.data


def read(buffer: Buffer, like: Sequence[Part]) -> list[Tensor]:
    """The same pieces of another: of the shapes, kinds and device of these; the buffer must be the caller's to keep."""
    source, found, at = np.frombuffer(buffer, np.uint8) if len(buffer) else _NOTHING, list[Tensor](), 0
    lengths = sizes(like)
    if source.size != sum(lengths):
        raise ValueError(f"{source.size} bytes are not a message of {sum(lengths)}")
    for (x, bits), length in zip(like, lengths, strict=True):
        part, shape = source[at : at + length], tuple(x.shape)
        at += length
        if x.dtype is torch.uint8:
            found.append(torch.from_numpy(part).reshape(shape).to(x.device))
        elif x.is_cpu:
            found.append(_cpu().unpack_from(part, bits, shape))
        else:
            found.append(plain.unpack(from_wire(part.data, x.device), bits, shape))
    return found


@cache
def _cpu() -> ModuleType:
    from puma.kernels import cpu_wire  # noqa: PLC0415  # the compiler takes a second, and a dry run needs none

    return cpu_wire
