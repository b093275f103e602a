"""AWQ: integers of 4 bits, a scale and a zero for each group of inputs and each output.

As AutoAWQ 0.2.9 stores them (modules/linear/gemm.py, gemv.py). This file must not know of files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from puma.errors import TensorError
from puma.models.quantised.packed import (
    DAMAGED,
    Headers,
    Nibbles,
    Packed,
    Read,
    Settings,
    expect,
    fields,
    fit_nibbles,
    in_nibbles,
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


class Tables(NamedTuple):
    """Integers (inputs, out) of some inputs, zeros and scales (groups, out)."""

    integers: Callable[[slice], Tensor]
    point: Tensor
    scales: Tensor


Layout = Callable[[int, Tensor, Tensor, Tensor], Tables]  # of inputs a group, words, zeros and scales


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
    return _packed(module, (out, size), -(-size // groups), gemm)


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
    return _packed(module, (out, size), -(-size // groups), gemv)


READERS = {"gemm": _gemm, "gemv": _gemv}


def _groups(each: int, size: int, module: str) -> int:
    each = size if each == -1 else each
    if not isinstance(each, int) or each < 1 or size % each:
        raise TensorError(f"{module} has {size} inputs, no multiple of group_size {each}", DAMAGED)
    return size // each


def _packed(module: str, shape: tuple[int, int], each: int, layout: Layout) -> Packed:
    parts = tuple(f"{module}.{name}" for name in ("qweight", "qzeros", "scales"))
    nibbles = Nibbles((2,), partial(_fits, each, shape[1]), partial(rows, layout, each, shape[1]))
    return Packed(shape, parts, partial(decode, layout, each, shape[1]), nibbles=nibbles)


def gemm(each: int, weight: Tensor, zeros: Tensor, scales: Tensor) -> Tables:
    """Of words that hold outputs, in the kernels' order."""
    out = scales.shape[1]
    place = (torch.arange(out).reshape(-1, EACH))[:, list(PLACES)].flatten()
    return Tables(lambda part: fields(weight[part], 4, out, 1)[:, place], fields(zeros, 4, out, 1)[:, place], scales)


def gemv(each: int, weight: Tensor, zeros: Tensor, scales: Tensor) -> Tables:
    """Of words that hold inputs."""
    groups = weight.shape[1] * EACH // each

    def integers(part: slice) -> Tensor:
        return fields(weight[:, part.start // EACH : part.stop // EACH], 4, part.stop - part.start, 1).T

    return Tables(integers, fields(zeros, 4, groups, 1).T, scales[:, :groups].T)


def decode(layout: Layout, each: int, size: int, *parts: Tensor) -> Tensor:
    """scale (q - zero), with so many inputs a group; float32 (out, in)."""
    integers, point, scales = layout(each, *parts)
    out, scales = scales.shape[1], scales.to(torch.float32)
    found, group = torch.empty(out, size), torch.arange(size) // each
    for part in parts_of(size, out, EACH):
        numbers = integers(part).sub(point[group[part]])
        found[:, part] = numbers.to(torch.float32).mul_(scales[group[part]]).T
    return found


def rows(layout: Layout, each: int, size: int, *parts: Tensor) -> Tensor:
    """The same as blocks of their own integers."""
    integers, point, scales = layout(each, *parts)
    return in_nibbles(integers, torch.arange(size) // each, point, scales)


def _fits(each: int, size: int, scales: Tensor) -> bool:
    return fit_nibbles(torch.arange(size) // each, scales)
