"""Open a folder for the plain run, and follow a causal one step by step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from puma.models import Cache, architecture
from puma.models.checkpoint import Checkpoint, load
from puma.models.config import Config


def open_model(folder: Path) -> tuple[Checkpoint, Any]:
    """A checkpoint and its model on tensors."""
    checkpoint = load(folder)
    return checkpoint, architecture(checkpoint.config).model(checkpoint.config, checkpoint.fold())


def one_hot(ids: list[int], size: int) -> torch.Tensor:
    """One row per token."""
    return torch.nn.functional.one_hot(torch.tensor(ids), size).float()


def continues(model: Any, config: Config, ids: list[int], expected: Any, near: Callable[[Any, Any], None]) -> None:
    """At the prompt and at every cached step the model gives what transformers gave for nine ids."""
    rows, cache = one_hot(ids, config.vocab_size), Cache(config.layers)
    near(model(rows)[0], expected.logits[0, -1])
    near(model.hidden(rows), expected.hidden_states[-1][0])
    near(model(rows[:4], cache)[0], expected.logits[0, 3])
    near(model(rows[4:7], cache)[0], expected.logits[0, 6])  # several tokens after a cached prefix
    for i in (7, 8):
        near(model(rows[i : i + 1], cache)[0], expected.logits[0, i])
    assert cache.length == len(ids)
