"""bitsandbytes: nf4 and fp4, whose block maxima may be quantised once more, and LLM.int8, whole rows of eight bits.

As bitsandbytes 0.50 stores them (functional.py: QuantState, dequantize_4bit, int8_vectorwise_dequant). LLM.int8 rounds
activations too; here they are not rounded. This file must not know of files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from math import prod
from typing import Annotated, Literal

import msgspec
import torch
from msgspec import Meta, Struct
from torch import Tensor

from puma.errors import TensorError
from puma.models.quantised.packed import (
    DAMAGED,
    Headers,
    Packed,
    Read,
    Settings,
    expect,
    modules_with,
    named,
    need,
    parts_of,
    refuse,
)

CODES = 16  # of four bits
UNIT = 7.874015718698502e-3  # 1 / 127, as the library rounds it
STATE = "weight.quant_state.bitsandbytes__"
MOST_STATE = 1 << 16  # bytes
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
excepted = partial(named, ("llm_int8_skip_modules",))
IGNORED = r".*\.weight_format"  # how rows of eight bits lay on a GPU; what is stored lies row by row
Count = Annotated[int, Meta(ge=1, le=1 << 31)]


class State(Struct):
    """What lies beside the tensors: a JSON text in a tensor of bytes."""

    quant_type: Literal["nf4", "fp4"]
    blocksize: Count
    dtype: Literal["float32", "float16", "bfloat16"]
    shape: tuple[Count, Count]
    nested_blocksize: Count = 1
    nested_offset: float = 0.0


def find(settings: Settings, headers: Headers, read: Read) -> Iterator[tuple[str, Packed]]:
    """The modules that are quantised."""
    if settings.get("load_in_8bit"):
        yield from _rows(headers)
    elif settings.get("load_in_4bit"):
        yield from _blocks(headers, read)
    else:
        refuse("by bitsandbytes, neither in 4 nor in 8 bits", "load_in_4bit or load_in_8bit")


def _rows(headers: Headers) -> Iterator[tuple[str, Packed]]:
    """LLM.int8."""
    for module in modules_with(headers, "SCB"):
        weight, scale = need(headers, module, "weight", "SCB")
        expect(module, "weight", weight, (scale.shape[0], weight.shape[-1]), "I8")
        expect(module, "SCB", scale, (weight.shape[0],), "F32")
        yield module, Packed(weight.shape, (f"{module}.weight", f"{module}.SCB"), rows)


def _blocks(headers: Headers, read: Read) -> Iterator[tuple[str, Packed]]:
    """nf4 and fp4."""
    for module in modules_with(headers, "weight.absmax"):
        kind = next((kind for kind in ("nf4", "fp4") if f"{module}.{STATE}{kind}" in headers), "nf4")
        weight, largest, table, header = need(
            headers, module, "weight", "weight.absmax", "weight.quant_map", STATE + kind
        )
        name = f"{module}.{STATE}{kind}"
        if len(header.shape) != 1 or header.shape[0] > MOST_STATE or header.kind != "U8":
            raise TensorError(f"{name} has shape {list(header.shape)}, expected a short text", DAMAGED)
        state = _state(name, read(name))
        count = prod(state.shape)
        blocks = -(-count // state.blocksize)
        if prod(weight.shape) * SIZES.get(weight.kind, 0) != -(-count // 2):
            raise TensorError(f"{module}.weight is not of half as many bytes as {list(state.shape)} numbers", DAMAGED)
        expect(module, "weight.quant_map", table, (CODES,), "F32")
        names = ["weight", "weight.absmax", "weight.quant_map"]
        nested = f"{module}.weight.nested_absmax" in headers
        expect(module, "weight.absmax", largest, (blocks,), "U8" if nested else "F32")
        if nested:
            names += ["weight.nested_absmax", "weight.nested_quant_map"]
            scales, codes = need(headers, module, *names[3:])
            expect(module, "weight.nested_absmax", scales, (-(-blocks // state.nested_blocksize),), "F32")
            expect(module, "weight.nested_quant_map", codes, (256,), "F32")
        parts = tuple(f"{module}.{part}" for part in (*names, STATE + kind))
        yield module, Packed(state.shape, parts, partial(blocks_of, state))


SIZES = {"U8": 1, "I8": 1, "BF16": 2, "F16": 2, "F32": 4}  # bytes may be stored as numbers of other formats


def _state(name: str, text: Tensor) -> State:
    try:
        return msgspec.convert(json.loads(bytes(text.tolist())), State)
    except (ValueError, msgspec.ValidationError) as error:
        raise TensorError(f"{name} cannot be read: {error}", DAMAGED) from error


def rows(weight: Tensor, scale: Tensor) -> Tensor:
    """Each row times its largest magnitude over 127; float32 (out, in)."""
    return weight.to(torch.float32).mul_(scale[:, None]).mul_(UNIT)


def blocks_of(state: State, weight: Tensor, largest: Tensor, table: Tensor, *nested: Tensor) -> Tensor:
    """The table's numbers times their blocks' largest; float32 (out, in), rounded to the format that the library makes.

    The higher half of a byte comes first.
    """
    if len(nested) == 3:
        scale, codes, _ = nested
        at = torch.arange(len(largest)) // state.nested_blocksize
        largest = codes[largest.long()] * scale[at] + state.nested_offset
    count = prod(state.shape)
    packed = weight.flatten().view(torch.uint8)
    found = torch.empty(count)
    for part in parts_of(len(largest), state.blocksize, 2):  # an even number of numbers is whole bytes
        start, stop = part.start * state.blocksize, min(part.stop * state.blocksize, count)
        pairs = packed[start // 2 : -(-stop // 2)]
        numbers = table[torch.stack((pairs >> 4, pairs & 15), 1).flatten().int()][: stop - start]
        scales = largest[part].repeat_interleave(state.blocksize)[: stop - start]
        found[start:stop] = (numbers * scales).to(DTYPES[state.dtype])
    return found.reshape(state.shape)
