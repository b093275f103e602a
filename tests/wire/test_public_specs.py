"""What an owner from afar says of public weights is held against the config before a kernel walks over a byte of it."""

from __future__ import annotations

from typing import Any

import msgspec

from puma.models import in_the_open
from puma.models.config import Llama
from puma.wire.messages import TensorSpec
from puma.wire.parameters import factors_of, public_specs, tensor_specs

CONFIG = in_the_open(Llama(vocab_size=16, hidden_size=64, intermediate_size=96, layers=1, heads=2, context=8))
DOWN = "model.layers.0.mlp.down_proj.weight"


def said(name: str = "", **changes: Any) -> list[TensorSpec]:
    """All parameters, one of them with factors of its columns; a tensor of this name is said to be another."""
    own = [msgspec.structs.replace(spec, kind="bf16", sha256=b"d" * 32) for spec in tensor_specs(CONFIG)]
    matrix = next(spec for spec in own if spec.name == DOWN)
    found = [*own, msgspec.structs.replace(factors_of(matrix), sha256=b"d" * 32)]
    return [msgspec.structs.replace(spec, **changes) if spec.name == name else spec for spec in found]


def test_kinds_are_those_that_tensors_can_lie_in() -> None:
    assert public_specs(CONFIG, said())
    for kind in ("q8_0", "q4_0", "f32"):
        assert public_specs(CONFIG, said(DOWN, kind=kind)), kind
    for kind in ("q4_k", "i9", ""):  # rows of 96 numbers are no blocks of 256
        assert not public_specs(CONFIG, said(DOWN, kind=kind)), kind
    assert not public_specs(CONFIG, said("model.norm.weight", kind="q8_0"))  # one row, and not a matrix


def test_factors_are_a_float_for_each_column() -> None:
    """With fewer bytes than that a kernel would read beyond them."""
    name = f"{DOWN}:factors"
    assert not any(public_specs(CONFIG, said(name, kind=kind)) for kind in ("bf16", "i64", "q8_0", ""))
    assert not public_specs(CONFIG, said(name, shape=(32,)))
