"""Texts in the order of how well they answer a query, by a model that reads both together (a cross-encoder).

The scores are those of sentence-transformers' CrossEncoder. It must not know where the parties run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from puma.client import arguments
from puma.client.chat.format import PROBE, ChatFormat, chat_format
from puma.client.cost import Cost
from puma.client.heads.asking import Progress, answered, check_kind, scored
from puma.client.model_info import ModelInfo
from puma.errors import InputError, UsageError
from puma.models import heads
from puma.models.fields import Reading
from puma.models.reading.cutting import CUTS, Cut, Portion


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


def ranking(
    session: Any, model: ModelInfo, query: str, texts: Sequence[str], top: int | None, label: str | None, cut: Cut,
    raw: bool, lengths: str = "public", padded: int = 0, progress: Progress | None = None,
) -> Iterator[list[Ranked]]:  # fmt: skip
    """Nothing after each request but the last, and then the `top` texts; see `Client.rank`."""
    check_kind(model, "classes", "choice")
    query, texts = arguments.text(query), arguments.texts(texts)
    if not texts:
        raise InputError("there is no text to rank", "pass at least one")
    top = len(texts) if top is None else arguments.count(top, "top", 1)
    arguments.one_of(cut, "cut", CUTS)
    label_of(model, label)
    arguments.flag(raw, "raw")
    arguments.callback(progress, "progress")
    given = read(model, query, texts, cut)
    for logits in answered(session, model, given, lengths, padded, progress):
        if any(not values.numel() for values in logits):
            yield []
            continue
        scores = relevance(model, logits, label, raw)
        found = [
            Ranked(i, text, score, not piece.whole, session.cost)
            for i, (text, score, piece) in enumerate(zip(texts, scores, given, strict=True))
        ]
        yield sorted(found, key=lambda each: -each.score)[:top]


def read(model: ModelInfo, query: str, texts: Sequence[str], cut: Cut) -> list[Portion]:
    """A query with each text as the model reads them: side by side, or in its chat template, which is not cut."""
    reading = heads(model.config).reading
    if not reading.template:
        return [model.pieces(reading.prompt + query, text, cut)[0] for text in texts]
    form = chat_format(model)
    structured = not _shown(form, PROBE)
    return [model.whole(_put(form, reading, query, text, structured)) for text in texts]


def _put(form: ChatFormat, reading: Reading, query: str, text: str, structured: bool) -> str:
    """A query and a text in a chat template, as messages of these two roles."""
    said = [("system", reading.prompt), ("query", query), ("document", text)]
    turns = [{"role": role, "content": _content(each, structured)} for role, each in said if each or role != "system"]
    return form.render(turns, answer=reading.answer)


def _content(text: str, structured: bool) -> Any:
    return [{"type": "text", "text": text}] if structured else text


def _shown(form: ChatFormat, text: str) -> bool:
    """Whether a template shows a message that is a text, and not a list of parts."""
    try:
        return text in form.render([{"role": role, "content": text} for role in ("query", "document")])
    except InputError:
        return False


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
