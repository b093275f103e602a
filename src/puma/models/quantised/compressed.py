"""compressed-tensors: packed integers, integers of eight bits and FP8, with scales for tensors, rows, groups or blocks.

As compressed-tensors 0.20 stores them, and as older versions did (compressors/pack_quantized, naive_quantized;
quantization/lifecycle). Its rounding of activations and of the cache is not repeated here. This file must not know of
files.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

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
    expect,
    fields,
    need,
    parts_of,
    refuse,
    times_scales,
    words,
)

FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized")
MIXED = "mixed-precision"  # each group names its own
PACKED = (2, 4, 8)  # bits of which a word holds a whole number: versions differ in how others are packed
BYTES = {"I8": "int", "F8_E4M3": "float"}
SCALES = ("F16", "BF16", "F32")
IGNORED = r".*\.(input|output|[kvq])_(scale|zero_point|global_scale|observer.*)|.*\.weight_observer.*|.*\.kv_cache\..*"
CLASSES = {True: "Embedding", False: "Linear"}
EMBEDDING = re.compile(r"(^|\.)(\w*embed\w*|wte|wpe|shared)$")


def find(settings: Settings, headers: Headers, read: Read) -> Iterator[tuple[str, Packed]]:
    """The modules that are quantised."""
    if (settings.get("sparsity_config") or {}).get("format", "dense") != "dense":
        refuse("by compressed-tensors with a sparsity_config", "dense weights")
    if settings.get("transform_config"):
        refuse("by compressed-tensors with a transform_config", "weights that need no transform when the model runs")
    if settings.get("format", FORMATS[0]) not in (*FORMATS, MIXED):
        refuse(f"by compressed-tensors in the format {settings['format']}", ", ".join(FORMATS))
    for name, header in headers.items():
        module, _, part = name.rpartition(".")
        if part == "weight_packed" or (part == "weight" and header.kind in ("I8", "F8_E4M3", "F8_E5M2")):
            scheme = _scheme(settings, module)
            reader = _packed if part == "weight_packed" else _plain
            yield module, reader(scheme, headers, read, module)


def excepted(settings: Settings, module: str) -> bool:
    """Whether the list `ignore` names a module."""
    return any(_names(target, module) for target in settings.get("ignore") or ())


def _names(target: str, module: str) -> bool:
    """Whether a target is a module: its name, an expression for it, or its class."""
    if target.startswith("re:"):
        return re.match(target.removeprefix("re:"), module) is not None
    return target in (module, CLASSES[EMBEDDING.search(module) is not None])


def _scheme(settings: Settings, module: str) -> Mapping[str, Any]:
    """How a module's weights are quantised: by its name before expressions before classes."""
    groups = [group for group in (settings.get("config_groups") or {}).values() if isinstance(group, dict)]
    targets = {target: group for group in groups for target in group.get("targets") or ()}
    found = [target for target in targets if _names(target, module)]
    if not found:
        raise TensorError(f"{module} is quantised, but no group of config_groups targets it", DAMAGED)
    best = min(found, key=lambda target: (target in CLASSES.values(), target.startswith("re:"), target))
    layout, scheme = targets[best].get("format") or settings.get("format"), targets[best].get("weights")
    if layout is not None and layout not in (*FORMATS, MIXED):
        refuse(f"by compressed-tensors in the format {layout}", ", ".join(FORMATS))
    if not isinstance(scheme, dict):
        raise TensorError(f"{module} is quantised, but its group of config_groups says nothing of weights", DAMAGED)
    return scheme


