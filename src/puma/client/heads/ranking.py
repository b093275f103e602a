"""Texts in the order of how well they answer a query, by a model that reads both together (a cross-encoder).

The scores are those of sentence-transformers' CrossEncoder. It must not know where the parties run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from puma.client.cost import Cost
from puma.client.heads.asking import scored
from puma.client.model_info import ModelInfo
from puma.errors import UsageError
from puma.models import heads


@dataclass(frozen=True)
class Ranked:
    """One of several texts: its number among them, how well it answers, and what the whole request cost.

    `cut`: the pair was longer than the model takes, and its end was not read.
    """

    index: int
    text: str
    score: float
    cut: bool
    cost: Cost


def label_of(model: ModelInfo, label: str | None) -> int:
    """The class whose score counts; UsageError where several could, or for one that there is not."""
    labels = model.labels
    if label is None and len(labels) == 1:
        return 0
    names = ", ".join(labels[:20])
    if label is None:
        raise UsageError(f"{model.name} has {len(labels)} labels, and any could rank", f"choose one by label: {names}")
    if label not in labels:
        raise UsageError(f"{model.name} has no label {label}", f"choose one of {names}")
    return labels.index(label)


def relevance(model: ModelInfo, logits: Sequence[Tensor], label: str | None = None, raw: bool = False) -> list[float]:
    """How well each text answers, of its logits (labels,); with `raw` the logits themselves.

    Of one label the model's own function, or else the sigmoid; of one label among several their softmax, unless the
    model has its own. Of choices the softmax over all of them.
    """
    of, reading = label_of(model, label), heads(model.config).reading
    rows = torch.stack(list(logits))
    if raw:
        return rows[:, of].tolist()
    if reading.asks == "choice":
        return rows[:, 0].softmax(0).tolist()
    how = reading.relevance or ("sigmoid" if rows.shape[1] == 1 else "softmax")
    return scored(rows, how)[:, of].tolist()


def ranked(texts: Sequence[str], scores: Sequence[float], cut: Sequence[bool], cost: Cost) -> list[Ranked]:
    """The best first; of equal ones that which came first."""
    found = [Ranked(i, *each, cost) for i, each in enumerate(zip(texts, scores, cut, strict=True))]
    return sorted(found, key=lambda each: -each.score)
