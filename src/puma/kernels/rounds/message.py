"""What two parties swap in a round: pieces of words or bytes behind each other in one buffer, written and read at once.

On the host nothing is copied on the way, and what comes is made one with the own words as it is read. It must not know
what the words are for.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from types import ModuleType

import torch
from torch import Tensor

from puma.kernels import plain
from puma.kernels.host import Buffer, from_wire, to_wire

Part = tuple[Tensor, int]  # words of so many bits, as `pack` writes them; or bytes as they are (uint8)
ALONE, SUM = 0, 1  # how words come back: as they are, or added to the own ones


def sizes(pieces: Sequence[Part]) -> list[int]:
    """How many bytes each piece takes."""
    return [x.numel() if x.dtype is torch.uint8 else (x.numel() * bits + 7) // 8 for x, bits in pieces]


def write(pieces: Sequence[Part], lengths: Sequence[int] | None = None) -> memoryview:
    """All of them, in order, with their `sizes` if the caller has them; a single piece of bytes as it lies there."""
    if len(pieces) == 1 and pieces[0][0].dtype is torch.uint8:
        return to_wire(pieces[0][0])
    lengths, at = sizes(pieces) if lengths is None else lengths, 0
    out = torch.empty(sum(lengths), dtype=torch.uint8)
    place = out.data_ptr()
    for (x, bits), length in zip(pieces, lengths, strict=True):
        if x.dtype is torch.uint8:
            out[at : at + length] = x.reshape(-1).cpu()
        elif x.is_cpu:
            _cpu().pack_to(x, bits, place + at)
        else:
            out[at : at + length] = from_wire(to_wire(plain.pack(x, bits)))
        at += length
    return out.numpy().data


def read(
    buffer: Buffer, like: Sequence[Part], lengths: Sequence[int] | None = None, joined: Sequence[int] | None = None
) -> list[Tensor]:
    """The same pieces of another: of the shapes, kinds and device of these; the buffer must be the caller's to keep.

    `joined` says of each how it comes back; bytes come as they are, and so does everything where nothing is said.
    """
    source, found, at = from_wire(buffer), list[Tensor](), 0
    lengths = sizes(like) if lengths is None else lengths
    if source.numel() != sum(lengths):
        raise ValueError(f"{source.numel()} bytes are not a message of {sum(lengths)}")
    place = source.data_ptr()
    for (x, bits), length, how in zip(like, lengths, joined or [ALONE] * len(like), strict=True):
        if x.dtype is torch.uint8:
            mine = source if length == source.numel() else source[at : at + length]
            found.append(mine.view(x.shape) if x.is_cpu else mine.reshape(x.shape).to(x.device))
        elif not x.is_cpu:
            other = plain.unpack(source[at : at + length].to(x.device), bits, tuple(x.shape))
            found.append(other if how == ALONE else x + other)
        elif how == ALONE:
            found.append(_cpu().unpack_from(place + at, length, bits, tuple(x.shape)))
        else:
            found.append(_opened().sum_from(place + at, length, bits, x))
        at += length
    return found


@cache
def _cpu() -> ModuleType:
    from puma.kernels import cpu_wire  # noqa: PLC0415  # the compiler takes a second, and a dry run needs none

    return cpu_wire


@cache
def _opened() -> ModuleType:
    from puma.kernels.rounds import cpu_opened  # noqa: PLC0415  # as above

    return cpu_opened
