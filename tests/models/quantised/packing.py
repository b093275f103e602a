"""Quantisers of a few lines, written from the formats' descriptions and not from the decoders that they test.

Each takes a matrix (out, in) and gives what its library would store, and the matrix that this stands for.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.models import tiny

Parts = dict[str, Tensor]
Quantise = Callable[[Tensor], tuple[Parts, Tensor]]
EACH = 16  # inputs of a group


def dense(rows: Tensor, bits: int) -> Tensor:
    """Each row's numbers one after another from the lowest bit on, in int32 words."""
    each = (rows.numpy()[..., None] >> numpy.arange(bits)) & 1
    stream = numpy.packbits(each.reshape(len(rows), -1).astype(numpy.uint8), axis=1, bitorder="little")
    filled = numpy.pad(stream, ((0, 0), (0, -stream.shape[1] % 4)))
    return torch.from_numpy(filled.view("<i4").copy())


def groups(weight: Tensor, bits: int, each: int = EACH) -> tuple[Tensor, Tensor, Tensor]:
    """Numbers (out, in), scales and zeros (out, groups) of an asymmetric rounding."""
    parts = weight.unflatten(1, (-1, each))
    low, high = parts.amin(2), parts.amax(2)
    scale = ((high - low) / (2**bits - 1)).half().float()
    zero = (-low / scale).round().clamp(1, 2**bits - 1)
    numbers = (parts / scale[..., None] + zero[..., None]).round().clamp(0, 2**bits - 1)
    return numbers.flatten(1).int(), scale, zero.int()


def restored(numbers: Tensor, scale: Tensor, zero: Tensor, each: int = EACH) -> Tensor:
    return (numbers - zero.repeat_interleave(each, 1)) * scale.repeat_interleave(each, 1)


