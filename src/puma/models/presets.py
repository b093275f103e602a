"""Sizes of published models, for dry runs and benchmarks without their weights.

It must not know checkpoints: what it names is nobody's file."""

from __future__ import annotations

from puma.errors import UsageError
from puma.models.architectures import with_layers
from puma.models.config import Bert, Config, Gpt2, Llama

PRESETS: dict[str, Config] = {
    "bert-base": Bert(vocab_size=30522, hidden_size=768, intermediate_size=3072, layers=12, heads=12),
    "bert-large": Bert(vocab_size=30522, hidden_size=1024, intermediate_size=4096, layers=24, heads=16),
    # RoBERTa's sizes with BERT's layout, which costs the same.
    "roberta-base": Bert(
        vocab_size=50265,
        hidden_size=768,
        intermediate_size=3072,
        layers=12,
        heads=12,
        context=514,
        type_vocab_size=1,
        eps=1e-5,
    ),
    "gpt2": Gpt2(vocab_size=50257, width=768, layers=12, heads=12),
    "gpt2-medium": Gpt2(vocab_size=50257, width=1024, layers=24, heads=16),
    "gpt2-large": Gpt2(vocab_size=50257, width=1280, layers=36, heads=20),
    "llama-7b": Llama(vocab_size=32000, hidden_size=4096, intermediate_size=11008, layers=32, heads=32),
}


def preset(name: str, layers: int | None = None) -> Config:
    """The config of a published model, perhaps with another number of layers."""
    if name not in PRESETS:
        raise UsageError(f"there is no preset {name}", f"choose one of {', '.join(PRESETS)}")
    return with_layers(PRESETS[name], layers) if layers else PRESETS[name]


__all__ = ["PRESETS", "preset", "with_layers"]
