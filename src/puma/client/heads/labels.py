"""Classes of texts and pairs by their names, and classes that a client names itself, by a model of what follows from
what (zero-shot).

The scores are those of transformers' pipelines. It must not know where the parties run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from puma.client import arguments
from puma.client.cost import Cost
from puma.client.heads.asking import asked, check_kind, scored
from puma.client.model_info import ModelInfo
from puma.errors import UsageError
from puma.models import heads
from puma.models.reading.cutting import CUTS, Cut

HYPOTHESIS = "This example is {}."


@dataclass(frozen=True)
class Classified:
    """The classes of one text, the best first, their scores, and what the whole request cost.

    `cut`: the text was longer than the model takes, and its end was not read.
    """

    labels: list[str]
    scores: list[float]
    cut: bool
    cost: Cost

    @property
    def label(self) -> str:
        """The best one."""
        return self.labels[0]

    @property
    def score(self) -> float:
        """Its score."""
        return self.scores[0]


def classify(
    session: Any, model: ModelInfo, texts: Sequence[tuple[str, str | None]], cut: Cut, lengths: str, padded: int
) -> list[Classified]:  # fmt: skip
    """The classes of texts and pairs; see `Client.classify`."""
    check_kind(model, "classes")
    arguments.one_of(cut, "cut", CUTS)
    given = [model.pieces(*each, cut)[0] for each in texts]
    logits = asked(session, model, given, lengths, padded)
    scores = [class_scores(model, values) for values in logits]
    return [classified(model.labels, x, not piece.whole, session.cost) for x, piece in zip(scores, given, strict=True)]


def zero_shot(
    session: Any, model: ModelInfo, text: str, names: Sequence[str], hypothesis: str, multi_label: bool,
    entails: str | None, lengths: str, padded: int,
) -> Classified:  # fmt: skip
    """Classes that the client names; see `Client.zero_shot`."""
    check_kind(model, "classes")
    text, names = arguments.text(text), arguments.texts(names)
    arguments.flag(multi_label, "multi_label")
    of, said = entailment(model, entails), hypotheses(names, arguments.text(hypothesis))
    given = [model.pieces(text, each, "only_first")[0] for each in said]
    scores = follows(asked(session, model, given, lengths, padded), of, multi_label)
    return classified(names, scores, not all(piece.whole for piece in given), session.cost)


def classified(names: Sequence[str], scores: Tensor, cut: bool, cost: Cost) -> Classified:
    """Scores (labels,) in the order of their size; of equal ones the first comes first."""
    values = scores.tolist()
    order = sorted(range(len(names)), key=lambda i: -values[i])
    return Classified([names[i] for i in order], [values[i] for i in order], cut, cost)


def class_scores(model: ModelInfo, logits: Tensor) -> Tensor:
    """Of logits (labels,) the scores: as problem_type says, else the sigmoid of a single label, or the softmax."""
    how = heads(model.config).reading.scores or ("sigmoid" if len(model.labels) == 1 else "softmax")
    return scored(logits, how)


def hypotheses(labels: Sequence[str], template: str) -> list[str]:
    """What could follow from a text, for each label; UsageError for a template without a place for it."""
    if not labels:
        raise UsageError("there is no label to choose", "pass at least one")
    if "{}" not in template:
        raise UsageError("the hypothesis has no place for a label", f"write {{}} there, as in {HYPOTHESIS}")
    return [template.replace("{}", label) for label in labels]


def entailment(model: ModelInfo, entails: str | None = None) -> int:
    """The class of texts that something follows from; UsageError for a model that names none so."""
    names = model.labels
    if entails is not None and entails in names:
        return names.index(entails)
    found = None if entails is not None else [i for i, name in enumerate(names) if name.lower().startswith("entail")]
    if not found or len(names) < 2:
        what = f"{model.name} has no label {entails or 'that says entailment'}"
        raise UsageError(what, f"use a model of entailment, or name its label by entails: {', '.join(names[:20])}")
    return found[0]


def follows(logits: Sequence[Tensor], entails: int, alone: bool) -> Tensor:
    """Scores (labels,) of logits (classes,) for each label: of several that exclude each other the softmax of what
    entails them; of each `alone`, or a single one, that against what contradicts it, the first class or else the last.
    """
    rows = torch.stack(list(logits))
    if not alone and len(rows) > 1:
        return rows[:, entails].softmax(0)
    contradicts = 0 if entails else rows.shape[1] - 1
    return rows[:, [contradicts, entails]].softmax(-1)[:, 1]
