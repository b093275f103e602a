"""A classifier of images in torch's own modules, as people write one, and its checkpoint without a class's name."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

CONFIG = {
    "arch": "2-layer post-LN encoder (nn.MultiheadAttention 2 heads, exact GELU FFN), mean-pool, linear",
    "patch": 2, "seq_len": 9, "d_model": 8, "d_ff": 12, "normalize": [0.1, 0.4],
}  # fmt: skip


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.ffn = nn.ModuleDict({"fc1": nn.Linear(8, 12), "fc2": nn.Linear(12, 8)})

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x + self.attn(x, x, x, need_weights=False)[0])
        return self.norm2(x + self.ffn["fc2"](nn.functional.gelu(self.ffn["fc1"](x))))


class Classifier(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.ModuleDict({"proj": nn.Linear(4, 8)})
        self.pos_embed = nn.Parameter(torch.zeros(1, 9, 8))
        self.encoder = nn.Sequential(Layer(), Layer())
        self.norm, self.classifier = nn.LayerNorm(8), nn.Linear(8, 10)

    def forward(self, rows: Tensor) -> Tensor:
        """Logits (images, 10) of patches (images, 9, 4)."""
        return self.classifier(self.norm(self.encoder(self.patch_embed["proj"](rows) + self.pos_embed)).mean(1))


def model() -> Classifier:
    """The same one each time, its norms and biases not those of a beginning."""
    torch.manual_seed(5)
    found = Classifier().eval()
    for parameter in found.parameters():
        nn.init.normal_(parameter, mean=0.1, std=0.3)
    return found


def write(folder: Path, **changes: object) -> Path:
    """Its checkpoint, with changes of config.json."""
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    save_file(model().state_dict(), folder / "model.safetensors")
    return folder
