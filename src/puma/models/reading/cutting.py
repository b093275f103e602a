"""Texts, and pairs of them, cut to what a model takes, as tokenizers of transformers cut them.

The tokens that a checkpoint puts around texts stay where they are, and so do the types of all that is kept. It works on
what the tokenizer gives and must not know of shares or parties.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

from puma.errors import InputError

Cut = Literal["", "longest_first", "only_first", "only_second"]
CUTS = get_args(Cut)
Span = tuple[int, int]


class Portion(NamedTuple):
    """What is left of a text or a pair: token ids and types, and where each token comes from.

    `texts` says of each token of which text it is, 0 or 1, or None of one that was put around them; `spans` from which
    character of it to which, `words` of which word of it. `whole`: nothing was cut.
    """

    ids: list[int]
    types: list[int]
    texts: list[int | None]
    spans: list[Span]
    words: list[int | None]
    whole: bool = True


def pieces(encoding: Any, most: int, how: Cut = "", stride: int = 0, left: bool = False) -> Iterator[Portion]:
    """A tokenizer's encoding of a text or a pair as one piece of at most so many tokens, or with a `stride` as several.

    What does not fit is cut off: of whichever text is longer until both are alike ("longest_first"), or of one of them;
    at the end, or if `left` at the beginning. With a stride what was cut off comes in further pieces, which have so
    many tokens of that text in common, up to half of what they hold. InputError if the tokens are too many and nothing
    may be cut, or not enough.
    """
    owners = list(encoding.sequence_ids)  # None of those that were put around the texts
    if len(owners) <= most:
        yield _piece(encoding, owners, range(len(owners)), whole=True)
        return
    of = [[i for i, owner in enumerate(owners) if owner == text] for text in (0, 1)]
    around = [i for i, owner in enumerate(owners) if owner is None]
    kept = _kept([len(places) for places in of], most - len(around), how, len(owners))
    cut = next(text for text in (0, 1) if kept[text] < len(of[text]))
    for window in _windows(of[cut], kept[cut], stride, left):
        other = of[1 - cut][-kept[1 - cut] or len(owners) :] if left else of[1 - cut][: kept[1 - cut]]
        yield _piece(encoding, owners, sorted([*around, *window, *other]), whole=False)


def _kept(lengths: Sequence[int], room: int, how: Cut, total: int) -> tuple[int, int]:
    """How many tokens of either text are kept."""
    first, second = lengths
    if how == "only_first":
        kept = room - second, second
    elif how == "only_second":
        kept = first, room - first
    elif how == "longest_first" and min(first, second) <= room // 2:
        short = min(first, second)
        kept = (short, room - short) if first <= second else (room - short, short)
    elif how == "longest_first":
        kept = (room // 2, room - room // 2) if first <= second else (room - room // 2, room // 2)
    else:
        what = f"the text has {total} tokens, and the model's context {total - sum(lengths) + room}"
        raise InputError(what, "shorten it, or let it be cut")
    if min(kept) < (1 if min(lengths) else 0) or room < 1:
        raise InputError(f"a text of {max(lengths)} tokens leaves no room for the other", "shorten it")
    return kept


def _windows(places: list[int], size: int, stride: int, left: bool) -> Iterator[list[int]]:
    """So many places at a time; without a stride the first ones only, or the last ones."""
    if not stride:
        yield places[-size:] if left else places[:size]
        return
    start, stride = 0, min(stride, size // 2)  # with more in common there would be very many
    while True:
        yield places[start : start + size]
        if start + size >= len(places):
            return
        start += size - stride


def _piece(encoding: Any, owners: Sequence[int | None], places: Sequence[int], whole: bool) -> Portion:
    parts: Any = (encoding.ids, encoding.type_ids, owners, encoding.offsets, encoding.word_ids)
    return Portion(*([part[i] for i in places] for part in parts), whole=whole)
