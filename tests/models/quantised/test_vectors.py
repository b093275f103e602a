"""What the libraries themselves stored and restored, by their versions, comes out of the decoders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import Tensor

from puma.models import quantised
from puma.models.quantised import Header

FILE = Path(__file__).parents[2] / "vectors" / "quantised.safetensors"
ROUNDED = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32}  # the format in which a library computed
with safe_open(FILE, framework="pt") as _file:
    CASES = sorted(_file.metadata())


def case(name: str) -> tuple[dict[str, Any], dict[str, Header], dict[str, Tensor], Tensor]:
    """What a vector says, the headers and tensors of its parts, and what its library made of them."""
    with safe_open(FILE, framework="pt") as file:
        said = json.loads(file.metadata()[name])
        parts = {key.removeprefix(f"{name}/"): key for key in file.keys() if key.startswith(f"{name}/")}  # noqa: SIM118
        expected = file.get_tensor(parts.pop("="))
        slices = {part: file.get_slice(key) for part, key in parts.items()}
        headers = {f"m.{part}": Header(tuple(s.get_shape()), s.get_dtype()) for part, s in slices.items()}
        return said, headers, {f"m.{part}": file.get_tensor(key) for part, key in parts.items()}, expected


@pytest.mark.parametrize("name", CASES)
def test_as_the_library(name: str) -> None:
    said, headers, stored, expected = case(name)
    settings = quantised.settings_in({"quantization_config": said["settings"]})
    found = quantised.find(settings, headers, stored.__getitem__)
    assert found.spent == set(stored)
    packed = found.tensors["m.weight"]
    decoded = packed.decode(*(stored[part] for part in packed.parts))
    assert decoded.dtype == torch.float32
    assert decoded.shape == packed.shape == expected.shape
    kind = ROUNDED[said["rounded"]]
    assert torch.equal(decoded.to(kind), expected.to(kind))
    assert not torch.equal(decoded, decoded[:1].expand_as(decoded))  # it says something
