"""Between a device and the host: the bytes of a tensor as links, files and digests take them, and the way back.

Whoever moves bytes calls these two and asks no tensor where it lies. They must not know what the bytes mean.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

Buffer = bytes | bytearray | memoryview
HERE = "cpu"


def to_wire(x: Tensor) -> memoryview:
    """The elements of x in order as bytes of the host: in place where they lie there so, else a copy.

    Of a tensor on the meta device, which has no bytes, this raises.
    """
    if x.is_cpu and x.dtype is torch.uint8 and x.is_contiguous():  # which nobody takes a gradient of
        return (x if x.ndim == 1 else x.reshape(-1)).numpy().data
    return x.detach().contiguous().reshape(-1).view(torch.uint8).cpu().numpy().data


def mapped(path: Path, offset: int, size: int) -> Tensor:
    """So many bytes of a file from this one on, in place for as long as they are held; what is written to them stays
    here."""
    return torch.from_numpy(np.memmap(path, np.uint8, "c", offset, (size,)))


def from_wire(buffer: Buffer, device: torch.device | str = HERE) -> Tensor:
    """The bytes as a row of uint8 on a device; on the host in place, so that they must be the caller's to keep."""
    if not len(buffer):
        return torch.empty(0, dtype=torch.uint8, device=device)
    found = torch.frombuffer(buffer, dtype=torch.uint8)
    if device is HERE:
        return found
    where = device if isinstance(device, torch.device) else torch.device(device)
    return found if where.type == "cpu" else found.to(where)
