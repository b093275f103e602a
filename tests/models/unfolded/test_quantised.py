"""Quantised files of open models: integers and scales stay as they lie, and mean the words that others would share."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
import torch

from puma.models.checkpoint import load
from puma.wire.parameters import parameter_frac
from tests.models import tiny
from tests.models.files import ggufs
from tests.models.quantised import packing
from tests.models.unfolded.test_laid import SLACK, found, words

WIDE = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
NAMES = ["F16", "BF16", "Q8_0", "Q4_0", "Q4_1"]


@pytest.mark.parametrize("name", NAMES)
def test_matrices_of_a_gguf_file_stay_what_they_are(name: str, tmp_path: Path) -> None:
    """In the file, but for queries and keys, whose rows lie in another order there: a copy of the same numbers."""
    folder = tiny.llama(tmp_path / "folder", num_hidden_layers=1, **WIDE)
    checkpoint = load(ggufs.write(tmp_path / "model.gguf", folder, gguf.GGMLQuantizationType[name]))
    params, parts = checkpoint.fold(), found(checkpoint)
    for name_, value in params.items():
        each = parts[name_]
        exact = torch.round(value.double() * 2.0 ** parameter_frac(name_)).long()
        twice = name_.endswith("q_proj.weight")  # a norm's weights and the scale of queries: one rounding less
        assert int((words(each) - exact).abs().max()) <= SLACK * twice, name_
        if value.ndim == 2:
            assert each.kind == name.lower(), name_
            assert (each.file is None) is name_.endswith(("q_proj.weight", "k_proj.weight")), name_
            assert each.size == len(each.raw()) < 2.1 * value.numel()


def test_what_no_kernel_reads_is_written_down(tmp_path: Path) -> None:
    folder = tiny.llama(tmp_path / "folder", num_hidden_layers=1, **WIDE)
    checkpoint = load(ggufs.write(tmp_path / "model.gguf", folder, gguf.GGMLQuantizationType.Q5_0))
    params, parts = checkpoint.fold(), found(checkpoint)
    for name in (name for name in params if params[name].ndim == 2):
        exact = torch.round(params[name].double() * 2.0 ** parameter_frac(name)).long()
        assert parts[name].file is None and torch.equal(words(parts[name]), exact), name


@pytest.mark.parametrize("method", ["gptq", "awq", "awq-gemv"])
def test_integers_of_four_bits_stay_integers(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """GPTQ and AWQ store them turned: they are written down with scales and zeros, 20 bytes for 32 numbers."""
    for function in (packing.groups, packing.restored):
        monkeypatch.setattr(function, "__defaults__", (32,))
    folder = tiny.llama(tmp_path / "folder", num_hidden_layers=1, **WIDE)
    packing.quantise(folder, method)
    settings, _ = packing.METHODS[method]
    tiny.configure_folder(folder, quantization_config=settings | {"group_size": 32})
    checkpoint = load(folder)
    params, parts = checkpoint.fold(), found(checkpoint)
    for name, value in params.items():
        each = parts[name]
        exact = torch.round(value.double() * 2.0 ** parameter_frac(name)).long()
        twice = name.endswith("q_proj.weight")
        assert int((words(each) - exact).abs().max()) <= SLACK * twice, name
        if "layers" in name and value.ndim == 2:
            assert (each.kind, each.size) == ("q4_z", value.numel() * 5 // 8), name


@pytest.mark.parametrize("method", ["gptq", "gptq-2", "gptq-8"])
def test_other_groups_and_widths_are_written_down_as_words(method: str, tmp_path: Path) -> None:
    """Groups of 16, inputs in an order of their own, eight bits: the same words, in four bytes."""
    folder = tiny.llama(tmp_path / "folder", num_hidden_layers=1, **WIDE)
    packing.quantise(folder, method)
    checkpoint = load(folder)
    params, parts = checkpoint.fold(), found(checkpoint)
    name = "model.layers.0.mlp.up_proj.weight"
    exact = torch.round(params[name].double() * 2.0 ** parameter_frac(name)).long()
    assert parts[name].kind != "q4_z" and torch.equal(words(parts[name]), exact)
