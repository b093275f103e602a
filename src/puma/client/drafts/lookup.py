"""Drafts that cost nothing: where the end of a text has stood before, what followed it may follow again.

Summaries, corrections, code and answers about a text copy much of it. Source: prompt lookup decoding (A. Saxena, 2023),
after assisted generation with references (N. Yang et al., "Inference with reference", arXiv:2304.04487). This file must
not know models.
"""

from __future__ import annotations

from collections.abc import Sequence

from puma.client.drafts.draft import NOTHING, Draft
from puma.client.drafts.tempo import Tempo
from puma.client.sampling import Sampling

LONGEST = 16  # tokens of an earlier place that are compared
PLACES = 128  # earlier places of the last tokens that are looked at, the latest first
# How often what followed follows again, by how many tokens agree before it: the beginning of what each text teaches.
KINDS = ((1, 0.15), (2, 0.35), (3, 0.55), (4, 0.65), (6, 0.75), (9, 0.85), (13, 0.9))
WEIGHT = 3.0  # how many places that is worth
FORGETS = 0.95  # of what was learnt, with each later place


class Lookup:
    """Copies from the prompt and from the answer so far."""

    name = "lookup"

    def begin(self, ids: Sequence[int], how: Sampling, tempo: Tempo) -> Copied:
        """For one text."""
        return Copied(ids, tempo)


class Copied:
    """A text, and where its last tokens have stood before."""

    def __init__(self, ids: Sequence[int], tempo: Tempo) -> None:
        self._text, self._tempo = list[int](), tempo
        self._after: dict[tuple[int, ...], list[int]] = {}  # of one or two tokens, the places that follow them
        self._right = [WEIGHT * chance for _, chance in KINDS]
        self._seen = [WEIGHT] * len(KINDS)
        self._guess: tuple[int, Sequence[int]] = 0, ()  # by which kind, and what: also of what was not worth sending
        self._add(ids)

    def propose(self, most: int) -> Draft:
        """What followed the longest end of the text that has stood before, the latest such place first."""
        place, agreeing = self._found()
        if not place:
            self._guess = 0, ()
            return NOTHING
        kind = max(at for at, (least, _) in enumerate(KINDS) if agreeing >= least)
        tokens = self._from(place, max(most, 1))
        self._guess = kind, tokens
        chance = self._right[kind] / self._seen[kind]
        return Draft(tokens[: self._tempo.worth([chance] * most)])

    def learn(self, tokens: Sequence[int]) -> None:
        """Whether what was guessed came teaches how good such guesses are in this text."""
        kind, guess = self._guess
        for guessed, token in zip(guess, tokens, strict=False):
            self._right[kind] = FORGETS * self._right[kind] + (guessed == token)
            self._seen[kind] = FORGETS * self._seen[kind] + 1
            if guessed != token:
                break
        self._guess = 0, ()
        self._add(tokens)

    def _add(self, tokens: Sequence[int]) -> None:
        for token in tokens:
            self._text.append(token)
            place = len(self._text)
            for size in (1, 2):
                if place >= size:
                    self._after.setdefault(tuple(self._text[place - size :]), []).append(place)

    def _found(self) -> tuple[int, int]:
        """A place that follows what the text ends with, and how many tokens agree before it; 0 if there is none."""
        text = self._text
        for size in (2, 1):
            places = self._after.get(tuple(text[len(text) - size :]), ()) if len(text) >= size else ()
            earlier = [place for place in places[-PLACES - 1 :] if place < len(text)]
            if earlier:
                return max(((place, self._agreeing(place)) for place in earlier), key=lambda found: found[::-1])
        return 0, 0

    def _agreeing(self, place: int) -> int:
        text, end, count = self._text, len(self._text), 0
        while count < min(LONGEST, place) and text[place - 1 - count] == text[end - 1 - count]:
            count += 1
        return count

    def _from(self, place: int, most: int) -> list[int]:
        """The tokens from a place on; where the text ends, the copy goes on with itself, as repetitions do."""
        found: list[int] = []
        for at in range(place, place + most):
            found.append(self._text[at] if at < len(self._text) else found[at - len(self._text)])
        return found
