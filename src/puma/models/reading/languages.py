"""The language that a text is in, where a tokenizer says it by a token at an end of the text: mBART, NLLB, M2M100.

What a text holds besides is the same in every language, so one token of the frame takes the place of another. This
file must not know models.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from puma.errors import UsageError

CODE = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]{1,4}|__[a-z]{2,3}__")  # de_DE, deu_Latn, __de__
SHOWN = 12


def in_language(tokenizer: Any, name: str, ids: Sequence[int], code: str) -> list[int]:
    """Token ids of a text, framed as one in the language of this code; UsageError where no frame names one, or for a
    code that the model, called by its `name`, does not know."""
    first, last = ends(tokenizer)
    frame = {*range(first), *range(len(ids) - last, len(ids))}
    places = [i for i in sorted(frame) if CODE.fullmatch(tokenizer.id_to_token(ids[i]) or "")]
    if len(places) != 1:
        raise UsageError(f"{name} is not told which language a text is in", "leave the language out")
    spelled = code if CODE.fullmatch(code) else f"__{code}__"  # as M2M100's library calls them
    number = tokenizer.token_to_id(spelled) if CODE.fullmatch(spelled) else None
    if number is None:
        known = sorted(token for token in tokenizer.get_vocab() if CODE.fullmatch(token))
        raise UsageError(f"{name} knows no language {code}", f"choose one of {', '.join(known[:SHOWN])} and others")
    return [number if i == places[0] else token for i, token in enumerate(ids)]


def ends(tokenizer: Any) -> tuple[int, int]:
    """How many tokens a tokenizer puts before a text and behind it."""
    marks = tokenizer.encode("a").special_tokens_mask
    first, last = ([*each, 0].index(0) for each in (marks, marks[::-1]))
    return first, last
