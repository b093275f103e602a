"""A checkpoint is read, proven and calibrated in the memory of a few of its tensors, however it is quantised."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.owner.memory import Sizes, write
from puma.models import ranges
from puma.models.checkpoint import load
from puma.models.text import Tokens
from puma.reference.calibration import observe
from tests.models.quantised.memory import peak

SIZES = Sizes(layers=3, width=2048, inner=2048, heads=8, vocabulary=1024)
MATRIX = 4 * 2048 * 2048  # bytes of one; all of them are 21 times as many
FEW = 11  # two or three beside each other, what is made on the way, and what the allocator has not given back
LATER = [pytest.param(kind, marks=pytest.mark.slow) for kind in ("fp16", "awq", "fp8", "compressed-tensors", "nf4")]


@pytest.mark.parametrize("kind", ["gptq", "gguf", *LATER])
def test_reading(kind: str, tmp_path: Path) -> None:
    checkpoint = load(write(tmp_path, kind, SIZES))
    with peak() as taken:
        for name in (params := checkpoint.fold()):
            params[name]
        assert taken() < FEW * MATRIX, f"{taken() / MATRIX:.1f} matrices"


@pytest.mark.slow
def test_proofs_and_calibration(tmp_path: Path) -> None:
    checkpoint = load(write(tmp_path, "gptq", SIZES))
    params, config = checkpoint.fold(), checkpoint.config
    given = [Tokens([1, 7, 3, 5], [0] * 4)] * 3
    with peak() as taken:
        ranges.check_weights(params)
        list(ranges.bounds(config, params))
        observe(config, params, given, lambda *_: None)
        assert taken() < FEW * MATRIX, f"{taken() / MATRIX:.1f} matrices"
