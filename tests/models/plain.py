"""Open a folder for the plain run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from puma.models import architecture
from puma.models.checkpoint import Checkpoint, load


def open_model(folder: Path) -> tuple[Checkpoint, Any]:
    """A checkpoint and its model on tensors."""
    checkpoint = load(folder)
    return checkpoint, architecture(checkpoint.config).model(checkpoint.config, checkpoint.fold())


def one_hot(ids: list[int], size: int) -> torch.Tensor:
    """One row per token."""
    return torch.nn.functional.one_hot(torch.tensor(ids), size).float()
