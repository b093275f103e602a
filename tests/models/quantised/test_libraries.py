"""Random matrices, quantised and restored by the libraries themselves, where they are installed."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import Tensor

from puma.models import quantised
from puma.models.quantised import Header

KINDS = {
    torch.int32: "I32", torch.int64: "I64", torch.int8: "I8", torch.uint8: "U8", torch.float16: "F16",
    torch.bfloat16: "BF16", torch.float32: "F32", torch.float8_e4m3fn: "F8_E4M3",
}  # fmt: skip


def restored(settings: dict[str, Any], parts: dict[str, Tensor]) -> Tensor:
    """What the decoders make of a module's parts."""
    stored = {f"m.{name}": tensor for name, tensor in parts.items()}
    headers = {name: Header(tuple(tensor.shape), KINDS[tensor.dtype]) for name, tensor in stored.items()}
    packed = quantised.find(settings, headers, stored.__getitem__).tensors["m.weight"]
    return packed.decode(*(stored[part] for part in packed.parts))


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("strategy", ["tensor", "channel", "group"])
def test_compressed_tensors(strategy: str, symmetric: bool, bits: int) -> None:
    pytest.importorskip("compressed_tensors")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor as Packer
        from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme

        args = {"num_bits": bits, "type": "int", "strategy": strategy, "symmetric": symmetric, "dynamic": False}
        args |= {"group_size": 16} if strategy == "group" else {}
        shape = {"tensor": (1,), "channel": (24, 1), "group": (24, 3)}[strategy]
        state = {"weight": torch.randn(24, 48), "weight_scale": 0.05 + torch.rand(shape) / 20}
        if not symmetric:
            state["weight_zero_point"] = torch.randint(-(2 ** (bits - 1)), 2 ** (bits - 1), shape).to(torch.int8)
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args))
        parts = Packer.compress(state, scheme)
        expected = Packer.decompress(dict(parts), scheme)["weight"]
    groups = {"group_0": {"targets": ["Linear"], "weights": args}}
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
    assert torch.equal(restored(settings, parts), expected)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_bitsandbytes(dtype: torch.dtype, nested: bool, kind: str) -> None:
    """Rows of whole blocks: a processor's kernel of 0.50 restores others wrongly."""
    pytest.importorskip("bitsandbytes")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from bitsandbytes import functional

        weight = torch.randn(300, 128).to(dtype)
        packed, state = functional.quantize_4bit(weight, blocksize=64, compress_statistics=nested, quant_type=kind)
        expected = functional.dequantize_4bit(packed, state)
    parts = {"weight": packed} | {f"weight.{name}": part for name, part in state.as_dict(packed=True).items()}
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    assert torch.equal(restored(settings, parts), expected.float())
