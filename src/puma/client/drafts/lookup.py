"""Drafts that cost nothing: what followed where the text's last words stood before may follow again.

Summaries, corrections, code and answers about a text copy much of it, and any text repeats its words. Where a further
token of a step costs next to nothing, several continuations go side by side. Source: prompt lookup decoding (A. Saxena,
2023), after assisted generation with references (N. Yang et al., arXiv:2304.04487); chances of what follows by the
longest context that has been seen, and what is left for shorter ones (prediction by partial matching: J. Cleary and I.
Witten, IEEE Transactions on Communications 32(4), 1984); trees of drafts (X. Miao et al., SpecInfer, arXiv:2305.09781).
This file must not know models.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Sequence

from puma.client.drafts.draft import NOTHING, Draft
from puma.client.drafts.tempo import Tempo
from puma.client.sampling import Sampling

LONGEST = 16  # tokens of an earlier place that are compared
PLACES = 96  # earlier places of the last tokens that are looked at, the latest ones
# How often what follows is among what followed, by how many tokens agree before it, where no longer context had it: the
# beginning of what each text teaches. With none: among all tokens of the text.
KINDS = ((0, 0.4), (1, 0.35), (2, 0.45), (3, 0.6), (4, 0.7), (6, 0.8), (9, 0.88), (13, 0.93))
WEIGHT = 4.0  # how many tokens that is worth
FORGETS = 0.97  # of what was learnt, with each later token
LEAST = 0.002  # chances below this are not looked at


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
        self._counts: Counter[int] = Counter()
        self._right = [WEIGHT * chance for _, chance in KINDS]
        self._seen = [WEIGHT] * len(KINDS)
        for token in ids:
            self._add(token)

    def propose(self, most: int, deep: int) -> Draft:
        """Continuations, the likeliest first, as long as each is worth its time beside those before it."""
        tokens, parents, gained = list[int](), list[int](), 1.0
        waiting = list[tuple[float, int, int, tuple[int, ...]]]()  # chance, for ties a number, parent, and the tokens
        self._wait(waiting, 1.0, 0, (), deep)
        while waiting and len(tokens) < most:
            chance, _, parent, path = heapq.heappop(waiting)
            if not self._tempo.pays(-chance, gained, len(tokens)):
                break
            tokens.append(path[-1])
            parents.append(parent)
            gained -= chance
            self._wait(waiting, -chance, len(tokens), path, deep)
        return Draft(tokens, None, parents) if tokens else NOTHING

    def learn(self, tokens: Sequence[int]) -> None:
        """By which context each token could have been guessed teaches how good such guesses are in this text."""
        for token in tokens:
            for kind, counts in self._contexts(()):
                found = token in counts
                self._right[kind] = FORGETS * self._right[kind] + found
                self._seen[kind] = FORGETS * self._seen[kind] + 1
                if found:
                    break
            self._add(token)

    def _wait(self, waiting: list, chance: float, parent: int, path: tuple[int, ...], deep: int) -> None:
        """Let what may follow these tokens wait for its turn."""
        if len(path) >= deep:
            return
        for token, each in self._next(path):
            if chance * each > LEAST:
                heapq.heappush(waiting, (-chance * each, len(waiting), parent, (*path, token)))

    def _next(self, path: tuple[int, ...]) -> Iterator[tuple[int, float]]:
        """What may follow the text and these, with chances: of each context the tokens that no longer one has."""
        left, known = 1.0, set[int]()
        for kind, counts in self._contexts(path):
            trust, total = self._right[kind] / self._seen[kind], sum(counts.values())
            for token, count in counts.items():
                if token not in known:
                    yield token, left * trust * count / total
            known.update(counts)
            left *= 1 - trust
            if left < LEAST:
                return

    def _contexts(self, path: tuple[int, ...]) -> Iterator[tuple[int, Counter[int]]]:
        """What followed the text's last tokens and these, the longest context first: its kind, and how often each token
        came."""
        tail = (*self._text[-LONGEST:], *path)[-LONGEST:]
        found: dict[int, Counter[int]] = {}
        for size in (2, 1):
            places = self._after.get(tail[len(tail) - size :], ()) if len(tail) >= size else ()
            for place in places[-PLACES:]:
                if place < len(self._text):
                    agreeing = self._agreeing(place, tail) if size == 2 else 1
                    found.setdefault(_kind(agreeing), Counter())[self._text[place]] += 1
        for kind in sorted(found, reverse=True):
            yield kind, found[kind]
        if self._counts:
            yield 0, self._counts

    def _agreeing(self, place: int, tail: tuple[int, ...]) -> int:
        text, end, count = self._text, len(tail), 2
        while count < min(end, place) and text[place - 1 - count] == tail[end - 1 - count]:
            count += 1
        return count

    def _add(self, token: int) -> None:
        self._text.append(token)
        self._counts[token] += 1
        place = len(self._text)
        for size in (1, 2):
            if place >= size:
                self._after.setdefault(tuple(self._text[place - size :]), []).append(place)


def _kind(agreeing: int) -> int:
    return max(kind for kind, (least, _) in enumerate(KINDS) if agreeing >= least)
