"""Answers that are quoted from a text, out of the logits of each token to be an answer's first and its last one.

They are chosen as transformers' pipeline for this did (version 4, question_answering): the product of both
probabilities, of answers that do not cross the text's end. It must not know where the parties run.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from puma.client import arguments
from puma.client.cost import Cost
from puma.client.heads.asking import asked, check_kind
from puma.client.model_info import ModelInfo
from puma.models.reading.cutting import Portion

WINDOW, STRIDE, LONGEST = 384, 128, 15  # tokens: of a piece, that two pieces have in common, and of an answer
NOTHING = (0, 0)  # where no answer stands


@dataclass(frozen=True)
class Quote:
    """An answer, its score, from which character of the text to which it stands, and what the whole request cost.

    It is empty if none is in the text, for a model that was trained to say so.
    """

    text: str
    score: float
    start: int
    end: int
    cost: Cost


class Found(NamedTuple):
    """An answer in one piece of a text."""

    score: float
    start: int
    end: int


def answer(
    session: Any, model: ModelInfo, question: str, text: str, top: int, longest: int, nothing: bool, window: int,
    stride: int,
) -> list[Quote]:  # fmt: skip
    """The best answers; see `Client.answer`."""
    check_kind(model, "span")
    question, text = arguments.text(question), arguments.text(text)
    top, longest = arguments.count(top, "top", 1), arguments.count(longest, "longest", 1)
    arguments.flag(nothing, "nothing")
    window, stride = arguments.count(window, "window", 1), arguments.count(stride, "stride", 1)
    given = model.pieces(question, text, "only_second", stride, window)
    logits = asked(session, model, given)
    return quotes(text, given, logits, top, longest, nothing, session.cost)


def quotes(
    text: str, pieces: Sequence[Portion], logits: Sequence[Tensor], top: int, longest: int, nothing: bool, cost: Cost
) -> list[Quote]:  # fmt: skip
    """The `top` best answers of up to `longest` tokens, of logits (tokens, 2) for each piece; the best first.

    With `nothing` one of them may be that there is none: its score is the least that any piece gives to it.
    """
    best = dict[tuple[int, int], float]()
    for piece, values in zip(pieces, logits, strict=True):
        for found in candidates(piece, values, top, longest):
            place = found.start, found.end
            best[place] = max(found.score, best.get(place, 0.0))
    if nothing:
        best[NOTHING] = min(_none(piece, values) for piece, values in zip(pieces, logits, strict=True))
    order = sorted(best, key=lambda place: (-best[place], place))
    return [Quote(text[start:end], best[start, end], start, end, cost) for start, end in order[:top]]


def candidates(piece: Portion, logits: Tensor, top: int, longest: int) -> Iterator[Found]:
    """The best answers of one piece, as whole words."""
    first, last = _chances(piece, logits)
    inside = torch.tensor([text == 1 for text in piece.texts])
    both = torch.outer(first * inside, last * inside)
    both = both.triu().tril(longest - 1)
    score, at = both.flatten().topk(min(top, both.numel()))
    for value, place in zip(score.tolist(), at.tolist(), strict=True):
        if value > 0:
            yield Found(value, *_words(piece, *divmod(place, len(piece.ids))))


def _chances(piece: Portion, logits: Tensor) -> tuple[Tensor, Tensor]:
    """How probable each token is as an answer's first and its last one, among those of the text and the first of all,
    which stands for no answer; 0 for all others."""
    among = torch.tensor([text == 1 for text in piece.texts])
    among[0] |= piece.texts[0] is None
    first, last = logits.masked_fill(~among[:, None], -torch.inf).softmax(0).unbind(-1)
    return first, last


def _none(piece: Portion, logits: Tensor) -> float:
    first, last = _chances(piece, logits)
    return float(first[0] * last[0]) if piece.texts[0] is None else 0.0


def _words(piece: Portion, first: int, last: int) -> tuple[int, int]:
    """From where to where in the text the words stand that these tokens belong to."""
    words = [word if text == 1 else None for word, text in zip(piece.words, piece.texts, strict=True)]
    end = len(words) - 1 - words[::-1].index(words[last])
    return piece.spans[words.index(words[first])][0], piece.spans[end][1]