def _block(scheme: Mapping[str, Any], module: str, shape: tuple[int, int], scale: Header) -> tuple[int, int]:
    """The size of what shares a scale."""
    out, size = shape
    strategy, each = scheme.get("strategy"), scheme.get("group_size")
    if strategy is None:  # the library's own defaults
        strategy = "tensor" if each is None else "group" if each > 0 else "channel"
    block, shapes = (out, size), [(), (1,), (1, 1)]
    if strategy == "channel":
        block, shapes = (1, size), [(out, 1), (out,)]
    elif strategy == "group" and isinstance(each, int) and each > 0:
        block, shapes = (1, each), [(out, -(-size // each))]
    elif strategy == "block" and len(scheme.get("block_structure") or ()) == 2:
        block = (int(scheme["block_structure"][0]), int(scheme["block_structure"][1]))
        shapes = [(-(-out // block[0]), -(-size // block[1]))]
    elif strategy != "tensor":
        refuse(f"by compressed-tensors with the strategy {strategy!r}", "tensor, channel, group and block")
    if scale.shape not in shapes or scale.kind not in SCALES:
        raise TensorError(f"the scales of {module} are {scale.kind} of shape {list(scale.shape)}", DAMAGED)
    return block


def _plain(scheme: Mapping[str, Any], headers: Headers, read: Read, module: str) -> Packed:
    """A number a byte."""
    weight, scale = need(headers, module, "weight", "weight_scale")
    kind, bits = scheme.get("type", "int"), scheme.get("num_bits", 8)
    if BYTES.get(weight.kind) != kind or (kind == "float" and bits != 8):
        refuse(f"by compressed-tensors to {kind} of {bits} bits in {weight.kind}", "integers and FP8 (E4M3)")
    if len(weight.shape) != 2:
        raise TensorError(f"{module}.weight has shape {list(weight.shape)}, expected a matrix", DAMAGED)
    shape = weight.shape[0], weight.shape[1]
    block = _block(scheme, module, shape, scale)
    parts, rest = [f"{module}.weight", f"{module}.weight_scale"], _rest(headers, module, shape[1])
    if "weight_zero_point" in rest:
        expect(module, "weight_zero_point", headers[f"{module}.weight_zero_point"], scale.shape)
    return Packed(shape, (*parts, *(f"{module}.{part}" for part in rest)), partial(decode, 0, shape, block, rest))


def _packed(scheme: Mapping[str, Any], headers: Headers, read: Read, module: str) -> Packed:
    """Several numbers a word."""
    bits = scheme.get("num_bits", 8)
    if scheme.get("type", "int") != "int" or bits not in PACKED:
        refuse(f"by compressed-tensors to {bits} bits, packed", "int2, int4 and int8")
    weight, scale, size = need(headers, module, "weight_packed", "weight_scale", "weight_shape")
    expect(module, "weight_shape", size, (2,), "I64", "I32")
    out, columns = (int(number) for number in read(f"{module}.weight_shape"))
    expect(module, "weight_packed", weight, (out, words(columns, bits)), "I32")
    block = _block(scheme, module, (out, columns), scale)
    parts, rest = [f"{module}.{part}" for part in ("weight_packed", "weight_scale")], _rest(headers, module, columns)
    if "weight_zero_point" in rest:
        zero, shape = headers[f"{module}.weight_zero_point"], scale.shape
        dense = zero.kind == "I32" and len(shape) == 2 and zero.shape != shape
        expect(module, "weight_zero_point", zero, (words(shape[0], bits), shape[1]) if dense else shape)
    names = (*parts, *(f"{module}.{part}" for part in rest), f"{module}.weight_shape")
    return Packed((out, columns), names, partial(decode, bits, (out, columns), block, rest))


def _rest(headers: Headers, module: str, size: int) -> tuple[str, ...]:
    """What else a module has of what may be there: zeros, and the group of each input as older versions stored it."""
    order = f"{module}.weight_g_idx"
    if order in headers:
        expect(module, "weight_g_idx", headers[order], (size,), "I32", "I64")
    return tuple(part for part in ("weight_zero_point", "weight_g_idx") if f"{module}.{part}" in headers)


def decode(
    bits: int, shape: tuple[int, int], block: tuple[int, int], names: tuple[str, ...], weight: Tensor, scale: Tensor,
    *rest: Tensor,
) -> Tensor:  # fmt: skip
    """scale (q - zero); float32 (out, in). `bits` is 0 where a number is a byte; packed ones are stored plus half."""
    half = 1 << bits >> 1
    others = dict(zip(names, rest, strict=False))  # the shape, which comes last, has served
    zero, order = others.get("weight_zero_point"), others.get("weight_g_idx")
    if zero is not None and zero.dtype == torch.int32 and zero.shape != scale.shape:
        zero = fields(zero, bits, scale.shape[0], 0).sub_(half)
    found = torch.empty(shape)
    for part in parts_of(*shape):
        found[part] = fields(weight[part], bits, shape[1], 1).sub_(half) if bits else weight[part]
    if order is None or bool((order == -1).any()):  # -1: inputs lie in order
        return times_scales(found, block, scale, zero)
    return times_scales(found[:, order.argsort(stable=True)], block, scale, zero)[:, _inverse(order)]


def _inverse(order: Tensor) -> Tensor:
    """Where each input went when inputs were sorted by their groups."""
    return order.argsort(stable=True).argsort(stable=True)
