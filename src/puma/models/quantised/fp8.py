"""FP8: numbers of eight bits, and a scale for the whole matrix, for each row or for each block of it.

As transformers 5.23 reads `fp8` (integrations/finegrained_fp8.py; DeepSeek's block scales, AutoFP8's single ones) and
`fbgemm_fp8` (a scale for each row). Activations, which those libraries round too, are not rounded here. This file must
not know of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from puma.errors import TensorError
from puma.models.quantised.packed import (
    DAMAGED,
    Header,
    Headers,
    Packed,
    Read,
    Settings,
    named,
    need,
    refuse,
    times_scales,
)

KINDS = ("F8_E4M3", "F8_E5M2")
SCALES = ("F32", "BF16", "F16", "F64", "F8_E8M0")
NAMES = ("weight_scale_inv", "weight_scale")  # both multiply
excepted = partial(named, ("modules_to_not_convert", "ignored_layers"))
IGNORED = r".*\.(input_scale|input_scale_inv|activation_scale|input_scale_ub|[kvq]_scale|output_scale)"


def find(settings: Settings, headers: Headers, read: Read) -> Iterator[tuple[str, Packed]]:
    """The modules that are quantised."""
    block = settings.get("weight_block_size")
    fits = isinstance(block, list | tuple) and len(block) == 2 and all(isinstance(n, int) and n > 0 for n in block)
    if not (block is None or fits):
        refuse(f"to FP8 with weight_block_size {block!r}", "two positive numbers, or null")
    rows = settings.get("quant_method") == "fbgemm_fp8"
    for name, header in headers.items():
        if header.kind in KINDS and name.endswith(".weight"):
            module = name.removesuffix(".weight")
            part = next((part for part in NAMES if f"{module}.{part}" in headers), NAMES[rows])
            (scale,) = need(headers, module, part)
            size = scaled(module, header, scale, None if block is None or rows else (block[0], block[1]))
            yield module, Packed(header.shape, (name, f"{module}.{part}"), partial(decode, size))


def scaled(module: str, weight: Header, scale: Header, block: tuple[int, int] | None) -> tuple[int, int]:
    """The size of what shares a scale: the block that is configured, or what the scales' own shape says.

    One scale is the whole matrix's, as many as there are rows are the rows'. TensorError if neither is so.
    """
    if len(weight.shape) != 2:
        raise TensorError(f"{module}.weight has shape {list(weight.shape)}, expected a matrix", DAMAGED)
    out, size = weight.shape
    if scale.kind not in SCALES:
        raise TensorError(f"the scales of {module} are {scale.kind} numbers, expected {' or '.join(SCALES)}", DAMAGED)
    if block is not None and scale.shape == (-(-out // block[0]), -(-size // block[1])):
        return block
    if block is None and scale.shape in ((), (1,), (1, 1)):
        return out, size
    if block is None and scale.shape in ((out,), (out, 1)):
        return 1, size
    raise TensorError(f"the scales of {module} have shape {list(scale.shape)}, which no setting explains", DAMAGED)


def decode(block: tuple[int, int], weight: Tensor, scale: Tensor) -> Tensor:
    """The numbers times their scales; float32 (out, in)."""
    return times_scales(weight.to(torch.float32), block, scale)
