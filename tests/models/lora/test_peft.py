"""Adapters that peft itself writes give the answers that it gives, where it is installed."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from puma.models import architecture
from puma.reference.plain_model import PlainModel
from tests.models import tiny
from tests.models.plain import one_hot

IDS = [1, 7, 12, 5, 20, 9]
LLAMA = {"target_modules": ["q_proj", "v_proj", "down_proj"]}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", LLAMA),
    ("llama", LLAMA | {"use_rslora": True, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.0.mlp.*": 7}}),
    ("llama", LLAMA | {"use_dora": True}),
    ("llama", {"target_modules": ["q_proj", "embed_tokens", "lm_head"], "use_dora": True}),
    ("llama", {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]}),
    ("llama", {"target_modules": ["q_proj"], "trainable_token_indices": [12, 1]}),
    ("tied", {"target_modules": ["q_proj", "embed_tokens"]}),
    ("tied", {"target_modules": ["q_proj", "embed_tokens"], "ensure_weight_tying": True}),
    ("tied", {"target_modules": ["q_proj"], "trainable_token_indices": [12, 1]}),
    ("gpt2", {"target_modules": ["c_attn", "c_proj", "wte"], "lora_bias": False, "use_dora": True}),
    ("gpt2", {"target_modules": ["c_attn"], "lora_bias": True}),
    ("classifier", {"target_modules": ["query"], "task_type": "SEQ_CLS", "bias": "all"}),
]
WRITE: dict[str, Callable[[Path], Path]] = {
    "llama": tiny.llama,
    "tied": lambda folder: tiny.llama(folder, tie_word_embeddings=True),
    "gpt2": tiny.gpt2,
    "classifier": tiny.classifier,
}


@pytest.mark.parametrize("name,settings", CASES)
def test_as_peft(name: str, settings: dict[str, Any], tmp_path: Path, reference: Any) -> None:
    pytest.importorskip("peft")
    folder = WRITE[name](tmp_path / "base")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import peft

        torch.manual_seed(1)
        model = peft.get_peft_model(reference(folder), peft.LoraConfig(r=4, lora_alpha=16, **settings)).eval()
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data += 0.2 * torch.randn_like(parameter)
        model.save_pretrained(tmp_path / "adapter")
        with torch.no_grad():
            expected = model(torch.tensor([IDS])).logits[0]
    plain = PlainModel(folder, tmp_path / "adapter")
    if plain.causal:
        model = architecture(plain.config).model(plain.config, plain.params)
        found = model(one_hot(IDS, plain.config.vocab_size))[0]
        assert_close(found, expected[-1], atol=3e-5, rtol=1e-5)
    else:
        (found,) = plain.session.encode([IDS], "logits", [[0] * len(IDS)])
        assert_close(found.flatten().float(), expected.flatten(), atol=3e-5, rtol=1e-5)
