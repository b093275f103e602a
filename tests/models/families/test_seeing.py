"""Gemma 3 as most people have it, a model that also looks at images: of texts it answers what transformers answers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.testing import assert_close

from puma.errors import TensorError
from puma.models.checkpoint import load
from tests.models import tiny, zoo
from tests.models.plain import one_hot, open_model

IDS = [2, 5, 7, 9, 27, 6, 8, 20, 3]
TEXT = zoo.GEMMA | {"num_hidden_layers": 3, "sliding_window_pattern": 2, "rope_theta": 100.0}
TEXT |= {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_local_base_freq": 50.0}
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
VISION |= {"image_size": 8, "patch_size": 4}
OLD = {  # how files on the hub name what the library now calls otherwise
    "model.language_model.": "language_model.model.", "model.vision_tower.": "vision_tower.",
    "model.multi_modal_projector.": "multi_modal_projector.",
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.Tensor]:
    """A folder, and the logits of its model after each token."""
    transformers, folder = pytest.importorskip("transformers"), tmp_path_factory.mktemp("seeing")
    config = transformers.Gemma3Config(text_config=TEXT, vision_config=VISION, mm_tokens_per_image=4)
    model = transformers.Gemma3ForConditionalGeneration(config).eval()
    zoo.fill(model)
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0]
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(state, folder / "model.safetensors")
    raw = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "eos_token_id": [1, 6]}
    raw |= {"text_config": TEXT | {"model_type": "gemma3_text"}, "vision_config": VISION}
    (folder / "config.json").write_text(json.dumps(raw))
    tiny.tokenizer("<s> $A").save(str(folder / "tokenizer.json"))
    return folder, logits


@pytest.mark.parametrize("old", [False, True])
def test_texts(old: bool, made: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    folder, expected = Path(shutil.copytree(made[0], tmp_path / "model")), made[1]
    if old:
        state = load_file(folder / "model.safetensors")
        for new, name in OLD.items():
            state = {k.replace(new, name): tensor for k, tensor in state.items()}
        save_file(state, folder / "model.safetensors")
    checkpoint, model = open_model(folder)
    assert (checkpoint.architecture, checkpoint.eos, checkpoint.config.tied) == ("Gemma3ForCausalLM", (1, 6), True)
    assert_close(model.every(one_hot(IDS, zoo.VOCABULARY)), expected, atol=5e-5, rtol=5e-5)


def test_an_unknown_tensor_is_still_refused(made: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(made[0], tmp_path / "model"))

    def change(state: dict[str, Any]) -> None:
        state["model.audio_tower.weight"] = torch.zeros(2)

    with pytest.raises(TensorError, match="audio_tower"):
        load(tiny.edit(folder, change))


def test_layers_with_a_memory(tmp_path: Path) -> None:
    """Qwen3.5 as it is on the hub; tensors of drafts are left aside, too."""
    transformers = pytest.importorskip("transformers")
    text = transformers.Qwen3_5TextConfig(**zoo.CAUSAL["qwen3.5"][1]).to_dict()
    eyes = {"hidden_size": 8, "intermediate_size": 8, "depth": 1, "num_heads": 2, "out_hidden_size": 24}
    config = transformers.Qwen3_5Config(text_config=text, vision_config=eyes | {"num_position_embeddings": 4})
    model = transformers.Qwen3_5ForConditionalGeneration(config).eval()
    zoo.fill(model)
    model.save_pretrained(tmp_path)
    with torch.no_grad():
        expected = model(torch.tensor([IDS])).logits[0]
    tiny.edit(tmp_path, lambda state: state.update({"mtp.fc.weight": torch.zeros(2, 2)}))
    checkpoint, ours = open_model(tmp_path)
    assert checkpoint.architecture == "Qwen3_5ForCausalLM" and checkpoint.config.delta
    assert_close(ours.every(one_hot(IDS, zoo.VOCABULARY)), expected, atol=5e-5, rtol=5e-5)
