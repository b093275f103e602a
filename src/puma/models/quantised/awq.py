"""AWQ: integers of 4 bits, a scale and a zero for each group of inputs and each output.

As AutoAWQ 0.2.9 stores them (modules/linear/gemm.py, gemv.py). This file must not know of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from puma.errors import TensorError
from puma.models.quantised.packed import (
    DAMAGED,
    Headers,
    Packed,
    Read,
    Settings,
    expect,
    fields,
    modules_with,
    named,
    need,
    parts_of,
    refuse,
)

EACH = 8  # numbers of a word
PLACES = (0, 4, 1, 5, 2, 6, 3, 7)  # of output i of eight within its word, where gemm kernels want it
SCALES = ("F16", "BF16", "F32")
excepted = partial(named, ("modules_to_not_convert",))
IGNORED = r"$^"


def find(settings: Settings, headers: Headers, read: Read) -> Iterator[tuple[str, Packed]]:
    """The modules that are quantised."""
    layout = str(settings.get("version") or settings.get("format") or "gemm").lower()
    if settings.get("backend") == "llm-awq":
        layout = "llm-awq"
    bits = settings.get("bits", settings.get("w_bit", 4))
    if layout not in READERS:
        refuse(f"by AWQ in the layout {layout}", " and ".join(READERS))
    if bits != 4 or settings.get("zero_point", True) is not True:
        refuse(f"by AWQ to {bits} bits{'' if bits != 4 else ' without zeros'}", "4 bits with zeros")
    for module in modules_with(headers, "qweight"):
        yield module, READERS[layout](settings.get("group_size", settings.get("q_group_size", 128)), headers, module)


def _gemm(each: int, headers: Headers, module: str) -> Packed:
    """Words hold eight outputs each: (in, out / 8)."""
    weight, zeros, scales = need(headers, module, "qweight", "qzeros", "scales")
    size, out = weight.shape[0], weight.shape[-1] * EACH
    groups = _groups(each, size, module)
    expect(module, "qweight", weight, (size, out // EACH), "I32")
    expect(module, "qzeros", zeros, (groups, out // EACH), "I32")
    expect(module, "scales", scales, (groups, out), *SCALES)
    return _packed(headers, module, (out, size), partial(gemm, -(-size // groups)))


def _gemv(each: int, headers: Headers, module: str) -> Packed:
    """Words hold eight inputs each: (out, in / 8); groups are filled up to whole words, or more."""
    weight, zeros, scales = need(headers, module, "qweight", "qzeros", "scales")
    size, out = weight.shape[-1] * EACH, weight.shape[0]
    groups = _groups(each, size, module)
    expect(module, "qweight", weight, (out, size // EACH), "I32")
    wide = zeros.shape[-1]
    if wide * EACH < groups:
        raise TensorError(f"{module}.qzeros holds {wide * EACH} groups, expected {groups}", DAMAGED)
    expect(module, "qzeros", zeros, (out, wide), "I32")
    expect(module, "scales", scales, (out, wide * EACH), *SCALES)
    return _packed(headers, module, (out, size), partial(gemv, -(-size // groups)))


READERS = {"gemm": _gemm, "gemv": _gemv}


def _groups(each: int, size: int, module: str) -> int:
    each = size if each == -1 else each
    if not isinstance(each, int) or each < 1 or size % each:
        raise TensorError(f"{module} has {size} inputs, no multiple of group_size {each}", DAMAGED)
    return size // each


def _packed(headers: Headers, module: str, shape: tuple[int, int], decode: partial[Tensor]) -> Packed:
    parts = tuple(f"{module}.{name}" for name in ("qweight", "qzeros", "scales"))
    return Packed(shape, parts, decode)


def gemm(each: int, weight: Tensor, zeros: Tensor, scales: Tensor) -> Tensor:
    """scale (q - zero) of words that hold outputs, in the kernels' order; float32 (out, in)."""
    out = scales.shape[1]
    place = (torch.arange(out).reshape(-1, EACH))[:, list(PLACES)].flatten()
    point, scales = fields(zeros, 4, out, 1)[:, place], scales.to(torch.float32)
    found, group = torch.empty(out, len(weight)), torch.arange(len(weight)) // each
    for part in parts_of(len(weight), out):
        rows = fields(weight[part], 4, out, 1)[:, place].sub_(point[group[part]])
        found[:, part] = rows.to(torch.float32).mul_(scales[group[part]]).T
    return found


def gemv(each: int, weight: Tensor, zeros: Tensor, scales: Tensor) -> Tensor:
    """scale (q - zero) of words that hold inputs; float32 (out, in)."""
    size = weight.shape[1] * EACH
    groups = size // each
    point, scales = fields(zeros, 4, groups, 1), scales[:, :groups].to(torch.float32)
    found, group = torch.empty(len(weight), size), torch.arange(size) // each
    for part in parts_of(len(weight), size):
        rows = fields(weight[part], 4, size, 1).sub_(point[part][:, group])
        found[part] = rows.to(torch.float32).mul_(scales[part][:, group])
    return found
