"""Many texts or pairs on their way to a head for classes: in as few requests as the limits allow.

It must not know what the logits are for, nor where the parties run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from puma.client.cost import Cost, added
from puma.client.lengths import secret_length
from puma.client.model_info import ModelInfo
from puma.errors import UsageError
from puma.models import architecture, heads
from puma.models.config import Config
from puma.models.fields import Scored
from puma.models.reading.cutting import Portion
from puma.models.text import MAX_ELEMENTS, MAX_PROMPTS

Progress = Callable[[str, int, int], None]
Asks = Literal["classes", "tokens", "span", "choice"]
HINTS: dict[Asks, str] = {
    "classes": "use a ForSequenceClassification checkpoint",
    "tokens": "use a ForTokenClassification checkpoint",
    "span": "use a ForQuestionAnswering checkpoint",
    "choice": "use a ForMultipleChoice checkpoint",
}


def kind(model: ModelInfo) -> Asks | None:
    """What the classes of a model are of; None without a head for classes."""
    found = heads(model.config)
    if not found.labels:
        return None
    return found.reading.asks or ("tokens" if found.each_token else "classes")


def check_kind(model: ModelInfo, *wanted: Asks) -> None:
    """UsageError unless the classes of a model are of one of these."""
    if kind(model) not in wanted:
        what = {"classes": "classes of texts", "tokens": "classes of tokens", "span": "answers", "choice": "choices"}
        raise UsageError(f"{model.name} has no head for {what[wanted[0]]}", HINTS[wanted[0]])


def portions(config: Config, lengths: Sequence[int], most: int | None = None) -> list[list[int]]:
    """Which inputs of these lengths go in one request each: as many as the parties take together, `most` tokens of all
    of them if that is limited. Those of like lengths go together, since attention pads to the longest.
    """
    found, largest = list[list[int]](), architecture(config).largest
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        batch = found[-1] if found else []
        longest, count = lengths[batch[0] if batch else i], len(batch) + 1
        tokens = sum(lengths[j] for j in batch) + lengths[i]
        fits = count <= MAX_PROMPTS and count * largest(config, longest, longest) <= MAX_ELEMENTS
        if batch and fits and (most is None or tokens <= most):
            batch.append(i)
        else:
            found.append([i])
    return found


def asked(
    session: Any, model: ModelInfo, given: Sequence[Portion], lengths: str = "public", padded: int = 0,
    progress: Progress | None = None,
) -> list[Tensor]:  # fmt: skip
    """The class logits (labels,), or (tokens, labels), of each; in secret, all have one length."""
    steps = [*answered(session, model, given, lengths, padded, progress)]
    return steps[-1] if steps else []


def answered(
    session: Any, model: ModelInfo, given: Sequence[Portion], lengths: str = "public", padded: int = 0,
    progress: Progress | None = None,
) -> Iterator[list[Tensor]]:  # fmt: skip
    """The same, after each request: what is still to come is empty. `session.cost` and `doubtful` are those of all
    requests so far, and leaving the iterator sends no more.
    """
    ids, types = [piece.ids for piece in given], [piece.types for piece in given]
    if lengths == "secret":
        padded = secret_length(model.config, ids, types, padded)
    found, costs, doubtful = [torch.empty(0)] * len(given), list[Cost](), set[int]()
    sizes = [padded if lengths == "secret" else len(each) for each in ids]
    for batch in portions(model.config, sizes, model.max_tokens):
        if progress:
            progress("asking", sum(x.numel() > 0 for x in found), len(given))
        more: dict[str, Any] = {"lengths": lengths, "padded": padded} if lengths == "secret" else {}
        logits = session.encode([ids[i] for i in batch], "logits", [types[i] for i in batch], **more)
        for i, values in zip(batch, logits, strict=True):
            found[i] = values
        if session.cost is not None:
            costs.append(session.cost)
            doubtful |= {batch[i] for i in session.doubtful}
            session.cost, session.doubtful = added(costs), doubtful
        yield found


def scored(logits: Tensor, how: Scored) -> Tensor:
    """Scores of logits (..., labels): the softmax or sigmoid of them, or what they are."""
    if how == "softmax":
        return logits.softmax(-1)
    return logits.sigmoid() if how == "sigmoid" else logits
