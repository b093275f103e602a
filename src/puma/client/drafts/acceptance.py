"""Which tokens of a draft are right: the longest beginning that agrees with what is chosen without it.

Every token of an answer is chosen from what the parties computed for the text before it, so an answer is the one that
comes without drafts. This file must not know who guessed, nor links.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from puma.client.drafts.draft import Draft


def accepted(results: Tensor, draft: Draft, chooser: Any = None, place: int = 0) -> tuple[list[int], list[int]]:
    """The tokens that a text goes on with, one at least, and the places of the rows from which they were chosen:
    results (rows,) are the next tokens behind its latest token and behind each drafted one; or, with a `chooser`,
    logits (rows, vocabulary).

    A chooser has `one(place, logits, drafted, chances)`, as client.sampling.Sampler, and is asked row by row: another
    row counts only if its token is the one that was chosen before it.
    """
    tokens, rows, parents = list[int](), [0], draft.follows
    while True:
        behind = [row for row, parent in enumerate(parents, 1) if parent == rows[-1]]
        tokens.append(_next(results[rows[-1]], draft, behind, chooser, place))
        right = [row for row in behind if draft.tokens[row - 1] == tokens[-1]]
        if not right:
            return tokens, rows
        rows.append(right[0])


def _next(result: Tensor, draft: Draft, behind: list[int], chooser: Any, place: int) -> int:
    if chooser is None:
        return int(result)
    if draft.chances is None or not behind:
        return chooser.one(place, result)
    drafted = behind[0] - 1
    return chooser.one(place, result, draft.tokens[drafted], draft.chances[drafted])