def gptq(bits: int = 4, less: int = 1, ordered: bool = True) -> Quantise:
    def quantise(weight: Tensor) -> tuple[Parts, Tensor]:
        order = torch.arange(weight.shape[1])
        if not ordered:
            order = torch.randperm(weight.shape[1], generator=torch.Generator().manual_seed(3))
        numbers, scale, zero = groups(weight[:, order], bits)
        back = order.argsort()
        parts = {
            "qweight": dense(numbers[:, back], bits).T,
            "qzeros": dense((zero - less).T, bits),
            "scales": scale.T.half(),
        }
        if not ordered:
            parts["g_idx"] = (back // EACH).int()
        return parts, restored(numbers, scale, zero)[:, back]

    return quantise


def awq(weight: Tensor) -> tuple[Parts, Tensor]:
    """The gemm layout: word k of a row holds outputs 8k + 0, 2, 4, 6, 1, 3, 5, 7."""
    numbers, scale, zero = groups(weight, 4)
    order = torch.arange(len(weight)).reshape(-1, 8)[:, [0, 2, 4, 6, 1, 3, 5, 7]].flatten()
    parts = {"qweight": dense(numbers.T[:, order], 4), "qzeros": dense(zero.T[:, order], 4), "scales": scale.T.half()}
    return parts, restored(numbers, scale, zero)


def gemv(weight: Tensor) -> tuple[Parts, Tensor]:
    """The gemv layout: words of eight inputs, groups filled up to four words, as those of 32 inputs are."""
    numbers, scale, zero = groups(weight, 4)
    filled = torch.zeros(len(weight), 32)
    wide_scale, wide_zero = filled.half(), filled.int()
    wide_scale[:, : scale.shape[1]], wide_zero[:, : zero.shape[1]] = scale.half(), zero
    return {"qweight": dense(numbers, 4), "qzeros": dense(wide_zero, 4), "scales": wide_scale}, restored(
        numbers, scale, zero
    )


def compressed(weight: Tensor) -> tuple[Parts, Tensor]:
    """Four bits in groups, with zeros: numbers from -8 to 7, stored plus 8."""
    numbers, scale, zero = groups(weight, 4)
    shape = torch.tensor(weight.shape)
    parts = {"weight_packed": dense(numbers, 4), "weight_scale": scale, "weight_shape": shape}
    return parts | {"weight_zero_point": dense(zero.T, 4).T}, restored(numbers, scale, zero)


def fp8(weight: Tensor) -> tuple[Parts, Tensor]:
    """Blocks of 16 x 16, the last ones cut off."""
    scale = torch.rand(-(-weight.shape[0] // 16), -(-weight.shape[1] // 16), generator=torch.Generator().manual_seed(1))
    scale = 0.05 + scale / 10
    each = scale.repeat_interleave(16, 0).repeat_interleave(16, 1)[: weight.shape[0], : weight.shape[1]]
    numbers = (weight / each).to(torch.float8_e4m3fn)
    parts = {"weight": numbers, "weight_scale_inv": scale, "input_scale": torch.ones(1)}
    return parts, numbers.float() * each


def rows8(weight: Tensor) -> tuple[Parts, Tensor]:
    """LLM.int8."""
    largest = weight.abs().amax(1)
    numbers = (weight / largest[:, None] * 127).round().to(torch.int8)
    return {"weight": numbers, "SCB": largest}, numbers.float() * largest[:, None] / 127


def nf4(weight: Tensor) -> tuple[Parts, Tensor]:
    """Blocks of 64 with a table of its own, as a file has its own; the first number in a byte's higher half."""
    table = torch.linspace(-1, 1, 16)
    blocks = weight.flatten().unflatten(0, (-1, 64))
    largest = blocks.abs().amax(1)
    numbers = (blocks / largest[:, None])[..., None].sub(table).abs().argmin(2)
    pairs = numbers.flatten().unflatten(0, (-1, 2))
    state = {"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": list(weight.shape)}
    parts = {
        "weight": (pairs[:, :1] * 16 + pairs[:, 1:]).to(torch.uint8),
        "weight.absmax": largest,
        "weight.quant_map": table,
        "weight.quant_state.bitsandbytes__nf4": torch.tensor(list(json.dumps(state).encode()), dtype=torch.uint8),
    }
    return parts, (table[numbers] * largest[:, None]).reshape(weight.shape)


INTS = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": EACH, "symmetric": False}
GROUP = {"targets": ["Linear"], "weights": INTS}
METHODS: dict[str, tuple[dict[str, Any], Quantise]] = {
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": EACH}, gptq()),
    "gptq-2": ({"quant_method": "gptq", "bits": 2, "group_size": EACH, "sym": False}, gptq(2)),
    "gptq-3": ({"quant_method": "gptq", "bits": 3, "group_size": EACH, "desc_act": True}, gptq(3, ordered=False)),
    "gptq-8": (
        {"quant_method": "gptq", "bits": 8, "group_size": EACH, "checkpoint_format": "gptq_v2"},
        gptq(8, 0, ordered=False),
    ),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": EACH, "version": "gemm", "zero_point": True}, awq),
    "awq-gemv": ({"quant_method": "awq", "bits": 4, "group_size": EACH, "version": "gemv"}, gemv),
    "compressed-tensors": (
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": {"group_0": GROUP},
            "ignore": ["lm_head"],
        },
        compressed,
    ),
    "fp8": ({"quant_method": "fp8", "weight_block_size": [16, 16], "modules_to_not_convert": ["lm_head"]}, fp8),
    "int8": ({"quant_method": "bitsandbytes", "load_in_8bit": True}, rows8),
    "nf4": ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, nf4),
}


def matrices(state: tiny.State) -> list[str]:
    """The matrices of linear modules, save heads, which stay as they are."""
    outside = ("embed", "lm_head", "score", ".wte.", ".wpe.", "classifier")
    return [name for name, t in state.items() if t.ndim == 2 and not any(word in name for word in outside)]


def quantise(folder: Path, method: str, transposed: bool = False) -> dict[str, Tensor]:
    """Quantise a folder in place; what its tensors then stand for. `transposed` ones are stored (in, out) before."""
    settings, how = METHODS[method]
    state = load_file(folder / "model.safetensors")
    meant = dict(state)
    for name in matrices(state):
        weight = state.pop(name)
        parts, restored = how(weight.T.contiguous() if transposed else weight)
        meant[name] = restored.T.contiguous() if transposed else restored
        state |= {f"{name.removesuffix('.weight')}.{part}": tensor.contiguous() for part, tensor in parts.items()}
    save_file(state, folder / "model.safetensors")
    tiny.configure_folder(folder, quantization_config=settings)
    return meant
