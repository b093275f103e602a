"""A checkpoint is read, proven and calibrated in the memory of a few of its tensors, however it is quantised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import pytest

from puma.models import ranges
from puma.models.checkpoint import load
from puma.models.text import Tokens
from puma.reference.calibration import observe
from tests.memory import peak
from tests.models import tiny
from tests.models.files import ggufs
from tests.models.quantised.packing import quantise

SIZES: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 8, "head_dim": 64}
SIZES |= {"num_attention_heads": 8, "num_key_value_heads": 8}
LARGEST = 4 * 512 * 1024  # bytes of the largest matrix; all of them are 40 times as many
FEW = 8  # the two of a gate, one more to multiply, and what is made on the way from packed words
LATER = ("gptq-3", "gptq-8", "compressed-tensors", "int8", "nf4")  # what takes longer to write than to read


def write(folder: Path, method: str) -> Path:
    made = tiny.llama(folder, **SIZES)
    if method == "gguf":
        return ggufs.write(folder / "model.gguf", made, gguf.GGMLQuantizationType.Q4_1)
    if method != "plain":
        quantise(made, method)
    return made


METHODS = [*("plain", "gptq", "awq", "fp8", "gguf"), *(pytest.param(m, marks=pytest.mark.slow) for m in LATER)]


@pytest.mark.parametrize("method", METHODS)
def test_reading(method: str, tmp_path: Path) -> None:
    checkpoint = load(write(tmp_path, method))
    with peak() as taken:
        for name in (params := checkpoint.fold()):
            params[name]
        assert taken() < FEW * LARGEST, f"{taken() / LARGEST:.1f} matrices"


def test_proofs_and_calibration(tmp_path: Path) -> None:
    checkpoint = load(write(tmp_path, "gptq"))
    params, config = checkpoint.fold(), checkpoint.config
    given = [Tokens([1, 7, 3, 5], [0] * 4)] * 3
    with peak() as taken:
        ranges.check_weights(params)
        list(ranges.bounds(config, params))
        observe(config, params, given, lambda *_: None)
        assert taken() < FEW * LARGEST, f"{taken() / LARGEST:.1f} matrices"
