"""Adapters' folders as peft writes them, with random numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

PREFIX = "base_model.model."
SETTINGS = {
    "peft_type": "LORA",
    "task_type": "CAUSAL_LM",
    "base_model_name_or_path": "someone/tiny",
    "r": 3,
    "lora_alpha": 6,
    "bias": "none",
    "fan_in_fan_out": False,
    "init_lora_weights": True,
    "target_modules": ["q_proj"],
    "megatron_core": "megatron.core",
    "rank_pattern": {},
    "alpha_pattern": {},
    "peft_version": "0.21.2",
}


def low(module: str, out: int, size: int, rank: int = 3, seed: int = 0) -> dict[str, Tensor]:
    """A and B of one module."""
    generator = torch.Generator().manual_seed(seed)
    return {
        f"{module}.lora_A.weight": 0.3 * torch.randn(rank, size, generator=generator),
        f"{module}.lora_B.weight": 0.3 * torch.randn(out, rank, generator=generator),
    }


def write(folder: Path, tensors: dict[str, Tensor], **settings: Any) -> Path:
    """An adapter of these tensors, named as in the model that was trained."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(SETTINGS | settings))
    save_file(
        {PREFIX + name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "adapter_model.safetensors"
    )
    return folder
