"""gpt-oss as it is stored: experts in MXFP4, all of a layer in one tensor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from puma.errors import TensorError
from puma.models.checkpoint import load
from puma.models.quantised import mxfp4
from tests.models import tiny, zoo
from tests.models.plain import one_hot, open_model

IDS = [2, 5, 7, 9, 27, 6]
SETTINGS = {"hidden_size": 32, "intermediate_size": 32, "head_dim": 8, "num_local_experts": 3}


def test_numbers() -> None:
    """Each of the sixteen, low half of a byte first, at scales of 1/4, 1 and 8."""
    low, high = torch.arange(16), torch.arange(16).flip(0)
    blocks = (low | high << 4).to(torch.uint8).expand(1, 1, 3, 16)
    found = mxfp4.decode(blocks, torch.tensor([[[125, 127, 130]]], dtype=torch.uint8))
    sizes = [0, 0.5, 1, 1.5, 2, 3, 4, 6]
    values = torch.tensor([*sizes, *(-size for size in sizes)])
    once = torch.stack([values, values.flip(0)], -1).flatten()
    assert found.shape == (1, 96, 1)
    assert torch.equal(found.flatten(), torch.cat([once / 4, once, once * 8]))


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """The same model twice, its experts plain and packed."""
    pytest.importorskip("transformers")
    zoo.ALL["gpt-oss-wide"] = ("GptOssForCausalLM", zoo.ALL["gpt-oss"][1] | SETTINGS)
    try:
        plain, packed = zoo.write(tmp_path / "plain", "gpt-oss-wide"), zoo.write(tmp_path / "packed", "gpt-oss-wide")
    finally:
        del zoo.ALL["gpt-oss-wide"]
    state, both = load_file(plain / "model.safetensors"), torch.Generator().manual_seed(3)
    other = dict(state)
    for name in [name for name in state if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]:
        experts, inner, out = state[name].shape
        blocks = torch.randint(0, 256, (experts, out, inner // 32, 16), generator=both, dtype=torch.uint8)
        scales = torch.randint(123, 126, blocks.shape[:3], generator=both, dtype=torch.uint8)
        state[name] = mxfp4.decode(blocks, scales)
        del other[name]
        other |= {f"{name}_blocks": blocks, f"{name}_scales": scales}
    save_file(state, plain / "model.safetensors")
    save_file(other, packed / "model.safetensors")
    tiny.configure_folder(packed, quantization_config={"quant_method": "mxfp4", "modules_to_not_convert": ["lm_head"]})
    return plain, packed


def test_a_folder(folders: tuple[Path, Path]) -> None:
    plain, packed = folders
    found, expected = load(packed).state, load(plain).state
    assert found.keys() == expected.keys()
    for name in expected:
        assert_close(found[name], expected[name])
    rows = one_hot(IDS, zoo.VOCABULARY)
    assert_close(open_model(packed)[1].every(rows), open_model(plain)[1].every(rows))


@pytest.mark.parametrize("change", ["scales", "shape"])
def test_what_does_not_fit(change: str, folders: tuple[Path, Path]) -> None:
    def damaged(state: tiny.State) -> None:
        name = next(name for name in state if name.endswith("_scales"))
        if change == "scales":
            del state[name]
        else:
            state[name] = state[name][:, :-1].contiguous()

    with pytest.raises(TensorError, match=r"is missing|expected blocks"):
        load(tiny.edit(folders[1], damaged))
    assert json.loads((folders[1] / "config.json").read_text())["quantization_config"]
