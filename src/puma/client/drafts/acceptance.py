"""How many tokens of a draft are right: the longest beginning that agrees with what is chosen without it.

Every token of an answer is chosen from what the parties computed for the text before it, so an answer is the one that
comes without drafts. This file must not know who guessed, nor links.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from puma.client.drafts.draft import Draft


def accepted(results: Tensor, draft: Draft, chooser: Any = None, place: int = 0) -> list[int]:
    """The tokens that a text goes on with, one at least: results (rows,) are the next tokens behind its latest token
    and behind each drafted one; or, with a `chooser`, logits (rows, vocabulary).

    A chooser has `one(place, logits, drafted, chances)`, as client.sampling.Sampler, and is asked row by row: the next
    row counts only if the token before it is the drafted one.
    """
    found: list[int] = []
    for row, result in enumerate(results):
        drafted = draft.tokens[row] if row < len(draft.tokens) else None
        if chooser is None:
            found.append(int(result))
        else:
            chances = draft.chances[row] if draft.chances is not None and drafted is not None else None
            found.append(chooser.one(place, result, drafted, chances))
        if found[-1] != drafted:
            break
    return found
