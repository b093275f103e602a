"""Pieces of texts that a tokenizer makes and its model has no row for: M2M100's two files do not hold the same.

Such pieces have the numbers between two marks, which no text is split into. The library reads each as the unknown
token. This file must not know models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

MARKS = ("\ue000from here", "\ue000to here")


def between(pieces: Sequence[str]) -> list[str]:
    """What a vocabulary ends with that lacks these pieces: nothing if there are none."""
    return [MARKS[0], *pieces, MARKS[1]] if pieces else []


def known(tokenizer: Any, ids: Sequence[int]) -> list[int]:
    """Token ids as the model has them: the unknown token instead of each piece that it lacks."""
    first, last = map(tokenizer.token_to_id, MARKS)
    if first is None or last is None:
        return list(ids)
    unknown = tokenizer.token_to_id(tokenizer.model.unk_token)
    return [unknown if first < number < last else number for number in ids]
