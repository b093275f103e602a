"""What a text names, out of the class logits of its tokens: neighbours of one class are joined.

Scores and joints are those of transformers' pipeline (token_classification). It must not know where the parties run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

from torch import Tensor

from puma.client import arguments
from puma.client.cost import Cost
from puma.client.heads.asking import asked, check_kind
from puma.client.model_info import ModelInfo
from puma.models.reading.cutting import Portion

Joined = Literal["none", "simple", "first", "average", "max"]
JOINED: tuple[Joined, ...] = ("none", "simple", "first", "average", "max")
OUTSIDE = "O"  # the class of tokens that name nothing
Row = tuple[Tensor, int, int]  # scores, and from which character to which


@dataclass(frozen=True)
class Entity:
    """A part of a text, its class and score, from which character to which it stands, and what the request cost."""

    label: str
    score: float
    text: str
    start: int
    end: int
    cost: Cost


def entities(session: Any, model: ModelInfo, text: str, join: Joined, stride: int) -> list[Entity]:
    """What a text names; see `Client.entities`."""
    check_kind(model, "tokens")
    text, stride = arguments.text(text), arguments.count(stride, "stride", 0)
    arguments.one_of(join, "join", JOINED)
    given = model.pieces(text, None, "longest_first" if stride else "", stride)
    return joined(text, model.labels, given, asked(session, model, given), join, session.cost)


def joined(
    text: str, labels: Sequence[str], pieces: Sequence[Portion], logits: Sequence[Tensor], how: Joined, cost: Cost
) -> list[Entity]:  # fmt: skip
    """What each piece names, of logits (tokens, labels); of what lies over each other in two pieces, the longer one.

    "none" gives every token, "simple" joins neighbours of one class. The others first make words agree: "first" takes
    the first token's class, "max" that of the token which is surest, "average" the mean of all.
    """
    found = [
        replace(each, text=text[each.start : each.end])
        for piece, values in zip(pieces, logits, strict=True)
        for each in _of_piece(labels, piece, values.softmax(-1), how, cost)
        if each.label != OUTSIDE
    ]
    return found if len(pieces) == 1 else list(_apart(sorted(found, key=lambda each: each.start)))


def _of_piece(labels: Sequence[str], piece: Portion, scores: Tensor, how: Joined, cost: Cost) -> Iterator[Entity]:
    inside = [i for i, text in enumerate(piece.texts) if text is not None]
    rows: list[Row] = [(scores[i], *piece.spans[i]) for i in inside]
    if how in WORDS:
        words = [list(same) for _, same in groupby(inside, key=lambda i: (piece.texts[i], piece.words[i]))]
        rows = [(WORDS[how](scores[w]), piece.spans[w[0]][0], piece.spans[w[-1]][1]) for w in words]
    each = [Entity(labels[int(row.argmax())], float(row.max()), "", start, end, cost) for row, start, end in rows]
    if how == "none":
        yield from each
        return
    while each:
        count = next((i for i in range(1, len(each)) if not _goes_on(each[i - 1], each[i])), len(each))
        group, each = each[:count], each[count:]
        mean = sum(one.score for one in group) / count
        yield Entity(_bare(group[0].label), mean, "", group[0].start, group[-1].end, cost)


WORDS: dict[str, Callable[[Tensor], Tensor]] = {  # of the scores (tokens, labels) of a word, those that count
    "first": lambda rows: rows[0],
    "average": lambda rows: rows.mean(0),
    "max": lambda rows: rows[int(rows.max(-1).values.argmax())],
}


def _goes_on(before: Entity, after: Entity) -> bool:
    """Whether what stands side by side is one: of one class, and not a new beginning."""
    return _bare(before.label) == _bare(after.label) and not after.label.startswith("B-")


def _bare(label: str) -> str:
    """A class without what says that it begins or goes on."""
    return label[2:] if label.startswith(("B-", "I-")) else label


def _apart(found: Sequence[Entity]) -> Iterator[Entity]:
    """Of those that lie over each other the longer one, or else the surer one."""
    kept: Entity | None = None
    for each in found:
        if kept is None or not kept.start <= each.start < kept.end:
            if kept is not None:
                yield kept
            kept = each
        elif (each.end - each.start, each.score) > (kept.end - kept.start, kept.score):
            kept = each
    if kept is not None:
        yield kept
