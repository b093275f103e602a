"""GPTQ: integers of 2, 3, 4 or 8 bits, a scale and a zero for each group of inputs and each output.

As AutoGPTQ 0.7 and GPTQModel 7.7 store them (nn_modules/qlinear, utils/model.py). This file must not know of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from puma.errors import TensorError
from puma.models.quantised.packed import (
    DAMAGED,
    WORD,
    Header,
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
    words,
)

BITS = (2, 3, 4, 8)
FORMATS = ("gptq", "gptq_v2")
SCALES = ("F16", "BF16", "F32")
excepted = partial(named, ("modules_to_not_convert",))
IGNORED = r"$^"


def find(settings: Settings, headers: Headers, read: Read) -> Iterator[tuple[str, Packed]]:
    """The modules that are quantised."""
    layout = str(settings.get("checkpoint_format") or settings.get("format") or "gptq").lower()
    if layout not in FORMATS or settings.get("is_marlin_format"):
        refuse(f"by GPTQ in the layout {layout if layout not in FORMATS else 'marlin'}", " and ".join(FORMATS))
    for module in modules_with(headers, "qweight"):
        weight, zeros, scales = need(headers, module, "qweight", "qzeros", "scales")
        order = headers.get(f"{module}.g_idx")
        bits = _bits(settings, module, weight, order)
        size, out = weight.shape[0] * WORD // bits if order is None else order.shape[0], weight.shape[-1]
        groups = zeros.shape[0]
        expect(module, "qweight", weight, (words(size, bits), out), "I32")
        expect(module, "qzeros", zeros, (groups, words(out, bits)), "I32")
        expect(module, "scales", scales, (groups, out), *SCALES)
        names = ["qweight", "qzeros", "scales"]
        if order is None:
            each = _group_size(settings, module, size, groups)
        else:
            each = 0
            names.append("g_idx")
        parts = tuple(f"{module}.{name}" for name in names)
        how = (bits, each, layout == "gptq", module)
        nibbles = Nibbles((2, 3)[: len(names) - 2], partial(_fits, each, size, module), partial(rows, *how))
        yield module, Packed((out, size), parts, partial(decode, *how), nibbles=nibbles if bits == 4 else None)


def _bits(settings: Settings, module: str, weight: Header, order: Header | None) -> int:
    """How many bits a module's numbers have: `dynamic` of GPTQModel sets others for some modules, which shapes say."""
    bits = settings.get("bits")
    if settings.get("dynamic") and order is not None and len(weight.shape) == 2:
        bits = weight.shape[0] * WORD // max(order.shape[0], 1)
    if bits not in BITS:
        refuse(f"by GPTQ to {bits} bits", f"{', '.join(map(str, BITS))} bits")
    if len(weight.shape) != 2 or (order is not None and len(order.shape) != 1):
        raise TensorError(f"{module}.qweight has shape {list(weight.shape)}, expected a matrix", DAMAGED)
    return int(bits)  # type: ignore[arg-type]


def _group_size(settings: Settings, module: str, size: int, groups: int) -> int:
    """Inputs of a group, where no g_idx says it."""
    each = settings.get("group_size", 128)
    each = size if each == -1 else each
    if not isinstance(each, int) or each < 1 or -(-size // each) != groups:
        raise TensorError(f"{module} has {groups} groups of {size} inputs, but group_size is {each}", DAMAGED)
    return each


def decode(
    bits: int, each: int, less_one: bool, module: str, weight: Tensor, zeros: Tensor, scales: Tensor,
    order: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """scale (q - zero) with the group of each input from `order`, or `each` inputs a group; float32 (out, in).

    Zeros of the older layout are stored less one. The packer subtracted from whole words, so a zero of 0 has borrowed
    from its neighbour, and one is added to whole words again; for three bits, which lie across words, to each number.
    """
    out = scales.shape[1]
    group, point = _tables(bits, each, less_one, module, weight, zeros, scales, order)
    size = len(group)
    scales, found = scales.to(torch.float32), torch.empty(out, size)
    for part in parts_of(size, out, WORD):  # so many numbers are whole words, however wide each is
        numbers = _integers(weight, bits, part).sub_(point[group[part]])
        found[:, part] = numbers.to(torch.float32).mul_(scales[group[part]]).T
    return found


def rows(
    bits: int, each: int, less_one: bool, module: str, weight: Tensor, zeros: Tensor, scales: Tensor,
    order: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The same as blocks of their own integers."""
    group, point = _tables(bits, each, less_one, module, weight, zeros, scales, order)
    return in_nibbles(lambda part: _integers(weight, bits, part), group, point, scales)


def _fits(each: int, size: int, module: str, scales: Tensor, order: Tensor | None = None) -> bool:
    return fit_nibbles(_group_of(each, size, len(scales), module, order), scales)


def _group_of(each: int, size: int, groups: int, module: str, order: Tensor | None) -> Tensor:
    return torch.arange(size) // each if order is None else _groups(order.long(), groups, module)


def _tables(
    bits: int, each: int, less_one: bool, module: str, weight: Tensor, zeros: Tensor, scales: Tensor,
    order: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The group of each input, and the zeros (groups, out)."""
    size = len(order) if order is not None else weight.shape[0] * WORD // bits
    if less_one and bits != 3:
        zeros = _plus(zeros, sum(1 << at for at in range(0, WORD, bits)))
    point = fields(zeros, bits, scales.shape[1], 1)
    if less_one and bits == 3:
        point = (point + 1) & 7
    return _group_of(each, size, len(scales), module, order), point


def _integers(weight: Tensor, bits: int, part: slice) -> Tensor:
    """Of these inputs (inputs, out)."""
    packed = weight[part.start * bits // WORD : -(-part.stop * bits // WORD)]
    return fields(packed, bits, part.stop - part.start, 0)


def _plus(numbers: Tensor, constant: int) -> Tensor:
    """The sum of int32 words and a constant modulo 2^32."""
    total = (numbers.to(torch.int64) + constant) & 0xFFFFFFFF
    return torch.where(total >= 1 << 31, total - (1 << 32), total).to(torch.int32)


def _groups(order: Tensor, groups: int, module: str) -> Tensor:
    """Groups counted from the end where they are negative, as the libraries' tables are indexed."""
    if len(order) and not (-groups <= int(order.min()) and int(order.max()) < groups):
        raise TensorError(f"{module}.g_idx names a group that is not there", DAMAGED)
    return torch.where(order < 0, order + groups, order)
